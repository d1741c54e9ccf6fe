"""What the statements of an audit target do in an installed trail: they read its changes and actions, and purge it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from harness import config
from harness.audit.actor_convention import ActorConvention
from harness.audit.changes import REQUIRED, Change, change_of, shown
from harness.audit.placeholders import ROLE_NAMES, Name, fill, unknown_placeholder
from harness.audit.statements import Rows, explained, named, run_statement, within_deadline
from harness.audit.target_file import Statements
from harness.audit.text_values import read_back
from harness.database import Client, Side, raised_for
from harness.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

#: for a trail with a query for each table, while it has no table
NO_CHANGES = f"SELECT {', '.join(f'NULL AS {name}' for name in REQUIRED)} WHERE false"


class TrailStatements(Struct, frozen=True, kw_only=True):
    """What a target's statements do in an installed trail."""

    #: the file that describes the target, for error messages
    where: str
    #: `NO_ACTOR` for a trail that records no actor, by design
    actor: ActorConvention
    statements: Statements
    own_columns: frozenset[str] = frozenset()
    #: changes the rows that are read from the trail, for `prove`; no part of the target's identity
    observed: Callable[[Rows], Rows] | None = None

    def changes(self, admin: Client, table: str | None = None) -> list[Change]:
        """Return the captured changes in the order of their capture.

        :param table: `name` or `schema.name`, for the changes of one table.
        """
        rows = self.changes_where(admin)
        return [row for row in rows if table in {None, row.table_name, f"{row.table_schema}.{row.table_name}"}]

    @raised_for(Side.TARGET)
    def changes_where(self, client: Client, condition: str = "") -> list[Change]:
        """Return the captured changes that meet a condition.

        :param condition: SQL about the canonical columns of `change`; "" for all changes.
        """
        return self.canonical(client, self.rows_of(client, condition), "changes")

    def canonical(self, client: Client, rows: Iterable[Mapping[str, Any]], statement: str) -> list[Change]:
        """Return rows of the trail in the form that checks compare: actors by the convention, values with their types.

        :param statement: the key of the statement that returned them.
        :raises DatabaseError: for a value of the wrong type.
        """
        where = self.at(statement)
        changes = (change_of(row, self.own_columns, where, statement) for row in rows)
        found = [replace(change, actor=self.actor.read(change.actor)) for change in changes]
        return read_back(client, found, self.texts) if self.texts and found else found

    @property
    def texts(self) -> frozenset[str]:
        """The columns of `changes` whose texts are read back as the types of the table's columns."""
        return frozenset()

    def rows_of(self, client: Client, condition: str = "") -> Rows:
        """Return the rows of the trail as its statement returns them: the single place where the trail is read.

        :param condition: see :meth:`changes_where`.
        :raises SqlError: of the server.
        :raises DatabaseError: for a statement that does not end in time, or values that cannot be read or sorted.
        """
        rows: Rows = []
        where, statements = self.at("changes"), list(self._changes_statements(client))
        with self._within_deadline(client, "changes"):
            for statement in statements:
                wrapped = f"SELECT * FROM ({statement}\n) AS change WHERE {condition}" if condition else statement
                rows += run_statement(client, wrapped, "changes", where)[1]
        if self.statements.each and any("position" in row for row in rows):
            try:
                rows.sort(key=lambda row: row["position"])
            except (TypeError, KeyError) as error:
                raise DatabaseError(
                    f"statements.changes: the values of position do not sort: {error}", where=where
                ) from None
        return self.observed(rows) if self.observed else rows

    def changes_query(self, client: Client) -> str:
        """Return one query for all changes, to be used within another one: see :meth:`within_a_query`."""
        if not self.statements.each:
            return self.statements.changes
        statements = [f"SELECT * FROM ({statement}\n) AS one" for statement in self._changes_statements(client)]
        return "\nUNION ALL ".join(statements) or NO_CHANGES

    @contextlib.contextmanager
    def within_a_query(self) -> Iterator[None]:
        """Let the errors of a query around :meth:`changes_query` be those of the target's statement."""
        with raised_for(Side.TARGET), named("changes", self.at("changes")):
            yield

    def _changes_statements(self, client: Client) -> Iterator[str]:
        if not self.statements.each:
            yield self.statements.changes
            return
        for row in self._names(client, "each"):
            if found := unknown_placeholder(self.statements.changes, (*row, *ROLE_NAMES)):
                raise DatabaseError(f"statements.changes: {found[0]}", where=self.at("changes"), hint=found[1])
            yield fill(self.statements.changes, {column: Name(value) for column, value in row.items()})

    def _names(self, client: Client, name: str) -> Rows:
        """Return the rows of a statement that returns names of schemas and tables.

        :param name: its key, `tables` or `each`.
        :raises DatabaseError: when it does not run, or returns something else.
        """
        where = self.at(name)
        with explained(name, where):
            columns, rows = self._rows(client, name)
        if missing := sorted({"schema", "name"} - set(columns)):
            raise DatabaseError(f"statements.{name}: missing column {', '.join(missing)}", where=where)
        for row in rows:
            if wrong := [column for column, value in row.items() if not isinstance(value, str)]:
                found = shown(row[wrong[0]])
                raise DatabaseError(f"statements.{name}: {wrong[0]} is {found}, needed a text", where=where)
        return rows

    @raised_for(Side.TARGET)
    def count_transactions(self, admin: Client) -> int:
        """Return the number of transactions in the trail."""
        if self.statements.transactions:
            with self._within_deadline(admin, "transactions"):
                return int(admin.value(self.statements.transactions))
        return len({change.transaction_id for change in self.changes(admin)})

    @raised_for(Side.TARGET)
    def coverage(self, client: Client) -> dict[str, str | None]:
        """Return the problem with the capture of each table, by `schema.table`; None means captured."""
        with self._within_deadline(client, "coverage"):
            rows = client.rows(self.statements.coverage)
        return _Coverage({f"{schema}.{table}": problem for schema, table, problem in rows})

    @raised_for(Side.TARGET)
    def record_action(self, client: Client, name: str, correlation_id: str, job_id: str | None = None) -> None:
        """Record an action in the running transaction, as the application role.

        :param job_id: the job that does it; a trail that does not keep jobs ignores it.
        """
        values = {"name": name, "correlation_id": correlation_id, "job_id": job_id}
        self._rows(client, "record_action", values)

    @property
    def keeps_jobs(self) -> bool:
        """Whether the trail keeps the job of an action."""
        return "%(job_id)s" in self.statements.record_action

    @raised_for(Side.TARGET)
    def actions(self, admin: Client) -> dict[str, dict[str, Any]]:
        """Return the columns of each action by its id, in the order in which the trail returns them."""
        _, rows = self._rows(admin, "actions")
        spelled = ({"actor": self.actor.read(row["actor"])} if "actor" in row else {} for row in rows)
        return {str(row["id"]): row | actor for row, actor in zip(rows, spelled, strict=True)}

    @raised_for(Side.TARGET)
    def correlations(self, admin: Client) -> dict[str, str] | None:
        """Return the correlation of each action, by its id; None for a trail whose actions are not recorded or read."""
        if not (self.statements.actions and self.statements.record_action):
            return None
        return {identity: str(row["correlation_id"]) for identity, row in self.actions(admin).items()}

    @raised_for(Side.TARGET)
    def purge(self, client: Client, cutoff: datetime) -> None:
        """Delete the changes that were captured before the cutoff."""
        self._rows(client, "purge", {"cutoff": cutoff})

    @raised_for(Side.TARGET)
    def age(self, client: Client, days: int) -> None:
        """Make the whole trail older."""
        self._rows(client, "age", {"age": timedelta(days=days)})

    @raised_for(Side.TARGET)
    def functions(self, admin: Client) -> list[tuple[str, str]]:
        """Return name and definition of the functions that capture."""
        return [(name, definition) for name, definition in admin.rows(self.statements.capture_functions)]

    def _within_deadline(self, client: Client, name: str) -> contextlib.AbstractContextManager[None]:
        return within_deadline(client, name, self.at(name))

    def _rows(
        self, client: Client, name: str, parameters: Mapping[str, object] | None = None
    ) -> tuple[list[str], Rows]:
        """Run a statement within its deadline, and return the names of its columns, and its rows.

        :param name: its key.
        """
        with self._within_deadline(client, name):
            return run_statement(client, getattr(self.statements, name), name, self.at(name), parameters)

    def at(self, name: str) -> str:
        """Return file and line of a statement, for errors.

        :param name: its key.
        """
        try:
            found = Path(self.where).stat()
        except OSError:
            return self.where
        return _place(self.where, f"statements.{name}", found.st_ino, found.st_mtime_ns)


@cache
def _place(path: str, key: str, _inode: int, _changed: int) -> str:
    """Return `path:line` of a key; a file is read once, because each reading of the trail needs the place.

    The path alone does not say which file it is: it may be relative, and the file may change.
    """
    return config.at_key(path, key)


class _Coverage(dict[str, "str | None"]):
    """Problems by table. A table that coverage does not list counts as not captured."""

    def __missing__(self, table: str) -> str:
        return "it is not listed"
