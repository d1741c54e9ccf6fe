"""Capture: objects of the writer's own, and its search_path, do not change what is recorded."""

from __future__ import annotations

import contextlib
import re
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.audit.target_file import Recorded, TrailFeature
from harness.checks.record import NotExercisedError, spell
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.database import SqlError, describe
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.capture import shadows
from harness.suites.capture.attempts import LIMIT, Attempt, calls
from harness.suites.capture.stored import News, in_order

if TYPE_CHECKING:
    from harness.audit.target import Change
    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.CAPTURE
#: more lies than this are not tried, so that the check ends in time
_MOST_LIES = 12
#: writes without a name or an operator that the writer's objects could change, and that leave the table empty
_WRITES = (
    "INSERT INTO public.posts (id, slug, title) VALUES (7, 'shadowed', 'first')",
    "UPDATE public.posts SET title = 'second'",
    "DELETE FROM public.posts",
)


def unqualified(ctx: CheckContext) -> None:
    """Weaken the capture to a common form: unqualified names, and the rights of the caller."""
    ctx.rewrite_capture(
        ("public.audit_", "audit_"), ("SET search_path TO 'pg_catalog', 'pg_temp'", ""), ("SECURITY DEFINER", "")
    )
    ctx.sabotage("GRANT INSERT, SELECT ON public.audit_changes, public.audit_transactions TO harness_app")


_SAME, _ACTION = "as without them", "action"
_TIMED_OUT = "57014"


class Round(Struct, frozen=True):
    """Objects of one kind that the writer has at the same time."""

    what: str
    #: statements that make them, or that make them found first, within the transaction of the write
    before: str
    #: statements that end that
    after: str
    #: statements of the superuser before the round
    prepare: str = ""


class _Writer:
    """Writes the same three changes again and again, with an action where the trail records them, and reads what the trail has of them."""

    def __init__(self, ctx: CheckContext) -> None:
        self._ctx = ctx
        self._news = News(ctx)
        #: the ids of the actions that were read
        self._actions: set[str] = set()

    def write(self, client: Client, before: str = "", after: str = "") -> tuple[str, list[tuple[object, ...]]]:
        """Write in one transaction, and return the outcome, and the new changes and actions."""
        outcome = "done"
        try:
            with self._ctx.audited(client, ADA):
                if before:
                    client.run(f"SET LOCAL statement_timeout = '2s'; DISCARD PLANS; {before}")
                for statement in (*_WRITES, "SET CONSTRAINTS ALL IMMEDIATE"):
                    client.run(statement)
                if self._ctx.claims(TrailFeature.ACTIONS):  # with the writer's objects, like the writes
                    self._ctx.target.record_action(client, "written", "c-1")
                if after:
                    client.run(after)
        except SqlError as error:
            outcome = describe(error)
        changes = in_order(self._ctx, [_of(change) for change in self._news.since_then()])
        return outcome, changes + self._new_actions()

    def _new_actions(self) -> list[tuple[object, ...]]:
        if not self._ctx.claims(TrailFeature.ACTIONS):
            return []
        found = self._ctx.target.actions(self._ctx.admin)
        new = [row for key, row in found.items() if key not in self._actions]
        self._actions = set(found)
        return [(_ACTION, row["name"], row["correlation_id"]) for row in new]


def _of(change: Change) -> tuple[object, ...]:
    """Return what two equal writes have in common."""
    table = f"{change.table_schema}.{change.table_name}"
    return (change.op, table, change.table_pk, change.data_after, change.changed_fields, change.actor)


def _compared(changes: list[tuple[object, ...]], plain: list[tuple[object, ...]]) -> str:
    """Return in words how changes differ from those of a plain write."""
    if len(changes) != len(plain):
        return f"{len(changes)} records instead of {len(plain)}"
    different = next((pair for pair in zip(changes, plain, strict=True) if pair[0] != pair[1]), None)
    return _SAME if different is None else f"{spell(different[0])} instead of {spell(different[1])}"


def _attack(ctx: CheckContext, rounds: tuple[Round, ...]) -> None:
    """Write with objects of the writer, which first observe and then lie one by one, and compare with a plain write."""
    writer = _Writer(ctx)
    failed: dict[str, str] = {}
    client, caller = ctx.client(), ctx.direct_client()
    listener, of_calls = shadows.Listener(client), shadows.Listener(caller)
    outcome, plain = writer.write(caller)
    ctx.expect("a plain write", outcome, equals="done")
    expected = in_order(ctx, ctx.expected_ops("insert", "update", "delete"))
    ctx.expect("its changes", [change[0] for change in plain if change[0] != _ACTION], equals=expected)
    elevated: dict[str, None] = {}
    is_harmed = False
    called = calls(ctx, with_rights=True)
    for objects in rounds:
        if objects.prepare:
            ctx.admin.run(objects.prepare)

        def attempt(label: str, before: str, objects: Round = objects) -> bool:
            outcome, changes = writer.write(client, before, objects.after)
            if outcome != "done":  # nothing was written, and the refusal is the trail's behaviour
                failed[label] = outcome
            return ctx.expect(
                f"changes with {label}", _compared(changes, plain if outcome == "done" else []), equals=_SAME
            )

        undiverted = attempt(objects.what, objects.before)
        reports = listener.take()
        _call(caller, called, objects)
        elevated |= {
            f"{report.name} as {report.role}": None
            for report in (*reports, *of_calls.take())
            if report.role != "harness_app"
        }
        if failed.get(objects.what, "").startswith(_TIMED_OUT):
            if elevated:
                break  # it is seen that they ran, and the next write would take as long
            raise NotExercisedError(f"the write with {objects.what} did not end within 2 s")
        # one object that diverts a record, or runs with other rights, is enough
        is_harmed = is_harmed or bool(elevated) or not undiverted
        liars = [name for name in dict.fromkeys(report.name for report in reports) if not name.startswith(("type ", "table "))]
        for name in liars[:_MOST_LIES]:
            is_harmed = is_harmed or not attempt(f"a {name} that lies", f"{objects.before}; {shadows.lying(name)}")
        outcome, changes = writer.write(client)
        label = f"a plain write after one with {objects.what}"
        ctx.expect(label, outcome if outcome != "done" else _compared(changes, plain), equals=_SAME)
        listener.take()
    ctx.expect("objects of the writer that ran with other rights", sorted(elevated), equals=[])
    ctx.fact("writes that failed", failed or "none")


def _call(client: Client, called: list[Attempt], objects: Round) -> None:
    """Call functions of the trail with objects of the writer, and undo it."""
    if not called:
        return
    with contextlib.suppress(SqlError), client.transaction(force_rollback=True):
        client.run(f"DISCARD PLANS; {objects.before}")
        for call in called:
            with contextlib.suppress(SqlError), client.transaction(force_rollback=True):
                client.run(f"{LIMIT}; {call.statement}")


@check(
    "capture.temp-tables",
    claim="temporary objects named like the trail's tables, or like what it reads, neither divert nor change its records, nor run with other rights",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="capture function",
    needs=(TRANSACTION_BLOCKS,),
)
def temp_tables(ctx: CheckContext) -> None:
    names = shadows.names_of(ctx.admin)
    shadows.make_schemas(ctx.admin)
    kinds = {
        "temporary tables": shadows.tables(ctx.admin, ctx.target.tables),
        "temporary views": shadows.catalogues(ctx.admin, names),
        "temporary types": shadows.types(ctx.admin, names),
    }
    ctx.fact("objects", {what: len(made) for what, made in kinds.items()})
    _attack(
        ctx,
        tuple(Round(what, shadows.creating(made, "pg_temp"), "DISCARD TEMP") for what, made in kinds.items() if made),
    )


@breaks(temp_tables, at="changes with temporary tables")
def temp_tables_are_found_first(ctx: CheckContext) -> None:
    unqualified(ctx)


@breaks(temp_tables, at="changes with temporary tables")
def temp_tables_get_the_actions(ctx: CheckContext) -> None:
    ctx.rewrite_function(
        "threadline_record_action",
        ("SET search_path TO 'pg_catalog', 'pg_temp'", ""),
        ("SECURITY DEFINER", ""),
        ("public.audit_actions", "audit_actions"),
    )
    ctx.sabotage("GRANT ALL ON ALL TABLES IN SCHEMA public TO harness_app")
    ctx.sabotage("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO harness_app")


@breaks(temp_tables, at="objects of the writer that ran with other rights")
def temp_views_are_read_by_the_owner(ctx: CheckContext) -> None:
    ctx.rewrite_function(
        "threadline_row_key",
        ("SET search_path TO 'pg_catalog', 'pg_temp'", "SET search_path TO 'pg_catalog'"),
        ("BEGIN", "BEGIN PERFORM relname FROM pg_class LIMIT 1;"),
    )


@check(
    "capture.shadowed-names",
    claim="functions, aggregates, operators, types and tables of the writer's own, first on its search_path, neither divert nor change records, nor run with other rights",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="capture function",
    needs=(TRANSACTION_BLOCKS,),
)
def shadowed_names(ctx: CheckContext) -> None:
    names = shadows.names_of(ctx.admin)
    shadows.make_schemas(ctx.admin)
    functions, operators = shadows.functions(ctx.admin, names), shadows.operators(ctx.admin, names)
    kinds = {
        "own_tables": ("tables of its own", shadows.tables(ctx.admin, ctx.target.tables)),
        "own_aggregates": ("aggregates of its own", shadows.aggregates(ctx.admin, names)),
        "own": (
            "functions, operators and views of its own",
            [*functions, *operators, *shadows.catalogues(ctx.admin, names)],
        ),
        "own_types": ("types of its own", shadows.types(ctx.admin, names)),
    }
    ctx.fact("objects", {what: len(made) for what, made in kinds.values()})
    for schema, (_, made) in kinds.items():
        ctx.admin.run(f"SET ROLE harness_app; {shadows.creating(made, schema)}; RESET ROLE")
    path = 'SET LOCAL search_path = {}, pg_catalog, "$user", public'
    rounds = [
        Round(what, path.format(schema), "SET LOCAL search_path = DEFAULT")
        for schema, (what, made) in kinds.items()
        if made
    ]
    # the trail's own path has the schema before the server's: an application that makes its tables there, as many
    # frameworks do and as PostgreSQL allows everybody before 15, makes functions there, too
    paths = [path for (path,) in ctx.admin.rows(_PATHS)]
    if any(_PUBLIC_FIRST.match(path) for path in paths):
        create = shadows.creating([*functions, *operators], "public")
        prepare = f"GRANT CREATE ON SCHEMA public TO harness_app; SET ROLE harness_app; {create}; RESET ROLE"
        rounds.append(Round("functions and operators in the schema public", "SELECT 1", "", prepare))
    _attack(ctx, tuple(rounds))


#: the paths that the trail's functions pin
_PATHS = f"""
    SELECT substring(setting FROM '^search_path=(.*)$') FROM ({shadows.OF_THE_TRAIL}) AS trail, unnest(proconfig) AS setting
    WHERE setting LIKE 'search\\_path=%'
"""
_PUBLIC_FIRST = re.compile(r"^(?!.*pg_catalog.*\bpublic\b).*\bpublic\b.*\bpg_catalog\b")


@breaks(shadowed_names, at="changes with aggregates of its own")
def shadowed_aggregates_are_called(ctx: CheckContext) -> None:
    ctx.sabotage(
        "CREATE FUNCTION public.tamper() RETURNS trigger LANGUAGE plpgsql AS "
        "$t$ BEGIN NEW.title := coalesce(max(NEW.title), 'another'); RETURN NEW; END $t$;"
        "CREATE TRIGGER tamper BEFORE INSERT ON public.posts FOR EACH ROW EXECUTE FUNCTION public.tamper()"
    )


@breaks(shadowed_names, at="objects of the writer that ran with other rights")
def shadowed_names_are_called_by_a_function(ctx: CheckContext) -> None:
    ctx.sabotage(
        "CREATE FUNCTION public.normalized(name text) RETURNS text LANGUAGE sql STABLE SECURITY DEFINER AS 'SELECT lower($1)'"
    )


@breaks(shadowed_names, at="objects of the writer that ran with other rights")
def shadowed_names_are_called(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("SET search_path TO 'pg_catalog', 'pg_temp'", ""))


@check(
    "capture.search-path",
    claim="a write is captured whatever the writer's search_path",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="capture function",
    needs=(TRANSACTION_BLOCKS,),
    records=(Recorded.INSERTS,),
)
def search_path(ctx: CheckContext) -> None:
    client = ctx.client()
    ctx.owner.run(
        'CREATE FUNCTION "Shop".post(text) RETURNS void LANGUAGE sql SECURITY DEFINER '
        'SET search_path = "Shop" AS $$ INSERT INTO public.posts (slug) VALUES ($1) $$;'
        'GRANT EXECUTE ON FUNCTION "Shop".post(text) TO harness_app'
    )

    def write(path: str, statement: str) -> None:
        with ctx.audited(client, ADA):
            client.run(f"SET LOCAL search_path = {path}")
            client.value(statement)

    insert_as = "INSERT INTO public.posts (slug) VALUES ('{}') RETURNING id"
    outcomes = []
    for name, path, statement in (
        ("an empty search_path", "''", insert_as.format("empty")),
        ("another schema only", '"Shop"', insert_as.format("other")),
        ("a function with a pinned path", "public", """SELECT "Shop".post('pinned')::text"""),
    ):
        outcomes.append(ctx.attempt(partial(write, path, statement)))
        ctx.expect(f"write with {name}", outcomes[-1], equals="done")
    shows_slugs = ctx.records(Recorded.IMAGE)
    written = sorted(slug if shows_slugs else "insert" for (slug,) in ctx.admin.rows("SELECT slug FROM public.posts"))
    captured = sorted(change.text("slug") if shows_slugs else change.op for change in ctx.changes("posts"))
    ctx.expect("rows captured", captured, equals=written)
    if captured == written:  # a write that fails is friction; one that goes unnoticed is a gap
        ctx.severity = P1


@breaks(search_path, at="write with an empty search_path")
def search_path_decides(ctx: CheckContext) -> None:
    unqualified(ctx)
