"""Actor: the observed effect of careless actor settings in each pool mode.

Each check predicts which write gets a careless setting, from what PostgreSQL and the pooler document. When the
prediction holds, the check is OK *and* carries the documented limit; the report lists those limits separately, as
practices to avoid here. When it does not hold, the check is an Issue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.audit.target_file import TrailFeature
from harness.checks.conditions import facts_of
from harness.checks.record import NotExercisedError
from harness.checks.registry import MOVES, P0, TRANSACTION_BLOCKS, breaks, check
from harness.checks.server_connections import ends_with_client, moved, relay
from harness.lab.effective import released
from harness.model import Behaviour, PoolMode, Section
from harness.suites.actors import ADA, BOB, MALLORY
from harness.suites.sabotage import default_actor

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.ACTOR
_AREA = "application code"
_PGBOUNCER = "https://www.pgbouncer.org/features.html"
_RESET = "https://www.pgbouncer.org/config.html#server_reset_query"
_SET = "https://www.postgresql.org/docs/current/sql-set.html"
_CONFIG = "https://www.pgbouncer.org/config.html#ignore_startup_parameters"
_ALTER_ROLE = "https://www.postgresql.org/docs/current/sql-alterrole.html"


def _set_for_the_session(ctx: CheckContext, client: Client) -> None:
    client.value("SELECT set_config(%s, %s, false)", [ctx.application.setting, ctx.target.actor.spell(ADA)])


def _name(actor: Any) -> str:
    return "nobody" if actor is None else actor["id"] if isinstance(actor, dict) else str(actor)


def _predicted(ctx: CheckContext) -> tuple[str, str, str, str]:
    """Return the actors of the client's own write and of the next one on the connection, with outcome and source.

    :raises NotExercisedError: when the pooler's reset query is not understood.
    """
    if ctx.mode is None or (ctx.mode is PoolMode.SESSION and ends_with_client(ctx)):
        outcome = "an actor set for the session is on every later write that uses the connection, whoever makes it"
        return "ada", "ada", outcome, _SET
    facts = facts_of(ctx.topology, ctx.lab.evidence)[0]
    reset = released(facts.product, facts.mode, facts.settings).resets(ctx.application.setting)
    if reset is None:
        raise NotExercisedError("the effect of the pooler's reset query on a setting is not known")
    if ctx.mode is PoolMode.SESSION:
        first = "an actor set for the session is on all later writes of that client; "
        if reset:
            return "ada", "nobody", f"{first}the pooler resets it when the client disconnects", _PGBOUNCER
        return "ada", "ada", f"{first}the pooler's reset query leaves it to the next client", _RESET
    if reset:
        return "nobody", "nobody", "the pooler resets an actor set for the session after each transaction", _RESET
    outcome = "an actor set for the session is on the next write of any other client that gets the server connection"
    return "ada", "ada", outcome, _PGBOUNCER


@check(
    "actor.careless-session-set",
    claim="an actor set for the session ends up on the writes that the pool mode's documentation predicts",
    section=_HERE,
    severity=P0,
    item="2.1",
    area=_AREA,
    scope="transaction",
    needs=(TRANSACTION_BLOCKS,),
)
def session_set(ctx: CheckContext) -> None:
    def careless(client: Client) -> None:
        _set_for_the_session(ctx, client)
        ctx.write(client, None, "own write")

    relay(ctx, careless, lambda other: ctx.write(other, None, "next on the connection"))
    own, actor, outcome, source = _predicted(ctx)
    ctx.expect("its own write is attributed to", _name(ctx.actor_of("own write")), equals=own)
    ctx.expect(
        "the next write on the server connection, by somebody else, is attributed to",
        _name(ctx.actor_of("next on the connection")),
        equals=actor,
    )
    ctx.documented_limit(outcome, source)


@breaks(session_set, at="the next write on the server connection, by somebody else, is attributed to")
def session_set_landing_elsewhere(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", f"NEW.actor_ref := '{BOB.setting}'")


@check(
    "actor.careless-session-set-lost",
    claim="an actor set for the session is lost when the client gets another server connection",
    section=_HERE,
    severity=P0,
    item="2.1",
    area=_AREA,
    scope="transaction",
    needs=(TRANSACTION_BLOCKS, MOVES),
)
def session_set_lost(ctx: CheckContext) -> None:
    client = ctx.client()
    _set_for_the_session(ctx, client)
    with moved(ctx, client):
        ctx.write(client, None, "after the move")
    ctx.expect("the write after the move is attributed to", _name(ctx.actor_of("after the move")), equals="nobody")
    ctx.documented_limit("an actor set for the session is missing from the client's own later writes", _PGBOUNCER)


@breaks(session_set_lost, at="the write after the move is attributed to")
def session_set_replaced_by_a_default(ctx: CheckContext) -> None:
    default_actor(ctx)


@check(
    "actor.careless-outside-transaction",
    claim="an actor set locally outside the transaction of the write is on no write",
    section=_HERE,
    severity=P0,
    item="2.1",
    area=_AREA,
    scope="transaction",
    needs=(TRANSACTION_BLOCKS,),
)
def outside_transaction(ctx: CheckContext) -> None:
    client = ctx.client()
    ctx.application.declare(client, ADA)
    ctx.write(client, None, "after the setting")
    ctx.expect("the write is attributed to", _name(ctx.actor_of("after the setting")), equals="nobody")
    ctx.documented_limit("a local setting in autocommit ends with its own statement: the write has no actor", _SET)


@breaks(outside_transaction, at="the write is attributed to")
def outside_transaction_but_for_the_session(ctx: CheckContext) -> None:
    ctx.application.declare = ctx.application.declare_for_the_session


@check(
    "actor.careless-after-first-write",
    claim="the first write decides the transaction's actor, and an actor set later has no effect",
    section=_HERE,
    severity=P0,
    item="2.1",
    area=_AREA,
    scope="transaction",
    requires_features=(TrailFeature.CONTRACT_TABLES,),
    needs=(TRANSACTION_BLOCKS,),
)
def after_first_write(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, None):
        ctx.insert_post(client, "before")
        ctx.application.declare(client, ADA)
        ctx.insert_post(client, "after")
    with ctx.audited(client, ADA):
        ctx.insert_post(client, "ada's")
        ctx.application.declare(client, BOB)
        ctx.insert_post(client, "bob's")
    actors = {slug: _name(ctx.actor_of(slug)) for slug in ("before", "after", "ada's", "bob's")}
    ctx.expect(
        "the writes are attributed to",
        actors,
        equals={"before": "nobody", "after": "nobody", "ada's": "ada", "bob's": "ada"},
    )
    ctx.trail_limit("an actor set after the first write of a transaction is ignored: the first write decides")


@breaks(after_first_write, at="the writes are attributed to")
def after_first_write_fills_in(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        ("ON CONFLICT (id) DO NOTHING", "ON CONFLICT (id) DO UPDATE SET actor_ref = EXCLUDED.actor_ref")
    )


#: the expected result of the write, by the chain's behaviour for startup options
_WITH_OPTION = {Behaviour.WORKS: "a write by ada", Behaviour.FAILS: "refused", Behaviour.LOST: "a write by nobody"}
_OPTION_LIMITS = {
    Behaviour.WORKS: ("an actor given as startup option is a default for every write that declares none", _SET),
    Behaviour.FAILS: ("startup options other than the tracked ones are refused", _CONFIG),
    Behaviour.LOST: (
        "startup options that the pooler is configured to ignore have no effect: the write has no actor",
        _CONFIG,
    ),
}


@check(
    "actor.careless-startup-option",
    claim="an actor given as a startup option is on every write, unless the pooler is known to refuse or ignore options",
    section=_HERE,
    severity=P0,
    item="2.1",
    area=_AREA,
    scope="transaction",
    needs=(TRANSACTION_BLOCKS,),
)
def startup_option(ctx: CheckContext) -> None:
    option = (
        f"-c {ctx.application.setting}={ctx.target.actor.spell(ADA)}" if ctx.application.sends_startup_options else ""
    )
    outcome = ctx.attempt(lambda: ctx.write(ctx.client(options=option), None, "connected"))
    observed = f"a write by {_name(ctx.actor_of('connected'))}" if outcome == "done" else "refused"
    ctx.fact("the client's outcome", outcome)
    behaviour = ctx.foreseen("startup-options", option=ctx.application.setting)[0].behaviour
    ctx.expect("connecting with the option", observed, equals=_WITH_OPTION[behaviour])
    limit, source = _OPTION_LIMITS[behaviour]
    ctx.documented_limit(limit, source)


@breaks(startup_option, at="connecting with the option")
def startup_option_not_sent(ctx: CheckContext) -> None:
    ctx.application.sends_startup_options = False
    # where the pooler ignores options, an option that was not sent makes no difference
    if ctx.foreseen("startup-options", option=ctx.application.setting)[0].behaviour is Behaviour.LOST:
        default_actor(ctx)


@check(
    "actor.careless-role-default",
    claim="an actor set as the default of a role or database is on every write that declares no actor",
    section=_HERE,
    severity=P0,
    item="2.1",
    area=_AREA,
    scope="transaction",
    needs=(TRANSACTION_BLOCKS,),
)
def role_default(ctx: CheckContext) -> None:
    default_actor(ctx)
    client = ctx.client()
    ctx.write(client, None, "undeclared")
    ctx.expect("the write is attributed to", _name(ctx.actor_of("undeclared")), equals=_name(MALLORY.reference))
    ctx.documented_limit("a role or database default forges an actor on every write that declares none", _ALTER_ROLE)


@breaks(role_default, at="the write is attributed to")
def role_default_dropped_by_the_trail(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", "NEW.actor_ref := NULL")
