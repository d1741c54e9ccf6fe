"""Trails of texts, such as those that keep a row as `hstore`: their values are read back as the types of their columns.

This is the one place that decides how a value of the trail is compared with a value of the row. A trail that holds a
truth value and a number as texts holds every value so, and a text is right when it is the value as its type compares. A
trail that has types is taken at its word: there, a text instead of a number is another value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from harness.database import Client, SqlError, is_lost

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from harness.audit.changes import Change

    #: schema, table and column
    Column = tuple[str, str, str]

#: the columns of `changes` that may hold texts: the key, and the image with the prior values
KEY, IMAGE = "table_pk", "data_after"
_PARTS = {KEY: (KEY,), IMAGE: (IMAGE, "changed_from")}
#: the columns of the scratch table that have other JSON types than a text; both belong to its key
TYPED = ("id", "flag")

#: the columns whose JSON values may be no texts, with the types below their domains: a domain may call functions. The
#: type has no modifier, which would cut and round
_TYPES = """
SELECT found.nspname, found.relname, found.attname, pg_catalog.format_type(found.oid, -1)
FROM (
    WITH RECURSIVE base AS (
        SELECT n.nspname, c.relname, a.attname, t.oid, t.typtype, t.typbasetype, t.typcategory
        FROM unnest(%s::text[], %s::text[]) AS wanted (s, t)
        JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.s
        JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.t
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        UNION ALL
        SELECT b.nspname, b.relname, b.attname, t.oid, t.typtype, t.typbasetype, t.typcategory
        FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.typbasetype
        WHERE b.typtype = 'd'
    )
    SELECT * FROM base WHERE typtype <> 'd' AND typcategory <> 'S'
) AS found"""


def holding_texts(changes: Sequence[Change]) -> frozenset[str]:
    """Return which columns hold every value as a text.

    :param changes: of a table with the columns `TYPED`.
    """
    found = []
    for column in (KEY, IMAGE):
        images = [image for change in changes if (image := getattr(change, column))]
        if column == KEY:  # whether a key has all its columns is another question
            values = [value for image in images for name, value in image.items() if name in TYPED]
        else:
            values = [image.get(name) for image in images for name in TYPED]
        if values and all(isinstance(value, str) for value in values):
            found.append(column)
    return frozenset(found)


def read_back(client: Client, changes: Sequence[Change], columns: Collection[str]) -> list[Change]:
    """Return changes with the JSON values that their tables would give: what a trail of texts holds, with types.

    A text stays what it is where its table or column is no longer there, or where the type does not take it.

    :param columns: those that hold texts: `KEY`, `IMAGE` or both.
    """
    parts = [part for column in columns for part in _PARTS[column]]
    recorded, client.recorded = client.recorded, None  # no statement of the check: nobody has to repeat it
    try:
        types = _types_of(client, {(change.table_schema, change.table_name) for change in changes})
        texts: dict[str, set[str]] = {}
        for change in changes:
            for column, text in _texts(change, parts):
                if column in types:
                    texts.setdefault(types[column], set()).add(text)
        values = {type_: _values(client, type_, sorted(found)) for type_, found in texts.items()}
    finally:
        client.recorded = recorded

    def typed(change: Change, image: Any) -> Any:
        return image and {
            name: values.get(types.get((change.table_schema, change.table_name, name), ""), {}).get(value, value)
            if isinstance(value, str)
            else value
            for name, value in image.items()
        }

    return [replace(change, **{part: typed(change, getattr(change, part)) for part in parts}) for change in changes]


def _texts(change: Change, parts: Sequence[str]) -> Iterable[tuple[Column, str]]:
    for part in parts:
        for name, value in (getattr(change, part) or {}).items():
            if isinstance(value, str):
                yield (change.table_schema, change.table_name, name), value


def _types_of(client: Client, tables: Collection[tuple[str, str]]) -> Mapping[Column, str]:
    rows = client.rows(_TYPES, [[schema for schema, _ in tables], [table for _, table in tables]])
    return {(schema, table, column): type_ for schema, table, column, type_ in rows}


def _values(client: Client, type_: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return the JSON values of texts that are values of a type. Those that are not are found by halving."""
    statement = (
        f"SELECT pg_catalog.to_jsonb(given.held::{type_.replace('%', '%%')}) "
        "FROM unnest(%s::text[]) WITH ORDINALITY AS given (held, place) ORDER BY given.place"
    )
    try:
        with client.transaction():
            return dict(zip(texts, (value for (value,) in client.rows(statement, [texts])), strict=True))
    except SqlError as error:
        if is_lost(error):
            raise
    half = len(texts) // 2
    return _values(client, type_, texts[:half]) | _values(client, type_, texts[half:]) if half else {}
