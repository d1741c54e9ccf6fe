"""The judges of a stored run, run again from disk: what they say now, and whether the stored rows say the same."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.judges import REPLACED_JUDGE, judge_of
from harness.errors import StoreError
from harness.model import Expectation, Result, Status
from harness.model.history import Outcome
from harness.store import history_files, is_named, read_history, read_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from harness.checks.judges import Judge
    from harness.model.history import History
    from harness.store import StoredRun


class Judgement(StrEnum):
    """What a judge says about one stored history."""

    HOLDS = "holds"
    ISSUE = "Issue"
    #: it says something else than the stored row
    DIFFERS = "differs"
    #: the judge could not run
    NOT_JUDGED = "not judged"
    #: the judge ran, and its row is Not run or N/A: an action of the harness disturbed the check
    NOT_COUNTED = "not counted"


class Judged(Struct, frozen=True, kw_only=True):
    """One stored history, with what its judge says now."""

    #: the history, in the run folder
    file: str
    topology: str = ""
    check: str = ""
    #: the control that the check ran under; "" for none
    control: str = ""
    #: the number of the attempt, from 1
    attempt: int = 1
    judge: str = ""
    verdict: Judgement
    #: why it was not judged, why it does not count, or how it differs from the stored row; "" otherwise
    reason: str = ""
    #: the number of operations by outcome; a load records only those that failed or are unknown
    operations: dict[Outcome, int] = {}
    samples: int = 0
    #: what the judge compared, in words, where the history does not have each operation
    compared: str = ""
    #: the number of injected faults
    faults: int = 0
    expectations: tuple[Expectation, ...] = ()

    @property
    def broken(self) -> tuple[Expectation, ...]:
        return tuple(expectation for expectation in self.expectations if not expectation.held)


def judged_again(
    run: StoredRun,
    judges: tuple[Judge, ...],
    *,
    topologies: Sequence[str] = (),
    checks: Sequence[str] = (),
    under: bool = False,
) -> Iterator[Judged]:
    """Yield what the judges of a stored run say now, history after history.

    :param judges: those that this version knows.
    :param topologies: only histories of these topologies; all when empty.
    :param checks: only histories of these checks; all when empty.
    :param under: the histories of checks under a control, which broke something on purpose, instead of the others.
    """
    stored: dict[tuple[str, str, int], Result] = {(row.target, row.check, row.attempt): row for row in run.results}
    pools: dict[tuple[str, str, int], Counter[tuple[str, ...]]] = {}
    for path in history_files(run.folder):
        if topologies and path.parent.name not in topologies:
            continue
        try:
            history = read_history(path)
        except StoreError as error:
            yield Judged(file=_inside(run, path), verdict=Judgement.NOT_JUDGED, reason=error.what)
            continue
        opening = history.opening
        if bool(opening.control) != under:
            continue
        if checks and opening.check not in checks:
            continue
        attempt = (opening.topology, opening.check, opening.attempt)
        row = stored.get(attempt)
        pool = pools.setdefault(attempt, Counter(map(_key, row.expectations if row else ())))
        yield _judged(run, path, history, judges, row, pool)


def _damage(run: StoredRun, path: Path, history: History) -> str:
    """Return why no judge can decide about a history that was read; "" if one can."""
    if REPLACED_JUDGE in history.opening.facts:
        return "its control broke the judge itself, which only the check can show"
    opening = history.opening
    planned = any((row.target, row.check) == (opening.topology, opening.check) for row in run.record.plan)
    if not planned or not is_named(path, opening):
        return f"its opening names {opening.check} in {opening.topology}, and the run has stored it as something else"
    return "" if history.complete else "its end is missing: the check was killed, or the history was cut"


def _judged(
    run: StoredRun,
    path: Path,
    history: History,
    judges: tuple[Judge, ...],
    row: Result | None,
    pool: Counter[tuple[str, ...]],
) -> Judged:
    """Judge one history.

    :param row: the stored row of its attempt, if there is one.
    :param pool: the expectations of the row that no earlier history of the attempt accounts for; those of this one are
        taken from it.
    """
    opening, compared = history.opening, ""

    def found(verdict: Judgement, reason: str = "", expectations: tuple[Expectation, ...] = ()) -> Judged:
        return Judged(
            compared=compared,
            file=_inside(run, path),
            topology=opening.topology,
            check=opening.check,
            control=opening.control,
            attempt=opening.attempt,
            judge=opening.judge,
            verdict=verdict,
            reason=reason,
            operations=dict(Counter(operation.outcome for operation in history.operations)),
            samples=len(history.samples),
            faults=sum(fault.injected_s is not None for fault in history.faults),
            expectations=expectations,
        )

    try:
        judge = judge_of(opening.judge, judges)
        state = read_state(path, judge.state)
        if damage := _damage(run, path, history):
            return found(Judgement.NOT_JUDGED, damage)
        expectations, compared = judge.judge(history, state), judge.compares(history, state)
    except StoreError as error:
        return found(Judgement.NOT_JUDGED, error.what)
    verdict = Judgement.HOLDS if all(one.held for one in expectations) else Judgement.ISSUE
    if opening.control or row is None:  # a control has no row, and a killed run stored none
        return found(verdict, "", expectations)
    if row.status not in {Status.OK, Status.ISSUE}:
        return found(Judgement.NOT_COUNTED, f"its row is {row.status}: {row.reason}", expectations)
    difference = _difference(expectations, row.expectations, pool)
    return found(Judgement.DIFFERS if difference else verdict, difference, expectations)


def _difference(
    expectations: Sequence[Expectation], stored: Sequence[Expectation], pool: Counter[tuple[str, ...]]
) -> str:
    """Return in one sentence what the stored row says differently; "" if it says the same."""
    wanted = Counter(map(_key, expectations))
    if wanted <= pool:
        pool.subtract(wanted)
        return ""
    now = next(one for one in expectations if wanted[_key(one)] > pool[_key(one)])
    then = next((one for one in stored if one.name == now.name), None)
    if then is None:
        return f"the stored row does not have the expectation {now.name!r}"
    return f"{now.name}: observed {now.observed}, stored {then.observed} (expected {now.expected})"


def _key(expectation: Expectation) -> tuple[str, ...]:
    return expectation.name, expectation.expected, expectation.observed, str(expectation.held)


def _inside(run: StoredRun, path: Path) -> str:
    return str(path.relative_to(run.folder))
