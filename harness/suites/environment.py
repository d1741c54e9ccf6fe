"""Environment: checks that are safe in an operator's environment: reads, and writes to a canary table.

The same checks run against every topology that the harness starts, where `prove` runs their controls.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

from harness.audit.actor import Actor
from harness.audit.target_file import Recorded, TrailFeature
from harness.checks.record import NotApplicableError, NotExercisedError
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, Safety, breaks, check
from harness.database import SqlError, describe, load_queries, quote_literal, quote_name, roll_back
from harness.errors import TimedOutError
from harness.model import EndedBy, Section
from harness.suites.actors import ATTRIBUTED_ROWS
from harness.suites.sabotage import default_actor
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.audit.target import Change
    from harness.checks.context import CheckContext
    from harness.checks.environment_workspace import EnvironmentContext
    from harness.database import Client
    from harness.host.canary import Canary

_QUERIES = load_queries(Path(__file__).with_name("environment.sql"))
#: the server version that separated the right to SET ROLE from membership
#: (https://www.postgresql.org/docs/16/release-16.html)
_HAS_SET_RIGHT = 160000
#: the server version that added GRANT SET ON PARAMETER (https://www.postgresql.org/docs/15/release-15.html)
_HAS_PARAMETER_RIGHTS = 150000
_FRESH_CLIENTS = 8
_HELD_S = 0.15
_LATE_S = 5.0
_ROUNDS = 6
_MOST_ROUNDS = 60
_ADA, _BOB = Actor("user", "harness-ada"), Actor("user", "harness-bob")


@check(
    "environment.no-actor-left",
    claim="no new client gets a server connection on which an actor is already set",
    section=Section.ENVIRONMENT,
    severity=P0,
    area="actor setting",
    environment_safety=Safety.READS,
    # paths of the host application leave such actors, and an idle staging has served no request before they run
    last=True,
)
def no_actor_left(ctx: CheckContext | EnvironmentContext) -> None:
    settings = [name for name in ctx.target.actor.names if "." in name]  # every client sets a built-in one
    if not settings:
        raise NotApplicableError("no setting of the application's own holds the actor")
    any_setting = ", ".join("nullif(current_setting(%s, true), '')" for _ in settings)

    def read_actor() -> tuple[int, str | None]:
        # Hold the server connection for a moment, so that the next client gets another one if the pool has more.
        # Not longer, because in session mode the pool may have none left for other clients meanwhile
        with contextlib.closing(ctx.client()) as client:
            pid, actor, _ = client.rows(
                f"SELECT pg_backend_pid(), coalesce({any_setting}), pg_sleep({_HELD_S})", settings
            )[0]
        return pid, actor

    with ThreadPoolExecutor(_FRESH_CLIENTS) as pool:
        reads = [pool.submit(read_actor) for _ in range(_FRESH_CLIENTS)]
        served, waiting = wait(reads, timeout=_LATE_S)
        late = f"{len(waiting)} of {_FRESH_CLIENTS} clients got no server connection in {_LATE_S:g} s"
        try:
            actors = [read.result() for read in served]
            ctx.fact("server connections used", sorted({pid for pid, _ in actors}))
            if actors:
                named = sorted({pid for pid, actor in actors if actor})
                ctx.expect("server connections that name an actor", named, equals=[])
        finally:
            if waiting:
                ctx.cut(EndedBy.TIME_LIMIT, late)
    if waiting:
        raise NotExercisedError(late)


@breaks(no_actor_left, at="server connections that name an actor")
def every_connection_begins_with_one(ctx: CheckContext) -> None:
    default_actor(ctx)


@check(
    "environment.trail-closed",
    claim="neither the application's role nor a role that it can become may change, delete or truncate the trail",
    section=Section.ENVIRONMENT,
    severity=P0,
    area="rights on the trail",
    environment_safety=Safety.READS,
)
def trail_closed(ctx: CheckContext | EnvironmentContext) -> None:
    client = ctx.client()
    rights: dict[str, list[str]] = {}
    insertable = []
    if not ctx.target.tables:
        raise NotExercisedError("the query for the tables of the trail finds none; check `statements.tables`")
    for table in ctx.target.tables:
        oid = client.value(_QUERIES["table"], [table])
        if oid is None:
            raise NotExercisedError(f"table {table} is missing; check audit_target")
        for right, how in client.rows(_QUERIES["rights"], [_set_role_right(client), oid]):
            if right == "INSERT":
                insertable.append(table + how)
            else:
                rights.setdefault(table + how, []).append(right)
    ctx.fact("tables that the role may insert into", insertable)
    found = "; ".join(f"{', '.join(names)} on {where}" for where, names in rights.items())
    ctx.expect("rights on the trail's tables", found or "none", equals="none")


def _set_role_right(client: Client) -> str:
    """Return the name that pg_has_role uses for the right to SET ROLE on this version of the server."""
    return "SET" if client.info.server_version >= _HAS_SET_RIGHT else "MEMBER"


@breaks(trail_closed, at="rights on the trail's tables")
def the_role_may_delete(ctx: CheckContext) -> None:
    ctx.sabotage(f"GRANT DELETE ON {ctx.target.tables[0]} TO harness_app")


@breaks(trail_closed, at="rights on the trail's tables")
def a_view_on_a_view_lets_it_delete(ctx: CheckContext) -> None:
    ctx.sabotage(f"CREATE VIEW public.harness_way_in AS SELECT * FROM {ctx.target.tables[0]}")
    ctx.sabotage("CREATE VIEW public.harness_way_on AS SELECT * FROM public.harness_way_in")
    ctx.sabotage("GRANT DELETE ON public.harness_way_on TO harness_app")


@breaks(trail_closed, at="rights on the trail's tables")
def a_part_lets_it_delete(ctx: CheckContext) -> None:
    ctx.sabotage(f"CREATE TABLE public.harness_part () INHERITS ({ctx.target.tables[0]})")
    ctx.sabotage("GRANT DELETE ON public.harness_part TO harness_app")


@breaks(trail_closed, at="rights on the trail's tables")
def the_role_owns_the_schema(ctx: CheckContext) -> None:
    ctx.sabotage(f"ALTER SCHEMA {ctx.target.tables[0].partition('.')[0]} OWNER TO harness_app")


@check(
    "environment.tables-captured",
    claim="every table that the operator names as audited is captured",
    section=Section.ENVIRONMENT,
    severity=P0,
    area="capture trigger",
    requires_features=(TrailFeature.COVERAGE,),
    environment_safety=Safety.READS,
)
def tables_captured(ctx: CheckContext | EnvironmentContext) -> None:
    if not ctx.audited_tables:
        raise NotExercisedError("missing audited_tables: the operator declared no table that must be captured")
    coverage = ctx.target.coverage(ctx.trail_reader())
    problems = {table: coverage[table] for table in ctx.audited_tables if coverage[table] is not None}
    ctx.fact("tables", list(ctx.audited_tables))
    ctx.expect("tables that are not captured", problems, equals={})
    if ways := _ways_past_capture(ctx.client(), ctx.audited_tables):
        ctx.documented_limit(
            f"the application's role can bypass capture: it {', and '.join(ways)}",
            "https://www.postgresql.org/docs/current/sql-altertable.html",
        )


def _ways_past_capture(client: Client, tables: Iterable[str]) -> list[str]:
    """Return the rights by which the role can disable triggers. A superuser has all of them."""
    right = _set_role_right(client)
    ways = []
    for table in tables:
        with contextlib.suppress(SqlError):  # a role without a right on the schema cannot disable triggers there
            if client.value(
                "SELECT pg_has_role(current_user, relowner, %s) FROM pg_catalog.pg_class WHERE oid = to_regclass(%s)",
                [right, quote_name(table)],
            ):
                ways.append(f"owns {table}")
    if client.info.server_version >= _HAS_PARAMETER_RIGHTS and client.value(
        "SELECT has_parameter_privilege(current_user, 'session_replication_role', 'SET')"
    ):
        ways.append("may set session_replication_role")
    return ways


@breaks(tables_captured, at="tables that are not captured")
def capture_is_switched_off(ctx: CheckContext) -> None:
    ctx.disable_capture("public.posts")


@check(
    "environment.canary-attributed",
    claim="writes of two clients in turn, over one server connection if the pool shares them, keep their own actors",
    section=Section.ENVIRONMENT,
    severity=P0,
    area="actor setting",
    needs=(TRANSACTION_BLOCKS,),
    records=ATTRIBUTED_ROWS,
    environment_safety=Safety.WRITES,
)
def canary_attributed(ctx: CheckContext | EnvironmentContext) -> None:
    with ctx.canary() as canary:
        prefix = canary.begin()
        clients = {_ADA: ctx.client(), _BOB: ctx.client()}
        canary.require_clearable(clients[_ADA])
        shared = ""
        used: dict[Actor, set[int]] = {_ADA: set(), _BOB: set()}
        rounds = 0
        try:
            while rounds < _ROUNDS or (ctx.sharing_mode and not shared and rounds < _MOST_ROUNDS):
                for actor, client in clients.items():
                    used[actor].add(_write(ctx, canary, client, actor, f"{prefix}-{actor.id}-{rounds}"))
                rounds += 1
                if both := used[_ADA] & used[_BOB]:
                    shared = str(min(both))
            changes = _wait_for_changes(ctx, canary, prefix, 2 * rounds)
        finally:
            _clear(ctx, canary, prefix)
        if shared:
            ctx.probed("both clients wrote over it in turn", int(shared), int(shared))
        ctx.fact("server connections", {actor.id or "": sorted(pids) for actor, pids in used.items()})
        ctx.expect("writes found in the trail", len(changes), equals=2 * rounds)
        wrong = sum(
            not _is_by(change, _ADA if "-harness-ada-" in _text(change, canary) else _BOB) for change in changes
        )
        ctx.expect("writes that name another actor, or none", wrong, equals=0)
        if ctx.records(Recorded.TRANSACTION_ID):
            ctx.expect("transactions", len({change.transaction_id for change in changes}), equals=2 * rounds)
        if ctx.sharing_mode and not shared:
            raise NotExercisedError(f"the two clients did not share a server connection in {rounds} rounds")


@breaks(canary_attributed, at="writes that name another actor, or none")
def the_actor_is_lost(ctx: CheckContext) -> None:
    ctx.application.declare = ctx.application.declare_nothing


@breaks(canary_attributed, at="writes found in the trail")
def nothing_is_captured(ctx: CheckContext) -> None:
    ctx.canary_captured = False


@check(
    "environment.canary-rolled-back",
    claim="a write that is rolled back leaves nothing in the trail",
    section=Section.ENVIRONMENT,
    severity=P1,
    area="capture trigger",
    needs=(TRANSACTION_BLOCKS,),
    records=(Recorded.INSERTS, Recorded.IMAGE),
    environment_safety=Safety.WRITES,
)
def canary_rolled_back(ctx: CheckContext | EnvironmentContext) -> None:
    with ctx.canary() as canary:
        prefix = canary.begin()
        client = ctx.client()
        canary.require_clearable(client)
        try:
            with client.transaction():
                _declare(ctx, client, _ADA)
                canary.insert(client, f"{prefix}-gone")
                if not ctx.sabotaged:
                    roll_back()
            # written later: once this change is in the trail, one of the rolled back write would be there, too
            _write(ctx, canary, client, _ADA, f"{prefix}-kept")
            committed = len(_wait_for_changes(ctx, canary, f"{prefix}-kept", 1))
            rolled_back = len(_changes(ctx, canary, f"{prefix}-gone"))
        finally:
            _clear(ctx, canary, prefix)
    ctx.expect("changes of the rolled back write", rolled_back, equals=0)
    ctx.expect("changes of the committed write", committed, equals=1)


@breaks(canary_rolled_back, at="changes of the rolled back write")
def it_is_committed(ctx: CheckContext) -> None:
    ctx.sabotaged = True


def _declare(ctx: CheckContext | EnvironmentContext, client: Client, actor: Actor) -> None:
    """Set the actor for the transaction only, whatever the target requires, so that no server connection keeps it."""
    application = getattr(ctx, "application", None)
    if application and application.convention.is_local:  # a control may have changed its habits
        application.declare(client, actor)
    elif declaration := ctx.target.actor.declaration(actor, local=True):
        client.run(declaration)


def _clear(ctx: CheckContext | EnvironmentContext, canary: Canary, prefix: str) -> None:
    """Delete the rows of this check on a new connection, as an actor so that the trail can attribute the deletion."""
    try:
        client = ctx.client()
        with client.transaction():
            _declare(ctx, client, _ADA)
            canary.clear(client, prefix)
        canary.cleared(prefix)
    except SqlError as error:
        ctx.left_behind(f"rows in {canary.table} that start with {prefix}: {describe(error)}")


def _write(ctx: CheckContext | EnvironmentContext, canary: Canary, client: Client, actor: Actor, text: str) -> int:
    with client.transaction():
        _declare(ctx, client, actor)
        canary.insert(client, text)
        return client.server_pid()


def _changes(ctx: CheckContext | EnvironmentContext, canary: Canary, prefix: str) -> list[Change]:
    """Return the inserts into the canary table whose text starts with a prefix."""
    schema, table = canary.parts
    reader = ctx.trail_reader()
    with reader.transaction():
        reader.run("SET LOCAL statement_timeout = '20s'")
        return ctx.target.changes_where(
            reader,
            f"change.table_schema = {quote_literal(schema)} "
            f"AND change.table_name = {quote_literal(table)} AND change.op::text ILIKE 'insert' "
            f"AND starts_with(change.data_after::jsonb ->> {quote_literal(canary.column)}, {quote_literal(prefix)})",
        )


def _wait_for_changes(ctx: CheckContext | EnvironmentContext, canary: Canary, prefix: str, wanted: int) -> list[Change]:
    """Wait until the trail has as many inserts as were written, and return those that it has at the deadline.

    The wait is needed where the trail is read from a standby or written asynchronously.
    """

    def all_changes() -> list[Change]:
        found = _changes(ctx, canary, prefix)
        if len(found) < wanted:
            raise NotYet(f"{len(found)} of {wanted} changes")
        return found

    try:
        return poll(all_changes, what="the changes in the trail", deadline_s=_LATE_S, interval_s=0.05)
    except TimedOutError:
        return _changes(ctx, canary, prefix)


def _text(change: Change, canary: Canary) -> str:
    return str((change.data_after or {}).get(canary.column, ""))


def _is_by(change: Change, actor: Actor) -> bool:
    found = change.actor if isinstance(change.actor, dict) else {}
    return found.get("id") == actor.id
