"""A table that checks may write to where others work, too: one that the operator keeps for it, or one made for it."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.database import Client, SqlError, describe
from harness.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.audit.target import AuditTarget


class Canary(Struct, frozen=True):
    """A captured table, and its column of texts."""

    table: str
    column: str

    @classmethod
    def named(cls, told: str) -> Canary:
        """Return what the operator names, spelt as `public.audit_canary(note)`."""
        table, _, column = told.rstrip(")").partition("(")
        return cls(table, column)

    @property
    def parts(self) -> tuple[str, str]:
        schema, _, table = self.table.partition(".")
        return schema, table

    def insert(self, client: Client, text: str) -> None:
        client.run(f"INSERT INTO {self.table} ({self.column}) VALUES (%s)", [text])

    def clear(self, client: Client, prefix: str) -> None:
        """Delete the rows that begin with a text of one's own. What the trail keeps of them it keeps."""
        client.run(f"DELETE FROM {self.table} WHERE starts_with({self.column}, %s)", [prefix])


@contextlib.contextmanager
def scratch_canary(owner: Client, target: AuditTarget, schema: str, role: str) -> Iterator[Canary]:
    """Make a table in a schema, put capture on it, and drop it afterwards.

    :raises DatabaseError: when the role may not, or the trail cannot be put on it.
    """
    table = f"{schema}.harness_canary_{secrets.token_hex(4)}"
    try:
        with owner.transaction():
            owner.run(f"CREATE TABLE {table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text)")
            target.attach(owner, table)
            owner.run(
                f'GRANT USAGE ON SCHEMA {schema} TO "{role}"; GRANT SELECT, INSERT, DELETE ON {table} TO "{role}"'
            )
    except SqlError as error:
        raise DatabaseError(
            f"no captured table can be made in the schema {schema}: {describe(error)}",
            hint='name a table that is captured already: canary = "public.audit_canary(note)"',
        ) from None
    try:
        yield Canary(table, "note")
    finally:
        with contextlib.suppress(SqlError):
            owner.run(f"DROP TABLE IF EXISTS {table}")
