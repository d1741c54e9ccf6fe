"""Reads the rows of one attempt from an audit trail that others write to at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from harness.database import Client, SqlError, describe, quote_literal
from harness.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.audit.target import AuditTarget, Change
    from harness.host.declarations import Expected
    from harness.host.site import Values


class Recorded(Struct, frozen=True, kw_only=True):
    """An action as the trail stores it."""

    name: str | None
    correlation_id: str | None
    job_id: str | None = None


class Trail:
    """Reads an audit trail for the rows of one path. Rows of other requests are never returned."""

    def __init__(self, client: Client, target: AuditTarget) -> None:
        self._client = client
        self._target = target

    def rows_of(self, expected: Expected, values: Values) -> list[Change]:
        """Return the changes that hold the identifying values of this attempt, in the order of their capture.

        :raises DatabaseError: when the trail cannot be read.
        """
        schema, _, table = expected.table.partition(".")
        conditions = [f"change.table_schema = {quote_literal(schema)}", f"change.table_name = {quote_literal(table)}"]
        if expected.where:
            conditions += holding(values.fill(expected.where))
        if expected.operation == "delete":  # the steps that prepare the path wrote a row with the same key
            conditions.append("change.op::text ILIKE 'delete'")
        if expected.key:
            conditions.append(_holds_key(values.fill(expected.key)))
        return self._changes(" AND ".join(conditions))

    def rows_with(self, transactions: Iterable[str], expected: Expected) -> list[Change]:
        """Return all changes of the expected table in these transactions, expected or not.

        :raises DatabaseError: when the trail cannot be read.
        """
        ids = ", ".join(map(quote_literal, transactions))
        schema, _, table = expected.table.partition(".")
        return self._changes(
            f"change.transaction_id::text IN ({ids}) AND change.table_schema = {quote_literal(schema)} "
            f"AND change.table_name = {quote_literal(table)}"
        )

    def _changes(self, condition: str) -> list[Change]:
        try:
            with self._client.transaction():
                self._client.run("SET LOCAL statement_timeout = '20s'")
                return self._target.changes_where(self._client, condition)
        except SqlError as error:
            raise _unreadable(error) from None

    def action(self, identity: str | None) -> Recorded | None:
        """Return the action with an id; None when the trail has no such action, or stores no actions.

        :raises DatabaseError: when the trail cannot be read.
        """
        statement = self._target.statements.actions.strip().rstrip(";")
        if identity is None or not statement:
            return None
        try:
            cursor = self._client.execute(
                f"SELECT * FROM ({statement}\n) AS action WHERE action.id::text = {quote_literal(identity)}".encode()
            )
        except SqlError as error:
            raise _unreadable(error) from None
        names = [column.name for column in cursor.description or ()]
        for row in cursor:
            found = dict(zip(names, row, strict=True))
            return Recorded(
                name=found.get("name"), correlation_id=found.get("correlation_id"), job_id=found.get("job_id")
            )
        return None


def _json(value: Any) -> str:
    return quote_literal(msgspec.json.encode(value).decode()) + "::jsonb"


def holding(where: dict[str, Any]) -> list[str]:
    """Return conditions for values of the image; a trail may keep a number or a truth value as its text."""
    found = []
    for name, value in where.items():
        holds = f"change.data_after::jsonb @> {_json({name: value})}"
        if isinstance(value, bool | int | float):
            texts = [as_text(value), *(["ft"[value]] if isinstance(value, bool) else [])]
            listed = ", ".join(map(quote_literal, texts))
            holds = f"({holds} OR change.data_after::jsonb ->> {quote_literal(name)} IN ({listed}))"
        found.append(holds)
    return found


def _holds_key(key: dict[str, Any]) -> str:
    """Compare a key as text: some trails store numbers as text."""
    return " AND ".join(
        f"change.table_pk::jsonb ->> {quote_literal(name)} = {quote_literal(as_text(value))}"
        for name, value in key.items()
    )


def as_text(value: Any) -> str:
    """Return a value of a key as text: a text unchanged, anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _unreadable(error: SqlError) -> DatabaseError:
    timed_out = error.sqlstate == "57014"
    return DatabaseError(
        f"the audit trail cannot be read: {describe(error)}",
        hint="the trail is large and has no index for this query; raise statement_timeout for the role"
        if timed_out
        else "set `trail` to a role that may read the trail, and audit_target to the trail itself",
    )
