"""Actor: every write is attributed to its actor, in every isolation level and in every way to send it.

Ids and writers are in `identities`, types in `kinds`, shared connections in `sharing`, careless uses in `misuse`.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.checks.record import NotApplicableError, NotExercisedError
from harness.checks.registry import (
    NAMED_STATEMENTS,
    P0,
    SEVERAL_SERVER_CONNECTIONS,
    TRANSACTION_BLOCKS,
    breaks,
    check,
)
from harness.checks.server_connections import relay
from harness.model import Section
from harness.suites.actors import ADA, ATTRIBUTED, BOB
from harness.suites.areas import ACTOR_SETTING
from harness.suites.sabotage import declare_outside, default_actor
from harness.suites.undeclared import UNDECLARED, nobody, undeclared_actor, write_undeclared

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.ACTOR
#: pairs of overlapping transactions in each isolation level
_OVERLAPS = 4


# --- one client ----------------------------------------------------------------------------------------


@check(
    "actor.local-setting",
    claim="a write is attributed to the actor set locally in its transaction, and later transactions are not",
    section=_HERE,
    severity=P0,
    item="2.1",
    area=ACTOR_SETTING,
    needs=(TRANSACTION_BLOCKS,),
    records=UNDECLARED,
)
def local_setting(ctx: CheckContext) -> None:
    client = ctx.client()
    ctx.write(client, ADA, "by ada")
    refused = write_undeclared(ctx, client, "by nobody")
    ctx.write(client, BOB, "by bob")
    ctx.expect("actor on Ada's change", ctx.actor_of("by ada"), equals=ADA.reference)
    next_actor = undeclared_actor(ctx, "by nobody", refused)
    ctx.expect("actor on the client's next change", next_actor, equals=nobody(ctx))
    ctx.expect("actor on Bob's change", ctx.actor_of("by bob"), equals=BOB.reference)


@breaks(local_setting, at="actor on the client's next change")
def actor_set_for_the_whole_session(ctx: CheckContext) -> None:
    ctx.application.declare = ctx.application.declare_for_the_session


@breaks(local_setting, at="actor on Ada's change")
def actor_set_outside_the_transaction(ctx: CheckContext) -> None:
    declare_outside(ctx)


@check(
    "actor.unset",
    claim="a write without an actor is captured and attributed to nobody, or refused where the target file says so",
    section=_HERE,
    severity=P0,
    item="2.1",
    area=ACTOR_SETTING,
    needs=(TRANSACTION_BLOCKS,),
    records=UNDECLARED,
)
def unset(ctx: CheckContext) -> None:
    refused = write_undeclared(ctx, ctx.client(), "by nobody")
    ctx.expect("rows captured", len(ctx.changes("posts")), equals=0 if ctx.target.actor.required else 1)
    ctx.expect("actor", undeclared_actor(ctx, "by nobody", refused), equals=nobody(ctx))


@breaks(unset, at="actor")
def unset_but_there_is_a_default(ctx: CheckContext) -> None:
    default_actor(ctx)


@check(
    "actor.residue",
    claim="the empty string that a local setting leaves behind means no actor, as a setting does that was never set",
    section=_HERE,
    severity=P0,
    item="2.1",
    area="capture function",
    needs=(TRANSACTION_BLOCKS,),
    scope="transaction",
    records=UNDECLARED,
)
def residue(ctx: CheckContext) -> None:
    if "." not in ctx.application.setting:
        raise NotApplicableError("no setting of the application's own holds the actor")

    def read(client: Client) -> Any:
        return client.value("SELECT current_setting(%s, true)", [ctx.application.setting])

    refused: dict[str, str] = {}

    def write(client: Client, slug: str) -> None:
        refused[slug] = write_undeclared(ctx, client, slug)

    def fresh(client: Client) -> tuple[Any, str]:
        setting = read(client)
        outcome = ctx.attempt(partial(write, client, "fresh"))
        ctx.write(client, ADA, "by ada")
        return setting, outcome

    def used(client: Client) -> tuple[Any, str]:
        return read(client), ctx.attempt(partial(write, client, "used"))

    (fresh_setting, fresh_write), (used_setting, used_write) = relay(ctx, fresh, used)
    ctx.expect("setting on a fresh server connection", fresh_setting, equals=None)
    ctx.expect("setting on a used server connection", used_setting, equals="")
    if not ctx.target.actor.required:
        ctx.expect("write on a fresh server connection", fresh_write, equals="done")
        ctx.expect("write on a used server connection", used_write, equals="done")
    actors = [undeclared_actor(ctx, slug, refused.get(slug, "")) for slug in ("fresh", "used")]
    ctx.expect("actors", actors, equals=[nobody(ctx)] * 2)


@breaks(residue, at="write on a used server connection")
def residue_is_read_as_json(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        ("nullif(current_setting('threadline.actor_ref', true), '')", "current_setting('threadline.actor_ref', true)")
    )


@check(
    "actor.rollback-to-savepoint",
    claim="after ROLLBACK TO SAVEPOINT the actor is the one set before the savepoint",
    section=_HERE,
    severity=P0,
    item="2.1",
    area=ACTOR_SETTING,
    needs=(TRANSACTION_BLOCKS,),
    records=ATTRIBUTED,
)
def rollback_to_savepoint(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run("SAVEPOINT s")
        # a trail may refuse a second actor; the error is undone, too
        ctx.fact("declaring another actor in the savepoint", ctx.attempt(partial(ctx.application.declare, client, BOB)))
        client.run(ctx.application.undo_to.format("s"))
        ctx.insert_post(client, "outer")
    ctx.expect("actor", ctx.actor_of("outer"), equals=ADA.reference)


@breaks(rollback_to_savepoint, at="actor")
def savepoint_that_is_released_instead(ctx: CheckContext) -> None:
    ctx.application.undo_to = "RELEASE SAVEPOINT {}"


@check(
    "actor.first-write-in-savepoint",
    claim="a first write that is rolled back to a savepoint does not decide the transaction's actor",
    section=_HERE,
    severity=P0,
    item="2.1",
    area=ACTOR_SETTING,
    needs=(TRANSACTION_BLOCKS,),
    records=ATTRIBUTED,
)
def first_write_in_savepoint(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, None):
        client.run("SAVEPOINT s")
        ctx.application.declare(client, BOB)
        ctx.insert_post(client, "undone")
        client.run(ctx.application.undo_to.format("s"))
        ctx.application.declare(client, ADA)
        ctx.insert_post(client, "kept")
    ctx.expect("changes", len(ctx.changes()), equals=1)
    ctx.expect("actor", ctx.actor_of("kept"), equals=ADA.reference)


@breaks(first_write_in_savepoint, at="actor")
def first_write_is_kept(ctx: CheckContext) -> None:
    ctx.application.undo_to = "RELEASE SAVEPOINT {}"


@check(
    "actor.isolation-levels",
    claim="two transactions at the same time are attributed in every isolation level, and do not conflict on the trail",
    section=_HERE,
    severity=P0,
    item="2.1",
    area="transaction record",
    needs=(TRANSACTION_BLOCKS, SEVERAL_SERVER_CONNECTIONS),
    records=ATTRIBUTED,
)
def isolation_levels(ctx: CheckContext) -> None:
    for level in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"):
        pair, slug = list(zip(ctx.clients(2), (ADA, BOB), strict=True)), level.lower().replace(" ", "-")
        outcomes = []
        for n in range(_OVERLAPS):
            with ExitStack() as stack:
                for client, actor in pair:
                    stack.enter_context(ctx.audited(client, actor, first=f"SET TRANSACTION ISOLATION LEVEL {level}"))
                for client, actor in pair:
                    ctx.insert_post(client, f"{slug}-{actor.id}-{n}")
                outcomes.append(ctx.attempt(stack.close))
        ctx.expect(f"{level}: concurrent disjoint writes", Counter(outcomes), equals=Counter({"done": _OVERLAPS}))
        for actor in (ADA, BOB):
            actors = [ctx.actor_of(f"{slug}-{actor.id}-{n}") for n in range(_OVERLAPS)]
            ctx.expect(f"{level}: actors of {actor.id}", actors, equals=[actor.reference] * _OVERLAPS)


@breaks(isolation_levels, at="SERIALIZABLE: concurrent disjoint writes")
def isolation_levels_with_a_trail_that_reads_itself(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("IF FOUND THEN", "PERFORM count(*) FROM public.audit_transactions; IF true THEN"))


# --- prepared statements and pipelines ---------------------------------------------------------------------


@check(
    "actor.prepared",
    claim="the actor of a client that prepares its statements on the server is its own",
    section=_HERE,
    severity=P0,
    item="2.1",
    area="prepare policy",
    needs=(TRANSACTION_BLOCKS, NAMED_STATEMENTS),
    records=ATTRIBUTED,
)
def prepared(ctx: CheckContext) -> None:
    pair = [ctx.client(always_prepare=True) for _ in range(2)]
    for n in range(8):
        for client, actor in zip(pair, (ADA, BOB), strict=True):
            ctx.write(client, actor, f"{actor.id}-{n}")
    # a declaration of several statements cannot be prepared: the write is
    part = "%set_config%" if ctx.target.actor.names else "%INSERT%"
    prepared_on_server = pair[0].value("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE %s", [part])
    if not prepared_on_server:
        raise NotExercisedError("nothing was prepared on the server")
    for actor in (ADA, BOB):
        actors = [ctx.actor_of(f"{actor.id}-{n}") for n in range(8)]
        ctx.expect(f"actors of {actor.id}", actors, equals=[actor.reference] * 8)


@breaks(prepared, at="actors of bob")
def prepared_outside_the_transaction(ctx: CheckContext) -> None:
    declare_outside(ctx)


@check(
    "actor.pipeline",
    claim="an actor set in a pipeline is on the writes that follow in the same transaction",
    section=_HERE,
    severity=P0,
    item="2.1",
    area=ACTOR_SETTING,
    needs=(TRANSACTION_BLOCKS,),
    records=ATTRIBUTED,
)
def pipeline(ctx: CheckContext) -> None:
    if ";" in ctx.target.actor.declare.rstrip("; \n"):
        raise NotApplicableError("the actor is declared by several statements, and a message of a pipeline carries one")
    client = ctx.client()
    for actor in (ADA, BOB):
        with client.pipeline(), ctx.audited(client, actor):
            ctx.insert_post(client, f"{actor.id}-1")
            ctx.insert_post(client, f"{actor.id}-2")
    actors = [ctx.actor_of(f"{actor.id}-{n}") for actor in (ADA, BOB) for n in (1, 2)]
    ctx.expect("actors", actors, equals=[ADA.reference] * 2 + [BOB.reference] * 2)


@breaks(pipeline, at="actors")
def pipeline_that_declares_nothing(ctx: CheckContext) -> None:
    ctx.application.declare = ctx.application.declare_nothing
