"""How a row of the feature map is declared: one probe, what it is called, and the control that belongs to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.context import OUTCOME
from harness.checks.documented import WORKS
from harness.checks.registry import P0, Capability, Check, Control, breaks, check
from harness.errors import TimedOutError
from harness.libpq import CLOSED
from harness.model import Behaviour, Outcome, Section

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.checks.context import CheckContext
    from harness.libpq import Reply

    Probe = Callable[[CheckContext], Outcome]

LOST = Outcome(behaviour=Behaviour.LOST)
WRONG = Outcome(behaviour=Behaviour.WRONG)
LEAKS = Outcome(behaviour=Behaviour.LEAKS)

#: groups of the feature map, and where to look first
PREPARED, SETTINGS, OBJECTS, LOCKS = "prepared statements", "session settings", "session objects", "locks and messages"
TRANSACTIONS, CONNECTIONS = "transactions", "connections"


def feature(
    name: str,
    title: str,
    *,
    group: str,
    claim: str,
    suite: str = "pooling",
    needs: tuple[Capability, ...] = (),
    serial_group: str = "",
    disrupts: bool = False,
) -> Callable[[Probe], tuple[Check, Control]]:
    """Declare a probe as a check, with its control.

    The check compares what came of the feature with what is documented. Its control lets the probe step in halfway
    (`bench.otherwise`), on the servers, so that the feature behaves otherwise than that; the check has to notice.

    :param name: by which `topologies/behaviour/` knows it; the check's id is made of it.
    :param title: the row of the feature map.
    :param apart: see `check`.
    :param disrupts: see `check`.
    """

    def declare(probe: Probe) -> tuple[Check, Control]:
        def run(ctx: CheckContext) -> None:
            try:
                outcome = probe(ctx)
            except TimedOutError as error:
                ctx.fact("what was waited for", error.what)
                outcome = Outcome(behaviour=Behaviour.HANGS)
            ctx.judge(name, title, outcome)

        def behaves_otherwise(ctx: CheckContext) -> None:
            ctx.sabotaged = True

        run.__module__ = behaves_otherwise.__module__ = probe.__module__
        declared = check(
            f"{suite}.{name.removeprefix('driver-')}",
            claim=claim,
            section=Section.POOLING,
            severity=P0,
            area=group,
            needs=needs,
            feature=title,
            serial_group=serial_group,
            disrupts=disrupts,
        )(run)
        return declared, breaks(declared, at=OUTCOME)(behaves_otherwise)

    return declare


def feature_of(declared: Check) -> str:
    """Return the name by which `topologies/behaviour/` knows a check."""
    suite, _, name = declared.id.partition(".")
    return name if suite == "pooling" else f"driver-{name}"


def works_here(ctx: CheckContext, name: str) -> bool:
    """Say whether a feature is expected to work: what a control has to turn into the opposite."""
    return WORKS in ctx.foreseen(name)


def fails(answer: Reply) -> Outcome:
    """Return the outcome of an error."""
    return Outcome(
        behaviour=Behaviour.FAILS,
        sqlstate="" if answer.sqlstate == CLOSED else answer.sqlstate,
        closed=answer.closed,
    )


def outcome_of(answer: Reply, *, right: str) -> Outcome:
    """Return what an answer says of a feature whose right answer is known."""
    if answer.is_error:
        return fails(answer)
    if answer.value == right:
        return WORKS
    return WRONG


def worst(outcomes: dict[str, Outcome]) -> Outcome:
    """Merge the outcomes of a feature's variants."""
    order = [Behaviour.LEAKS, Behaviour.WRONG, Behaviour.LOST, Behaviour.HANGS, Behaviour.FAILS, Behaviour.WORKS]
    return min(outcomes.values(), key=lambda each: order.index(each.behaviour))
