"""Capture: what coverage reports about a table, compared with the records of writes to it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.audit.target_file import TrailFeature
from harness.checks.registry import P0, TRANSACTION_BLOCKS, breaks, check
from harness.database import SqlError, describe, quote_identifier
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.capture.uncaptured import weaken
from harness.suites.sabotage import blind_coverage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.CAPTURE
_AS_REPORTED = "as reported"
_OPERATIONS = ("insert", "update", "delete", "truncate")
#: a write of each operation to a fixture table; TRUNCATE comes last, and its own record is the table's
_CANARIES = {
    "public.posts": ("(slug) VALUES ('canary')", "title = 'x'"),
    "public.authors": ("VALUES ('canary', 'c')", "name = 'x'"),
    "public.profiles": ("(id) VALUES (1)", "city = 'x'"),
    "public.measures": ("VALUES ('2026-01-01', 1, 1)", "reading = 2"),
    "public.drafts": ("(body) VALUES ('canary')", "body = 'x'"),
}
_TRIGGERS = """
    SELECT t.tgname::text, pg_get_triggerdef(t.oid), t.tgenabled = 'A' FROM pg_trigger t
    WHERE t.tgrelid = 'public.covered'::regclass AND NOT t.tgisinternal ORDER BY t.tgname
"""
#: a table and its partitions
_NAMES = """
    SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = %s::regclass OR c.oid IN (SELECT relid FROM pg_partition_tree(%s::regclass))
"""


def _recorded(ctx: CheckContext, client: Client, table: str, insert: str, assignment: str) -> tuple[str, ...]:
    """Write each operation to a table as the application, and return the operations that the trail has of it.

    A write that the trail makes fail is not one that it misses: its error is returned in place of the operation.
    """
    schema, _, name = table.partition(".")
    quoted = f"{quote_identifier(schema)}.{quote_identifier(name)}"
    statements = {
        "insert": f"INSERT INTO {quoted} {insert}",
        "update": f"UPDATE {quoted} SET {assignment}",
        "delete": f"DELETE FROM {quoted}",
        "truncate": f"TRUNCATE {quoted} CASCADE",
    }
    failed = []
    # all writes of rows are made, also those that a trail leaves out: an update without an insert changes nothing
    for operation in ("insert", "update", "delete", *ctx.expected_ops("truncate")):
        try:
            with ctx.audited(client, ADA):
                client.run(statements[operation])
        except SqlError as error:
            failed.append(f"{operation} failed: {describe(error)}")
    # whether a trail names the root or the leaf of a partitioned table is not judged here
    names = {tuple(row) for row in ctx.admin.rows(_NAMES, [quoted, quoted])}
    found = {change.op for change in ctx.changes() if (change.table_schema, change.table_name) in names}
    return (*filter(found.__contains__, _OPERATIONS), *failed)


def _compare(
    ctx: CheckContext, cases: Iterable[tuple[str, str, tuple[str, ...]]], *, captured: tuple[str, ...]
) -> None:
    """Compare reports of coverage with the records of writes.

    :param cases: what a table is, its name, and the values and the assignment of its writes.
    :param captured: tables that must be reported as captured.
    """
    client, problems = ctx.client(), ctx.target.coverage(ctx.owner)
    for table in captured:
        ctx.expect(f"the report about {table}", problems[table] or "captured", equals="captured")
    expected = tuple(ctx.expected_ops(*_OPERATIONS))
    for what, table, (insert, assignment) in cases:
        if problems[table] is not None:  # whoever reads that does not rely on the capture
            ctx.expect(f"capture of {what}", _AS_REPORTED, equals=_AS_REPORTED)
            continue
        recorded = _recorded(ctx, client, table, insert, assignment)
        seen = (
            _AS_REPORTED
            if recorded == expected
            else f"reported as captured, recorded: {', '.join(recorded) or 'nothing'}"
        )
        ctx.expect(f"capture of {what}", seen, equals=_AS_REPORTED)


@check(
    "capture.canary",
    claim="every table that coverage reports as captured records each operation on it, and captured tables are reported",
    section=_HERE,
    severity=P0,
    item="1.3",
    area="coverage",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.COVERAGE,),
)
def canary(ctx: CheckContext) -> None:
    weaken(ctx, ctx.owner, "ALTER TABLE public.authors DISABLE TRIGGER USER")
    judged = {table for table in _CANARIES if table != "public.measures" or ctx.claims(TrailFeature.PARTITIONS)}
    _compare(
        ctx,
        [(table, table, writes) for table, writes in _CANARIES.items() if table in judged],
        captured=("public.profiles",),
    )


@breaks(canary, at="capture of public.posts")
def canary_dies_unnoticed(ctx: CheckContext) -> None:
    ctx.disable_capture("public.posts")
    blind_coverage(ctx)


@check(
    "capture.coverage",
    claim="coverage distinguishes captured tables from tables that only look captured",
    section=_HERE,
    severity=P0,
    item="1.3",
    area="coverage",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.COVERAGE,),
)
def coverage(ctx: CheckContext) -> None:
    cases = [("an attached table", "public.covered"), ("a table without capture", "public.uncovered")]
    _make(ctx, "public.covered", attach=True)
    _make(ctx, "public.uncovered")
    _make(ctx, '"Shop".covered')
    _make(ctx, '"Shop".attached', attach=True)
    cases.append(("a table of the same name in another schema", "Shop.covered"))
    ctx.owner.run(
        "CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
        "CREATE TABLE public.recreated (id int PRIMARY KEY, body text)"
    )
    ctx.target.attach(ctx.owner, "public.recreated")
    ctx.owner.run("DROP TABLE public.recreated")
    _make(ctx, "public.recreated")
    cases.append(("a table that was dropped and created again", "public.recreated"))
    _make(ctx, "public.named")
    cases.append(("a table with triggers of the same names that do nothing", "public.named"))
    for number, (name, definition, is_always) in enumerate(ctx.owner.rows(_TRIGGERS), 1):
        always = (
            f"ENABLE ALWAYS TRIGGER {quote_identifier(name)}"
            if is_always
            else f"ENABLE TRIGGER {quote_identifier(name)}"
        )
        _make(ctx, f"public.disabled_{number}", attach=True)
        weaken(ctx, ctx.owner, f"ALTER TABLE public.disabled_{number} DISABLE TRIGGER {quote_identifier(name)}")
        cases.append((f"a table whose trigger {name} is disabled", f"public.disabled_{number}"))
        _make(ctx, f"public.replica_{number}", attach=True)
        weaken(ctx, ctx.owner, f"ALTER TABLE public.replica_{number} ENABLE REPLICA TRIGGER {quote_identifier(name)}")
        cases.append((f"a table whose trigger {name} fires in a replica only", f"public.replica_{number}"))
        for kind, (what, partial) in _partial(definition).items():
            table = f"public.{kind}_{number}"
            _make(ctx, table, attach=True)
            weaken(
                ctx,
                ctx.owner,
                f"DROP TRIGGER {quote_identifier(name)} ON {table}; "
                f"{partial.replace(' ON public.covered ', f' ON {table} ')}; ALTER TABLE {table} {always}",
            )
            cases.append((f"a table whose trigger {name} {what}", table))
        idle = re.sub(r" EXECUTE FUNCTION .*$", " EXECUTE FUNCTION public.nothing()", definition)
        ctx.owner.run(f"{idle.replace(' ON public.covered ', ' ON public.named ')}; ALTER TABLE public.named {always}")
    if ctx.claims(TrailFeature.PARTITIONS):
        cases += _partitions(ctx)
    writes = ("VALUES (1, 'canary')", "body = 'x'")
    _compare(ctx, [(what, table, writes) for what, table in cases], captured=("public.covered", "Shop.attached"))


def _partial(definition: str) -> dict[str, tuple[str, str]]:
    """Return triggers that fire for some writes only: by the kind, what they do, and the definition."""
    found = {
        "inserting": (
            "fires for inserts only",
            re.sub(r" (BEFORE|AFTER) INSERT OR .*? ON ", r" \1 INSERT ON ", definition),
        )
    }
    if " WHEN (" not in definition:
        never = definition.replace(" EXECUTE FUNCTION ", " WHEN (false) EXECUTE FUNCTION ")
        found["conditional"] = ("never fires", never)
    if " REFERENCING " not in definition:  # PostgreSQL allows a list of columns without transition tables only
        narrow = re.sub(r" UPDATE( OR TRUNCATE)? ON ", r" UPDATE OF id\1 ON ", definition, count=1)
        found["narrow"] = ("fires for one column", narrow)
    return {kind: (what, partial) for kind, (what, partial) in found.items() if partial != definition}


def _make(ctx: CheckContext, table: str, *, attach: bool = False) -> None:
    ctx.owner.run(f"CREATE TABLE {table} (id int PRIMARY KEY, body text); GRANT ALL ON {table} TO harness_app")
    if attach:
        ctx.target.attach(ctx.owner, table)


def _partitions(ctx: CheckContext) -> list[tuple[str, str]]:
    """Return a partitioned table with a partition that was added later, and a partition that was detached."""
    ctx.owner.run(
        "CREATE TABLE public.divided (id int PRIMARY KEY, body text) PARTITION BY RANGE (id); "
        "CREATE TABLE public.divided_0 PARTITION OF public.divided FOR VALUES FROM (-10) TO (0); "
        "GRANT ALL ON public.divided, public.divided_0 TO harness_app"
    )
    ctx.target.attach(ctx.owner, "public.divided")
    _make(ctx, "public.divided_1")
    ctx.owner.run(
        "ALTER TABLE public.divided DETACH PARTITION public.divided_0; "
        "ALTER TABLE public.divided ATTACH PARTITION public.divided_1 FOR VALUES FROM (0) TO (10)"
    )
    return [
        ("a partitioned table with a partition that was added later", "public.divided"),
        ("a partition that was detached", "public.divided_0"),
    ]


@breaks(coverage, at="capture of a table without capture")
def coverage_of_everything(ctx: CheckContext) -> None:
    blind_coverage(ctx)


@breaks(coverage, at="capture of a table whose trigger !threadline_audit_delete is disabled")
def coverage_by_name(ctx: CheckContext) -> None:
    ctx.sabotage("""
        CREATE OR REPLACE FUNCTION public.threadline_capture_problem(relation regclass) RETURNS text LANGUAGE sql STABLE AS $$
            SELECT CASE WHEN NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = relation AND t.tgname LIKE '%threadline_audit_%')
                        THEN 'no capture trigger for INSERT, UPDATE, DELETE, TRUNCATE' END $$""")
