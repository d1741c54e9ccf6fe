"""The judges of a stored run, run again from disk: what they say now, and whether the stored rows say the same."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.judges import judge_of
from harness.errors import StoreError
from harness.model import Expectation, Result, Status
from harness.model.history import Outcome
from harness.store import history_files, read_history, read_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
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
    judge: str = ""
    verdict: Judgement
    #: why it was not judged, why it does not count, or how it differs from the stored row; "" otherwise
    reason: str = ""
    #: the number of operations by outcome; a load records only those that failed or are unknown
    operations: dict[Outcome, int] = {}
    samples: int = 0
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
    pools: dict[tuple[str, str], Counter[tuple[str, ...]]] = {}
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
        rows = [row for row in run.results if (row.target, row.check) == (opening.topology, opening.check)]
        pool = pools.setdefault((opening.topology, opening.check), Counter(map(_key, _expectations(rows))))
        yield _judged(run, path, history, judges, rows, pool)


def _judged(
    run: StoredRun,
    path: Path,
    history: History,
    judges: tuple[Judge, ...],
    rows: Sequence[Result],
    pool: Counter[tuple[str, ...]],
) -> Judged:
    """Judge one history.

    :param rows: the stored rows of its check, one for each attempt.
    :param pool: their expectations that no earlier history accounts for; those of this one are taken from it.
    """
    opening = history.opening

    def found(verdict: Judgement, reason: str = "", expectations: tuple[Expectation, ...] = ()) -> Judged:
        return Judged(
            file=_inside(run, path),
            topology=opening.topology,
            check=opening.check,
            control=opening.control,
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
        expectations = judge.judge(history, read_state(path, judge.state))
    except StoreError as error:
        return found(Judgement.NOT_JUDGED, error.what)
    verdict = Judgement.HOLDS if all(one.held for one in expectations) else Judgement.ISSUE
    if opening.control or not rows:  # a control has no row, and a killed run stored none
        return found(verdict, "", expectations)
    if not any(row.status in {Status.OK, Status.ISSUE} for row in rows):
        return found(Judgement.NOT_COUNTED, f"its row is {rows[-1].status}: {rows[-1].reason}", expectations)
    if difference := _difference(expectations, _expectations(rows), pool):
        return found(Judgement.DIFFERS, difference, expectations)
    return found(verdict, "", expectations)


def _difference(
    expectations: Sequence[Expectation], stored: Iterable[Expectation], pool: Counter[tuple[str, ...]]
) -> str:
    """Return in one sentence what the stored rows say differently; "" if they say the same."""
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


def _expectations(rows: Iterable[Result]) -> list[Expectation]:
    return [expectation for row in rows for expectation in row.expectations]


def _inside(run: StoredRun, path: Path) -> str:
    return str(path.relative_to(run.folder))
