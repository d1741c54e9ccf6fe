"""Tables without capture: copies of the audited ones, whose writes show what the trail changes, and weakened ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.database import SqlError, describe, raised_within

if TYPE_CHECKING:
    from harness.audit.actor import Actor
    from harness.checks.context import CheckContext
    from harness.database import Client

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


def weaken(ctx: CheckContext, owner: Client, statements: str) -> bool:
    """Weaken or end the capture of a table as its owner, and return whether the trail allows it."""
    try:
        with owner.transaction():
            owner.run(statements)
    except SqlError as error:
        if not raised_within(error):
            raise
        ctx.fact("refused by the trail", describe(error))
        return False
    return True


def message(ctx: CheckContext, actor: Actor, statement: str) -> str:
    """Return one message with an audited write: it is one transaction, in every pool mode."""
    declaration = ctx.application.declaration(actor)
    return f"{declaration}; {statement}" if declaration else statement
