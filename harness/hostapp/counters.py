"""Counters for a scraper, in Prometheus' text format. A label is a route, a status or an outcome, never a value."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: https://prometheus.io/docs/instrumenting/exposition_formats/
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Counters:
    """What the application did since it started. All in one thread."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._jobs: Counter[str] = Counter()
        self._writes: Counter[str] = Counter()

    def count_request(self, method: str, route: str, status: int) -> None:
        self._requests[method, route, status] += 1

    def count_job(self, outcome: str) -> None:
        """Count an attempt; an outcome is the state that it left its job in."""
        self._jobs[outcome] += 1

    def count_write(self, path: str) -> None:
        """Count a committed write whose audit row was seen; a path is http or job."""
        self._writes[path] += 1

    def exposition(self, version: str, pool: Mapping[str, int]) -> str:
        """Return all counters as text.

        :param pool: of psycopg's pool, `pool_size` and the like.
        """
        lines = [
            *_family("hostapp_info", "gauge", "The version that runs.", [({"version": version}, 1)]),
            *_family(
                "hostapp_requests_total",
                "counter",
                "Requests that were answered.",
                [
                    ({"method": method, "route": route, "status": str(status)}, count)
                    for (method, route, status), count in sorted(self._requests.items())
                ],
            ),
            *_family(
                "hostapp_jobs_total",
                "counter",
                "Attempts at jobs, by the state they left the job in.",
                [({"outcome": outcome}, count) for outcome, count in sorted(self._jobs.items())],
            ),
            *_family(
                "hostapp_audited_writes_total",
                "counter",
                "Committed writes whose audit row was seen.",
                [({"path": path}, self._writes[path]) for path in ("http", "job")],
            ),
        ]
        for name, text in (
            ("pool_size", "Connections of the pool."),
            ("pool_available", "Connections of the pool that nobody uses."),
            ("requests_waiting", "Who waits for a connection of the pool."),
        ):
            family = f"hostapp_{name}" if name.startswith("pool") else f"hostapp_pool_{name}"
            lines += _family(family, "gauge", text, [({}, pool.get(name, 0))])
        return "\n".join(lines) + "\n"


def _family(name: str, kind: str, text: str, samples: list[tuple[dict[str, str], int]]) -> list[str]:
    return [
        f"# HELP {name} {text}",
        f"# TYPE {name} {kind}",
        *(f"{name}{_labels(labels)} {value}" for labels, value in samples),
    ]


def _labels(labels: Mapping[str, str]) -> str:
    spelled = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{spelled}}}" if spelled else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
