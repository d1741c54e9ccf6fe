"""Pooling: session state: whether it persists for its client, and whether it leaks to other clients.

Two probes cover each kind of state. `…-kept`: a client sets the state, other clients work, and the client reads the
state again, on another server connection if the pool mode moves clients. `…-apart`: another client reads the state on
the same server connection, while the first client is idle or, in session mode, after the first client disconnected.
`leftovers` covers the state that remains after a disconnect, in every pool mode.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from harness.checks.documented import WORKS
from harness.checks.occupation import MOVING, settled
from harness.checks.record import NotExercisedError
from harness.checks.server_connections import follower, neighbour, pressed, successor
from harness.libpq import simple
from harness.suites.pooling.probes import (
    LEAKS,
    LOST,
    SETTINGS,
    WRONG,
    fails,
    outcome_of,
    probe,
    works_here,
    worst,
)
from harness.suites.pooling.states import SETTING_VARIANTS, STATES, SessionState, Variant

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.checks.registry import Check, Control
    from harness.database import Client
    from harness.libpq import Reply
    from harness.model import Outcome


def _client(ctx: CheckContext, state: SessionState) -> Client:
    return ctx.dba() if state.dba else ctx.plain_client()


def _outcome(answer: Reply, variant: Variant, *, mine: Outcome, fresh: Outcome) -> Outcome:
    """Return the outcome of reading a state.

    :param mine: the outcome if the state is present, as for the client that set it.
    :param fresh: the outcome if the state is absent, as for any other client. Unless it is *works*, an SQLSTATE that
        shows the absence gives the outcome *fails*.
    """
    observed = str(answer)
    if observed == variant.mine:
        return mine
    if observed == variant.fresh and fresh == WORKS:
        return fresh
    if answer.is_error:
        return fails(answer)
    return fresh if observed == variant.fresh else WRONG


def _kept(state: SessionState) -> tuple[Check, Control]:
    name = f"{state.name}-kept"

    @probe(
        name,
        f"{state.title}: persists for its client",
        group=state.group,
        claim=f"{state.title}: the state that a client sets is present at the client's next statement",
    )
    def persists(ctx: CheckContext) -> Outcome:
        outcomes = {}
        client = settled(ctx, lambda: _client(ctx, state))
        variants = {label: variant.begun(client) for label, variant in state.variants.items()}
        with pressed(ctx, client, lambda: _client(ctx, state)):
            for label, variant in variants.items():
                if ctx.sabotaged:
                    client = _sabotaged_client(ctx, state, client, variant, present=not works_here(ctx, name))
                answer = simple(client, variant.observe)
                outcomes[label] = _outcome(answer, variant, mine=WORKS, fresh=LOST)
                ctx.fact(label, f"the client that set it observed {answer}: {outcomes[label]}")
        return worst(outcomes)

    return persists


def _apart(state: SessionState) -> tuple[Check, Control]:
    name = f"{state.name}-apart"

    @probe(
        name,
        f"{state.title}: isolated from other clients",
        group=state.group,
        claim=f"{state.title}: the state that one client sets never reaches another client",
    )
    def isolated(ctx: CheckContext) -> Outcome:
        outcomes = {}
        client = settled(ctx, lambda: _client(ctx, state))
        variants = {label: variant.begun(client) for label, variant in state.variants.items()}
        other = follower(ctx, client, lambda: _client(ctx, state))
        for label, variant in variants.items():
            if ctx.sabotaged:
                other = _sabotaged_client(ctx, state, other, variant, present=works_here(ctx, name))
            answer = simple(other, variant.observe)
            outcomes[label] = _outcome(answer, variant, mine=LEAKS, fresh=WORKS)
            ctx.fact(label, f"another client observed {answer}: {outcomes[label]}")
        return worst(outcomes)

    return isolated


def _sabotaged_client(
    ctx: CheckContext, state: SessionState, client: Client, variant: Variant, *, present: bool
) -> Client:
    """Set or remove a state, as a pooler that contradicts its documentation would, and return the client to use.

    :param present: whether the state is to be present afterwards.
    """
    if present or variant.undo:
        _sabotage(client, variant, present=present)
        return client
    # nothing undoes this state, so end its server connection
    ctx.admin.value("SELECT pg_terminate_backend(%s, 1000)", [client.server_pid()])
    client.close()
    return _client(ctx, state)


def _sabotage(client: Client, variant: Variant, *, present: bool) -> None:
    if not present:
        simple(client, variant.undo)
        return
    with contextlib.suppress(NotExercisedError):
        variant.set_up(client)


KEPT_AND_APART = tuple(declared for state in STATES for pair in (_kept(state), _apart(state)) for declared in pair)


def _collides(state: SessionState) -> tuple[Check, Control]:
    """Probe two clients that use the same name, as the same code in two workers does."""
    name = f"{state.name}-collides"

    @probe(
        name,
        f"{state.title}: same name in two clients",
        group=state.group,
        claim=f"{state.title}: two clients can use the same name at the same time, and each gets its own",
    )
    def same_name(ctx: CheckContext) -> Outcome:
        outcomes = {}
        for label, variant in state.variants.items():
            client = settled(ctx, lambda: _client(ctx, state))
            variant.set_up(client)
            other = neighbour(ctx, client, connect=lambda: _client(ctx, state))
            if ctx.sabotaged:
                _sabotage(other, variant, present=works_here(ctx, name))
            # one message is one transaction, so both statements use one server connection and no reset comes in between
            answer = simple(other, f"{variant.rival}; {variant.observe}")
            outcomes[label] = outcome_of(answer, right=variant.theirs)
            ctx.fact(label, f"another client that takes the name observed {answer}: {outcomes[label]}")
            if ctx.mode in MOVING:
                simple(other, variant.undo)
            client.close()
            other.close()
        return worst(outcomes)

    return same_name


def _mixed_up(state: SessionState) -> tuple[Check, Control]:
    """Probe the silent failure: each client takes the name on another server connection, so neither gets an error."""
    name = f"{state.name}-mixed-up"

    @probe(
        name,
        f"{state.title}: on a server connection with another client's object of that name",
        group=state.group,
        claim=f"{state.title}: a client that uses its name never gets what another client made under the same name",
    )
    def another_clients_object(ctx: CheckContext) -> Outcome:
        outcomes = {}
        for label, variant in state.variants.items():
            if variant.theirs == variant.mine:
                continue
            client = settled(ctx, lambda: _client(ctx, state))
            variant.set_up(client)
            # in modes that move clients, the first server connection is busy, so both clients use another one
            with pressed(ctx, client, lambda: _client(ctx, state)):
                other = neighbour(ctx, client, connect=lambda: _client(ctx, state))
                made = simple(other, variant.rival)
                if made.is_error:
                    raise NotExercisedError(f"{variant.rival!r} was refused: {made.sqlstate} {made.message}")
                if ctx.sabotaged:
                    simple(client, variant.undo)
                    simple(client, variant.rival if works_here(ctx, name) else variant.establish)
                answer = simple(client, variant.observe)
            outcomes[label] = outcome_of(answer, right=variant.mine)
            ctx.fact(label, f"the first client observed {answer}: {outcomes[label]}")
            client.close()
            other.close()
        return worst(outcomes)

    return another_clients_object


COLLIDING = tuple(
    declared
    for state in STATES
    if any(variant.rival for variant in state.variants.values())
    for pair in (_collides(state), _mixed_up(state))
    for declared in pair
)


@probe(
    "leftovers",
    "state left behind by a client that disconnected",
    group=SETTINGS,
    claim="when a client disconnects, its settings, temporary tables and locks are removed",
)
def leftovers(ctx: CheckContext) -> Outcome:
    variants = {
        "a setting": SETTING_VARIANTS["SET"],
        "a temporary table": next(state for state in STATES if state.name == "temp-table").variants["PRESERVE ROWS"],
        "an advisory lock": Variant(
            "SELECT pg_advisory_lock(42)",
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            "1",
            "0",
            "SELECT pg_advisory_unlock_all()",
        ),
    }

    first = settled(ctx)
    variants = {label: variant.begun(first) for label, variant in variants.items()}
    answers = _observe(ctx, successor(ctx, first), variants)
    outcomes = {}
    for label, answer in answers.items():
        outcomes[label] = _outcome(answer, variants[label], mine=LEAKS, fresh=WORKS)
        ctx.fact(label, f"the next client observed {answer}: {outcomes[label]}")
    return worst(outcomes)


def _observe(ctx: CheckContext, other: Client, variants: dict[str, Variant]) -> dict[str, Reply]:
    if ctx.sabotaged:
        for variant in variants.values():
            _sabotage(other, variant, present=works_here(ctx, "leftovers"))
    return {label: simple(other, variant.observe) for label, variant in variants.items()}
