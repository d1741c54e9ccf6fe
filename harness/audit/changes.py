"""Changes: rows that an audit target reads from its trail, in canonical form."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from msgspec import Struct

from harness.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


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
    #: the time that the trail gives the change; None for a trail without times
    captured_at: datetime | None = None
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


#: the columns that the statement `changes` must return, and those that it may return
REQUIRED = ("id", "transaction_id", "table_schema", "table_name", "table_pk", "op", "data_after", "actor")
OPTIONAL = ("txid", "changed_fields", "changed_from", "action_id", "captured_at", "position")
_JSON = ("json", "jsonb")
_TEXTS = ("text", "varchar", "name", "bpchar", '"char"', "char")
#: the types that a column may have. NULL without a type is a text, so a text is an error only in a row with a value
_TYPES: Mapping[str, tuple[str, ...]] = {
    "table_schema": _TEXTS,
    "table_name": _TEXTS,
    "table_pk": (*_JSON, "text"),
    "data_after": (*_JSON, "text"),
    "changed_from": (*_JSON, "text"),
    "actor": (*_JSON, "text"),
    "changed_fields": ("text[]", "name[]", "varchar[]", "text"),
    "captured_at": ("timestamptz", "text"),
}
_NOTHING = type(None)
#: characters of a value that an error shows
_LONGEST = 200


def problem_of_columns(types: Mapping[str, str]) -> str:
    """Return what is wrong with the columns of the statement `changes`; "" when nothing is.

    :param types: the names of the columns, with the server's names of their types; "" for a type of an extension.
    """
    if missing := [column for column in REQUIRED if column not in types]:
        return f"missing column {', '.join(missing)}"
    for column, allowed in _TYPES.items():
        found = types.get(column, "")
        if found and found not in allowed:
            return f"the column {column} is {found}, needed {_needed(allowed)}"
    return ""


def _needed(allowed: tuple[str, ...]) -> str:
    return " or ".join(allowed[: 2 if allowed[:2] == _JSON else 1])


def shown(value: Any) -> str:
    """Return a value of a row as an error shows it."""
    text = "NULL" if value is None else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def change_of(row: Mapping[str, Any], own_columns: Collection[str], where: str, statement: str = "changes") -> Change:
    """Return a row in canonical form.

    :param own_columns: columns of audited tables that belong to the trail: they are left out.
    :param where: file and line of the statement, for errors, and `statement` its key.
    :raises DatabaseError: for a value of the wrong type.
    """

    def column(name: str, kinds: tuple[type, ...], needed: str) -> Any:
        value = row.get(name)
        texts = value if name == "changed_fields" else None
        if not isinstance(value, kinds) or not all(isinstance(text, str) for text in texts or ()):
            raise DatabaseError(f"statements.{statement}: {name} is {shown(value)}, needed {needed}", where=where)
        return value

    def text(name: str) -> str | None:
        return None if row.get(name) is None else str(row[name])

    def image(name: str) -> Any:
        value = column(name, (dict, _NOTHING), "a JSON object, or NULL")
        return value and {key: part for key, part in value.items() if key not in own_columns}

    column("id", (str, int, UUID), "a text, a number or a UUID that no other row has")
    fields = column("changed_fields", (list, _NOTHING), "an array of texts, or NULL")
    fields = [field for field in fields or () if field not in own_columns]
    return Change(
        id=str(row["id"]),
        transaction_id=text("transaction_id"),
        table_schema=column("table_schema", (str,), "a text"),
        table_name=column("table_name", (str,), "a text"),
        table_pk=column("table_pk", (dict, _NOTHING), "a JSON object, or NULL"),
        op=column("op", (str,), "insert, update, delete or truncate").lower(),
        data_after=image("data_after"),
        actor=row.get("actor"),
        txid=row.get("txid"),
        captured_at=column("captured_at", (datetime, _NOTHING), "a timestamptz, or NULL"),
        changed_fields=tuple(sorted(fields)) or None,
        changed_from=image("changed_from"),
        action_id=text("action_id"),
    )
