"""Verification of an audit target: its statements run on an empty trail before any check relies on them."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.audit.changes import problem_of_columns, shown
from harness.audit.exporting import export_trail
from harness.audit.statements import explained
from harness.audit.trail_statements import NO_CHANGES
from harness.config import at_key
from harness.database import Client, SqlError, describe_in_full, is_lost, type_name
from harness.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.audit.target import AuditTarget

_COVERAGE_COLUMNS = 3
_ACTION_COLUMNS = {"id", "name", "correlation_id"}
#: before every change
_CUTOFF = datetime(2000, 1, 1, tzinfo=UTC)
#: the SQLSTATE of a COMMIT within another transaction
_COMMITS = "2D000"
#: the beginning of the SQLSTATEs of a mistake in a statement, such as an unknown name, and one that is about rights
_MISTAKE, _NO_RIGHTS = "42", "42501"


def verify_statements(target: AuditTarget, client: Client) -> None:
    """Run the target's statements on an empty trail. The columns of `changes` are verified by :func:`columns_of`.

    :param client: a connection of the role that installed the trail.
    :raises DatabaseError: with the statement that does not run or returns wrong columns.
    """
    statements = target.statements
    _require_tables(target, client, "tables")
    if statements.actions and (missing := sorted(_ACTION_COLUMNS - set(_columns(target, client, "actions")))):
        raise DatabaseError(f"statements.actions: missing column {', '.join(missing)}", where=target.at("actions"))
    if statements.coverage and len(columns := _columns(target, client, "coverage")) != _COVERAGE_COLUMNS:
        raise DatabaseError(
            f"statements.coverage: found {len(columns)} columns, needed schema, table, problem",
            where=target.at("coverage"),
        )
    if statements.transactions:
        with explained("transactions", target.at("transactions")):
            found = client.value(statements.transactions)
        if not isinstance(found, int):
            raise DatabaseError(
                f"statements.transactions: found {shown(found)}, needed a number", where=target.at("transactions")
            )
    for name, run in (
        ("purge", partial(target.purge, client, _CUTOFF)),
        ("age", partial(target.age, client, 1)),
        ("export", partial(export_trail, target, client)),
    ):
        if getattr(statements, name):
            with explained(name, target.at(name)):
                _undone(client, run)


def with_its_tables(target: AuditTarget, client: Client) -> AuditTarget:
    """Return the target with the tables that its query finds, all of which exist.

    :raises DatabaseError: for a query that does not run, or a table that it finds and that does not exist.
    """
    found = target.with_found_tables(client)
    _require_tables(found, client, "statements.tables")
    return found


def _require_tables(target: AuditTarget, client: Client, key: str) -> None:
    for table in target.tables:
        if client.value("SELECT to_regclass(%s)", [table]) is None:
            raise DatabaseError(
                f"{key}: missing table {table} after the installation of the trail", where=at_key(target.where, key)
            )


def try_attaching(target: AuditTarget, owner: Client) -> None:
    """Run the statements that attach with further properties or detach, each on a scratch table, and undo them.

    :raises DatabaseError: with the statement that does not run.
    """
    table = "public.tried"
    redact = partial(target.attach_redacted, owner, table, exclude=["a"], mask=["b"])
    plain = partial(target.attach, owner, table)
    for steps in (
        [("attach_with_changed_from", partial(plain, changed_from=True))],
        [("attach_redacted", redact), ("attach_redacted", redact)],
        [("attach", plain), ("detach", partial(target.detach, owner, table))],
    ):
        if getattr(target.statements, steps[-1][0]):
            with owner.transaction(force_rollback=True):
                owner.run(f"CREATE TABLE {table} (id int PRIMARY KEY, a text, b text)")
                for name, run in steps:
                    with explained(name, target.at(name)):
                        run()


def try_as_superuser(target: AuditTarget, admin: Client) -> None:
    """Run the statements of the application and of an attacker, and undo them.

    The trail may refuse them. A mistake in one of them is found here, because a check would take it for a refusal.

    :param admin: a connection of a superuser; capture is attached in its database.
    :raises DatabaseError: for a statement with a mistake.
    """
    for switch in target.switches:
        with _without_mistake(admin, f"switches: {shown(switch)}", at_key(target.where, "switches")):
            admin.run(switch)
    if target.statements.record_action:
        with _without_mistake(admin, "statements.record_action", target.at("record_action")):
            target.record_action(admin, "tried", "tried", "tried")


@contextlib.contextmanager
def _without_mistake(client: Client, what: str, where: str) -> Iterator[None]:
    try:
        with client.transaction(force_rollback=True):
            yield
    except SqlError as error:
        state = error.sqlstate or ""
        if state != _NO_RIGHTS and (state.startswith(_MISTAKE) or not (state or is_lost(error))):
            raise DatabaseError(
                f"{what} does not run: {describe_in_full(error)}", where=where, hint=error.diag.message_hint or ""
            ) from None


def columns_of(target: AuditTarget, client: Client) -> frozenset[str] | None:
    """Return the columns of the target's changes; None while `each` finds no table, so that nobody knows them.

    :raises DatabaseError: for a statement that does not run, or a missing column or one of another type.
    """
    query = target.changes_query(client)
    if query == NO_CHANGES:
        return None
    with explained("changes", target.at("changes")):
        cursor = client.execute(f"SELECT * FROM ({query}\n) AS change LIMIT 0".encode())
    types = {column.name: type_name(client, column) for column in cursor.description or ()}
    if problem := problem_of_columns(types):
        raise DatabaseError(
            f"statements.changes: {problem}",
            where=target.at("changes"),
            hint=f"name columns with AS; found: {', '.join(types)}" if problem.startswith("missing") else "",
        )
    return frozenset(types)


def _columns(target: AuditTarget, client: Client, name: str) -> list[str]:
    with explained(name, target.at(name)):
        cursor: Any = client.execute(getattr(target.statements, name))
        return [column.name for column in cursor.description or ()]


def _undone(client: Client, run: Callable[[], object]) -> None:
    """Run a statement and undo it. A procedure that commits its batches cannot be undone, and finds nothing here."""
    try:
        with client.transaction(force_rollback=True):
            run()
    except SqlError as error:
        if error.sqlstate != _COMMITS:
            raise
        run()
