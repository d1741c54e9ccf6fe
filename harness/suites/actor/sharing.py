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
from harness.suites.habits import ADA, BOB, declare_outside, default_actor

if TYPE_CHECKING:
    from harness.checks.context import Bench
    from harness.database import Client

_HERE = Section.ACTOR
_CLIENTS, _ROUNDS = 24, 20


# --- many clients on shared server connections -----------------------------------------------------------------


@check(
    "actor.shared-connection",
    claim="two clients that share a server connection keep their actors apart",
    section=_HERE,
    severity=P0,
    area="pool mode",
    needs=(TRANSACTION_BLOCKS,),
)
def shared_connection(bench: Bench) -> None:
    def ada(client: Client) -> None:
        bench.write(client, ADA, "by ada")

    def others(client: Client) -> None:
        bench.write(client, None, "by nobody")
        bench.write(client, BOB, "by bob")

    relay(bench, ada, others)
    bench.expect("actor on Ada's change", bench.actor_of("by ada"), equals=ADA.reference)
    bench.expect("actor on a change that declared none", bench.actor_of("by nobody"), equals=None)
    bench.expect("actor on Bob's change", bench.actor_of("by bob"), equals=BOB.reference)


@breaks(shared_connection, at="actor on a change that declared none")
def shared_connection_with_a_default(bench: Bench) -> None:
    default_actor(bench)


@breaks(shared_connection, at="actor on Bob's change")
def shared_connection_declared_outside(bench: Bench) -> None:
    declare_outside(bench)


@check(
    "actor.moved-connection",
    claim="a client that changes server connections between transactions keeps its actor",
    section=_HERE,
    severity=P0,
    area="pool mode",
    needs=(TRANSACTION_BLOCKS, MOVES),
)
def moved_connection(bench: Bench) -> None:
    client = bench.client()
    bench.write(client, ADA, "before")
    with moved(bench, client):
        bench.write(client, ADA, "after")
        bench.write(client, None, "by nobody")
    bench.expect("actor before the move", bench.actor_of("before"), equals=ADA.reference)
    bench.expect("actor after the move", bench.actor_of("after"), equals=ADA.reference)
    bench.expect("actor on a change that declared none", bench.actor_of("by nobody"), equals=None)


@breaks(moved_connection, at="actor after the move")
def moved_connection_declared_once(bench: Bench) -> None:
    declared: set[int] = set()

    def once(client: Client, actor: Actor) -> None:
        if id(client) not in declared:
            declared.add(id(client))
            bench.application.declare_for_the_session(client, actor)

    bench.application.declare = once


@check(
    "actor.after-error",
    claim="the actor of a failed transaction does not reach the next on that server connection",
    section=_HERE,
    severity=P0,
    area="pool mode",
    needs=(TRANSACTION_BLOCKS,),
)
def after_error(bench: Bench) -> None:
    def fail(client: Client) -> str:
        def work() -> None:
            with bench.audited(client, ADA):
                bench.insert_post(client, "failed")
                client.value("SELECT 1 / 0")

        return bench.sqlstate(work)

    failed, _ = relay(bench, fail, lambda client: bench.write(client, None, "by nobody"))
    bench.expect("the failing transaction", failed, equals="22012")
    bench.expect("changes", [each.data_after["slug"] for each in bench.changes()], equals=["by nobody"])
    bench.expect("actor on the next change", bench.actor_of("by nobody"), equals=None)


@breaks(after_error, at="actor on the next change")
def after_error_with_a_default(bench: Bench) -> None:
    default_actor(bench)


@check(
    "actor.vanished-client",
    claim="a client that vanishes in its transaction leaves neither a change nor its actor",
    section=_HERE,
    severity=P0,
    area="pool mode",
    needs=(TRANSACTION_BLOCKS,),
)
def vanished_client(bench: Bench) -> None:
    client = bench.client()
    bench.application.begin(client)
    bench.application.declare(client, ADA)
    bench.insert_post(client, "vanished")
    pid = client.server_pid()
    cut(client)  # no Terminate message: the client is just gone
    other = bench.client()
    bench.write(other, None, "by nobody")
    bench.fact("server connections", {"of the vanished client": pid, "of the next": other.server_pid()})
    bench.expect("changes", sorted(each.data_after["slug"] for each in bench.changes()), equals=["by nobody"])
    bench.expect("actor on the next change", bench.actor_of("by nobody"), equals=None)


@breaks(vanished_client, at="changes")
def vanished_client_without_a_transaction(bench: Bench) -> None:
    bench.application.begin = bench.application.begin_nothing


@check(
    "actor.many-clients",
    claim="hundreds of writes by many clients on fewer server connections are each attributed to their own actor",
    section=_HERE,
    severity=P0,
    area="pool mode",
    needs=(TRANSACTION_BLOCKS,),
)
def many_clients(bench: Bench) -> None:
    """24 clients, 20 transactions each, every one with an actor of its own; one in ten declares none."""

    def one_client(number: int) -> list[tuple[str, int, bool]]:
        seen = []
        with bench.client() as client:
            for n in range(_ROUNDS):
                slug = f"{number}-{n}"
                actor = None if n % 10 == 9 else Actor("user", slug)
                keep = n % 10 != 4
                with bench.audited(client, actor):
                    bench.insert_post(client, slug)
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
    bench.fact("clients", _CLIENTS)
    bench.fact("transactions", len(seen))
    bench.fact(
        "server connections",
        {
            str(pid): f"{count} transactions of {len(clients_by_pid[pid])} clients"
            for pid, count in sorted(pids.items())
        },
    )
    if bench.topology.pooler and not shared:
        raise NotExercisedError("no two clients shared a server connection")
    if bench.topology.pooler:
        bench.expect("fewer server connections than clients", len(pids) < _CLIENTS, equals=True)
    if bench.topology.pool_mode is PoolMode.TRANSACTION:
        moves = sum(len({pid for slug, pid, _ in seen if slug.startswith(f"{n}-")}) > 1 for n in range(_CLIENTS))
        bench.fact("clients that changed server connections", moves)

    inserts = [each for each in bench.changes("posts") if each.op == "insert"]
    captured = Counter(each.data_after["slug"] for each in inserts)
    written = Counter(slug for slug, _, _ in seen)
    none = f"0 of {len(seen)}"
    bench.expect("writes without an audit row", _some(written - captured, len(seen)), equals=none)
    bench.expect("audit rows without a write", _some(captured - written, len(seen)), equals=none)
    wrong = Counter(each.data_after["slug"] for each in inserts if each.actor != _own(each.data_after["slug"]))
    bench.expect("writes attributed to another actor, or to none", _some(wrong, len(seen)), equals=none)
    deleted = [each for each in bench.changes("posts") if each.op == "delete"]
    bench.expect("deletes captured", len(deleted), equals=sum(not keep for _, _, keep in seen))
    bench.expect("audit transactions", len({each.transaction_id for each in inserts}), equals=len(seen))


def _some(slugs: Counter[str], of: int) -> str:
    found = sorted(slugs.elements())
    return f"{len(found)} of {of}" + (f", such as {', '.join(found[:3])}" if found else "")


def _own(slug: str) -> dict[str, str] | None:
    return None if int(slug.rpartition("-")[2]) % 10 == 9 else Actor("user", slug).reference


@breaks(many_clients, at="writes attributed to another actor, or to none")
def many_clients_declare_outside(bench: Bench) -> None:
    declare_outside(bench)


@breaks(many_clients, at="writes attributed to another actor, or to none")
def many_clients_declare_for_the_session(bench: Bench) -> None:
    bench.application.declare = bench.application.declare_for_the_session


@breaks(many_clients, at="writes without an audit row")
def many_clients_lose_one_row(bench: Bench) -> None:
    bench.sabotage(
        "CREATE RULE one AS ON INSERT TO public.audit_changes WHERE NEW.data_after ->> 'slug' = '3-3' DO INSTEAD NOTHING"
    )


# --- one message: what also works where transaction blocks are refused -------------------------------------------


def _in_one_message(bench: Bench, slug: str) -> dict[str, str]:
    """Return the ways to set an actor and write in a single message; each is a transaction by itself."""
    local = str(bench.target.actor.scope == "transaction").lower()
    declare = f"set_config('{bench.application.setting}', '{bench.target.actor.spell(ADA)}', {local})"
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
    area="pool mode",
)
def single_message(bench: Bench) -> None:
    ways = list(_in_one_message(bench, ""))

    def ada(client: Client) -> None:
        for number, way in enumerate(ways):
            client.run(_in_one_message(bench, f"ada {number}")[way])

    relay(bench, ada, lambda other: bench.insert_post(other, "by nobody"))
    found = {way: bench.actor_of(f"ada {number}") for number, way in enumerate(ways)}
    bench.expect("actors of the writes", found, equals=dict.fromkeys(ways, ADA.reference))
    bench.expect("actor on a change that declared none", bench.actor_of("by nobody"), equals=None)


@breaks(single_message, at="actors of the writes")
def single_message_sets_something_else(bench: Bench) -> None:
    bench.application.setting = "app.somebody"


@breaks(single_message, at="actor on a change that declared none")
def single_message_with_a_default(bench: Bench) -> None:
    default_actor(bench)
