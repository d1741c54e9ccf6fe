"""Actor: many clients with different actors on fewer server connections, the heart of STG-01."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from harness.audit.actor import Actor
from harness.checks.record import NotExercisedError
from harness.checks.registry import MOVES, P0, TRANSACTION_BLOCKS, breaks, check
from harness.checks.server_connections import moved, relay
from harness.database import cut
from harness.model import PoolMode, Section
from harness.suites.actors import ADA, BOB
from harness.suites.sabotage import declare_outside, default_actor

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.ACTOR
_CLIENTS, _ROUNDS = 24, 20


# --- many clients on shared server connections -----------------------------------------------------------------


@check(
    "actor.shared-connection",
    claim="two clients that share a server connection keep their actors apart",
    section=_HERE,
    severity=P0,
    item="2.1",
    area="pool mode",
    needs=(TRANSACTION_BLOCKS,),
)
def shared_connection(ctx: CheckContext) -> None:
    def ada(client: Client) -> None:
        ctx.write(client, ADA, "by ada")

    def others(client: Client) -> None:
        ctx.write(client, None, "by nobody")
        ctx.write(client, BOB, "by bob")

    relay(ctx, ada, others)
    ctx.expect("actor on Ada's change", ctx.actor_of("by ada"), equals=ADA.reference)
    ctx.expect("actor on a change that declared none", ctx.actor_of("by nobody"), equals=None)
    ctx.expect("actor on Bob's change", ctx.actor_of("by bob"), equals=BOB.reference)


@breaks(shared_connection, at="actor on a change that declared none")
def shared_connection_with_a_default(ctx: CheckContext) -> None:
    default_actor(ctx)


@breaks(shared_connection, at="actor on Bob's change")
def shared_connection_declared_outside(ctx: CheckContext) -> None:
    declare_outside(ctx)


@check(
    "actor.moved-connection",
    claim="a client that changes server connections between transactions keeps its actor",
    section=_HERE,
    severity=P0,
    item="2.1",
    area="pool mode",
    needs=(TRANSACTION_BLOCKS, MOVES),
)
def moved_connection(ctx: CheckContext) -> None:
    client = ctx.client()
    ctx.write(client, ADA, "before")
    with moved(ctx, client):
        ctx.write(client, ADA, "after")
        ctx.write(client, None, "by nobody")
    ctx.expect("actor before the move", ctx.actor_of("before"), equals=ADA.reference)
    ctx.expect("actor after the move", ctx.actor_of("after"), equals=ADA.reference)
    ctx.expect("actor on a change that declared none", ctx.actor_of("by nobody"), equals=None)


@breaks(moved_connection, at="actor after the move")
def moved_connection_declared_once(ctx: CheckContext) -> None:
    declared: set[int] = set()

    def once(client: Client, actor: Actor) -> None:
        if id(client) not in declared:
            declared.add(id(client))
            ctx.application.declare_for_the_session(client, actor)

    ctx.application.declare = once


@check(
    "actor.after-error",
    claim="the actor of a failed transaction does not reach the next on that server connection",
    section=_HERE,
    severity=P0,
    item="2.1",
    area="pool mode",
    needs=(TRANSACTION_BLOCKS,),
)
def after_error(ctx: CheckContext) -> None:
    def fail(client: Client) -> str:
        def work() -> None:
            with ctx.audited(client, ADA):
                ctx.insert_post(client, "failed")
                client.value("SELECT 1 / 0")

        return ctx.sqlstate(work)

    failed, _ = relay(ctx, fail, lambda client: ctx.write(client, None, "by nobody"))
    ctx.expect("the failing transaction", failed, equals="22012")
    ctx.expect("changes", [each.data_after["slug"] for each in ctx.changes()], equals=["by nobody"])
    ctx.expect("actor on the next change", ctx.actor_of("by nobody"), equals=None)


@breaks(after_error, at="actor on the next change")
def after_error_with_a_default(ctx: CheckContext) -> None:
    default_actor(ctx)


@check(
    "actor.vanished-client",
    claim="a client that vanishes in its transaction leaves neither a change nor its actor",
    section=_HERE,
    severity=P0,
    item="2.1",
    area="pool mode",
    needs=(TRANSACTION_BLOCKS,),
)
def vanished_client(ctx: CheckContext) -> None:
    client = ctx.client()
    ctx.application.begin(client)
    ctx.application.declare(client, ADA)
    ctx.insert_post(client, "vanished")
    pid = client.server_pid()
    cut(client)  # no Terminate message: the client is just gone
    other = ctx.client()
    ctx.write(other, None, "by nobody")
    ctx.fact("server connections", {"of the vanished client": pid, "of the next": other.server_pid()})
    ctx.expect("changes", sorted(each.data_after["slug"] for each in ctx.changes()), equals=["by nobody"])
    ctx.expect("actor on the next change", ctx.actor_of("by nobody"), equals=None)


@breaks(vanished_client, at="changes")
def vanished_client_without_a_transaction(ctx: CheckContext) -> None:
    ctx.application.begin = ctx.application.begin_nothing


@check(
    "actor.many-clients",
    claim="hundreds of writes by many clients on fewer server connections are each attributed to their own actor",
    section=_HERE,
    severity=P0,
    item="2.1",
    area="pool mode",
    needs=(TRANSACTION_BLOCKS,),
)
def many_clients(ctx: CheckContext) -> None:
    """24 clients, 20 transactions each, every one with an actor of its own; one in ten declares none."""

    def one_client(number: int) -> list[tuple[str, int, bool]]:
        seen = []
        with ctx.client() as client:
            for n in range(_ROUNDS):
                slug = f"{number}-{n}"
                actor = None if n % 10 == 9 else Actor("user", slug)
                keep = n % 10 != 4
                with ctx.audited(client, actor):
                    ctx.insert_post(client, slug)
                    pid = client.server_pid()
                    if not keep:
                        client.run("DELETE FROM public.posts WHERE slug = %s", [slug])
                seen.append((slug, pid, keep))
        return seen

    with ThreadPoolExecutor(_CLIENTS) as pool:
        seen = [each for client in pool.map(one_client, range(_CLIENTS)) for each in client]
    pids = Counter(pid for _, pid, _ in seen)
    clients_by_pid = {pid: {slug.partition("-")[0] for slug, at, _ in seen if at == pid} for pid in pids}
    shared = sum(len(each) > 1 for each in clients_by_pid.values())
    ctx.fact("clients", _CLIENTS)
    ctx.fact("transactions", len(seen))
    ctx.fact(
        "server connections",
        {
            str(pid): f"{count} transactions of {len(clients_by_pid[pid])} clients"
            for pid, count in sorted(pids.items())
        },
    )
    if ctx.topology.pooler and not shared:
        raise NotExercisedError("no two clients shared a server connection")
    if ctx.topology.pooler:
        ctx.expect("fewer server connections than clients", len(pids) < _CLIENTS, equals=True)
    if ctx.topology.pool_mode is PoolMode.TRANSACTION:
        moves = sum(len({pid for slug, pid, _ in seen if slug.startswith(f"{n}-")}) > 1 for n in range(_CLIENTS))
        ctx.fact("clients that changed server connections", moves)

    inserts = [each for each in ctx.changes("posts") if each.op == "insert"]
    captured = Counter(each.data_after["slug"] for each in inserts)
    written = Counter(slug for slug, _, _ in seen)
    none = f"0 of {len(seen)}"
    ctx.expect("writes without an audit row", _some(written - captured, len(seen)), equals=none)
    ctx.expect("audit rows without a write", _some(captured - written, len(seen)), equals=none)
    wrong = Counter(each.data_after["slug"] for each in inserts if each.actor != _own(each.data_after["slug"]))
    ctx.expect("writes attributed to another actor, or to none", _some(wrong, len(seen)), equals=none)
    deleted = [each for each in ctx.changes("posts") if each.op == "delete"]
    ctx.expect("deletes captured", len(deleted), equals=sum(not keep for _, _, keep in seen))
    ctx.expect("audit transactions", len({each.transaction_id for each in inserts}), equals=len(seen))


def _some(slugs: Counter[str], of: int) -> str:
    found = sorted(slugs.elements())
    return f"{len(found)} of {of}" + (f", such as {', '.join(found[:3])}" if found else "")


def _own(slug: str) -> dict[str, str] | None:
    return None if int(slug.rpartition("-")[2]) % 10 == 9 else Actor("user", slug).reference


@breaks(many_clients, at="writes attributed to another actor, or to none")
def many_clients_declare_outside(ctx: CheckContext) -> None:
    declare_outside(ctx)


@breaks(many_clients, at="writes attributed to another actor, or to none")
def many_clients_declare_for_the_session(ctx: CheckContext) -> None:
    ctx.application.declare = ctx.application.declare_for_the_session


@breaks(many_clients, at="writes without an audit row")
def many_clients_lose_one_row(ctx: CheckContext) -> None:
    ctx.sabotage(
        "CREATE RULE one AS ON INSERT TO public.audit_changes WHERE NEW.data_after ->> 'slug' = '3-3' DO INSTEAD NOTHING"
    )


# --- one message: what also works where transaction blocks are refused -------------------------------------------


def _in_one_message(ctx: CheckContext, slug: str) -> dict[str, str]:
    """Return the ways to set an actor and write in a single message; each is a transaction by itself."""
    local = str(ctx.target.actor.scope == "transaction").lower()
    declare = f"set_config('{ctx.application.setting}', '{ctx.target.actor.spell(ADA)}', {local})"
    insert = f"INSERT INTO public.posts (slug, title) VALUES ('{slug}', 'a title')"
    return {
        "a transaction block": f"BEGIN; SELECT {declare}; {insert}; COMMIT",
        "several statements": f"SELECT {declare}; {insert}",
        "a materialized CTE": f"WITH actor AS MATERIALIZED (SELECT {declare}) "
        f"INSERT INTO public.posts (slug, title) SELECT '{slug}', 'a title' FROM actor",
        "a DO block": f"DO $do$ BEGIN PERFORM {declare}; {insert}; END $do$",
    }


@check(
    "actor.single-message",
    claim="an audited write that travels in one message has its actor, in every pool mode, and leaves it to nobody",
    section=_HERE,
    severity=P0,
    item="2.1",
    area="pool mode",
)
def single_message(ctx: CheckContext) -> None:
    ways = list(_in_one_message(ctx, ""))

    def ada(client: Client) -> None:
        for number, way in enumerate(ways):
            client.run(_in_one_message(ctx, f"ada {number}")[way])

    relay(ctx, ada, lambda other: ctx.insert_post(other, "by nobody"))
    found = {way: ctx.actor_of(f"ada {number}") for number, way in enumerate(ways)}
    ctx.expect("actors of the writes", found, equals=dict.fromkeys(ways, ADA.reference))
    ctx.expect("actor on a change that declared none", ctx.actor_of("by nobody"), equals=None)


@breaks(single_message, at="actors of the writes")
def single_message_sets_something_else(ctx: CheckContext) -> None:
    ctx.application.setting = "app.somebody"


@breaks(single_message, at="actor on a change that declared none")
def single_message_with_a_default(ctx: CheckContext) -> None:
    default_actor(ctx)
