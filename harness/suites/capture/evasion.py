"""Capture: ways to write around it, and how coverage reports them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from harness.audit.target_file import TrailFeature
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.database import SqlError, describe
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.sabotage import blind_coverage

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.CAPTURE


@check(
    "capture.no-recursion",
    claim="the trail does not audit its own tables, and attaching one of them is refused",
    section=_HERE,
    severity=P1,
    item="1.1",
    area="capture function",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def no_recursion(ctx: CheckContext) -> None:
    ctx.write(ctx.client(), ADA, "first")
    about_trail = [change.table_name for change in ctx.changes() if change.table_name.startswith("audit_")]
    ctx.expect("changes about the trail's own tables", about_trail, equals=[])
    for table in ("audit_changes", "audit_transactions", "audit_actions"):
        ctx.expect(
            f"attaching {table}",
            ctx.sqlstate(partial(ctx.target.attach, ctx.owner, f"public.{table}")),
            equals="42809",
        )
    ctx.owner.run("CREATE TABLE public.keyless (n int)")
    ctx.expect(
        "attaching a table without a key",
        ctx.sqlstate(partial(ctx.target.attach, ctx.owner, "public.keyless")),
        equals="55000",
    )


@breaks(no_recursion, at="changes about the trail's own tables")
def no_recursion_but_forced(ctx: CheckContext) -> None:
    ctx.sabotage(
        "CREATE TRIGGER itself AFTER INSERT ON public.audit_transactions REFERENCING NEW TABLE AS new_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_capture('', 'id')"
    )


@check(
    "capture.coverage",
    claim="coverage distinguishes captured tables from tables that only look captured",
    section=_HERE,
    severity=P0,
    item="1.3",
    area="coverage",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def coverage(ctx: CheckContext) -> None:
    def problem(table: str) -> str | None:
        return ctx.target.coverage(ctx.owner)[table]

    ctx.expect("a table with capture", problem("public.posts"), equals=None)
    ctx.expect("a partitioned table with capture", problem("public.measures"), equals=None)
    ctx.expect(
        "a table without capture",
        problem("public.drafts"),
        equals="no capture trigger for INSERT, UPDATE, DELETE, TRUNCATE",
    )
    ctx.owner.run('CREATE TABLE "Shop".posts (id int PRIMARY KEY)')
    ctx.expect("a table of the same name elsewhere", problem("Shop.posts") is not None, equals=True)
    ctx.owner.run(
        "CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER threadline_audit_drafts AFTER INSERT OR UPDATE OR DELETE ON public.drafts "
        "FOR EACH ROW EXECUTE FUNCTION public.nothing()"
    )
    ctx.expect("a trigger with the right name that does nothing", problem("public.drafts") is not None, equals=True)
    ctx.owner.run('ALTER TABLE public.posts DISABLE TRIGGER "!threadline_audit_update"')
    ctx.expect("a disabled trigger", problem("public.posts"), equals="the capture trigger is disabled for UPDATE")
    ctx.target.attach(ctx.owner, "public.posts")
    ctx.expect("attached again", problem("public.posts"), equals=None)
    ctx.sabotage(
        "CREATE TRIGGER again AFTER INSERT ON public.posts REFERENCING NEW TABLE AS new_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_capture('', 'id')"
    )
    ctx.expect("captured twice", problem("public.posts"), equals="captured more than once for INSERT")
    ctx.target.attach(ctx.owner, "public.posts")
    ctx.owner.run("CREATE TRIGGER late AFTER UPDATE ON public.posts FOR EACH ROW EXECUTE FUNCTION public.nothing()")
    ctx.expect(
        "a second trigger that may write to the same row",
        problem("public.posts"),
        equals="its rows must be captured one by one now: attach it again",
    )
    ctx.target.attach(ctx.owner, "public.posts")
    ctx.expect("attached again, row by row", problem("public.posts"), equals=None)
    ctx.owner.run('CREATE TABLE public.keys ("clé" int PRIMARY KEY)')
    ctx.target.attach(ctx.owner, "public.keys")
    ctx.expect("a key that is not ASCII", problem("public.keys"), equals=None)
    ctx.sabotage("CREATE RULE nothing AS ON INSERT TO public.audit_changes DO INSTEAD NOTHING")
    ctx.expect("a rule on the trail itself", problem("public.authors") is not None, equals=True)
    ctx.sabotage("DROP RULE nothing ON public.audit_changes")
    ctx.owner.run("ALTER TABLE public.measures DETACH PARTITION public.measures_2025")
    ctx.expect("a detached partition", problem("public.measures_2025") is not None, equals=True)
    ctx.rewrite_capture(("RETURN NULL", "RETURN NULL /* not what was installed */"))
    ctx.expect(
        "a capture function that was replaced",
        problem("public.authors"),
        equals="the capture function is not the one that was installed",
    )


@breaks(coverage, at="a disabled trigger")
def coverage_by_name(ctx: CheckContext) -> None:
    ctx.sabotage("""
        CREATE OR REPLACE FUNCTION public.threadline_capture_problem(relation regclass) RETURNS text LANGUAGE sql STABLE AS $$
            SELECT CASE WHEN NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = relation AND t.tgname LIKE '%threadline_audit_%')
                        THEN 'no capture trigger for INSERT, UPDATE, DELETE, TRUNCATE' END $$""")


@check(
    "capture.canary",
    claim="every table that coverage reports as captured records a row written to it",
    section=_HERE,
    severity=P0,
    item="1.3",
    area="coverage",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.COVERAGE,),
)
def canary(ctx: CheckContext) -> None:
    client: Client = ctx.client()
    ctx.owner.run("ALTER TABLE public.authors DISABLE TRIGGER USER; CREATE TABLE public.later (id int PRIMARY KEY)")
    problems = ctx.target.coverage(ctx.owner)
    ctx.expect("disabled triggers are reported as captured", problems["public.authors"] is None, equals=False)
    ctx.expect("a table without triggers is reported as captured", problems["public.later"] is None, equals=False)
    covered = {table for table, problem in problems.items() if problem is None}
    for table, statement in {
        "public.posts": "INSERT INTO public.posts (slug) VALUES ('canary')",
        "public.authors": "INSERT INTO public.authors VALUES ('canary', 'c')",
        "public.profiles": "INSERT INTO public.profiles (id) VALUES (1)",
        "public.measures": "INSERT INTO public.measures VALUES ('2026-01-01', 1, 1)",
        "public.drafts": "INSERT INTO public.drafts (body) VALUES ('canary')",
    }.items():
        try:
            with ctx.audited(client, ADA):
                client.run(statement)
        except SqlError as error:
            ctx.expect(f"canary write to {table}", describe(error), equals="done")
        ctx.expect(f"captured from {table}", len(ctx.changes(table)) == 1, equals=table in covered)


@breaks(canary, at="captured from public.posts")
def canary_dies_unnoticed(ctx: CheckContext) -> None:
    ctx.disable_capture("public.posts")
    blind_coverage(ctx)
