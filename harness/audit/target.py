"""The audit trail under test: how it is installed, attached to tables, and read.

Suites never name the trail's objects; they ask the target. The default target is the reference layer. Any other trail
is described by a TOML file, whose keys `target_file.py` documents. A feature that it does not claim is not judged.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from msgspec import Struct

from harness import config
from harness.audit.target_file import ActorConvention, Statements, TrailFeature
from harness.database import Client, Side, SqlError, describe, fetch, quote_literal, raised_for, run_files
from harness.errors import ConfigError, DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class Change(Struct, frozen=True, kw_only=True):
    """One row change, in the canonical columns that the `changes` statement of every target returns."""

    id: str
    transaction_id: str | None
    table_schema: str
    table_name: str
    #: the key's columns to their values
    table_pk: Any
    #: insert, update, delete or truncate
    op: str
    #: the row after the change, column to value; None after a delete
    data_after: Any
    #: {"type": …, "id": …}, or None
    actor: Any
    txid: int | None = None
    changed_fields: tuple[str, ...] | None = None
    changed_from: Any = None
    action_id: str | None = None

    def value(self, column: str) -> Any:
        """Return a column of the row after the change. What the trail lacks is a sentence, so that it can be compared.

        An array or an object is its JSON text: it can then be sorted and counted like any other value.
        """
        if self.data_after is None:
            return "no row after the change"
        if column not in self.data_after:
            return f"no column {column} in the row"
        value = self.data_after[column]
        return msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value

    def text(self, column: str) -> str:
        """Return a column of the row after the change as text."""
        value = self.value(column)
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()


_COVERAGE_COLUMNS = 3
REQUIRED = ("id", "transaction_id", "table_schema", "table_name", "table_pk", "op", "data_after", "actor")


class AuditTarget(Struct, frozen=True, kw_only=True):
    """How an audit trail is installed, attached and read."""

    name: str
    summary: str
    #: the file that describes it, for error messages
    where: str
    #: a digest of the file and of the SQL that installs the trail
    fingerprint: str
    install: tuple[Path, ...]
    tables: tuple[str, ...]
    actor: ActorConvention
    statements: Statements
    claims: frozenset[TrailFeature]
    documentation: str

    @property
    def identity(self) -> str:
        """Return the key of evidence about this target: its name and fingerprint."""
        return f"{self.name} {self.fingerprint}"

    @property
    def is_reference(self) -> bool:
        return TrailFeature.LIBRARY in self.claims

    def require_installable(self) -> None:
        """Verify that the harness can install the target; a target without SQL files must be installed already.

        :raises ConfigError: when no SQL files are named.
        """
        if not self.install:
            raise ConfigError(
                "install: the target names no SQL files, and none were given",
                where=self.where,
                hint="give --audit-sql FILE for each file that installs the trail, in order",
            )

    def install_in(self, owner: Client) -> None:
        """Install the trail.

        :raises DatabaseError: with file, line and SQLSTATE.
        """
        run_files(owner, self.install)

    def verify_in(self, owner: Client) -> None:
        """Run the target's statements on an empty trail, before any check relies on them.

        :raises DatabaseError: with the statement that does not run or returns wrong columns.
        """
        for table in self.tables:
            if owner.value("SELECT to_regclass(%s)", [table]) is None:
                raise DatabaseError(
                    f"tables: missing table {table} after the installation of the trail", where=self._at("tables")
                )
        names = self._try(owner, "changes")
        if missing := [column for column in REQUIRED if column not in names]:
            raise DatabaseError(
                f"statements.changes: missing column {', '.join(missing)}",
                where=self._at("changes"),
                hint=f"name columns with AS; found: {', '.join(names)}",
            )
        required = {"id", "name", "correlation_id"}
        if self.statements.actions and (missing := sorted(required - set(self._try(owner, "actions")))):
            raise DatabaseError(f"statements.actions: missing column {', '.join(missing)}", where=self._at("actions"))
        if self.statements.coverage and len(columns := self._try(owner, "coverage")) != _COVERAGE_COLUMNS:
            raise DatabaseError(
                f"statements.coverage: found {len(columns)} columns, needed schema, table, problem",
                where=self._at("coverage"),
            )
        with owner.transaction(force_rollback=True):
            if self.statements.transactions and not isinstance(owner.value(self.statements.transactions), int):
                raise DatabaseError(
                    "statements.transactions: needed a number as result", where=self._at("transactions")
                )
            for name, parameters in (("age", {"age": "1 day"}), ("purge", {"cutoff": "2000-01-01 00:00:00+00"})):
                if statement := getattr(self.statements, name):
                    with self._explained(name):
                        fetch(owner, statement, parameters)
            self._try_attaching(owner)

    def _try_attaching(self, owner: Client) -> None:
        """Run the statements that attach, on a scratch table within the caller's rolled back transaction."""
        owner.run("CREATE TABLE public.tried (id int PRIMARY KEY, a text, b text)")
        if self.statements.attach_with_changed_from:
            with self._explained("attach_with_changed_from"):
                self.attach(owner, "public.tried", changed_from=True)
        if self.statements.attach_redacted:
            with self._explained("attach_redacted"):
                for _ in range(2):
                    self.attach_redacted(owner, "public.tried", exclude=["a"], mask=["b"])

    def _try(self, owner: Client, name: str) -> list[str]:
        with self._explained(name):
            cursor = owner.execute(getattr(self.statements, name))
            return [column.name for column in cursor.description or ()]

    def _explained(self, name: str) -> contextlib.AbstractContextManager[None]:
        return _explained(name, self._at(name))

    def _at(self, name: str) -> str:
        return config.at_key(self.where, name)

    @raised_for(Side.TARGET)
    def attach(self, owner: Client, table: str, *, changed_from: bool = False) -> None:
        """Attach capture to a table.

        :param table: as an SQL identifier, quoted and qualified where needed.
        :param changed_from: keep prior values, where the target can.
        :raises SqlError: of the server.
        """
        statement = self.statements.attach_with_changed_from if changed_from else self.statements.attach
        owner.run(_filled(statement or self.statements.attach, table))

    @raised_for(Side.TARGET)
    def attach_redacted(
        self, owner: Client, table: str, *, exclude: Sequence[str], mask: Sequence[str], placeholder: str = "[REDACTED]"
    ) -> None:
        """Attach capture to a table with prior values and redacted columns."""
        rules = {"exclude": _array(exclude), "mask": _array(mask), "placeholder": quote_literal(placeholder)}
        owner.run(_filled(self.statements.attach_redacted, table, rules))

    @raised_for(Side.TARGET)
    def detach(self, owner: Client, table: str) -> None:
        owner.run(_filled(self.statements.detach, table))

    def grant(self, owner: Client, role: str) -> None:
        """Grant the application role the rights that the trail needs.

        :raises DatabaseError: when the statement does not run.
        """
        if self.statements.grant:
            with self._explained("grant"):
                owner.run(self.statements.grant.replace("{role_literal}", quote_literal(role)).replace("{role}", role))

    def changes(self, admin: Client, table: str | None = None) -> list[Change]:
        """Return the captured changes in the order of their capture.

        :param table: `name` or `schema.name`, for the changes of one table.
        """
        rows = self.changes_by(admin, self.statements.changes)
        return [row for row in rows if table in {None, row.table_name, f"{row.table_schema}.{row.table_name}"}]

    @raised_for(Side.TARGET)
    def changes_by(self, client: Client, statement: str) -> list[Change]:
        """Return the captured changes that a statement selects.

        :param statement: returns the columns of `statements.changes`.
        """
        cursor = client.execute(statement.encode())
        names = [column.name for column in cursor.description or ()]
        return [self._change(dict(zip(names, row, strict=True))) for row in cursor]

    def _change(self, row: dict[str, Any]) -> Change:
        """Return a row in canonical form.

        :raises DatabaseError: for a column of the wrong type.
        """

        def column(name: str, kinds: tuple[type, ...], needed: str) -> Any:
            value = row.get(name)
            texts = value if name == "changed_fields" else None
            if not isinstance(value, kinds) or not all(isinstance(text, str) for text in texts or ()):
                raise DatabaseError(
                    f"statements.changes: {name} is {value!r}, needed {needed}", where=self._at("changes")
                )
            return value

        def text(name: str) -> str | None:
            return None if row.get(name) is None else str(row[name])

        nothing = type(None)
        column("id", (str, int, UUID), "a text, a number or a UUID that no other row has")
        fields = column("changed_fields", (list, nothing), "an array of texts, or NULL")
        return Change(
            id=str(row["id"]),
            transaction_id=text("transaction_id"),
            table_schema=column("table_schema", (str,), "a text"),
            table_name=column("table_name", (str,), "a text"),
            table_pk=column("table_pk", (dict, nothing), "a JSON object, or NULL"),
            op=column("op", (str,), "insert, update, delete or truncate").lower(),
            data_after=column("data_after", (dict, nothing), "a JSON object, or NULL"),
            actor=row.get("actor"),
            txid=row.get("txid"),
            changed_fields=tuple(sorted(fields)) if fields else None,
            changed_from=column("changed_from", (dict, nothing), "a JSON object, or NULL"),
            action_id=text("action_id"),
        )

    @raised_for(Side.TARGET)
    def count_transactions(self, admin: Client) -> int:
        """Return the number of transactions in the trail."""
        if self.statements.transactions:
            return int(admin.value(self.statements.transactions))
        return len({change.transaction_id for change in self.changes(admin)})

    @raised_for(Side.TARGET)
    def coverage(self, client: Client) -> dict[str, str | None]:
        """Return the problem with the capture of each table, by `schema.table`; None means captured."""
        rows = client.rows(self.statements.coverage)
        return _Coverage({f"{schema}.{table}": problem for schema, table, problem in rows})

    @raised_for(Side.TARGET)
    def record_action(self, client: Client, name: str, correlation_id: str) -> None:
        """Record an action in the running transaction, as the application role."""
        fetch(client, self.statements.record_action, {"name": name, "correlation_id": correlation_id})

    @raised_for(Side.TARGET)
    def functions(self, admin: Client) -> list[tuple[str, str]]:
        """Return name and definition of the functions that capture."""
        rows = admin.rows(self.statements.capture_functions)
        if wrong := next((row for row in rows if len(row) != len(("name", "definition"))), None):
            raise DatabaseError(
                f"statements.capture_functions: found {len(wrong)} columns, needed name and definition",
                where=self._at("capture_functions"),
            )
        return [(name, definition) for name, definition in rows]


class _Coverage(dict[str, "str | None"]):
    """Problems by table. A table that coverage does not list counts as not captured."""

    def __missing__(self, table: str) -> str:
        return "it is not listed"


@contextlib.contextmanager
def _explained(name: str, where: str) -> Iterator[None]:
    """Turn an SQL error of one of the target's statements into an error that names the statement."""
    try:
        yield
    except SqlError as error:
        raise DatabaseError(
            f"statements.{name} does not run: {describe(error)}", where=where, hint=error.diag.message_hint or ""
        ) from None


def _filled(statement: str, table: str, more: Mapping[str, str] | None = None) -> str:
    """Return a statement with its placeholders replaced."""
    values = {"table_literal": quote_literal(table), "table": table, "name": _own_name(table), **(more or {})}
    for name, value in values.items():
        statement = statement.replace(f"{{{name}}}", value)
    return statement


def _own_name(table: str) -> str:
    """Return the last part of a qualified name, with its quotes."""
    inside, start = False, 0
    for at, character in enumerate(table):
        if character == '"':
            inside = not inside
        elif character == "." and not inside:
            start = at + 1
    return table[start:]


def _array(values: Sequence[str]) -> str:
    return f"ARRAY[{', '.join(map(quote_literal, values))}]::text[]"
