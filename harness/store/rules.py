"""The rules that every stored row keeps. The writer asserts them, and the reader refuses what breaks them.

Each function returns what contradicts the rules in one sentence; "" when nothing does.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from harness.model import (
    CHECK_BROKE,
    EvidenceClass,
    MutationState,
    ObservedProof,
    Proof,
    Result,
    Status,
    TrailProof,
    concerns,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from harness.model import FeatureOutcome, PlannedCheck, RunRecord

T = TypeVar("T")
#: one line of a file of rows
Row = Result | Proof | TrailProof | ObservedProof

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?Z")
#: no check runs longer: the longest deadline of a command is two hours
_LONGEST_MS = 86_400_000.0
#: durations are rounded, and times have milliseconds
_ROUNDING_S = 1.0

#: judged: the status says something about the system under test
_JUDGED = frozenset({Status.OK, Status.ISSUE})


class ContradictionError(Exception):
    """The harness made a row that breaks the rules: a mistake in the harness."""


@lru_cache(maxsize=64)  # every row is compared with the start and the end of its run
def seconds_of(time: str) -> float | None:
    """Return a time of the evidence as seconds since the epoch; None for a text that is not such a time."""
    if not _TIME.fullmatch(time):
        return None
    try:
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError):
        return None


def contradiction_in_result(row: Result) -> str:
    """Check a result by itself."""
    return _first(_RESULT, row)


def contradiction_in_proof(row: Proof) -> str:
    """Check the proof of a control by itself."""
    return _first(_PROOF, row)


def contradiction_in_trail_proof(row: TrailProof) -> str:
    """Check the proof of a break of the trail by itself."""
    return _first(_TRAIL, row)


def contradiction_in_observed_proof(row: ObservedProof) -> str:
    """Check the outcome of a mutation by itself."""
    return _first(_OBSERVED, row)


def _first(rules: Iterable[tuple[str, Callable[[T], object]]], row: T) -> str:
    for sentence, broken in rules:  # not a generator: most rows break no rule, and resuming it costs as much as a rule
        if broken(row):
            return sentence
    return ""


def _broken(row: Result) -> bool:
    return any(expectation.broken for expectation in row.expectations if not expectation.held)


def _is_unobserved(row: Result, feature: FeatureOutcome) -> bool:
    observed = str(feature.observed)
    return not any(observed in expectation.observed for expectation in row.expectations)


def _duration_is_wrong(row: Row) -> bool:
    return not (math.isfinite(row.duration_ms) and 0 <= row.duration_ms <= _LONGEST_MS)


_DURATION = ("a duration that no check has", _duration_is_wrong)

#: sentence, and whether a row breaks the rule
_RESULT: tuple[tuple[str, Callable[[Result], object]], ...] = (
    ("OK without an expectation", lambda row: row.status is Status.OK and not row.expectations),
    ("OK although an expectation did not hold", lambda row: row.status is Status.OK and _broken(row)),
    (
        "OK with an expectation that does not count",
        lambda row: row.status is Status.OK and not all(expectation.counts for expectation in row.expectations),
    ),
    (
        "a check that ended early is OK or N/A",
        lambda row: row.ended_by and row.status not in {Status.ISSUE, Status.NOT_RUN},
    ),
    ("OK with a reason", lambda row: row.status is Status.OK and row.reason),
    ("a status other than OK without a reason", lambda row: row.status is not Status.OK and not row.reason.strip()),
    ("a documented limit on a row that is not OK", lambda row: row.limit and row.status is not Status.OK),
    ("a severity on a row that is not an Issue", lambda row: row.severity and row.status is not Status.ISSUE),
    ("a known Issue on a row that is not an Issue", lambda row: row.known and row.status is not Status.ISSUE),
    (
        "a known Issue of another check or topology",
        lambda row: row.known and not concerns(row.known, row.check, row.target),
    ),
    (
        "a quarantine of another check or topology",
        lambda row: row.quarantine and not concerns(row.quarantine, row.check, row.target),
    ),
    ("the counts of other attempts in the row of one", lambda row: row.repetition),
    ("an outcome that no expectation observed", lambda row: row.feature and _is_unobserved(row, row.feature)),
    ("an expected outcome is missing", lambda row: row.feature and not row.feature.expected),
    (
        "a start that is not a UTC time such as 2026-01-31T12:00:00.000Z",
        lambda row: row.started_at and seconds_of(row.started_at) is None,
    ),
    _DURATION,
)

#: of results in chained runs
_CHAINED_RESULT: tuple[tuple[str, Callable[[Result], object]], ...] = (
    ("Not run although an expectation did not hold", lambda row: row.status is Status.NOT_RUN and _broken(row)),
    ("N/A although an expectation did not hold", lambda row: row.status is Status.NA and _broken(row)),
    (
        "Issue without an expectation that did not hold",
        lambda row: row.status is Status.ISSUE and not _broken(row) and not row.reason.startswith(CHECK_BROKE),
    ),
    (
        "an expectation that does not count in a check that ran to its end",
        lambda row: row.status is Status.NA and not all(expectation.counts for expectation in row.expectations),
    ),
)

_PROOF: tuple[tuple[str, Callable[[Proof], object]], ...] = (
    ("proven although it does not apply", lambda row: row.proven and not row.applicable),
    ("proven with a reason why it is not", lambda row: row.proven and row.reason),
    ("not proven without a reason", lambda row: not row.proven and not row.reason.strip()),
    ("a broken expectation that held", lambda row: any(expectation.held for expectation in row.broken)),
    (
        "proven although the named expectation held",
        lambda row: row.proven and row.broken and row.at not in {expectation.name for expectation in row.broken},
    ),
    _DURATION,
)

_TRAIL: tuple[tuple[str, Callable[[TrailProof], object]], ...] = (
    ("a check that both turned and stayed", lambda row: set(row.caught) & set(row.missed)),
    ("an unexpected check that did not turn", lambda row: set(row.unexpected) - set(row.caught)),
    ("more checks than were tried", lambda row: len({*row.caught, *row.missed}) > row.tried),
    (
        "a check that is named twice",
        lambda row: any(len(set(names)) != len(names) for names in (row.caught, row.missed, row.unexpected)),
    ),
    _DURATION,
)


_OBSERVED: tuple[tuple[str, Callable[[ObservedProof], object]], ...] = (
    (
        "a mutation that was noticed without a check, or not noticed by one",
        lambda row: (row.state is MutationState.NOTICED) != bool(row.check and row.at and row.tried),
    ),
    (
        "a mutation that was noticed with a reason, or not noticed without one",
        lambda row: (row.state is MutationState.NOTICED) == bool(row.reason.strip()),
    ),
    (
        "checks that tried a mutation that was left out or never met",
        lambda row: row.tried < 0 or (row.tried and not row.counts),
    ),
    _DURATION,
)


def key_of(row: Row) -> tuple[str, ...]:
    """Return what only one row of its kind may have in a run."""
    if isinstance(row, Result):
        return row.target, row.check, *((f"attempt {row.attempt}",) if row.attempt != 1 else ())
    if isinstance(row, ObservedProof):  # mutations are named like checks
        return row.topology, "mutation", row.name
    return (row.topology, row.check, row.control) if isinstance(row, Proof) else (row.topology, row.name)


class RowRules:
    """The rules of one run: of each row by itself, against the plan, and against the rows before it."""

    def __init__(self, record: RunRecord, *, chained: bool = True) -> None:
        """Start without rows.

        :param chained: also apply the rules that only the writers of chained runs keep.
        """
        self._plan: dict[tuple[str, str], PlannedCheck] = {(row.target, row.check): row for row in record.plan}
        self._targets = {row.target for row in record.plan}
        self._chained = chained
        self._seen: set[tuple[str, ...]] = set()

    def accept(self, row: Row) -> None:
        """Remember a row that was written or read, so that a second one of its kind is refused."""
        self._seen.add(key_of(row))

    def of_result(self, row: Result, record: RunRecord) -> str:
        """Check the next result.

        :param record: the record at that time, which says which topologies started.
        """
        planned = self._plan.get((row.target, row.check))
        return (
            self._twice(row)
            or contradiction_in_result(row)
            or (f"a row that the plan does not name: {row.check} on {row.target}" if planned is None else "")
            or (_beyond(row, planned) if planned else "")
            or (
                "an outcome on a row that fills none of the feature map"
                if planned and row.feature and not planned.feature
                else ""
            )
            or (self._against_record(row, record) if self._chained else "")
        )

    def of_proof(self, row: Proof) -> str:
        """Check the next proof of a control."""
        return (
            self._twice(row)
            or contradiction_in_proof(row)
            or (
                ""
                if (row.topology, row.check) in self._plan
                else f"the plan does not name {row.check} on {row.topology}"
            )
        )

    def of_trail_proof(self, row: TrailProof) -> str:
        """Check the next proof of a break of the trail."""
        return (
            self._twice(row)
            or contradiction_in_trail_proof(row)
            or ("" if row.topology in self._targets else f"the plan does not name {row.topology}")
        )

    def of_observed_proof(self, row: ObservedProof) -> str:
        """Check the next outcome of a mutation of the rows that checks read."""
        planned = not row.check or (row.topology, row.check) in self._plan
        return (
            self._twice(row)
            or contradiction_in_observed_proof(row)
            or ("" if row.topology in self._targets else f"the plan does not name {row.topology}")
            or ("" if planned else f"the plan does not name {row.check} on {row.topology}")
        )

    def _twice(self, row: Row) -> str:
        key = key_of(row)
        return f"more than one row of {' '.join(key)}" if key in self._seen else ""

    @staticmethod
    def _against_record(row: Result, record: RunRecord) -> str:
        if sentence := _first(_CHAINED_RESULT, row):
            return sentence
        topology, environment = record.topologies.get(row.target), record.environments.get(row.target)
        if row.status in _JUDGED and not ((topology and topology.stood) or (environment and environment.reached)):
            return f"{row.status} on {row.target}, which did not start or was not reached"
        if (began := seconds_of(row.started_at)) is None:
            return ""
        start, end = seconds_of(record.started_at), seconds_of(record.ended_at)
        if start is not None and began < start - _ROUNDING_S:
            return "it started before its run"
        if end is not None and began + row.duration_ms / 1000 > end + _ROUNDING_S:
            return "it ended after its run"
        return ""


def _beyond(row: Result, planned: PlannedCheck) -> str:
    if 1 <= row.attempt <= planned.attempts:
        return ""
    return f"attempt {row.attempt} of {row.check} on {row.target}, which is planned {planned.attempts}x"


def contradictions_in_record(record: RunRecord) -> Iterator[str]:
    """Yield what contradicts itself in the record of a chained run."""
    start, end = seconds_of(record.started_at), seconds_of(record.ended_at)
    if start is not None and end is not None and end < start - _ROUNDING_S:
        yield "the run ended before it started"
    if (record.state == "running") != (record.ended_at == ""):
        yield f"the state {record.state} contradicts the end {record.ended_at or '(none)'}"
    if record.failure and record.state == "running":
        yield "a run that is running has failed"
    if (record.evidence_class is EvidenceClass.HOST) != (record.engine == "attached"):
        yield f"evidence of class {record.evidence_class} from the engine {record.engine}"
    for row in record.plan:
        if row.evidence_class is not record.evidence_class:
            yield f"{row.check} on {row.target} is of class {row.evidence_class}, its run is {record.evidence_class}"
            break
    if len({(row.target, row.check) for row in record.plan}) != len(record.plan):
        yield "the plan names a row twice"
    for row in record.plan:
        if row.attempts < 1:
            yield f"{row.check} on {row.target} is planned {row.attempts}x"
            break
    for name, topology in record.topologies.items():
        if topology.declared.name != name:
            yield f"the topology {name} is declared as {topology.declared.name}"
            break
        if topology.stood == bool(topology.reason):
            yield f"the topology {name} started and did not: {topology.reason or 'without a reason'}"
            break
    for name, environment in record.environments.items():
        if environment.reached == bool(environment.reason):
            yield f"the environment {name} was reached and was not: {environment.reason or 'without a reason'}"
            break
