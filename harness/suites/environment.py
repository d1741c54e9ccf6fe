"""What an operator's environment is asked: read-only questions, and writes to a table that is there for it.

The same questions are asked of every topology that the harness stands up, where `prove` breaks what they watch.
"""

from __future__ import annotations

import contextlib
import secrets
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from harness.audit.actor import Actor
from harness.audit.target_file import TrailFeature
from harness.checks.record import NotExercisedError
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, Safety, breaks, check
from harness.database import SqlError, describe, quote_name, roll_back
from harness.errors import TimedOutError
from harness.model import Section
from harness.suites.sabotage import default_actor
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.audit.target import Change
    from harness.checks.context import CheckContext
    from harness.checks.environment_workspace import EnvironmentBench
    from harness.database import Client
    from harness.host.canary import Canary

# what a role may do to a table and its partitions: itself, as a role that it can become, as the owner of the schema, who
# may drop what is in it, or through a view, or a view on one, that writes with its owner's rights (https://www.postgresql.org/docs/current/rules-privileges.html).
# A right on one column is a right
_RIGHTS = """
WITH RECURSIVE given (become, trail) AS (VALUES (%s, %s::regclass)),
wanted (name, bit) AS (VALUES ('INSERT', 8), ('UPDATE', 4), ('DELETE', 16), ('TRUNCATE', 0), ('TRIGGER', 0)),
me AS (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user),
become AS (SELECT oid, rolname FROM pg_catalog.pg_roles, given WHERE pg_has_role(current_user, oid, given.become)),
trail AS (
    SELECT oid, relnamespace, '' AS part FROM pg_catalog.pg_class, given WHERE oid = given.trail
    UNION
    SELECT inhrelid, child.relnamespace, ' in its part ' || inhrelid::regclass::text
    FROM trail JOIN pg_catalog.pg_inherits ON inhparent = trail.oid JOIN pg_catalog.pg_class AS child ON child.oid = inhrelid
),
own AS (
    SELECT wanted.name, part, become.oid, become.rolname FROM wanted, become, trail
    WHERE CASE WHEN wanted.name IN ('INSERT', 'UPDATE') THEN has_any_column_privilege(become.oid, trail.oid, wanted.name)
               ELSE has_table_privilege(become.oid, trail.oid, wanted.name) END
),
way (name, relation, is_view) AS (
    SELECT name, trail.oid, false FROM wanted, trail WHERE bit > 0
    UNION
    SELECT way.name, view.oid, true
    FROM way JOIN wanted USING (name)
    JOIN pg_catalog.pg_depend ON refclassid = 'pg_class'::regclass AND refobjid = way.relation
    JOIN pg_catalog.pg_rewrite ON classid = 'pg_rewrite'::regclass AND objid = pg_rewrite.oid
    JOIN pg_catalog.pg_class AS view ON view.oid = ev_class AND view.relkind = 'v' AND view.oid <> way.relation
    WHERE pg_relation_is_updatable(view.oid, false) & wanted.bit > 0
      AND has_table_privilege(view.relowner, way.relation, way.name)
      AND NOT coalesce(view.reloptions && '{security_invoker=true,security_invoker=on,security_invoker=1,security_invoker=yes}', false)
)
SELECT name, part || CASE WHEN oid = (SELECT oid FROM me) THEN '' ELSE ' as role ' || quote_ident(rolname) END FROM own
WHERE oid = (SELECT oid FROM me) OR name NOT IN (SELECT name FROM own WHERE oid = (SELECT oid FROM me))
UNION ALL
SELECT 'DROP', part || ' as owner of the schema'
FROM given, trail JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_has_role(current_user, nspowner, 'USAGE') OR pg_has_role(current_user, nspowner, given.become)
UNION ALL
SELECT DISTINCT way.name, ' through the view ' || relation::regclass::text FROM way, become
WHERE is_view AND CASE WHEN way.name = 'DELETE' THEN has_table_privilege(become.oid, relation, 'DELETE')
                       ELSE has_any_column_privilege(become.oid, relation, way.name) END
ORDER BY 1, 2
"""
_SET_IS_A_RIGHT_OF_ITS_OWN = 160000
#: GRANT SET ON PARAMETER (https://www.postgresql.org/docs/15/release-15.html)
_A_SETTING_IS_A_RIGHT = 150000
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
    environment_safety=Safety.READS,
    # the host's own paths are what leaves one, and an idle staging has served nobody before they are taken
    last=True,
)
def no_actor_left(ctx: CheckContext | EnvironmentBench) -> None:
    setting = ctx.target.actor.setting

    def look() -> tuple[int, str | None]:
        # held for a moment, so that the next client is given another server connection where there is one; and no
        # longer, because a pool in session mode has none for others meanwhile
        with contextlib.closing(ctx.client()) as client:
            pid, actor, _ = client.rows(
                f"SELECT pg_backend_pid(), current_setting(%s, true), pg_sleep({_HELD_S})", [setting]
            )[0]
        return pid, actor

    with ThreadPoolExecutor(_FRESH_CLIENTS) as pool:
        looking = [pool.submit(look) for _ in range(_FRESH_CLIENTS)]
        given, waiting = wait(looking, timeout=_LATE_S)
        if waiting:
            ctx.cut()
    seen = [each.result() for each in given]
    ctx.fact("server connections that were given", sorted({pid for pid, _ in seen}))
    if seen:
        ctx.expect("server connections that name an actor", sorted({pid for pid, actor in seen if actor}), equals=[])
    if waiting:
        raise NotExercisedError(f"{len(waiting)} of {_FRESH_CLIENTS} clients got no server connection in {_LATE_S:g} s")


@breaks(no_actor_left, at="server connections that name an actor")
def every_connection_begins_with_one(ctx: CheckContext) -> None:
    default_actor(ctx)


@check(
    "environment.trail-closed",
    claim="the application's role, and each that it can become, has no right to change, delete or empty the trail",
    section=Section.ENVIRONMENT,
    severity=P0,
    area="rights on the trail",
    environment_safety=Safety.READS,
)
def trail_closed(ctx: CheckContext | EnvironmentBench) -> None:
    client = ctx.client()
    may: dict[str, list[str]] = {}
    for table in ctx.target.tables:
        if client.value("SELECT to_regclass(%s)", [table]) is None:
            raise NotExercisedError(f"there is no table {table} that the role can see: is audit_target the right one?")
        for right, how in client.rows(_RIGHTS, [_become(client), table]):
            may.setdefault(right, []).append(table + how)
    ctx.fact("tables that the role may insert into", may.pop("INSERT", []))
    ctx.expect("rights on the trail's tables", may, equals={})


def _become(client: Client) -> str:
    """Return what pg_has_role calls the right to SET ROLE (https://www.postgresql.org/docs/16/release-16.html)."""
    return "SET" if client.info.server_version >= _SET_IS_A_RIGHT_OF_ITS_OWN else "MEMBER"


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
def tables_captured(ctx: CheckContext | EnvironmentBench) -> None:
    if not ctx.audited_tables:
        raise NotExercisedError("the operator names no table that must be captured (audited_tables)")
    told = ctx.target.coverage(ctx.trail_reader())
    problems = {table: told[table] for table in ctx.audited_tables if told[table] is not None}
    ctx.fact("tables", list(ctx.audited_tables))
    ctx.expect("tables that are not captured", problems, equals={})
    if past := _past_capture(ctx.client(), ctx.audited_tables):
        ctx.documented_limit(
            f"the application's role can write past capture: it {', and '.join(past)}",
            "https://www.postgresql.org/docs/current/sql-altertable.html",
        )


def _past_capture(client: Client, tables: Iterable[str]) -> list[str]:
    """Return by which rights the role may switch triggers off. As superuser it may do so and everything else."""
    become = _become(client)
    ways = []
    for table in tables:
        with contextlib.suppress(SqlError):  # who may not use its schema cannot switch its triggers off
            if client.value(
                "SELECT pg_has_role(current_user, relowner, %s) FROM pg_catalog.pg_class WHERE oid = to_regclass(%s)",
                [become, quote_name(table)],
            ):
                ways.append(f"owns {table}")
    if client.info.server_version >= _A_SETTING_IS_A_RIGHT and client.value(
        "SELECT has_parameter_privilege(current_user, 'session_replication_role', 'SET')"
    ):
        ways.append("may set session_replication_role")
    return ways


@breaks(tables_captured, at="tables that are not captured")
def capture_is_switched_off(ctx: CheckContext) -> None:
    ctx.disable_capture("public.posts")


@check(
    "environment.canary-attributed",
    claim="writes of two clients by turns, over one server connection where they share, keep their own actors",
    section=Section.ENVIRONMENT,
    severity=P0,
    area="actor setting",
    needs=(TRANSACTION_BLOCKS,),
    environment_safety=Safety.WRITES,
)
def canary_attributed(ctx: CheckContext | EnvironmentBench) -> None:
    mine = f"harness-{secrets.token_hex(6)}"
    with ctx.canary() as canary:
        clients = {_ADA: ctx.client(), _BOB: ctx.client()}
        canary.require_clearable(clients[_ADA])
        shared = ""
        used: dict[Actor, set[int]] = {_ADA: set(), _BOB: set()}
        rounds = 0
        try:
            while rounds < _ROUNDS or (ctx.sharing_mode and not shared and rounds < _MOST_ROUNDS):
                for actor, client in clients.items():
                    used[actor].add(_write(ctx, canary, client, actor, f"{mine}-{actor.id}-{rounds}"))
                rounds += 1
                if both := used[_ADA] & used[_BOB]:
                    shared = str(min(both))
            changes = _when_there(ctx, canary, mine, 2 * rounds)
        finally:
            _clear(ctx, canary, mine)
        if shared:
            ctx.probed("both clients wrote over it by turns", int(shared), int(shared))
        ctx.fact("server connections", {each.id or "": sorted(pids) for each, pids in used.items()})
        ctx.expect("writes found in the trail", len(changes), equals=2 * rounds)
        wrong = sum(not _names(each, _ADA if "-harness-ada-" in _text(each, canary) else _BOB) for each in changes)
        ctx.expect("writes that name another actor, or none", wrong, equals=0)
        ctx.expect("transactions", len({each.transaction_id for each in changes}), equals=2 * rounds)
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
    environment_safety=Safety.WRITES,
)
def canary_rolled_back(ctx: CheckContext | EnvironmentBench) -> None:
    mine = f"harness-{secrets.token_hex(6)}"
    with ctx.canary() as canary:
        client = ctx.client()
        canary.require_clearable(client)
        try:
            with client.transaction():
                _declare(ctx, client, _ADA)
                canary.insert(client, f"{mine}-gone")
                if not ctx.sabotaged:
                    roll_back()
            # written after it: where this one is in the trail, the other would be, too
            _write(ctx, canary, client, _ADA, f"{mine}-kept")
            kept = len(_when_there(ctx, canary, f"{mine}-kept", 1))
            found = len(_of(ctx, canary, f"{mine}-gone"))
        finally:
            _clear(ctx, canary, mine)
    ctx.expect("changes of what was rolled back", found, equals=0)
    ctx.expect("changes of the same, committed", kept, equals=1)


@breaks(canary_rolled_back, at="changes of what was rolled back")
def it_is_committed(ctx: CheckContext) -> None:
    ctx.sabotaged = True


def _declare(ctx: CheckContext | EnvironmentBench, client: Client, actor: Actor) -> None:
    """Set the actor for the transaction only, whatever the target asks for: nothing may stay on a server connection."""
    application = getattr(ctx, "application", None)
    if application and application.convention.scope == "transaction":  # the habits that a control may have changed
        application.declare(client, actor)
    else:
        convention = ctx.target.actor
        client.value("SELECT set_config(%s, %s, true)", [convention.setting, convention.spell(actor)])


def _clear(ctx: CheckContext | EnvironmentBench, canary: Canary, prefix: str) -> None:
    """Delete one's own rows, as somebody whom the trail can name, on a connection that nothing has happened to."""
    try:
        client = ctx.client()
        with client.transaction():
            _declare(ctx, client, _ADA)
            canary.clear(client, prefix)
    except SqlError as error:
        ctx.left_behind(f"rows in {canary.table} that begin with {prefix}: {describe(error)}")


def _write(ctx: CheckContext | EnvironmentBench, canary: Canary, client: Client, actor: Actor, text: str) -> int:
    with client.transaction():
        _declare(ctx, client, actor)
        canary.insert(client, text)
        return client.server_pid()


def _of(ctx: CheckContext | EnvironmentBench, canary: Canary, prefix: str) -> list[Change]:
    """Return the inserts of one's own rows, among everybody's."""
    schema, table = canary.parts
    statement = ctx.target.statements.changes.strip().rstrip(";")
    reader = ctx.trail_reader()
    with reader.transaction():
        reader.run("SET LOCAL statement_timeout = '20s'")
        return ctx.target.changes_by(
            reader,
            f"SELECT * FROM ({statement}\n) AS change WHERE change.table_schema = '{schema}' "
            f"AND change.table_name = '{table}' AND change.op ILIKE 'insert' "
            f"AND starts_with(change.data_after::jsonb ->> '{canary.column}', '{prefix}')",
        )


def _when_there(ctx: CheckContext | EnvironmentBench, canary: Canary, prefix: str, wanted: int) -> list[Change]:
    """Wait for as many as were written: a trail may be read from a standby, or be written late."""

    def probe() -> list[Change]:
        found = _of(ctx, canary, prefix)
        if len(found) < wanted:
            raise NotYet(f"{len(found)} of them")
        return found

    try:
        return poll(probe, what="the rows in the trail", deadline_s=_LATE_S, interval_s=0.05)
    except TimedOutError:
        return _of(ctx, canary, prefix)


def _text(change: Change, canary: Canary) -> str:
    return str((change.data_after or {}).get(canary.column, ""))


def _names(change: Change, actor: Actor) -> bool:
    found = change.actor if isinstance(change.actor, dict) else {}
    return found.get("id") == actor.id
