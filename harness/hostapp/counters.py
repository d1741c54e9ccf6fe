"""Counters in Prometheus' text format. Labels are routes, statuses and outcomes, never values from requests."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: https://prometheus.io/docs/instrumenting/exposition_formats/
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Counters:
    """Counters since the start of the application. Used by one thread only."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._jobs: Counter[str] = Counter()
        self._writes: Counter[str] = Counter()

    def count_request(self, method: str, route: str, status: int) -> None:
        self._requests[method, route, status] += 1

    def count_job(self, outcome: str) -> None:
        """Count an attempt. The outcome is the state of the job after it."""
        self._jobs[outcome] += 1

    def count_write(self, path: str) -> None:
        """Count a committed write whose audit row was verified. The path is http or job."""
        self._writes[path] += 1

    def exposition(self, version: str, pool: Mapping[str, int]) -> str:
        """Return all counters as text.

        :param pool: statistics of psycopg's pool, such as `pool_size`.
        """
        lines = [
            *_family("hostapp_info", "gauge", "The running version.", [({"version": version}, 1)]),
            *_family(
                "hostapp_requests_total",
                "counter",
                "Answered requests.",
                [
                    ({"method": method, "route": route, "status": str(status)}, count)
                    for (method, route, status), count in sorted(self._requests.items())
                ],
            ),
            *_family(
                "hostapp_jobs_total",
                "counter",
                "Job attempts, by the state of the job afterwards.",
                [({"outcome": outcome}, count) for outcome, count in sorted(self._jobs.items())],
            ),
            *_family(
                "hostapp_audited_writes_total",
                "counter",
                "Committed writes whose audit row was verified.",
                [({"path": path}, self._writes[path]) for path in ("http", "job")],
            ),
        ]
        for name, text in (
            ("pool_size", "Connections in the pool."),
            ("pool_available", "Idle connections in the pool."),
            ("requests_waiting", "Requests waiting for a connection from the pool."),
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
