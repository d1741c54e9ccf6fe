"""The audited table itself: whether the rows that the trail tells of are there, and were written with it."""

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

#: a table that nothing indexes by what tells the rows is read whole
_LONGEST = "20s"
#: a right that is missing, and a statement that took too long: their messages hold names only
_TELLING = ("42501", "57014")
#: for a trail that is read whole, because nothing indexes which transaction wrote a row
_LONGEST_IN_TRAIL = "5s"


class RowsNotSeenError(Exception):
    """Who asks cannot tell how many rows there are: no rows seen would mean nothing."""


class TableRows(Struct, frozen=True, kw_only=True):
    """The rows of one time that a path was taken, as the audited table has them."""

    count: int
    #: those that hold what is of this request only: the host may have changed the rest of them since
    loosely: int
    #: the transactions, or the savepoints in them, that wrote these versions of the rows
    #: (https://www.postgresql.org/docs/current/ddl-system-columns.html); none where it is a view
    written_by: tuple[str, ...]


def rows_in_table(client: Client, expected: Expected, values: Values) -> TableRows:
    """Count the rows of the audited table that hold what tells this request from others.

    :raises RowsNotSeenError: where the role may not read them, row security hides some from it, or the table has no
        such columns.
    """
    try:
        with client.transaction():
            client.run(f"SET LOCAL statement_timeout = '{_LONGEST}'")
            columns, is_view = _columns(client, expected.table)
            whole, loose = _conditions(expected, values, columns)
            written_by = "NULL" if is_view else "array_agg(DISTINCT harness_row.xmin::text)"
            found = client.rows(
                f"SELECT count(*) FILTER (WHERE {whole}), count(*), {written_by} "
                f"FROM {quote_name(expected.table)} AS harness_row WHERE {loose}"
            )
    except SqlError as error:
        # the message of others may repeat a value that an answer held
        told = describe(error) if error.sqlstate in _TELLING else f"SQLSTATE {error.sqlstate}"
        raise RowsNotSeenError(f"the rows of {expected.table} cannot be counted: {told}") from None
    count, loosely, transactions = found[0]
    return TableRows(count=count, loosely=loosely, written_by=tuple(transactions or ()))


def _columns(client: Client, table: str) -> tuple[dict[str, bool], bool]:
    """Return the table's columns, whether each is one of texts, and whether the table is a view."""
    name = quote_name(table)
    if client.value("SELECT to_regclass(%s)", [name]) is None:
        raise RowsNotSeenError(f"there is no table {table} that the role can see")
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
    """Return what tells the rows as a whole, and the part of it that nobody else's rows can hold."""
    told = values.fill(expected.row) or values.fill(expected.where)
    key = {name: each for name, each in values.fill(expected.key).items() if not told or name in columns}
    if missing := [name for name in (*told, *key) if name not in columns]:
        raise RowsNotSeenError(
            f"{expected.table} has no column {', '.join(missing)}: name those that tell its rows with `row`"
        )
    by_value = {name: _holds(name, each, columns) for name, each in told.items()}
    # compared as the column's own type, so that an index on it is used
    by_key = [f"harness_row.{quote_name(name)} = {quote_literal(as_text(each))}" for name, each in key.items()]
    whole = [*by_value.values(), *by_key]
    loose = [by_value[name] for name, each in told.items() if values.unique in _json(each)]
    return " AND ".join(whole), " AND ".join(loose or whole)


def _holds(name: str, value: Any, columns: dict[str, bool]) -> str:
    if columns[name] and isinstance(value, str):
        return f"harness_row.{quote_name(name)} = {quote_literal(value)}"
    return f"to_jsonb(harness_row) @> {quote_literal(_json({name: value}))}::jsonb"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def trail_is_of(client: Client, tables: Iterable[str], written_by: Sequence[str]) -> bool | None:
    """Say whether each transaction that wrote rows wrote to the trail, too; None when that cannot be seen."""
    found: set[str] = set()
    try:
        with client.transaction():
            client.run(f"SET LOCAL statement_timeout = '{_LONGEST_IN_TRAIL}'")
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
