"""A table that checks may write to on a shared system: one that the operator keeps for them, or a temporary one."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.database import Client, SqlError, describe, quote_name
from harness.errors import DatabaseError
from harness.host.journal import Journal, Write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.audit.target import AuditTarget


#: patterns of the text of canary rows, and of the names of scratch tables
MARK, SCRATCH = "harness-[0-9a-f]{12}", "harness_canary_[0-9a-f]{8}"
#: SET LOCAL, because the connection may go through a pool: the settings end with the transaction
_TIMEOUTS = "SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '20s'"


class Canary(Struct, frozen=True):
    """A captured table, and its text column."""

    table: str
    column: str
    #: notes rows before they are written, in an environment that others use
    journal: Journal | None = None

    @classmethod
    def named(cls, declared: str, journal: Journal | None = None) -> Canary:
        """Return the canary that the operator declares as `public.audit_canary(note)`."""
        table, _, column = declared.rstrip(")").partition("(")
        return cls(table, column, journal)

    def begin(self) -> str:
        """Return the prefix of a check's rows, noted in the journal."""
        mark = f"harness-{secrets.token_hex(6)}"
        if self.journal:
            self.journal.begin(Write(kind="rows", name=self.table, column=self.column, mark=mark))
        return mark

    def cleared(self, mark: str) -> None:
        """Remove the note about a check's rows, after the transaction that deleted them."""
        if self.journal:
            self.journal.end("rows", self.table, mark)

    @property
    def parts(self) -> tuple[str, str]:
        """Schema and table."""
        schema, _, table = self.table.partition(".")
        return schema, table

    def require_clearable(self, client: Client) -> None:
        """Require the privileges to insert rows and to delete them again.

        :raises DatabaseError: naming the missing privilege.
        """
        for privilege in ("INSERT", "DELETE", "SELECT"):
            if not client.value("SELECT has_table_privilege(%s, %s)", [quote_name(self.table), privilege]):
                raise DatabaseError(f"the application's role lacks the privilege {privilege} on {self.table}")

    def insert(self, client: Client, text: str) -> None:
        """Insert a row in the open transaction. It fails rather than wait long for a lock."""
        client.run(_TIMEOUTS)
        client.run(f"INSERT INTO {quote_name(self.table)} ({quote_name(self.column)}) VALUES (%s)", [text])

    def clear(self, client: Client, prefix: str) -> None:
        """Delete the rows whose text begins with a prefix, in the open transaction. The trail keeps its record.

        It fails rather than wait long for a lock.
        """
        client.run(_TIMEOUTS)
        client.run(f"DELETE FROM {quote_name(self.table)} WHERE starts_with({quote_name(self.column)}, %s)", [prefix])


@contextlib.contextmanager
def scratch_canary(
    connect: Callable[[], Client],
    target: AuditTarget,
    schema: str,
    role: str,
    on_left_behind: Callable[[str], None],
    journal: Journal | None = None,
) -> Iterator[Canary]:
    """Create a table in a schema, attach capture to it, and remove both afterwards, on connections of its own.

    :param connect: connects as a role that may create tables in the schema.
    :param target: the audit trail whose capture is attached.
    :param schema: for the table.
    :param role: of the application; it may read, insert and delete rows meanwhile.
    :param on_left_behind: called for each object that could not be removed.
    :param journal: notes the table, in an environment that others use.
    :raises DatabaseError: when the table cannot be created, or capture cannot be attached to it.
    """
    canary = Canary(f"{schema}.harness_canary_{secrets.token_hex(4)}", "note")
    table, within, grantee = quote_name(canary.table), quote_name(schema), quote_name(role)
    granted = False
    try:
        with connect() as owner, owner.transaction():
            owner.run(_TIMEOUTS)
            owner.run(f"CREATE TABLE {table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text)")
            if not target.role:  # in an environment, where the application has all rights that are about no table
                target = target.of_roles(role, owner.info.user)
                target = target if target.grants_each_table else replace(target, role="")
            target.attach(owner, table)
            granted = not owner.value("SELECT has_schema_privilege(%s, %s, 'USAGE')", [role, schema])
            if granted:
                owner.run(f"GRANT USAGE ON SCHEMA {within} TO {grantee}")
            owner.run(f"GRANT SELECT, INSERT, DELETE ON {table} TO {grantee}")
            if journal:  # before the table can be seen
                journal.begin(Write(kind="table", name=canary.table, grantee=role if granted else ""))
    except SqlError as error:
        raise DatabaseError(
            f"a captured table cannot be created in the schema {schema}: {describe(error)}",
            hint='declare a table that is already captured: canary = "public.audit_canary(note)"',
        ) from None
    try:
        yield canary
    finally:
        try:
            drop_scratch(connect, canary.table, role if granted else "")
            if journal:
                journal.end("table", canary.table)
        except SqlError as error:
            grant = " and a grant on its schema" if granted else ""
            on_left_behind(f"the table {canary.table}{grant}: {describe(error)}")


def drop_scratch(connect: Callable[[], Client], table: str, grantee: str) -> None:
    """Drop a scratch table, and revoke the grant on its schema.

    :param connect: connects as the table's owner.
    :param grantee: the role that the schema was granted to; "" for none.
    """
    with connect() as owner, owner.transaction():
        owner.run(_TIMEOUTS)
        if grantee:
            schema = table.partition(".")[0]
            owner.run(f"REVOKE USAGE ON SCHEMA {quote_name(schema)} FROM {quote_name(grantee)}")
        owner.run(f"DROP TABLE IF EXISTS {quote_name(table)}")
