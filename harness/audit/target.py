"""The audit trail under test: how it is installed, put on a table, and read.

Suites never name the trail's objects; they ask the target. The default is the reference layer; another
trail is another :class:`AuditTarget`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from harness.database import Client, load_queries, run_file

if TYPE_CHECKING:
    from collections.abc import Sequence

_SQL = Path(__file__).parent / "sql"


class Actor(Struct, frozen=True):
    """Who did it: a type and, for all but anonymous, an id."""

    type: str
    id: str | None = None

    @property
    def reference(self) -> dict[str, str]:
        """Return the actor as the trail stores it."""
        return {"type": self.type} if self.id is None else {"type": self.type, "id": self.id}

    @property
    def setting(self) -> str:
        """Return the actor as the application sets it."""
        return msgspec.json.encode(self.reference).decode()


class Change(Struct, frozen=True, kw_only=True):
    """One row change, in the canonical columns that every target's query maps to."""

    id: str
    transaction_id: str
    txid: int | None
    table_schema: str
    table_name: str
    table_pk: Any
    op: str
    data_after: Any
    changed_fields: tuple[str, ...] | None
    changed_from: Any
    actor: Any
    action_id: str | None


class AuditTarget(Struct, frozen=True, kw_only=True):
    """How an audit trail is installed, attached and read."""

    name: str
    #: SQL files that the owner runs once in a database
    install: tuple[Path, ...]
    #: statements: attach, attach_with_changed_from, detach (one parameter: the table), grant (the role),
    #: changes, transactions, coverage, capture_functions, changes_table, transactions_table, actions_table
    queries: dict[str, str]
    #: the setting that carries the actor, as JSON text
    actor_setting: str

    def install_in(self, owner: Client) -> None:
        """Install the trail.

        :raises DatabaseError: naming file, line and SQLSTATE.
        """
        for path in self.install:
            run_file(owner, path)

    def attach(self, owner: Client, table: str, *, changed_from: bool = False) -> None:
        """Put capture on a table, given as SQL spells it: quoted and qualified where needed."""
        owner.run(self.queries["attach_with_changed_from" if changed_from else "attach"], [table])

    def detach(self, owner: Client, table: str) -> None:
        owner.run(self.queries["detach"], [table])

    def grant(self, owner: Client, role: str) -> None:
        owner.run(self.queries["grant"], [role])

    def changes(self, admin: Client, table: str | None = None) -> list[Change]:
        """Return the captured changes in the order of their capture, of one table when it is named."""
        rows = [
            Change(
                id=str(row[0]),
                transaction_id=str(row[1]),
                txid=row[2],
                table_schema=row[3],
                table_name=row[4],
                table_pk=row[5],
                op=row[6],
                data_after=row[7],
                changed_fields=None if row[8] is None else tuple(row[8]),
                changed_from=row[9],
                actor=row[10],
                action_id=None if row[11] is None else str(row[11]),
            )
            for row in admin.rows(self.queries["changes"])
        ]
        return [row for row in rows if table in {None, row.table_name, f"{row.table_schema}.{row.table_name}"}]

    def count_transactions(self, admin: Client) -> int:
        count: int = admin.value(self.queries["count_transactions"])
        return count

    def coverage(self, client: Client) -> dict[str, str | None]:
        """Return schema.table to what is wrong with its capture; None is covered."""
        return {f"{schema}.{table}": problem for schema, table, problem in client.rows(self.queries["coverage"])}

    def functions(self, admin: Client) -> list[tuple[str, str]]:
        """Return name and definition of the functions that capture."""
        rows: Sequence[tuple[str, str]] = admin.rows(self.queries["capture_functions"])
        return list(rows)


def reference_target() -> AuditTarget:
    """Return our own audit layer."""
    return AuditTarget(
        name="reference",
        install=(_SQL / "install.sql",),
        queries=load_queries(_SQL / "queries.sql"),
        actor_setting="threadline.actor_ref",
    )
