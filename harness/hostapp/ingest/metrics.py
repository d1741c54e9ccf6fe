"""Metrics in Prometheus' text format. What workers did is counted in the database, whichever process is asked."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..counters import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CONTENT_TYPE", "STATUSES_QUERY", "Metrics"]

STATUSES_QUERY = "SELECT status, count(*) FROM ingest.upload_states GROUP BY status"
_STATUSES = ("uploaded_pending", "processing")
_ENDS = {"indexed": "Uploads that were indexed.", "index_error": "Uploads that failed permanently."}


class Metrics:
    """Counts the requests of this process. Labels are routes and statuses, never values from requests."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()

    def count_request(self, method: str, route: str, status: int) -> None:
        self._requests[method, route, status] += 1

    def exposition(self, uploads: Mapping[str, int]) -> str:
        """Return all metrics as text.

        :param uploads: the number of uploads of each status.
        """
        lines = []
        for status, text in _ENDS.items():
            name = f"ingest_uploads_{'indexed' if status == 'indexed' else 'failed'}_total"
            lines += [f"# HELP {name} {text}", f"# TYPE {name} counter", f"{name} {uploads.get(status, 0)}"]
        lines += ["# HELP ingest_uploads_open Uploads that are not finished.", "# TYPE ingest_uploads_open gauge"]
        lines += [f'ingest_uploads_open{{status="{status}"}} {uploads.get(status, 0)}' for status in _STATUSES]
        lines += ["# HELP ingest_requests_total Answered requests.", "# TYPE ingest_requests_total counter"]
        lines += [
            f'ingest_requests_total{{method="{method}",route="{route}",status="{status}"}} {count}'
            for (method, route, status), count in sorted(self._requests.items())
        ]
        return "\n".join(lines) + "\n"
