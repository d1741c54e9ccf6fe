"""Queries over mutated rows: checks that compare values on the server read the trail within a query of their own.

The rows are read with all digits of their numbers, mutated, and given back as a query with the same columns.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from harness.database import quote_identifier, quote_literal

if TYPE_CHECKING:
    from harness.database import Client
    from harness.mutants.observed_rows import Row

_JSON = ("json", "jsonb")
#: columns that a mutation may spell in any way
_ANY_TEXT = ("id", "transaction_id", "op")
#: longer integers do not fit into 64 bits
_DIGITS = 18
_ENCODER = msgspec.json.Encoder(decimal_format="number")


def exact_rows(client: Client, query: str) -> tuple[list[Row], dict[str, str]]:
    """Return the rows of a query, and the server's names of the types of its columns; none where there is no row."""
    described = client.execute(f"SELECT * FROM ({query}\n) AS described LIMIT 0".encode())
    names = [column.name for column in described.description or ()]
    typed = ", ".join(f"pg_typeof({quote_identifier(name)})::text" for name in names)
    found = client.rows(f"SELECT {typed} FROM ({query}\n) AS typed LIMIT 1")
    if not found:
        return [], {}
    types = dict(zip(names, found[0], strict=True))
    shown = ", ".join(
        f"{quote_identifier(name)}::text" if kind in _JSON else quote_identifier(name) for name, kind in types.items()
    )
    rows = client.rows(f"SELECT {shown} FROM ({query}\n) AS exact")
    return [
        {
            name: _parsed(value) if types[name] in _JSON and value is not None else value
            for name, value in zip(names, row, strict=True)
        }
        for row in rows
    ], types


def _parsed(text: str) -> Any:
    return json.loads(text, parse_float=Decimal, parse_int=_integer)


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _DIGITS else Decimal(digits)


def query_of(rows: list[Row], types: dict[str, str]) -> str:
    """Return a query for rows, with columns of these types."""
    columns = ", ".join(f"{_column(name, kind)} AS {quote_identifier(name)}" for name, kind in types.items())
    # a percent sign would be a placeholder in a statement with parameters
    values = _ENCODER.encode([{name: row.get(name) for name in types} for row in rows]).decode().replace("%", "\\u0025")
    return (
        f"SELECT {columns} FROM json_array_elements({quote_literal(values)}::json) WITH ORDINALITY AS mutated (r, n) "
        "ORDER BY n"
    )


def _column(name: str, kind: str) -> str:
    key = quote_literal(name)
    if kind in _JSON:
        return f"CASE WHEN json_typeof(r -> {key}) <> 'null' THEN (r -> {key})::{kind} END"
    if kind.endswith("[]"):
        array = f"ARRAY(SELECT json_array_elements_text(r -> {key}))::{kind}"
        return f"CASE WHEN json_typeof(r -> {key}) = 'array' THEN {array} END"
    return f"(r ->> {key})::{'text' if name in _ANY_TEXT else kind}"
