"""The lines of the server logs that belong to a check: written while it ran, and about its database.

A check has a database of its own, named after it, so servers name the check in each line about its connections.
"""

from __future__ import annotations

import re
import string
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import Behaviour, Status
from harness.printable import printable
from harness.redaction import Redactor
from harness.report.outcomes import word_of
from harness.report.spans import read_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from harness.report.evidence import Row
    from harness.report.tables import Report

#: lines of one row, and characters of one line
LINES, WIDTH = 12, 240
#: of them, lines that only say that something happened, such as a new connection
_OTHERS = 4
#: characters of all slices of a report together: Issues get theirs first
TOTAL = 1_500_000
#: bytes of one log that are read: those of a run of all checks are a few hundred thousand
_READ = 16 * 1024 * 1024

#: outcomes that the log of a server may explain
_EXPLAINED = {Behaviour.FAILS, Behaviour.HANGS, Behaviour.LEAKS}
#: the end of the name of a check's database, as harness/checks/workspace.py makes it, and what may be before it. Only
#: the end is searched: a pattern of the whole name would try every word of every line
_END = re.compile(r"_[0-9a-f]{6}\b")
_IN_STEM = string.ascii_lowercase + string.digits + "_"
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d(?:\.\d{1,6})?)")
#: how much earlier or later than the check a server may write its lines
_SLACK = timedelta(seconds=1)
#: these say why, all others say that something happened
_TELLING = re.compile(r"ERROR|FATAL|PANIC|WARN|closing because|\berror\b", re.IGNORECASE)


class _Line(Struct, frozen=True):
    at: datetime
    service: str
    text: str


def log_slices(report: Report, folder: Path) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the lines about each row that needs an explanation, by its target and check.

    :param folder: that of the report; the links of its topologies to their runs are relative to it.
    """
    runs = {row.environment: (folder / row.run_link).parent for row in report.topologies if row.run_link}
    wanted: dict[str, list[Row]] = {}
    for row in report.rows:
        if row.planned.target in runs and _needs_explanation(row):
            wanted.setdefault(row.planned.target, []).append(row)
    redact = Redactor()
    found = {
        key: lines
        for target, rows in wanted.items()
        for key, lines in _of_target(runs[target] / "logs", target, rows, lambda text: printable(redact(text)))
    }
    issues = {(row.planned.target, row.planned.check) for row in report.rows if row.status is Status.ISSUE}
    return _bounded(found, issues)


def _needs_explanation(row: Row) -> bool:
    return row.status is Status.ISSUE or word_of(row.result) in _EXPLAINED


def _bounded(
    found: dict[tuple[str, str], tuple[str, ...]], first: set[tuple[str, str]]
) -> dict[tuple[str, str], tuple[str, ...]]:
    kept, room = {}, TOTAL
    for key in sorted(found, key=lambda key: key not in first):
        room -= sum(map(len, found[key]))
        if room < 0:
            break
        kept[key] = found[key]
    return kept


def _of_target(
    logs: Path, target: str, rows: Iterable[Row], redact: Callable[[str], str]
) -> Iterator[tuple[tuple[str, str], tuple[str, ...]]]:
    """Yield the slice of each row. A target that is not one step of a path has none: evidence may be foreign."""
    if Path(target).name != target:
        return
    by_database: dict[str, list[tuple[Row, datetime, datetime]]] = {}
    for row in rows:
        begin = read_time(row.result.started_at)
        if begin is None:  # evidence may come from elsewhere
            continue
        end = begin + timedelta(milliseconds=row.result.duration_ms)
        # the name is that of harness/checks/workspace.py
        stem = re.sub("[^a-z0-9]+", "_", row.planned.check)[:40]
        by_database.setdefault(stem, []).append((row, begin - _SLACK, end + _SLACK))
    lines: dict[str, list[_Line]] = {}
    for log in sorted((logs / target).glob("*.log")):
        for stem, line in _about(log, set(by_database)):
            for row, begin, end in by_database[stem]:
                if begin <= line.at <= end:
                    lines.setdefault(row.planned.check, []).append(line)
    for check, found in lines.items():
        telling: list[_Line] = []
        others: list[_Line] = []
        for line in found:
            (telling if _TELLING.search(line.text) else others).append(line)
        shown = sorted(telling[:LINES] + others[: min(_OTHERS, max(LINES - len(telling), 0))], key=lambda line: line.at)
        yield (target, check), tuple(f"{line.service}: {redact(line.text)}"[:WIDTH] for line in shown)


def _about(log: Path, stems: set[str]) -> Iterator[tuple[str, _Line]]:
    """Yield the lines of a log that name the database of one of some checks, without their dates."""
    try:
        with log.open("rb") as file:
            text = file.read(_READ).decode(errors="replace")
    except OSError:  # it was removed, or belongs to somebody else: the report has no slice of it
        return
    for line in text.splitlines():
        stem = next((stem for stem in _stems(line) if stem in stems), None)
        # a statement that a server logs may hold anything, also what only looks like a time
        if stem and (time := _TIME.search(line)) and (at := read_time(f"{time[1]}T{time[2]}")):
            yield stem, _Line(at, log.stem, line.replace(time[0], time[2], 1))


def _stems(line: str) -> Iterator[str]:
    """Yield the stem of each database that a line names."""
    for end in _END.finditer(line):
        before = line[: end.start()]
        yield before[len(before.rstrip(_IN_STEM)) :]
