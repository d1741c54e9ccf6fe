"""The course of a check: writers write, a fault is injected and healed, and the writers succeed again; then the judge."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from harness.checks.judges.acknowledged import ACKNOWLEDGED, FinalState, tally
from harness.checks.judges.recovery import recovery
from harness.checks.record import NotExercisedError
from harness.errors import ServiceFailedError, TimedOutError
from harness.lab.effective import effective_limits
from harness.model import PoolMode
from harness.store import read_history
from harness.suites.resilience.connections import DEADLINE_S
from harness.suites.resilience.faults import Where, injection
from harness.suites.resilience.tables import prepare_tables, read_final_state
from harness.suites.resilience.writers import Writers

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from harness.checks.context import CheckContext
    from harness.database import Endpoint
    from harness.store import Journal
    from harness.suites.resilience.faults import FaultKind

_WRITERS = 8
#: how long all writers may take to succeed: at first, and after a fault was healed, seconds
_FIRST_S, RECOVERS_S = 20.0, 30.0
#: a fault that lasts is healed once each writer has met it twice on average, or after so many seconds
_MET, _LASTS_S = 2, 0.5
#: the same for a fault without errors. The writers are then less patient, so that they meet it
_MET_SILENT, _LASTS_SILENT_S, _PATIENT_SILENT_S = 1, 3.0, 1.0
#: units of work of each writer, on average, before each fault: what was acknowledged shortly before it is at risk
_BEFORE, _BEFORE_S = 8, 2.0
#: a check begins no further round after so many seconds; its time limit leaves time for the last one and for the judge
_ROUNDS_S = 480.0
LONGEST_S = _ROUNDS_S + 120.0


def survive(fault: FaultKind, ctx: CheckContext) -> None:
    """Inject a fault into the servers of the writers, once a round, and judge what they wrote.

    What was written is judged however the rounds ended, by Ctrl-C as well: a lost write is an Issue also if another
    fault could not be injected afterwards.

    :raises NotExercisedError: when the rounds ended early, and everything that was written is there.
    """
    prepare_tables(ctx)
    count = _writers(ctx)
    reason = ""
    facts = {"fault": fault.title, "writers": str(count), "rounds": str(ctx.load.rounds)}
    with ctx.ending_in_order() as interrupted, ctx.history(ACKNOWLEDGED, **facts) as journal:
        try:
            _run_rounds(fault, ctx, journal, count, interrupted)
        except (NotExercisedError, ServiceFailedError, TimedOutError) as error:
            reason = str(error) if isinstance(error, NotExercisedError) else error.what
        try:
            state = read_final_state(ctx)
        except NotExercisedError as error:
            raise NotExercisedError(f"{reason}; {error}" if reason else str(error)) from None
        journal.keep_state(state)
        record_facts(ctx, journal, state)
    if reason:
        raise NotExercisedError(reason)


def _writers(ctx: CheckContext) -> int:
    """Return how many writers can write at the same time.

    In session mode each of them keeps a server connection, and the probes of a fault need one.
    """
    limits = effective_limits(ctx.lab.evidence)
    return min(_WRITERS, max(limits.size - 1, 1)) if limits and ctx.mode is PoolMode.SESSION else _WRITERS


def _run_rounds(fault: FaultKind, ctx: CheckContext, journal: Journal, count: int, interrupted: Event) -> None:
    began, rounds = time.monotonic(), ctx.load.rounds
    with contextlib.ExitStack() as stack:
        endpoint: Callable[[], Endpoint] = lambda: ctx.lab.chain(ctx.database)  # noqa: E731 -- a restart may change it
        if fault.where is Where.APPLICATION_LINK:
            link = stack.enter_context(ctx.lab.application_link())
            endpoint = lambda: link.endpoint(ctx.database)  # noqa: E731
        deadline_s = _PATIENT_SILENT_S if fault.silent else DEADLINE_S
        writers = stack.enter_context(Writers(ctx, journal, endpoint, count, interrupted, deadline_s))
        writers.wait_for_all(0.0, _FIRST_S, "before the first fault")
        for number in range(1, rounds + 1):
            if time.monotonic() - began > _ROUNDS_S:
                raise NotExercisedError(
                    f"{number - 1} of {rounds} rounds took {_ROUNDS_S:g} s, so the others did not begin"
                )
            ctx.progress(number - 1, rounds, fault.id)
            _run_round(fault, ctx, journal, writers, number)


def _run_round(fault: FaultKind, ctx: CheckContext, journal: Journal, writers: Writers, number: int) -> None:
    writers.wait_for_answers(writers.answers + _BEFORE * writers.count, _BEFORE_S)
    with injection(fault, ctx) as injected:
        journal.fault(number, fault.id, "inject")
        try:
            with writers.fault_due():
                effect = injected.inject()
            journal.fault(number, fault.id, "injected", effect)
            ctx.fact("effect of the last fault", effect)
            if fault.lasts:
                met, lasts_s = (_MET_SILENT, _LASTS_SILENT_S) if fault.silent else (_MET, _LASTS_S)
                writers.wait_for_answers(writers.answers + met * writers.count, lasts_s)
        finally:
            journal.fault(number, fault.id, "heal")
            healing = injected.heal()
            healed_s = journal.seconds
            journal.fault(number, fault.id, "healed", healing)
    writers.wait_for_all(healed_s, RECOVERS_S, f"after fault {number} was healed")
    journal.fault(number, fault.id, "recovered")


def record_facts(ctx: CheckContext, journal: Journal, state: FinalState) -> None:
    """Record how many operations ended how, and how long the recovery took: a measure, and no verdict."""
    history = read_history(journal.path)
    counts, again = tally(history, state), recovery(history)
    injected = sum(fault.injected_s is not None for fault in history.faults)
    ctx.fact("faults injected", f"{injected} of {ctx.load.rounds}")
    ctx.fact(
        "units of work",
        f"{counts.ok} acknowledged, {counts.failed} failed, {counts.unknown} unknown ({counts.unknown_there} of them "
        "happened)",
    )
    if state.panics is None:
        ctx.fact("log of the server", "it does not hold the begin of this check, so PANIC lines in it are not judged")
    if again:
        ctx.fact(
            "acknowledged again after the healing",
            f"{again.first_s:.2f} s the first writer, {again.median_s:.2f} s in the median, {again.last_s:.2f} s the last "
            "one",
        )
