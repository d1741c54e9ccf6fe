"""The `@probe` decorator, which declares one row of the feature map, and the outcomes that a probe returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.documented import WORKS
from harness.checks.judging import ANSWER_ERRORS, Cause, cause_of, describe_answer
from harness.checks.occupation import require_served
from harness.checks.outcomes import OUTCOME
from harness.checks.registry import P0, Capability, Check, Control, breaks, check
from harness.database import SqlError, is_lost, origin_of
from harness.errors import TimedOutError
from harness.libpq import CLOSED
from harness.model import Behaviour, Outcome, Section
from harness.wire.messages import ClosedError, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.checks.context import CheckContext
    from harness.libpq import Reply

    Probe = Callable[[CheckContext], Outcome]

LOST = Outcome(behaviour=Behaviour.LOST)
WRONG = Outcome(behaviour=Behaviour.WRONG)
LEAKS = Outcome(behaviour=Behaviour.LEAKS)

#: groups of the feature map; each is also the `area` of its checks: where to look first when one fails
PREPARED, SETTINGS, OBJECTS, LOCKS = "prepared statements", "session settings", "session objects", "locks and messages"
TRANSACTIONS, CONNECTIONS = "transactions", "connections"


class ConnectionEndedError(Exception):
    """The connection ended under a statement that a probe builds on. The outcome of the probe is *fails*."""

    def __init__(self, answer: Reply) -> None:
        super().__init__(answer.message)
        self.answer = answer


def require_open(answer: Reply) -> None:
    """Require that a connection is still open after an answer.

    :raises ConnectionEndedError: when it ended.
    """
    if answer.closed:
        raise ConnectionEndedError(answer)


def probe(
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
    """Declare a probe: a check that fills one row of the feature map, together with its control.

    The decorated function uses one PostgreSQL feature through the chain and returns the outcome that it observed:
    `WORKS`, `LOST`, `WRONG`, `LEAKS`, or `fails(reply)` for an error. A `TimedOutError` becomes the outcome *hangs*,
    and an error that the server or the pooler raises on a client's connection becomes *fails*.
    The check compares it with `topologies/behaviour/`; a feature without an entry there is expected to work.
    A lone client sees one server connection in every pool mode, so force a shared or a changed one with `neighbour`,
    `follower` or `pressed`; they raise `NotExercisedError` (Not run) if they cannot. `NotApplicableError` gives N/A.
    The control runs the same function with `ctx.sabotaged` set. The function must then interfere on the servers so
    that the outcome differs from the documented one: if `works_here(ctx, name)` holds, make the feature fail, else
    make it work. The catalogue collects checks and controls from the public names of the modules that
    `harness/suites/catalogue.py` lists. `nox -s prove -- --check pooling.NAME` proves a new probe.

    :param name: the feature's id in `topologies/behaviour/`. The check's id is `suite.name`, without the prefix
        `driver-`.
    :param title: the row of the feature map, as a database administrator reads it.
    :param group: the section of the feature map, and the `area` of the check.
    :param claim: one sentence without a full stop, true when the feature works as an application expects.
    :param suite: the suite of the check: `pooling` or `drivers`.
    :param needs: capabilities that a topology must have; the check is N/A where one is missing.
    :param serial_group: the name of a group. The groups run one after another, and the checks of one group run
        concurrently. A check without a group runs concurrently with all other checks.
    :param disrupts: whether the probe restarts servers or changes settings of the pooler. No other check of the
        topology runs at the same time, except those of the same group.
    :return: a decorator, which returns the check and its control.
    :raises ConfigError: when the id or the claim does not have the form that `check` requires.
    """

    def declare(function: Probe) -> tuple[Check, Control]:
        def run(ctx: CheckContext) -> None:
            try:
                outcome = function(ctx)
            except TimedOutError as error:
                ctx.fact("timeout", error.what)
                outcome = Outcome(behaviour=Behaviour.HANGS)
            except ANSWER_ERRORS as error:
                if cause_of(error) is not Cause.SUBJECT:
                    raise
                ctx.fact("error", describe_answer(error))
                require_served(str(error))
                outcome = failed(error)
            except ConnectionEndedError as ended:
                ctx.fact("error", ended.answer.message)
                require_served(ended.answer.message)
                outcome = fails(ended.answer)
            ctx.judge(name, title, outcome)

        # the name of this function is the name of the control
        def behaves_otherwise(ctx: CheckContext) -> None:
            ctx.sabotaged = True

        run.__module__ = behaves_otherwise.__module__ = function.__module__
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
    """Return the feature id of a check, as `topologies/behaviour/` spells it."""
    suite, _, name = declared.id.partition(".")
    return name if suite == "pooling" else f"driver-{name}"


def works_here(ctx: CheckContext, name: str) -> bool:
    """Return whether a feature is documented to work in this topology. A control has to cause the opposite."""
    return WORKS in ctx.foreseen(name)


def fails(answer: Reply) -> Outcome:
    """Return the outcome *fails*, with the SQLSTATE of an error and whether it closed the connection.

    :raises NotExercisedError: when the client got no server connection of a full pool.
    """
    require_served(answer.message)
    return failure_of(answer)


def failure_of(answer: Reply) -> Outcome:
    """Return the outcome *fails* for any error, also for one about a full pool."""
    return Outcome(
        behaviour=Behaviour.FAILS,
        sqlstate="" if answer.sqlstate == CLOSED else answer.sqlstate,
        closed=answer.closed,
    )


def failed(error: Exception) -> Outcome:
    """Return the outcome *fails* for an error that ended a probe, which a server or pooler raised."""
    if not isinstance(error, SqlError):
        return Outcome(
            behaviour=Behaviour.FAILS,
            sqlstate=error.sqlstate if isinstance(error, ServerError) else "",
            closed=isinstance(error, ClosedError),
        )
    origin = origin_of(error)
    closed = is_lost(error) or (origin is not None and origin.closed) or error.diag.severity_nonlocalized == "FATAL"
    return Outcome(behaviour=Behaviour.FAILS, sqlstate=error.sqlstate or "", closed=closed)


def outcome_of(answer: Reply, *, right: str) -> Outcome:
    """Return the outcome of an answer: *works* if it is the right value, *fails* for an error, else *wrong*."""
    if answer.is_error:
        return fails(answer)
    if answer.value == right:
        return WORKS
    return WRONG


def worst(outcomes: dict[str, Outcome]) -> Outcome:
    """Return the most severe of the outcomes of a feature's variants, which are the keys."""
    order = [Behaviour.LEAKS, Behaviour.WRONG, Behaviour.LOST, Behaviour.HANGS, Behaviour.FAILS, Behaviour.WORKS]
    return min(outcomes.values(), key=lambda outcome: order.index(outcome.behaviour))
