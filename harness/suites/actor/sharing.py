"""Actor: many clients with different actors on fewer server connections, the core of STG-01."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from harness.audit.actor import Actor
from harness.audit.target_file import Recorded
from harness.checks.record import NotExercisedError
from harness.checks.registry import MOVES, P0, TRANSACTION_BLOCKS, breaks, check
from harness.checks.server_connections import moved, relay
from harness.database import cut
from harness.model import PoolMode, Section
from harness.suites.actors import ADA, BOB
from harness.suites.sabotage import declare_outside, default_actor
from harness.suites.undeclared import (
    UNDECLARED,
    UNDECLARED_ROWS,
    nobody,
    refusal_of,
    undeclared_actor,
    write_undeclared,
)

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.ACTOR
_CLIENTS, _ROUNDS = 24, 20
#: the expectation about a write without an actor
UNDECLARED_ACTOR = "actor on a change that declared none"


# --- many clients on shared server connections -----------------------------------------------------------------


@check(
    "actor.shared-connection",
    claim="two clients that share a server connection keep separate actors",
    section=_HERE,
    severity=P0,
    item="2.1",
    area="pool mode",
    needs=(TRANSACTION_BLOCKS,),
    records=UNDECLARED,
)
def shared_connection(ctx: CheckContext) -> None:
    def ada(client: Client) -> None:
        ctx.write(client, ADA, "by ada")

    def others(client: Client) -> str:
        refused = write_undeclared(ctx, client, "by nobody")
        ctx.write(client, BOB, "by bob")
        return refused

    _, refused = relay(ctx, ada, others)
    ctx.expect("actor on Ada's change", ctx.actor_of("by ada"), equals=ADA.reference)
    ctx.expect(UNDECLARED_ACTOR, undeclared_actor(ctx, "by nobody", refused), equals=nobody(ctx))
    ctx.expect("actor on Bob's change", ctx.actor_of("by bob"), equals=BOB.reference)


@breaks(shared_connection, at=UNDECLARED_ACTOR)
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
    records=UNDECLARED,
)
def moved_connection(ctx: CheckContext) -> None:
    client = ctx.client()
    ctx.write(client, ADA, "before")
    with moved(ctx, client):
        ctx.write(client, ADA, "after")
        refused = write_undeclared(ctx, client, "by nobody")
    ctx.expect("actor before the move", ctx.actor_of("before"), equals=ADA.reference)
    ctx.expect("actor after the move", ctx.actor_of("after"), equals=ADA.reference)
    ctx.expect(UNDECLARED_ACTOR, undeclared_actor(ctx, "by nobody", refused), equals=nobody(ctx))


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
    claim="the actor of a failed transaction does not reach the next transaction on the same server connection",
    section=_HERE,
    severity=P0,
    item="2.1",
    area="pool mode",
    needs=(TRANSACTION_BLOCKS,),
    records=UNDECLARED,
)
def after_error(ctx: CheckContext) -> None:
    def fail(client: Client) -> str:
        def failing_work() -> None:
            with ctx.audited(client, ADA):
                ctx.insert_post(client, "failed")
                client.value("SELECT 1 / 0")

        return ctx.sqlstate(failing_work)

    failed, refused = relay(ctx, fail, lambda client: write_undeclared(ctx, client, "by nobody"))
    ctx.expect("the failing transaction", failed, equals="22012")
    ctx.expect("changes", len(ctx.changes()), equals=0 if ctx.target.actor.required else 1)
    ctx.expect("actor on the next change", undeclared_actor(ctx, "by nobody", refused), equals=nobody(ctx))


@breaks(after_error, at="actor on the next change")
def after_error_with_a_default(ctx: CheckContext) -> None:
    default_actor(ctx)


@check(
    "actor.vanished-client",
    claim="a client that disconnects within its transaction leaves neither a change nor its actor",
    section=_HERE,
    severity=P0,
    item="2.1",
    area="pool mode",
    needs=(TRANSACTION_BLOCKS,),
    records=UNDECLARED,
)
def vanished_client(ctx: CheckContext) -> None:
    client = ctx.client()
    ctx.application.begin_audited(client, ADA)
    ctx.insert_post(client, "vanished")
    pid = client.server_pid()
    cut(client)  # the socket closes without a Terminate message
    other = ctx.client()
    refused = write_undeclared(ctx, other, "by nobody")
    ctx.fact("server connections", {"of the vanished client": pid, "of the next": other.server_pid()})
    ctx.expect("changes", len(ctx.changes()), equals=0 if ctx.target.actor.required else 1)
    ctx.expect("actor on the next change", undeclared_actor(ctx, "by nobody", refused), equals=nobody(ctx))


@breaks(vanished_client, at="changes")
def vanished_client_without_a_transaction(ctx: CheckContext) -> None:
    ctx.application.begin = ctx.application.begin_nothing


@check(
    "actor.many-clients",
    claim="each of hundreds of writes by many clients on fewer server connections is attributed to its own actor",
    section=_HERE,
    severity=P0,
    item="2.1",
    area="pool mode",
    needs=(TRANSACTION_BLOCKS,),
    records=UNDECLARED_ROWS,
)
def many_clients(ctx: CheckContext) -> None:
    """Run 24 clients with 20 transactions each, one actor per transaction; one transaction in ten declares none."""

    def run_client(number: int) -> list[tuple[str, int, bool]]:
        writes: list[tuple[str, int, bool]] = []
        with ctx.client() as client:
            for n in range(_ROUNDS):
                slug = f"{number}-{n}"
                actor = None if n % 10 == 9 else Actor("user", slug)
                keep = n % 10 != 4
                if actor is None and ctx.target.actor.required:
                    if not write_undeclared(ctx, client, slug):
                        writes.append((slug, client.server_pid(), keep))
                    continue
                with ctx.audited(client, actor):
                    ctx.insert_post(client, slug)
                    pid = client.server_pid()
                    if not keep:
                        client.run("DELETE FROM public.posts WHERE slug = %s", [slug])
                writes.append((slug, pid, keep))
        return writes

    with ThreadPoolExecutor(_CLIENTS) as pool:
        writes = [write for of_client in pool.map(run_client, range(_CLIENTS)) for write in of_client]
    pids = Counter(pid for _, pid, _ in writes)
    clients_by_pid = {pid: {slug.partition("-")[0] for slug, at, _ in writes if at == pid} for pid in pids}
    shared = sum(len(clients) > 1 for clients in clients_by_pid.values())
    ctx.fact("clients", _CLIENTS)
    ctx.fact("transactions", len(writes))
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
        moves = sum(len({pid for slug, pid, _ in writes if slug.startswith(f"{n}-")}) > 1 for n in range(_CLIENTS))
        ctx.fact("clients that changed server connections", moves)

    changes = ctx.changes("posts")
    inserts = [change for change in changes if change.op == "insert"]
    captured = Counter(change.text("slug") for change in inserts)
    written = Counter(slug for slug, _, _ in writes)
    none = f"0 of {len(writes)}"
    if ctx.target.actor.required:
        _expect_refusals(ctx, written)
    ctx.expect("writes without an audit row", _some(written - captured, len(writes)), equals=none)
    ctx.expect("audit rows without a write", _some(captured - written, len(writes)), equals=none)
    wrong = Counter(
        slug
        for slug, actor in ((change.text("slug"), change.actor) for change in inserts)
        if slug in written and actor != _expected_actor(slug)
    )
    ctx.expect("writes attributed to another actor, or to none", _some(wrong, len(writes)), equals=none)
    if ctx.records(Recorded.DELETES):
        deleted = [change for change in changes if change.op == "delete"]
        ctx.expect("deletes captured", len(deleted), equals=sum(not keep for _, _, keep in writes))
    if ctx.records(Recorded.TRANSACTION_ID):
        ctx.expect("audit transactions", len({change.transaction_id for change in inserts}), equals=len(writes))


def _expect_refusals(ctx: CheckContext, written: Counter[str]) -> None:
    undeclared = _CLIENTS * _ROUNDS // 10
    not_refused = Counter(slug for slug in written if _expected_actor(slug) is None)
    observed = _some(not_refused, undeclared)
    ctx.expect("writes without an actor that are not refused", observed, equals=f"0 of {undeclared}")


def _some(slugs: Counter[str], total: int) -> str:
    """Return how many slugs there are, with three examples."""
    examples = sorted(slugs.elements())
    return f"{len(examples)} of {total}" + (f", such as {', '.join(examples[:3])}" if examples else "")


def _expected_actor(slug: str) -> dict[str, str] | None:
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


# --- one message: also works in pool modes without transaction blocks --------------------------------------------


def _insert(slug: str) -> str:
    return f"INSERT INTO public.posts (slug, title) VALUES ('{slug}', 'a title')"


def _single_messages(ctx: CheckContext, slug: str) -> dict[str, str]:
    """Return the messages that declare an actor and write, by name; each message is a transaction of its own."""
    declare = ctx.application.declaration(ADA).rstrip("; \n")
    insert = _insert(slug)
    messages = {
        "a transaction block": f"BEGIN; {declare}; {insert}; COMMIT",
        "several statements": f"{declare}; {insert}",
    }
    if ctx.target.actor.names:  # the declaration is then one SELECT
        messages |= {
            "a materialized CTE": f"WITH actor AS MATERIALIZED ({declare}) "
            f"INSERT INTO public.posts (slug, title) SELECT '{slug}', 'a title' FROM actor",
            "a DO block": f"DO $do$ BEGIN {declare.replace('SELECT', 'PERFORM', 1)}; {insert}; END $do$",
        }
    return messages


@check(
    "actor.single-message",
    claim="an audited write that is sent as a single message has its actor, and a later write of another client does not",
    section=_HERE,
    severity=P0,
    item="2.1",
    area="pool mode",
    records=UNDECLARED_ROWS,
)
def single_message(ctx: CheckContext) -> None:
    names = list(_single_messages(ctx, ""))

    def ada(client: Client) -> None:
        for number, name in enumerate(names):
            client.run(_single_messages(ctx, f"ada {number}")[name])

    def undeclared(client: Client) -> str:  # one message, too: with parameters it would be several
        return refusal_of(ctx, partial(client.run, _insert("by nobody")))

    _, refused = relay(ctx, ada, undeclared)
    actors = {name: ctx.actor_of(f"ada {number}") for number, name in enumerate(names)}
    ctx.expect("actors of the writes", actors, equals=dict.fromkeys(names, ADA.reference))
    ctx.expect(UNDECLARED_ACTOR, undeclared_actor(ctx, "by nobody", refused), equals=nobody(ctx))


@breaks(single_message, at="actors of the writes")
def single_message_sets_something_else(ctx: CheckContext) -> None:
    ctx.application.setting = "app.somebody"


@breaks(single_message, at=UNDECLARED_ACTOR)
def single_message_with_a_default(ctx: CheckContext) -> None:
    default_actor(ctx)
