"""What an operator's environment is asked: read-only questions, and writes to a table that is there for it.

The same questions are asked of every topology that the harness stands up, where `prove` breaks what they watch.
"""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from harness.audit.actor import Actor
from harness.audit.target_file import Feature
from harness.checks.findings import NotExercisedError
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, Safety, breaks, check
from harness.database import SqlError, describe, roll_back
from harness.errors import TimedOutError
from harness.model import Section
from harness.suites.habits import default_actor
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from harness.audit.target import Change
    from harness.checks.bench import Bench
    from harness.checks.environment import EnvironmentBench
    from harness.database import Client
    from harness.host.canary import Canary

_FRESH_CLIENTS = 8
_HELD_S = 0.15
_LATE_S = 5.0
_ROUNDS = 6
_MOST_ROUNDS = 60
_ADA, _BOB = Actor("user", "harness-ada"), Actor("user", "harness-bob")


@check(
    "environment.no-actor-left",
    claim="no server connection that a fresh client is given names an actor already",
    section=Section.ENVIRONMENT,
    severity=P0,
    area="actor setting",
    safe=Safety.READS,
)
def no_actor_left(bench: Bench | EnvironmentBench) -> None:
    setting = bench.target.actor.setting
    clients = [bench.client() for _ in range(_FRESH_CLIENTS)]

    def look(client: Client) -> tuple[int, str | None]:
        # held for a moment, so that the next client is given another server connection where there is one
        pid, actor, _ = client.rows(
            f"SELECT pg_backend_pid(), current_setting(%s, true), pg_sleep({_HELD_S})", [setting]
        )[0]
        return pid, actor

    with ThreadPoolExecutor(len(clients)) as pool:
        seen = list(pool.map(look, clients))
    bench.fact("server connections that were given", sorted({pid for pid, _ in seen}))
    bench.expect("server connections that name an actor", sorted({pid for pid, actor in seen if actor}), equals=[])


@breaks(no_actor_left, at="server connections that name an actor")
def every_connection_begins_with_one(bench: Bench) -> None:
    default_actor(bench)


@check(
    "environment.trail-closed",
    claim="the application's role has no right to change, delete or empty what the trail holds",
    section=Section.ENVIRONMENT,
    severity=P0,
    area="rights on the trail",
    safe=Safety.READS,
)
def trail_closed(bench: Bench | EnvironmentBench) -> None:
    client = bench.client()
    may: dict[str, list[str]] = {}
    for table in bench.target.tables:
        if client.value("SELECT to_regclass(%s)", [table]) is None:
            raise NotExercisedError(f"there is no table {table} that the role can see: is audit_target the right one?")
        for right in ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER"):
            # a right on one column is a right
            asked = "has_any_column_privilege" if right in {"INSERT", "UPDATE"} else "has_table_privilege"
            if client.value(f"SELECT {asked}(%s::regclass, %s)", [table, right]):
                may.setdefault(right, []).append(table)
    bench.fact("tables that the role may insert into", may.pop("INSERT", []))
    bench.expect("rights on the trail's tables", may, equals={})


@breaks(trail_closed, at="rights on the trail's tables")
def the_role_may_delete(bench: Bench) -> None:
    bench.sabotage(f"GRANT DELETE ON {bench.target.tables[0]} TO harness_app")


@check(
    "environment.tables-captured",
    claim="every table that the operator names as audited is captured",
    section=Section.ENVIRONMENT,
    severity=P0,
    area="capture trigger",
    claims=(Feature.COVERAGE,),
    safe=Safety.READS,
)
def tables_captured(bench: Bench | EnvironmentBench) -> None:
    if not bench.audited_tables:
        raise NotExercisedError("the operator names no table that must be captured (audited_tables)")
    told = bench.target.coverage(bench.trail_reader())
    problems = {table: told[table] for table in bench.audited_tables if told[table] is not None}
    bench.fact("tables", list(bench.audited_tables))
    bench.expect("tables that are not captured", problems, equals={})


@breaks(tables_captured, at="tables that are not captured")
def capture_is_switched_off(bench: Bench) -> None:
    bench.disable_capture("public.posts")


@check(
    "environment.canary-attributed",
    claim="writes of two clients by turns, over one server connection where they share, keep their own actors",
    section=Section.ENVIRONMENT,
    severity=P0,
    area="actor setting",
    needs=(TRANSACTION_BLOCKS,),
    safe=Safety.WRITES,
)
def canary_attributed(bench: Bench | EnvironmentBench) -> None:
    mine = f"harness-{secrets.token_hex(6)}"
    with bench.canary() as canary:
        clients = {_ADA: bench.client(), _BOB: bench.client()}
        canary.require_clearable(clients[_ADA])
        shared = ""
        used: dict[Actor, set[int]] = {_ADA: set(), _BOB: set()}
        rounds = 0
        try:
            while rounds < _ROUNDS or (bench.sharing_mode and not shared and rounds < _MOST_ROUNDS):
                for actor, client in clients.items():
                    used[actor].add(_write(bench, canary, client, actor, f"{mine}-{actor.id}-{rounds}"))
                rounds += 1
                if both := used[_ADA] & used[_BOB]:
                    shared = str(min(both))
            changes = _when_there(bench, canary, mine, 2 * rounds)
        finally:
            _clear(bench, canary, mine)
        if shared:
            bench.probed("both clients wrote over it by turns", int(shared), int(shared))
        bench.fact("server connections", {each.id or "": sorted(pids) for each, pids in used.items()})
        bench.expect("writes found in the trail", len(changes), equals=2 * rounds)
        wrong = sum(not _names(each, _ADA if "-harness-ada-" in _text(each, canary) else _BOB) for each in changes)
        bench.expect("writes that name another actor, or none", wrong, equals=0)
        bench.expect("transactions", len({each.transaction_id for each in changes}), equals=2 * rounds)
        if bench.sharing_mode and not shared:
            raise NotExercisedError(f"the two clients did not share a server connection in {rounds} rounds")


@breaks(canary_attributed, at="writes that name another actor, or none")
def the_actor_is_lost(bench: Bench) -> None:
    bench.application.declare = bench.application.declare_nothing


@breaks(canary_attributed, at="writes found in the trail")
def nothing_is_captured(bench: Bench) -> None:
    bench.canary_captured = False


@check(
    "environment.canary-rolled-back",
    claim="a write that is rolled back leaves nothing in the trail",
    section=Section.ENVIRONMENT,
    severity=P1,
    area="capture trigger",
    needs=(TRANSACTION_BLOCKS,),
    safe=Safety.WRITES,
)
def canary_rolled_back(bench: Bench | EnvironmentBench) -> None:
    mine = f"harness-{secrets.token_hex(6)}"
    with bench.canary() as canary:
        client = bench.client()
        canary.require_clearable(client)
        try:
            with client.transaction():
                _declare(bench, client, _ADA)
                canary.insert(client, f"{mine}-gone")
                if not bench.otherwise:
                    roll_back()
            # written after it: where this one is in the trail, the other would be, too
            _write(bench, canary, client, _ADA, f"{mine}-kept")
            kept = len(_when_there(bench, canary, f"{mine}-kept", 1))
            found = len(_of(bench, canary, f"{mine}-gone"))
        finally:
            _clear(bench, canary, mine)
    bench.expect("changes of what was rolled back", found, equals=0)
    bench.expect("changes of the same, committed", kept, equals=1)


@breaks(canary_rolled_back, at="changes of what was rolled back")
def it_is_committed(bench: Bench) -> None:
    bench.otherwise = True


def _declare(bench: Bench | EnvironmentBench, client: Client, actor: Actor) -> None:
    """Set the actor for the transaction only, whatever the target asks for: nothing may stay on a server connection."""
    application = getattr(bench, "application", None)
    if application and application.convention.scope == "transaction":  # the habits that a control may have changed
        application.declare(client, actor)
    else:
        convention = bench.target.actor
        client.value("SELECT set_config(%s, %s, true)", [convention.setting, convention.spell(actor)])


def _clear(bench: Bench | EnvironmentBench, canary: Canary, prefix: str) -> None:
    """Delete one's own rows, as somebody whom the trail can name, on a connection that nothing has happened to."""
    try:
        client = bench.client()
        with client.transaction():
            _declare(bench, client, _ADA)
            canary.clear(client, prefix)
    except SqlError as error:
        bench.left_behind(f"rows in {canary.table} that begin with {prefix}: {describe(error)}")


def _write(bench: Bench | EnvironmentBench, canary: Canary, client: Client, actor: Actor, text: str) -> int:
    with client.transaction():
        _declare(bench, client, actor)
        canary.insert(client, text)
        return client.server_pid()


def _of(bench: Bench | EnvironmentBench, canary: Canary, prefix: str) -> list[Change]:
    """Return the inserts of one's own rows, among everybody's."""
    schema, table = canary.parts
    statement = bench.target.statements.changes.strip().rstrip(";")
    reader = bench.trail_reader()
    with reader.transaction():
        reader.run("SET LOCAL statement_timeout = '20s'")
        return bench.target.changes_by(
            reader,
            f"SELECT * FROM ({statement}\n) AS change WHERE change.table_schema = '{schema}' "
            f"AND change.table_name = '{table}' AND change.op ILIKE 'insert' "
            f"AND starts_with(change.data_after::jsonb ->> '{canary.column}', '{prefix}')",
        )


def _when_there(bench: Bench | EnvironmentBench, canary: Canary, prefix: str, wanted: int) -> list[Change]:
    """Wait for as many as were written: a trail may be read from a standby, or be written late."""

    def probe() -> list[Change]:
        found = _of(bench, canary, prefix)
        if len(found) < wanted:
            raise NotYet(f"{len(found)} of them")
        return found

    try:
        return poll(probe, what="the rows in the trail", deadline_s=_LATE_S, interval_s=0.05)
    except TimedOutError:
        return _of(bench, canary, prefix)


def _text(change: Change, canary: Canary) -> str:
    return str((change.data_after or {}).get(canary.column, ""))


def _names(change: Change, actor: Actor) -> bool:
    found = change.actor if isinstance(change.actor, dict) else {}
    return found.get("id") == actor.id
