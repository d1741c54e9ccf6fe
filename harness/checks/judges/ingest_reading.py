"""Reads what a pipeline says as a service: lines of its log, times in the answers of probes, and counters."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.ingest.pipeline_file import Logs

_LEVELS = frozenset(
    {"trace", "debug", "info", "information", "notice", "warn", "warning", "error", "err", "critical", "crit", "fatal"}
    | {"alert", "emergency", "emerg", "panic", "verbose", "silly", "http", "success", "default", "severe"}
)
#: levels of pino and bunyan
_NUMBERS = frozenset(range(10, 61, 10))
#: a line that the harness has cut
_CUT = "…"
_LONGEST_QUOTE = 160
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?: ?(?:Z|[+-]\d\d:?\d\d))?")
_EPOCH = re.compile(r"(?<![\w.-])\d{10}(?:\d{3})?(?:\.\d+)?(?![\w-])")
_MILLISECONDS = 100_000_000_000
#: the current time, in whole seconds, is the same for less, seconds
_SAME_FOR_S = 1.1


class LogLines(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a program printed to stdout, as numbers of lines."""

    program: str
    lines: int = 0
    not_json: int = 0
    without_keys: int = 0
    times: int = 0
    levels: int = 0
    contexts: int = 0
    #: the first line that is wrong; "" if none is
    first_wrong: str = ""


def read_lines(program: str, lines: Iterable[str], logs: Logs) -> LogLines:
    """Compare the lines of a program with the declared form. Empty lines, and lines that were cut, do not count."""
    counts = dict.fromkeys(("lines", "not_json", "without_keys", "times", "levels", "contexts"), 0)
    first = ""
    for line in lines:
        if not line.strip() or line.endswith(_CUT):
            continue
        counts["lines"] += 1
        if wrong := _wrong(line, logs):
            counts[wrong] += 1
            first = first or line[:_LONGEST_QUOTE]
    return LogLines(program=program, first_wrong=first, **counts)


def _wrong(line: str, logs: Logs) -> str:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return "not_json"
    if not isinstance(found, dict):
        return "not_json"
    if any(key not in found for key in (logs.time, logs.level, logs.context)):
        return "without_keys"
    if not _has_zone(found[logs.time]):
        return "times"
    if not _is_level(found[logs.level]):
        return "levels"
    return "" if isinstance(found[logs.context], dict) else "contexts"


def _has_zone(value: Any) -> bool:
    if not isinstance(value, str) or not _ISO.fullmatch(value):
        return False
    try:
        return datetime.fromisoformat(value.replace(",", ".").replace(" Z", "Z")).tzinfo is not None
    except ValueError:
        return False


def _is_level(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return value in _NUMBERS if isinstance(value, int) else isinstance(value, str) and value.lower() in _LEVELS


class FixedTimes:
    """The times in the answers of probes that stay the same: the current time is another one in each answer."""

    def __init__(self) -> None:
        self._first: dict[float, float] = {}

    def show(self, moments: frozenset[float], asked_s: float, answered_s: float) -> bool:
        """Return whether one of the times of an answer was in an answer more than a second ago, too.

        :param moments: the times in question, in the answer of now.
        :param asked_s: and `answered_s`: before and after the request, on the monotonic clock.
        """
        for moment in moments:
            self._first.setdefault(moment, answered_s)
        return any(asked_s - self._first[moment] > _SAME_FOR_S for moment in moments)


def times_in(text: str, since: float, until: float) -> frozenset[float]:
    """Return the times of a text between two others: in ISO 8601, without a zone as UTC, or as Unix time.

    :param since: and `until`: Unix time, seconds.
    """
    return frozenset(moment for moment in _moments(text) if since <= moment <= until)


def _moments(text: str) -> Iterator[float]:
    for found in _ISO.findall(text):
        try:
            moment = datetime.fromisoformat(found.replace(",", ".").replace(" Z", "Z").replace(" +", "+"))
        except ValueError:
            continue
        yield (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    for found in _EPOCH.findall(text):
        number = float(found)
        yield number / 1000 if number > _MILLISECONDS else number


def counter_of(exposition: str, name: str) -> float | None:
    """Return a counter from Prometheus' text format, the sum over its labels; None if it is missing.

    :param name: with labels, such as `uploads_total{status="indexed"}`, one series.
    """
    total: float | None = None
    for line in exposition.splitlines():
        series, _, rest = line.strip().rpartition("} ") if "{" in line else line.strip().partition(" ")
        series = f"{series}}}" if "{" in line else series
        if series == name or ("{" not in name and series.partition("{")[0] == name):
            try:
                total = (total or 0.0) + float(rest.split()[0])
            except (ValueError, IndexError):
                continue
    return total
