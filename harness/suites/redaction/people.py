"""The table that the checks of redaction write to: people, with columns that are excluded or masked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.suites.actors import ADA
from harness.suites.searching import holding

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

#: the placeholder of masked columns
MASK = "[REDACTED]"


def create_people(ctx: CheckContext) -> None:
    ctx.owner.run(
        "CREATE TABLE public.people (id int PRIMARY KEY, name text, email text, token text, notes jsonb, salary int);"
        "GRANT ALL ON public.people TO harness_app"
    )


def create_redacted_people(ctx: CheckContext) -> None:
    create_people(ctx)
    ctx.target.attach_redacted(ctx.owner, "public.people", exclude=["token"], mask=["email", "notes", "salary"])


def write(ctx: CheckContext, *statements: str) -> None:
    client = ctx.client()
    for statement in statements:
        with ctx.audited(client, ADA):
            client.run(statement)


def images(ctx: CheckContext) -> list[Any]:
    return [change.data_after for change in ctx.changes("people")]


def as_texts(row: Any) -> dict[str, str]:
    """Return the values of a row by column, as texts: a trail may keep all of them so."""
    return {column: str(value) for column, value in (row or {}).items()}


def keep_everything(ctx: CheckContext) -> None:
    """Make capture ignore the redaction rules."""
    ctx.rewrite_capture(("public.threadline_redacted(TG_RELID, v_after, v_rules)", "v_after"))


def trust_rules(ctx: CheckContext) -> None:
    """Make the reference layer accept any rules."""
    ctx.sabotage(
        "CREATE OR REPLACE FUNCTION public.threadline_rules_problem(relation regclass, rules jsonb) RETURNS text "
        "LANGUAGE sql STABLE AS 'SELECT NULL::text'"
    )


INSERT = "INSERT INTO public.people VALUES (1, 'Ada', 'ada@example.org', 'secret', '{\"diagnosis\": {\"code\": \"F32\"}}', 100)"


def rows_holding(ctx: CheckContext, text: str) -> int:
    """Return how many rows hold a text, of all tables of the database except that of the people."""
    return sum(holding(ctx, text, "public.people").values())
