"""Counts the rows of an audited table that one attempt wrote, and compares the transactions with those of the trail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from harness.database import SqlError, describe, quote_literal, quote_name
from harness.host.trail_reader import as_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.database import Client
    from harness.host.declarations import Expected
    from harness.host.site import Values

#: without an index on the identifying columns, the whole table is read
_TABLE_TIMEOUT = "20s"
#: the trail has no index on the transaction of a row, so the whole trail is read
_TRAIL_TIMEOUT = "5s"
#: a missing privilege, and a statement that timed out: their messages contain names only, no values
_SAFE_MESSAGES = ("42501", "57014")


class RowsNotSeenError(Exception):
    """The role cannot see how many rows the table holds, so a count of zero would prove nothing."""


class TableRows(Struct, frozen=True, kw_only=True):
    """The rows of one attempt in the audited table."""

    count: int
    #: rows that hold the values unique to this request; the host may have changed their other columns since
    loosely: int
    #: the transactions, or their savepoints, that wrote the current row versions
    #: (https://www.postgresql.org/docs/current/ddl-system-columns.html); empty for a view
    written_by: tuple[str, ...]


def rows_in_table(client: Client, expected: Expected, values: Values) -> TableRows:
    """Count the rows of the audited table that hold the identifying values of this attempt.

    :raises RowsNotSeenError: when the role may not read the rows, row security hides some of them from it, or the
        table lacks an identifying column.
    """
    try:
        with client.transaction():
            client.run(f"SET LOCAL statement_timeout = '{_TABLE_TIMEOUT}'")
            columns, is_view = _columns(client, expected.table)
            whole, loose = _conditions(expected, values, columns)
            written_by = "NULL" if is_view else "array_agg(DISTINCT harness_row.xmin::text)"
            found = client.rows(
                f"SELECT count(*) FILTER (WHERE {whole}), count(*), {written_by} "
                f"FROM {quote_name(expected.table)} AS harness_row WHERE {loose}"
            )
    except SqlError as error:
        # any other message may repeat a value from a response
        reason = describe(error) if error.sqlstate in _SAFE_MESSAGES else f"SQLSTATE {error.sqlstate}"
        raise RowsNotSeenError(f"the rows of {expected.table} cannot be counted: {reason}") from None
    count, loosely, transactions = found[0]
    return TableRows(count=count, loosely=loosely, written_by=tuple(transactions or ()))


def _columns(client: Client, table: str) -> tuple[dict[str, bool], bool]:
    """Return the table's columns, each with whether its type is text, and whether the table is a view."""
    name = quote_name(table)
    if client.value("SELECT to_regclass(%s)", [name]) is None:
        raise RowsNotSeenError(f"table {table} does not exist, or the role cannot see it")
    # row_security_active: https://www.postgresql.org/docs/current/functions-info.html
    if client.value("SELECT row_security_active(%s::regclass)", [name]):
        raise RowsNotSeenError(f"row security hides rows of {table} from the role")
    found = client.rows(
        "SELECT attname, typcategory = 'S', relkind = 'v' FROM pg_catalog.pg_attribute "
        "JOIN pg_catalog.pg_type ON pg_type.oid = atttypid JOIN pg_catalog.pg_class ON pg_class.oid = attrelid "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        [name],
    )
    return {column: is_text for column, is_text, _ in found}, any(is_view for _, _, is_view in found)


def _conditions(expected: Expected, values: Values, columns: dict[str, bool]) -> tuple[str, str]:
    """Return the SQL condition for all identifying values, and the one for the values unique to this attempt."""
    identifying = values.fill(expected.row) or values.fill(expected.where)
    key = {name: value for name, value in values.fill(expected.key).items() if not identifying or name in columns}
    if missing := [name for name in (*identifying, *key) if name not in columns]:
        raise RowsNotSeenError(
            f"{expected.table} has no column {', '.join(missing)}: declare the table's own columns with `row`"
        )
    by_value = {name: _holds(name, value, columns) for name, value in identifying.items()}
    # compared in the type of the column, so that an index on it is used
    by_key = [f"harness_row.{quote_name(name)} = {quote_literal(as_text(value))}" for name, value in key.items()]
    whole = [*by_value.values(), *by_key]
    loose = [by_value[name] for name, value in identifying.items() if values.unique in _json(value)]
    return " AND ".join(whole), " AND ".join(loose or whole)


def _holds(name: str, value: Any, columns: dict[str, bool]) -> str:
    if columns[name] and isinstance(value, str):
        return f"harness_row.{quote_name(name)} = {quote_literal(value)}"
    return f"to_jsonb(harness_row) @> {quote_literal(_json({name: value}))}::jsonb"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def trail_is_of(client: Client, tables: Iterable[str], written_by: Sequence[str]) -> bool | None:
    """Return whether every transaction that wrote rows also wrote to the trail; None when that cannot be seen.

    :param tables: of the trail, as schema.table.
    :param written_by: transactions as :class:`TableRows` lists them.
    """
    found: set[str] = set()
    try:
        with client.transaction():
            client.run(f"SET LOCAL statement_timeout = '{_TRAIL_TIMEOUT}'")
            for table in tables:
                found.update(
                    transaction
                    for (transaction,) in client.rows(
                        f"SELECT DISTINCT xmin::text FROM {quote_name(table)} WHERE xmin = ANY (%s::xid[])",
                        [list(written_by)],
                    )
                )
    except SqlError:
        return None
    return found >= set(written_by)
