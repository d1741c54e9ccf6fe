"""Capture: any name of a schema, table or column, and the writes that replication applies."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from harness.audit.target_file import Recorded
from harness.checks.registry import P0, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.areas import CAPTURE_TRIGGER
from harness.suites.capture.stored import in_order

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

_HERE = Section.CAPTURE
#: texts that must work as identifiers: 63 bytes, quotes, semicolons, letters beyond ASCII, SQL keywords
NAMES = ("x" * 63, 'semi; DROP TABLE "posts" --', "tab\tle", "täble.with'dots", "select", "%s {} $1 \\")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@check(
    "capture.hostile-identifiers",
    claim="capture works for any name of a schema, table or column",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def hostile_identifiers(ctx: CheckContext) -> None:
    client = ctx.client()
    for name in NAMES:
        schema, table, column = quoted(f"s{name}"[:63]), quoted(name), quoted(f"c{name}"[:63])
        at = f"{schema}.{table}"
        ctx.owner.run(
            f"CREATE SCHEMA {schema}; CREATE TABLE {at} (id int PRIMARY KEY, {column} text); "
            f"GRANT USAGE ON SCHEMA {schema} TO harness_app; GRANT ALL ON {at} TO harness_app"
        )
        attached = ctx.attempt(partial(ctx.target.attach, ctx.owner, at))
        if not ctx.expect(f"attaching {name}", attached, equals="done"):
            continue
        with ctx.audited(client, ADA):
            client.run(f"INSERT INTO {at} VALUES (1, 'x'); DELETE FROM {at}")
        column_name, schema_name = f"c{name}"[:63], f"s{name}"[:63]
        values = {"insert": "x", "delete": None} if ctx.records(Recorded.IMAGE) else {}
        changes = [
            (change.table_schema, change.op, (change.data_after or {}).get(column_name) if values else None)
            for change in ctx.changes()
            if change.table_name == name
        ]
        expected = [
            (schema_name, operation, values.get(operation)) for operation in ctx.expected_ops("insert", "delete")
        ]
        ctx.expect(f"changes of {name}", in_order(ctx, changes), equals=in_order(ctx, expected))
    ctx.expect("public.posts still exists", ctx.admin.value("SELECT to_regclass('public.posts')::text"), equals="posts")


@breaks(hostile_identifiers, at=f"changes of {NAMES[0]}")
def hostile_identifiers_are_cut(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.table_name := left(NEW.table_name, 36)")


# --- operations on live tables ---------------------------------------------------------------------------------


@check(
    "capture.replica-role",
    claim="under session_replication_role = replica ordinary triggers do not fire, and triggers enabled ALWAYS capture",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def replica_role(ctx: CheckContext) -> None:
    """Write like the apply worker of logical replication: with that role and an empty search_path."""

    def apply(slug: str) -> None:
        with ctx.audited(ctx.admin, None if ctx.target.may_write_undeclared else ADA):
            ctx.admin.run("SET LOCAL session_replication_role = replica; SET LOCAL search_path = ''")
            ctx.insert_post(ctx.admin, slug)

    # without inserts, the write to look at is an update
    recorded = ctx.expected_ops("insert") or ctx.expected_ops("update")
    ordinary = ctx.admin.value(_ORDINARY, [_FIRES_FOR[recorded[0] if recorded else "insert"]])
    ctx.expect("a replicated write", ctx.attempt(partial(apply, "silent")), equals="done")
    silent = [change.op for change in ctx.changes("posts")]
    ctx.expect("changes with the triggers as attached", silent, equals=[] if ordinary else recorded)
    if not ordinary:
        return
    for name in [row[0] for row in ctx.admin.rows(_TRIGGERS)]:
        ctx.owner.run(f"ALTER TABLE public.posts ENABLE ALWAYS TRIGGER {name}")
    ctx.expect("a replicated write with ALWAYS", ctx.attempt(partial(apply, "captured")), equals="done")
    captured = [change.op for change in ctx.changes("posts")]
    ctx.expect("changes with ALWAYS", captured, equals=recorded)
    ctx.documented_limit(
        "rows that replication applies are captured only where the triggers are enabled ALWAYS",
        "https://www.postgresql.org/docs/current/sql-altertable.html",
    )


#: the bit of pg_trigger.tgtype, by the operation that a trigger fires for
_FIRES_FOR = {"insert": 4, "update": 16}
#: whether the functions that see a write are called by ordinary triggers only. A guard has a function of its own
_ORDINARY = """
    SELECT bool_and(tgenabled = 'O') FROM pg_trigger
    WHERE tgrelid = 'public.posts'::regclass AND NOT tgisinternal AND tgfoid IN (
        SELECT tgfoid FROM pg_trigger WHERE tgrelid = 'public.posts'::regclass AND NOT tgisinternal AND tgtype & %s <> 0)
"""
_TRIGGERS = "SELECT quote_ident(tgname) FROM pg_trigger WHERE tgrelid = 'public.posts'::regclass AND NOT tgisinternal"


@breaks(replica_role, at="changes with ALWAYS")
def replica_role_ignored(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        (
            "IF TG_OP = 'INSERT' THEN",
            "IF current_setting('session_replication_role') = 'replica' THEN RETURN NULL; ELSIF TG_OP = 'INSERT' THEN",
        )
    )
