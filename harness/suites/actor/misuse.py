"""Actor: the observed effect of careless actor settings in each pool mode.

Each check predicts which write gets a careless setting, from what PostgreSQL and the pooler document. When the
prediction holds, the check is OK *and* carries the documented limit; the report lists those limits separately, as
practices to avoid here. A trail that names nobody instead, or refuses the write, is better than that: nobody can forge
its actor by a default. The check is an Issue when a write names somebody whom nothing explains.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.audit.target_file import Recorded
from harness.checks.conditions import facts_of
from harness.checks.record import NotApplicableError, NotExercisedError
from harness.checks.registry import MOVES, P0, TRANSACTION_BLOCKS, breaks, check
from harness.checks.server_connections import ends_with_client, moved, relay
from harness.lab.effective import released
from harness.model import Behaviour, PoolMode, Section
from harness.suites.actors import ADA, ATTRIBUTED, BOB, MALLORY
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


def _name(actor: Any) -> str:
    return "nobody" if actor is None else str(actor["id"]) if isinstance(actor, dict) and "id" in actor else str(actor)


def _escape(found: re.Match[str]) -> str:
    return f"\\{found[0]}"


def _require_settings(ctx: CheckContext) -> None:
    """Require that settings hold the actor.

    :raises NotApplicableError: when the application declares it by statements of the trail.
    """
    if not ctx.target.actor.names:
        raise NotApplicableError("the application declares its actor by statements of the trail, not by settings")


def _written(ctx: CheckContext, client: Client, slug: str) -> str:
    """Write without a declaration of its own, and return the actor that the write is attributed to, or `refused`."""
    outcome = ctx.attempt(partial(ctx.write, client, None, slug))
    if outcome != "done":
        ctx.fact(f"the write {slug}", outcome)
        return "refused"
    return _name(ctx.actor_of(slug))


def _as_predicted(ctx: CheckContext, name: str, observed: str, predicted: str) -> bool:
    """Expect the predicted actor. A write that names nobody, or is refused, is better: no careless setting forged it.

    :return: whether it is the predicted one.
    """
    better = observed in {"nobody", "refused"}
    ctx.expect(name, observed, equals=observed if better else predicted)
    return observed == predicted


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
    claim="an actor set for the session is on no other writes than the pool mode's documentation predicts",
    section=_HERE,
    severity=P0,
    item="2.1",
    area=_AREA,
    scope="transaction",
    needs=(TRANSACTION_BLOCKS,),
    records=ATTRIBUTED,
)
def session_set(ctx: CheckContext) -> None:
    _require_settings(ctx)

    def careless(client: Client) -> str:
        ctx.application.declare_for_the_session(client, ADA)
        return _written(ctx, client, "own write")

    own, following = relay(ctx, careless, lambda other: _written(ctx, other, "next on the connection"))
    own_predicted, following_predicted, outcome, source = _predicted(ctx)
    as_predicted = [
        _as_predicted(ctx, "its own write is attributed to", own, own_predicted),
        _as_predicted(
            ctx,
            "the next write on the server connection, by somebody else, is attributed to",
            following,
            following_predicted,
        ),
    ]
    if all(as_predicted):
        ctx.documented_limit(outcome, source)


@breaks(session_set, at="the next write on the server connection, by somebody else, is attributed to")
def session_set_landing_elsewhere(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", f"NEW.actor_ref := '{BOB.setting}'")


@check(
    "actor.careless-session-set-lost",
    claim="an actor set for the session is on nobody else's writes when the client gets another server connection",
    section=_HERE,
    severity=P0,
    item="2.1",
    area=_AREA,
    scope="transaction",
    needs=(TRANSACTION_BLOCKS, MOVES),
    records=ATTRIBUTED,
)
def session_set_lost(ctx: CheckContext) -> None:
    _require_settings(ctx)
    client = ctx.client()
    ctx.application.declare_for_the_session(client, ADA)
    with moved(ctx, client):
        observed = _written(ctx, client, "after the move")
    # a pooler that keeps the setting with its client is better: the write is then attributed to whoever made it
    predicted = observed if observed == "ada" else "nobody"
    _as_predicted(ctx, "the write after the move is attributed to", observed, predicted)
    if observed == "nobody":
        ctx.documented_limit("an actor set for the session is missing from the client's own later writes", _PGBOUNCER)


@breaks(session_set_lost, at="the write after the move is attributed to")
def session_set_replaced_by_a_default(ctx: CheckContext) -> None:
    default_actor(ctx)


@check(
    "actor.careless-outside-transaction",
    claim="an actor declared outside the transaction of the write is on no write",
    section=_HERE,
    severity=P0,
    item="2.1",
    area=_AREA,
    scope="transaction",
    needs=(TRANSACTION_BLOCKS,),
    records=ATTRIBUTED,
)
def outside_transaction(ctx: CheckContext) -> None:
    client = ctx.client()
    ctx.fact("the declaration", ctx.attempt(partial(ctx.application.declare, client, ADA)))
    observed = _written(ctx, client, "after the declaration")
    if _as_predicted(ctx, "the write is attributed to", observed, "nobody") and ctx.target.actor.names:
        ctx.documented_limit("a local setting in autocommit ends with its own statement: the write has no actor", _SET)


@breaks(outside_transaction, at="the write is attributed to")
def outside_transaction_but_for_the_session(ctx: CheckContext) -> None:
    ctx.application.declare = ctx.application.declare_for_the_session


#: how a trail may attribute the writes of two transactions: one that declares Ada after its first write, and one of
#: Ada's that declares Bob between two writes
_RULES: dict[str, tuple[str, str, str, str]] = {
    "": ("nobody", "ada", "ada", "bob"),
    "the first write of a transaction decides its actor": ("nobody", "nobody", "ada", "ada"),
    "the first declared actor of a transaction is on all its writes": ("ada", "ada", "ada", "ada"),
    "the last declared actor of a transaction is on all its writes": ("ada", "ada", "bob", "bob"),
}
_REFUSED = ("refused", "refused")


@check(
    "actor.careless-after-first-write",
    claim="a transaction that declares its actor late, or two actors, is attributed by one rule, which the trail documents",
    section=_HERE,
    severity=P0,
    item="2.1",
    area=_AREA,
    scope="transaction",
    needs=(TRANSACTION_BLOCKS,),
    records=ATTRIBUTED,
)
def after_first_write(ctx: CheckContext) -> None:
    client = ctx.client()

    def declared_late() -> None:
        with ctx.audited(client, None):
            ctx.insert_post(client, "before")
            ctx.application.declare(client, ADA)
            ctx.insert_post(client, "after")

    def declared_twice() -> None:
        with ctx.audited(client, ADA):
            ctx.insert_post(client, "ada's")
            ctx.application.declare(client, BOB)
            ctx.insert_post(client, "bob's")

    observed: tuple[str, ...] = ()
    for work, slugs in ((declared_late, ("before", "after")), (declared_twice, ("ada's", "bob's"))):
        outcome = ctx.attempt(work)
        ctx.fact(f"the transaction of {' and '.join(slugs)}", outcome)
        observed += tuple(_name(ctx.actor_of(slug)) for slug in slugs) if outcome == "done" else _REFUSED
    rules = [rule for rule, actors in _RULES.items() if _follows(observed, actors)]
    ctx.expect(
        "actors of writes before and after a late declaration, and of two actors' writes",
        observed,
        equals=observed if rules else _RULES[""],
    )
    if ctx.records(Recorded.TRANSACTION_ID) and ctx.records(Recorded.ORDER) and observed[2:] != _REFUSED:
        both = {change.transaction_id for change in ctx.changes("posts")[-2:]}
        ctx.expect("transactions of two actors' writes", len(both), equals=1)
    # where a second actor is refused, no write names anybody but the one actor of its transaction
    if rules and rules[0] and observed[2:] != _REFUSED:
        ctx.trail_limit(rules[0])


def _follows(observed: tuple[str, ...], actors: tuple[str, str, str, str]) -> bool:
    pairs = ((observed[:2], actors[:2]), (observed[2:], actors[2:]))
    return all(seen in (expected, _REFUSED) for seen, expected in pairs)


@breaks(after_first_write, at="transactions of two actors' writes")
def after_first_write_another_transaction(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.transaction_id := gen_random_uuid()")


@breaks(after_first_write, at="actors of writes before and after a late declaration, and of two actors' writes")
def after_first_write_somebody_else(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", f"NEW.actor_ref := '{MALLORY.setting}'")


#: the expected result of the write, by the chain's behaviour for startup options
_WITH_OPTION = {Behaviour.WORKS: "ada", Behaviour.FAILS: "refused", Behaviour.LOST: "nobody"}
#: what separates options, and what protects it there
_ESCAPED = re.compile(r"[\\ ]")
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
    claim="a write that declares no actor names no other than the one that the client gave as a startup option",
    section=_HERE,
    severity=P0,
    item="2.1",
    area=_AREA,
    scope="transaction",
    needs=(TRANSACTION_BLOCKS,),
    records=ATTRIBUTED,
)
def startup_option(ctx: CheckContext) -> None:
    _require_settings(ctx)
    values = ctx.application.values(ADA) if ctx.application.sends_startup_options else {}
    options = " ".join(f"-c {name}={_ESCAPED.sub(_escape, text)}" for name, text in values.items())
    connected: list[Client] = []
    outcome = ctx.attempt(lambda: connected.append(ctx.client(options=options)))
    ctx.fact("the connection", outcome)
    observed = _written(ctx, connected[0], "connected") if connected else "refused"
    behaviour = ctx.foreseen("startup-options", option=ctx.application.setting)[0].behaviour
    if _as_predicted(ctx, "the write of a client with the option is attributed to", observed, _WITH_OPTION[behaviour]):
        limit, source = _OPTION_LIMITS[behaviour]
        ctx.documented_limit(limit, source)


@breaks(startup_option, at="the write of a client with the option is attributed to")
def startup_option_not_sent_but_a_default(ctx: CheckContext) -> None:
    ctx.application.sends_startup_options = False
    default_actor(ctx)


@check(
    "actor.careless-role-default",
    claim="a write that declares no actor names no other than the default of the role or the database",
    section=_HERE,
    severity=P0,
    item="2.1",
    area=_AREA,
    scope="transaction",
    needs=(TRANSACTION_BLOCKS,),
    records=ATTRIBUTED,
)
def role_default(ctx: CheckContext) -> None:
    _require_settings(ctx)
    default_actor(ctx)
    observed = _written(ctx, ctx.client(), "undeclared")
    if _as_predicted(ctx, "the write is attributed to", observed, _name(MALLORY.reference)):
        ctx.documented_limit(
            "a role or database default forges an actor on every write that declares none", _ALTER_ROLE
        )


@breaks(role_default, at="the write is attributed to")
def role_default_replaced_by_the_trail(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", f"NEW.actor_ref := '{BOB.setting}'")
