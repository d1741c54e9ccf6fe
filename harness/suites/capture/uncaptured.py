"""Copies of the audited tables without capture: what a write does there, it does without the trail."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.audit.actor import Actor
    from harness.checks.context import CheckContext

#: the schemas of the audited tables, and of their copies. Statements name a table as `{at}.posts`
CAPTURED, UNCAPTURED = "public", "uncaptured"
_TABLES = ("posts", "comments", "authors", "profiles")


def copy_tables(ctx: CheckContext) -> None:
    """Create copies of the audited tables in another schema, with their rows and without any trigger."""
    ctx.owner.run(
        f"CREATE SCHEMA {UNCAPTURED}; GRANT USAGE ON SCHEMA {UNCAPTURED} TO harness_app;"
        + "".join(
            f"CREATE TABLE {UNCAPTURED}.{table} (LIKE {CAPTURED}.{table} INCLUDING ALL);"
            f"INSERT INTO {UNCAPTURED}.{table} SELECT * FROM {CAPTURED}.{table};"
            for table in _TABLES
        )
        + f"GRANT ALL ON ALL TABLES IN SCHEMA {UNCAPTURED} TO harness_app;"
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {UNCAPTURED} TO harness_app"
    )
    for table in _TABLES:  # an event trigger of the trail may have attached it
        ctx.admin.run(f"ALTER TABLE {UNCAPTURED}.{table} DISABLE TRIGGER ALL")


def message(ctx: CheckContext, actor: Actor, statement: str) -> str:
    """Return one message with an audited write: it is one transaction, in every pool mode."""
    declaration = ctx.application.declaration(actor)
    return f"{declaration}; {statement}" if declaration else statement
