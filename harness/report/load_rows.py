"""The rows about faults and load: the acknowledged writes under each fault, and the measures of each load.

They show facts and expectations that the checks recorded. A fact that a row does not have is a dash.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.judges import acknowledged, soak
from harness.model import Section, Status
from harness.report.job_rows import is_about_jobs
from harness.report.outcomes import is_shown
from harness.report.section_words import numbered, statuses_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from harness.report.evidence import Row, TopologyRun

ABSENT = "—"
#: expectations of the judges: their observed value is `none`, or begins with a number
_LOST = {
    acknowledged.LOST: "in the table",
    acknowledged.UNRECORDED: "in the trail",
    soak.MISSING_ROWS: "in the table",
    soak.MISSING_CHANGES: "in the trail",
}
_UNITS = re.compile(r"(\d+) acknowledged, (\d+) failed, (\d+) unknown \((\d+) of them")
_AGAIN = re.compile(r"([\d.]+) s the first writer, ([\d.]+) s in the median, ([\d.]+) s the last")
_WHOLE = re.compile(r"\d+")
_UNKNOWN = re.compile(r"(\d+), (\d+) of them")


class FaultRow(Struct, frozen=True, kw_only=True):
    """One fault in one topology."""

    check: str
    #: in words, such as `PostgreSQL killed`
    fault: str
    target: str
    status: Status
    #: how many were injected, of how many, such as `3 of 3`; the attempts of the row, and what all runs injected
    injected: str
    acknowledged: str
    #: acknowledged writes that are missing: `0`, or where they are missing
    lost: str
    failed: str
    #: and how many of them happened, such as `4, 2 of them there`
    unknown: str
    #: from the end of the healing until every client has succeeded again: in the median, and the longest
    recovered: str
    longest: str
    #: on which it ran, as they were read back
    servers: str
    #: why it is not OK
    note: str


class LoadRow(Struct, frozen=True, kw_only=True):
    """One load in one topology."""

    check: str
    #: such as `pgbench`
    load: str
    target: str
    status: Status
    seconds: str
    transactions: str
    #: acknowledged transactions per second, and those of the same load without the trail
    rate: str
    plain_rate: str
    #: milliseconds: p50, p95 and p99
    latency: str
    #: milliseconds by which transactions began late, p95
    lag: str
    lost: str
    unknown: str
    #: bytes that one write adds to the trail
    growth: str
    #: on which it ran, as they were read back
    servers: str
    note: str


def fault_rows(rows: Iterable[Row], series: Mapping[str, Sequence[TopologyRun]] | None = None) -> tuple[FaultRow, ...]:
    """Return the rows of the section about resilience, except those about jobs: those of one fault together.

    :param series: the runs of each topology on the same subject. The newest one decides a row, and may have injected
        fewer faults than the others.
    """
    found: dict[str, list[FaultRow]] = {}
    for row in _of(rows, Section.RESILIENCE):
        facts = row.result.facts
        answered, failed, unknown, there = _groups(_UNITS, facts.get("units of work", ""), 4)
        _, median, longest = _groups(_AGAIN, facts.get("acknowledged again after the healing", ""), 3)
        found.setdefault(row.planned.check, []).append(
            FaultRow(
                check=row.planned.check,
                fault=row.planned.claim.partition(":")[0] if ":" in row.planned.claim else row.planned.check,
                target=row.planned.target,
                status=row.status,
                injected=_injected(row, (series or {}).get(row.planned.target, ())),
                acknowledged=answered,
                lost=_lost(row),
                failed=failed,
                unknown=_there(unknown, there),
                recovered=median,
                longest=longest,
                servers=facts.get("servers", ""),
                note=row.result.reason,
            )
        )
    return tuple(row for of_check in found.values() for row in of_check)


def load_rows(rows: Iterable[Row]) -> tuple[LoadRow, ...]:
    """Return the rows of the section about load."""
    found = []
    for row in _of(rows, Section.SOAK):
        facts = row.result.facts
        latencies = [facts.get(f"latency ms p{share}", ABSENT) for share in (50, 95, 99)]
        found.append(
            LoadRow(
                check=row.planned.check,
                load=row.planned.check.partition(".")[2],
                target=row.planned.target,
                status=row.status,
                seconds=facts.get("seconds", ABSENT),
                transactions=facts.get("transactions", ABSENT),
                rate=facts.get("transactions per second", ABSENT),
                plain_rate=facts.get("plain transactions per second", ABSENT),
                latency=ABSENT if set(latencies) == {ABSENT} else " / ".join(latencies),
                lag=facts.get("schedule lag ms p95", ABSENT),
                lost=_lost(row),
                unknown=_there(*_groups(_UNKNOWN, facts.get("unknown", ""), 2)),
                growth=facts.get("trail bytes per write", ABSENT),
                servers=facts.get("servers", ""),
                note=row.result.reason,
            )
        )
    return tuple(found)


def faults_in_words(rows: Sequence[FaultRow]) -> str:
    """Return the result of all faults in one sentence without a full stop; "" without a row.

    Writes that no check compared with the tables and the trail are not counted.
    """
    if not rows:
        return ""
    compared = [row for row in rows if row.lost != ABSENT]
    answered, unknown = _total(row.acknowledged for row in compared), _total(row.unknown for row in compared)
    missing = {row.check for row in compared if row.lost != "0"}
    said = ""
    if answered:
        lost = f"some of them missing under {numbered(missing, 'fault')}" if missing else "none of them missing"
        said = f"; {answered} acknowledged writes, {lost}; {unknown} unknown ones are neither lost nor failed"
    return f"{_scope(rows, 'fault')}: {statuses_in_words(rows)}{said}"


def loads_in_words(rows: Sequence[LoadRow]) -> str:
    """Return the result of all loads in one sentence without a full stop; "" without a row."""
    if not rows:
        return ""
    transactions = _total(row.transactions for row in rows if row.lost != ABSENT)
    judged = f"; {transactions} transactions were judged" if transactions else ""
    return f"{_scope(rows, 'load')}: {statuses_in_words(rows)}{judged}"


def servers_in_words(rows: Sequence[FaultRow | LoadRow]) -> str:
    """Return on which servers the rows ran, each with its topologies; "" if no row says it."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.servers:
            found.setdefault(row.servers, {}).setdefault(row.target)
    return "; ".join(f"{servers} (in {', '.join(targets)})" for servers, targets in found.items())


def _injected(row: Row, series: Sequence[TopologyRun]) -> str:
    """Return the faults of the attempt that is shown, and those of all runs: `1 of 1, attempt 2 of 3; 7 in 3 runs`.

    Of a run with several attempts, only the attempt that decides its status has its number here.
    """
    said = row.result.facts.get("faults injected", ABSENT)
    if said == ABSENT:
        return said
    attempts = next((run.counts.attempts for run in row.runs if run.run_id == row.run_id), 1)
    if attempts > 1:
        said += f", attempt {row.result.attempt} of {attempts}"
    found = [run.results[row.planned.check] for run in series if row.planned.check in run.results]
    numbers = [int(seen[0]) for one in found if (seen := _WHOLE.match(one.facts.get("faults injected", "")))]
    if len(numbers) <= 1:
        return said
    least = "at least " if any(run.counts.attempts > 1 for run in row.runs) else ""
    return f"{said}; {least}{sum(numbers)} in {len(numbers)} runs"


class Writes(Struct, frozen=True, kw_only=True):
    """The writes of all faults, or of all loads, in one topology."""

    #: `faults` or `loads`
    under: str
    target: str
    acknowledged: int
    #: acknowledged ones that are missing
    lost_in_table: int
    lost_in_trail: int
    failed: int
    unknown: int
    #: of the unknown ones: those that happened
    there: int


def writes(rows: Sequence[Row]) -> tuple[Writes, ...]:
    """Return the writes under faults and under load of each topology, from what its rows recorded."""
    found = []
    for section, under in ((Section.RESILIENCE, "faults"), (Section.SOAK, "loads")):
        of_section = _of(rows, section)
        for target in dict.fromkeys(row.planned.target for row in of_section):
            counts = [count for row in of_section if row.planned.target == target and (count := _writes(row))]
            if counts:
                total = {name: sum(count[name] for count in counts) for name in _COUNTED}
                found.append(Writes(under=under, target=target, **total))
    return tuple(found)


#: the numbers of :class:`Writes`
_COUNTED = ("acknowledged", "lost_in_table", "lost_in_trail", "failed", "unknown", "there")


def _writes(row: Row) -> dict[str, int]:
    """Return the counted writes of a row; nothing if it recorded none, or if nothing was compared with them."""
    facts, compared = row.result.facts, _compared(row)
    if not compared:
        return {}
    if units := _UNITS.search(facts.get("units of work", "")):
        answered, failed, unknown, there = map(int, units.groups())
    elif transactions := facts.get("transactions", ""):
        unknown, there = map(_whole, _groups(_UNKNOWN, facts.get("unknown", ""), 2))
        answered, failed = _whole(transactions), _whole(facts.get("failed", "0"))
    else:
        return {}
    missing = dict.fromkeys(("in the table", "in the trail"), 0)
    for where, number in compared.items():
        missing[where] = _whole(number, unreadable=1)
    lost = (missing["in the table"], missing["in the trail"])
    return dict(zip(_COUNTED, (answered, *lost, failed, unknown, there), strict=True))


def _whole(text: str, unreadable: int = 0) -> int:
    return int(text) if text.isdecimal() else unreadable


def _of(rows: Iterable[Row], section: Section) -> list[Row]:
    of_section = (row for row in rows if row.planned.section is section and not is_about_jobs(row.planned))
    return [row for row in of_section if is_shown(*row.answer)]


def _groups(pattern: re.Pattern[str], text: str, number: int) -> tuple[str, ...]:
    found = pattern.search(text)
    return found.groups() if found else (ABSENT,) * number


def _there(unknown: str, there: str) -> str:
    return unknown if unknown in {"0", ABSENT} else f"{unknown}, {there} of them there"


def _lost(row: Row) -> str:
    """Return the acknowledged writes that are missing, by where they are missing."""
    compared = _compared(row)
    if not compared:
        return ABSENT
    return ", ".join(f"{number} {where}" for where, number in compared.items() if number != "0") or "0"


def _compared(row: Row) -> dict[str, str]:
    """Return the number of missing acknowledged writes by where they are missing; nothing if nothing follows.

    An expectation that does not count says nothing. Without it, the others show a loss, and never that nothing is lost.
    """
    judged = [(one, _LOST[one.name]) for one in row.result.expectations if one.name in _LOST]
    found = {where: _count(one.observed) for one, where in judged if one.counts}
    if len(found) == len(judged) or set(found.values()) - {"0"}:
        return found
    return {}


def _count(observed: str) -> str:
    number = re.match(r"\d+", observed)
    return number[0] if number else "0" if observed == "none" else "some"


def _total(texts: Iterable[str]) -> int:
    return sum(int(found[0]) for text in texts if (found := re.match(r"\d+", text)))


def _scope(rows: Sequence[FaultRow] | Sequence[LoadRow], noun: str) -> str:
    checks, topologies = {row.check for row in rows}, {row.target for row in rows}
    return f"{numbered(checks, noun)} in {numbered(topologies, 'topology', 'topologies')}"
