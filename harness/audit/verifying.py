"""Verification of an audit target: its statements run on an empty trail before any check relies on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.audit.changes import problem_of_columns
from harness.audit.statements import explained
from harness.config import at_key
from harness.database import Client, SqlError, fetch, type_name
from harness.errors import DatabaseError

if TYPE_CHECKING:
    from harness.audit.target import AuditTarget

_COVERAGE_COLUMNS = 3
#: columns that a statement must return
_NEEDED = {"actions": {"id", "name", "correlation_id"}, "tables": {"schema", "name"}, "each": {"schema", "name"}}
#: statements with parameters, and values for them
_PARAMETERS = {"age": {"age": "1 day"}, "purge": {"cutoff": "2000-01-01 00:00:00+00"}}

#: SQLSTATE of a COMMIT within another transaction
_COMMITS = "2D000"


def verify_statements(target: AuditTarget, client: Client) -> None:
    """Run the target's statements on an empty trail. The columns of `changes` are verified by :func:`columns_of`.

    :param client: a connection of the role that installed the trail.
    :raises DatabaseError: with the statement that does not run or returns wrong columns.
    """
    statements = target.statements
    for table in target.tables:
        if client.value("SELECT to_regclass(%s)", [table]) is None:
            raise DatabaseError(
                f"tables: missing table {table} after the installation of the trail",
                where=at_key(target.where, "tables"),
            )
    for name, needed in _NEEDED.items():
        if getattr(statements, name) and (missing := sorted(needed - set(_columns(target, client, name)))):
            raise DatabaseError(f"statements.{name}: missing column {', '.join(missing)}", where=_at(target, name))
    if statements.coverage and len(columns := _columns(target, client, "coverage")) != _COVERAGE_COLUMNS:
        raise DatabaseError(
            f"statements.coverage: found {len(columns)} columns, needed schema, table, problem",
            where=_at(target, "coverage"),
        )
    with client.transaction(force_rollback=True):
        if statements.transactions and not isinstance(client.value(statements.transactions), int):
            raise DatabaseError("statements.transactions: needed a number as result", where=_at(target, "transactions"))
    for name, parameters in _PARAMETERS.items():
        if statement := getattr(statements, name):
            with explained(name, _at(target, name)):
                _try(client, statement, parameters)


def _try(client: Client, statement: str, parameters: dict[str, str]) -> None:
    """Run a statement and undo it. A procedure that commits its batches cannot be undone, and finds nothing here."""
    try:
        with client.transaction(force_rollback=True):
            fetch(client, statement, parameters)
    except SqlError as error:
        if error.sqlstate != _COMMITS:
            raise
        fetch(client, statement, parameters)


def try_attaching(target: AuditTarget, owner: Client) -> None:
    """Run the statements that attach with further properties on a scratch table, and roll them back.

    :raises DatabaseError: with the statement that does not run.
    """
    with owner.transaction(force_rollback=True):
        owner.run("CREATE TABLE public.tried (id int PRIMARY KEY, a text, b text)")
        if target.statements.attach_with_changed_from:
            with explained("attach_with_changed_from", _at(target, "attach_with_changed_from")):
                target.attach(owner, "public.tried", changed_from=True)
        if target.statements.attach_redacted:
            with explained("attach_redacted", _at(target, "attach_redacted")):
                for _ in range(2):
                    target.attach_redacted(owner, "public.tried", exclude=["a"], mask=["b"])


def columns_of(target: AuditTarget, client: Client) -> frozenset[str]:
    """Return the columns of the target's changes. With a query for each table, tables must be attached already.

    :raises DatabaseError: for a statement that does not run, or a missing column or one of another type.
    """
    query = target.changes_query(client)
    with explained("changes", _at(target, "changes")):
        cursor = client.execute(f"SELECT * FROM ({query}\n) AS change LIMIT 0".encode())
    types = {column.name: type_name(client, column) for column in cursor.description or ()}
    if problem := problem_of_columns(types):
        raise DatabaseError(
            f"statements.changes: {problem}",
            where=_at(target, "changes"),
            hint=f"name columns with AS; found: {', '.join(types)}" if problem.startswith("missing") else "",
        )
    return frozenset(types)


def _columns(target: AuditTarget, client: Client, name: str) -> list[str]:
    with explained(name, _at(target, name)):
        cursor: Any = client.execute(getattr(target.statements, name))
        return [column.name for column in cursor.description or ()]


def _at(target: AuditTarget, name: str) -> str:
    return at_key(target.where, f"statements.{name}")
