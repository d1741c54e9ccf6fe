"""The audit trail under test: how it is installed, attached to tables, and read.

Suites never name the trail's objects; they ask the target. The default target is the reference layer. Any other trail
is described by a TOML file, whose keys `target_file.py` documents. A feature that it does not claim is not judged.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import asdict, replace

from harness import config
from harness.audit.actor_convention import ActorConvention
from harness.audit.changes import REQUIRED, Change, change_of
from harness.audit.placeholders import (
    ROLE_NAMES,
    TABLE_NAMES,
    Name,
    fill,
    role_names,
    table_names,
    unknown_placeholder,
    uses,
)
from harness.audit.statements import Rows, explained, run_statement, within_deadline
from harness.audit.target_file import Recorded, Statements, TrailFeature, TrailLimit
from harness.audit.trial import Trial
from harness.database import Client, Side, quote_identifier, quote_literal, raised_for, run_files
from harness.errors import ConfigError, DatabaseError
from harness.model import KnownIssue

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

__all__ = ["AuditTarget", "Change"]

#: for a trail with a query for each table, while it has no table
_NO_CHANGES = f"SELECT {', '.join(f'NULL AS {name}' for name in REQUIRED)} WHERE false"


class AuditTarget(Struct, frozen=True, kw_only=True):
    """How an audit trail is installed, attached and read."""

    name: str
    summary: str
    #: the file that describes it, for error messages
    where: str
    #: a digest of the file and of the SQL that installs the trail
    fingerprint: str
    install: tuple[Path, ...]
    #: whether a superuser installs it
    needs_superuser: bool = False
    #: tables of the trail as SQL identifiers: those of the target file, then those that a query found
    tables: tuple[str, ...]
    #: `NO_ACTOR` for a trail that records no actor, by design
    actor: ActorConvention
    statements: Statements
    claims: frozenset[TrailFeature]
    omits: frozenset[Recorded] = frozenset()
    own_columns: frozenset[str] = frozenset()
    reattach: bool = False
    switches: tuple[str, ...] = ()
    documentation: str
    limits: tuple[TrailLimit, ...] = ()
    accepted: tuple[KnownIssue, ...] = ()
    #: the application's role, once it is known
    role: str = ""
    #: what a trial of the trail found; None where none was made
    trial: Trial | None = None
    #: the columns that `changes` returns; None before it was tried
    columns: frozenset[str] | None = None
    #: changes the rows that are read from the trail, for `prove`; no part of the target's identity
    observed: Callable[[Rows], Rows] | None = None

    @property
    def identity(self) -> str:
        """Return the key of evidence about this target: its name and fingerprint."""
        return f"{self.name} {self.fingerprint}"

    @property
    def is_reference(self) -> bool:
        return TrailFeature.LIBRARY in self.claims

    # --- what it records ------------------------------------------------------------------------------

    def lacking(self, property_: Recorded) -> str | None:
        """Return in one sentence why the trail lacks a property; None when it has it, or nobody tried yet."""
        if property_ in self.omits:
            return property_.omitted
        if property_ is Recorded.IMAGE and not any(map(self.records, (Recorded.INSERTS, Recorded.UPDATES))):
            return self.lacking(Recorded.INSERTS)  # no change has a row after it
        if property_ is Recorded.TIME:
            return property_.omitted if self.columns is not None and "captured_at" not in self.columns else None
        return self.trial.lacking(property_) if self.trial else None

    def records(self, property_: Recorded) -> bool:
        """Return whether the trail has a property, as far as it is known."""
        return self.lacking(property_) is None

    def records_operation(self, operation: str) -> bool:
        """Return whether the trail records an operation: insert, update, delete or truncate.

        :raises ValueError: for another operation.
        """
        if operation == "truncate":
            return TrailFeature.TRUNCATE in self.claims
        return self.records(Recorded(f"{operation}s"))

    def limit_of(self, check: str) -> TrailLimit | None:
        """Return the documented limit that a check may observe; None if the target file has none for it."""
        return next((limit for limit in self.limits if limit.check == check), None)

    def place_of(self, limit: TrailLimit) -> str:
        """Return where a limit is documented."""
        return f"{self.documentation}{limit.where}" if limit.where.startswith("#") else limit.where

    # --- installing -----------------------------------------------------------------------------------

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

        :param owner: a connection of the owner of the audited tables, or of a superuser where the target needs one.
        :raises DatabaseError: with file, line and SQLSTATE.
        """
        run_files(owner, self.install)

    def of_roles(self, role: str, owner: str) -> AuditTarget:
        """Return the target with the roles in its statements.

        :param role: the application's role.
        :param owner: the role that owns the audited tables.
        """
        names = role_names(role, owner)
        statements = Statements(**{key: fill(value, names) for key, value in asdict(self.statements).items()})
        return replace(
            self,
            role=role,
            statements=statements,
            switches=tuple(fill(switch, names) for switch in self.switches),
            actor=replace(self.actor, declare=fill(self.actor.declare, names)),
        )

    def with_found_tables(self, client: Client) -> AuditTarget:
        """Return the target with the tables where its rows are now: those of the file, and those that its query finds.

        :raises DatabaseError: when the query does not run, or returns wrong columns.
        """
        if not self.statements.tables:
            return self
        rows = self._names(client, "tables")
        found = [f"{quote_identifier(row['schema'])}.{quote_identifier(row['name'])}" for row in rows]
        plain = {quoted.replace('"', ""): quoted for quoted in found}
        return replace(
            self, tables=tuple(dict.fromkeys((*(plain.get(name, name) for name in self.tables), *plain.values())))
        )

    # --- attaching ------------------------------------------------------------------------------------

    @raised_for(Side.TARGET)
    def attach(self, owner: Client, table: str, *, changed_from: bool = False) -> None:
        """Attach capture to a table, and grant the application role its rights once more.

        :param table: as an SQL identifier, quoted and qualified where needed.
        :param changed_from: keep prior values, where the target can.
        :raises SqlError: of the server.
        """
        name = "attach_with_changed_from" if changed_from and self.statements.attach_with_changed_from else "attach"
        with self._within_deadline(owner, name):
            owner.run(fill(getattr(self.statements, name), table_names(table)))
        self._grant_again(owner, table)

    @raised_for(Side.TARGET)
    def attach_redacted(
        self, owner: Client, table: str, *, exclude: Sequence[str], mask: Sequence[str], placeholder: str = "[REDACTED]"
    ) -> None:
        """Attach capture to a table with prior values and redacted columns."""
        statement = self.redacting(table, exclude=exclude, mask=mask, placeholder=placeholder)
        with self._within_deadline(owner, "attach_redacted"):
            owner.run(statement)
        self._grant_again(owner, table)

    def redacting(self, table: str, *, exclude: Sequence[str], mask: Sequence[str], placeholder: str) -> str:
        """Return the statement that attaches capture to a table with redacted columns; "" without redaction."""
        rules = {"exclude": _array(exclude), "mask": _array(mask), "placeholder": quote_literal(placeholder)}
        return fill(self.statements.attach_redacted, table_names(table), rules)

    @raised_for(Side.TARGET)
    def detach(self, owner: Client, table: str) -> None:
        with self._within_deadline(owner, "detach"):
            owner.run(fill(self.statements.detach, table_names(table)))

    @property
    def grants_each_table(self) -> bool:
        """Whether the statement `grant` is about one audited table."""
        return uses(self.statements.grant, TABLE_NAMES)

    def grant(self, owner: Client, table: str = "") -> None:
        """Grant the application role the rights that the trail needs.

        :param table: an audited table as an SQL identifier; "" for a grant that is about no table.
        :raises DatabaseError: when the statement does not run.
        """
        if self.statements.grant and (table or not self.grants_each_table):
            with explained("grant", self.at("grant")), self._within_deadline(owner, "grant"):
                owner.run(fill(self.statements.grant, table_names(table) if table else {}))

    def _grant_again(self, owner: Client, table: str) -> None:
        # what a superuser installed, only the superuser can grant
        if self.role and (self.grants_each_table or not self.needs_superuser):
            self.grant(owner, table)

    # --- reading --------------------------------------------------------------------------------------

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
        where, convention = self.at("changes"), self.actor
        changes = (change_of(row, self.own_columns, where) for row in self.rows_of(client, condition))
        return [replace(change, actor=convention.read(change.actor)) for change in changes]

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
        """Return one query for all changes, to be used within another one."""
        if not self.statements.each:
            return self.statements.changes
        statements = [f"SELECT * FROM ({statement}\n) AS one" for statement in self._changes_statements(client)]
        return "\nUNION ALL ".join(statements) or _NO_CHANGES

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
                raise DatabaseError(f"statements.{name}: {wrong[0]} is {row[wrong[0]]!r}, needed a text", where=where)
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
        return _place(self.where, f"statements.{name}")


@cache
def _place(path: str, key: str) -> str:
    """Return `path:line` of a key; the file is read once, because each reading of the trail needs the place."""
    return config.at_key(path, key)


class _Coverage(dict[str, "str | None"]):
    """Problems by table. A table that coverage does not list counts as not captured."""

    def __missing__(self, table: str) -> str:
        return "it is not listed"


def _array(values: Sequence[str]) -> str:
    return f"ARRAY[{', '.join(map(quote_literal, values))}]::text[]"
