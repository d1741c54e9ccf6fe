"""A table that checks may write to where others work, too: one that the operator keeps for it, or one made for it."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.database import Client, SqlError, describe, quote_name
from harness.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.audit.target import AuditTarget


#: for the transaction only: the way to the server may be a pool
_PATIENCE = "SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '20s'"


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

    def require_clearable(self, client: Client) -> None:
        """Refuse to write what could not be deleted again.

        :raises DatabaseError: naming the right that is missing.
        """
        for right in ("INSERT", "DELETE", "SELECT"):
            if not client.value("SELECT has_table_privilege(%s, %s)", [quote_name(self.table), right]):
                raise DatabaseError(f"the application's role lacks the right {right} on {self.table}")

    def insert(self, client: Client, text: str) -> None:
        """Insert a row, in a transaction that is open; it fails rather than wait for a lock of somebody's."""
        client.run(_PATIENCE)
        client.run(f"INSERT INTO {quote_name(self.table)} ({quote_name(self.column)}) VALUES (%s)", [text])

    def clear(self, client: Client, prefix: str) -> None:
        """Delete the rows that begin with a text of one's own, likewise. What the trail keeps of them it keeps."""
        client.run(_PATIENCE)
        client.run(f"DELETE FROM {quote_name(self.table)} WHERE starts_with({quote_name(self.column)}, %s)", [prefix])


@contextlib.contextmanager
def scratch_canary(
    connect: Callable[[], Client], target: AuditTarget, schema: str, role: str, left_behind: Callable[[str], None]
) -> Iterator[Canary]:
    """Make a table in a schema, put capture on it, and take all of it away afterwards, on a connection of its own.

    Settings are made for their transaction only: the way to the server may be a pool.

    :param connect: as who may make tables there.
    :param left_behind: hears what could not be taken away.
    :raises DatabaseError: when the role may not, or the trail cannot be put on it.
    """
    canary = Canary(f"{schema}.harness_canary_{secrets.token_hex(4)}", "note")
    table, within, who = quote_name(canary.table), quote_name(schema), quote_name(role)
    granted = False
    try:
        with connect() as owner, owner.transaction():
            owner.run(_PATIENCE)
            owner.run(f"CREATE TABLE {table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text)")
            target.attach(owner, table)
            granted = not owner.value("SELECT has_schema_privilege(%s, %s, 'USAGE')", [role, schema])
            if granted:
                owner.run(f"GRANT USAGE ON SCHEMA {within} TO {who}")
            owner.run(f"GRANT SELECT, INSERT, DELETE ON {table} TO {who}")
    except SqlError as error:
        raise DatabaseError(
            f"no captured table can be made in the schema {schema}: {describe(error)}",
            hint='name a table that is captured already: canary = "public.audit_canary(note)"',
        ) from None
    try:
        yield canary
    finally:
        try:
            with connect() as owner, owner.transaction():
                owner.run(_PATIENCE)
                if granted:
                    owner.run(f"REVOKE USAGE ON SCHEMA {within} FROM {who}")
                owner.run(f"DROP TABLE IF EXISTS {table}")
        except SqlError as error:
            left_behind(f"the table {canary.table}{' and a grant on its schema' if granted else ''}: {describe(error)}")
