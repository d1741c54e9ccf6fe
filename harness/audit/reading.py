"""Read the trail: timeline, history of a row, state of a row at a time, and the fields that a change changed."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from msgspec import Struct

from harness.audit.actor import Actor
from harness.config import nearest
from harness.database import fetch, load_queries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.database import AnyConnection

_LONGEST_CORRELATION = 256
_PAGE = 1000
_LONG_INT = 4000
#: the trail strips these around a correlation
_BLANKS = " \t\r\n"


class FilterError(ValueError):
    """An invalid filter, or one that can match nothing."""


class AuditedChange(Struct, frozen=True, kw_only=True):
    """One change with its transaction and action. Numbers in JSON values are exact: int or Decimal."""

    id: str
    transaction_id: str
    table_schema: str
    table_name: str
    table_pk: Any
    #: insert, update, delete or truncate
    op: str
    data_after: Any
    changed_fields: list[str] | None
    changed_from: Any
    captured_at: datetime
    occurred_at: datetime | None
    #: as stored; a trail from elsewhere may hold an invalid actor
    actor_ref: Any
    source: str | None
    action_id: str | None
    correlation_id: str | None


class Filter(Struct, frozen=True, kw_only=True):
    """Restricts the changes to read; a field that is None does not restrict. Times are inclusive.

    A correlation matches only changes whose transaction is linked to an action with exactly that correlation.

    :raises FilterError: for a value of the wrong type, or one that can match nothing.
    """

    #: `name` or `schema.name`, as stored: without quotes
    table: str | None = None
    actor: Actor | None = None
    captured_from: datetime | None = None
    captured_to: datetime | None = None
    correlation_id: str | None = None
    #: of an earlier export of the same cluster: only changes that the earlier export could not see
    since_snapshot: str | None = None

    def __post_init__(self) -> None:
        # read as Any: annotations are not enforced
        fields: dict[str, Any] = {name: getattr(self, name) for name in self.__struct_fields__}
        for name in ("captured_from", "captured_to"):
            value = fields[name]
            if value is not None and (not isinstance(value, datetime) or value.tzinfo is None):
                raise FilterError(f"{name}: found {value!r}, needed a time with a zone")
        if fields["actor"] is not None and not isinstance(fields["actor"], Actor):
            raise FilterError(f"actor: found {self.actor!r}, needed an Actor")
        for name in ("table", "correlation_id", "since_snapshot"):
            text = fields[name]
            if text is not None and (not isinstance(text, str) or not text.strip(_BLANKS)):
                raise FilterError(f"{name}: found {text!r}, needed a text that is not blank; or leave the key out")
        if self.correlation_id is not None and len(self.correlation_id.strip(_BLANKS).encode()) > _LONGEST_CORRELATION:
            raise FilterError(
                f"correlation_id: it has more than {_LONGEST_CORRELATION} bytes, so no stored correlation matches"
            )

    @classmethod
    def from_map(cls, fields: Mapping[str, Any]) -> Filter:
        """Return the filter that a plain map describes.

        :raises FilterError: as for the class, and for an unknown key, or a key whose value is None.
        """
        known = cls.__struct_fields__
        for name, value in fields.items():
            if name not in known:
                raise FilterError(f"unknown timeline filter {name!r}; {nearest(name, known)}")
            if value is None:
                raise FilterError(f"{name}: found None; leave the key out")
        return cls(**fields)

    def conditions(self) -> tuple[list[str], dict[str, Any]]:
        """Return the names of the conditions in reading.sql, and their parameters."""
        values: dict[str, Any] = {}
        if self.table:
            schema, dot, name = self.table.partition(".")
            values["table_name"] = name if dot else schema
            if dot:
                values["table_schema"] = schema
        if self.actor:
            values["actor"] = self.actor.setting
        if self.captured_from:
            values["captured_from"] = self.captured_from
        if self.captured_to:
            values["captured_to"] = self.captured_to
        if self.correlation_id:
            values["correlation_id"] = self.correlation_id.strip(_BLANKS)
        names = list(values)
        if self.since_snapshot:
            values["snapshot"] = self.since_snapshot
            names.append("unseen_by_snapshot")
        return names, values


class RowState(Struct, frozen=True, kw_only=True):
    """The state of a row at a time, as far as the trail knows.

    `before_horizon` does not mean that the row did not exist: it may be older than the capture.
    """

    state: Literal["present", "deleted", "moved", "before_horizon"]
    #: the row's image, when it was present
    row: dict[str, Any] | None = None
    #: the key it has now, when it was moved
    key: Any = None
    change_id: str | None = None
    captured_at: datetime | None = None


@cache
def statements() -> dict[str, str]:
    """Return the statements of reading.sql by name."""
    return load_queries(Path(__file__).parent / "sql" / "reading.sql")


def select(name: str, conditions: list[str], *, order: bool = True, limit: bool = True) -> str:
    """Return a statement of reading.sql with these conditions."""
    parts = [statements()[name]]
    if conditions:
        parts.append("WHERE " + " AND ".join(statements()[f"where_{condition}"] for condition in conditions))
    if order:
        parts.append(statements()["newest_first"])
    if limit:
        parts.append("LIMIT %(limit)s")
    return "\n".join(parts)


def timeline(connection: AnyConnection, which: Filter | None = None, *, limit: int = _PAGE) -> list[AuditedChange]:
    """Return changes, newest first."""
    names, values = (which or Filter()).conditions()
    return _changes(connection, names, values | {"limit": limit})


def count_matching(connection: AnyConnection, which: Filter | None = None) -> int:
    """Return the number of changes that an unlimited timeline or export would hold."""
    names, values = (which or Filter()).conditions()
    [(count,)] = fetch(connection, select("count", names, order=False, limit=False), values)
    return int(count)


def history(
    connection: AnyConnection, table: str, key: Mapping[str, Any], *, limit: int = _PAGE
) -> list[AuditedChange]:
    """Return the changes of one row, newest first, including an update that changed this key to another one.

    :param table: `schema.name`, or `name` for a table of the schema public, as stored.
    :param key: the primary key, column to value: `{"id": 42}`. The number 42 and the text "42" are different keys.
    :raises FilterError: for a key with a value that JSON cannot represent.
    """
    names, values = Filter(table=_with_schema(table)).conditions()
    return _changes(connection, [*names, "key"], values | {"key": _encoded(key), "limit": limit})


def as_of(connection: AnyConnection, table: str, key: Mapping[str, Any], at: datetime) -> RowState:
    """Return the state of a row at a time.

    The result is not repeatable while a transaction from before that time still runs: the trail's times are those of
    the changes, and they become visible with the commit. A TRUNCATE counts as the deletion of every row.

    :param table: `schema.name`, or `name` for a table of the schema public, as stored.
    :param key: the primary key, column to value.
    :param at: a time with a time zone.
    :raises FilterError: for a time without a zone, or a key with a value that JSON cannot represent.
    """
    names, values = Filter(table=_with_schema(table), captured_to=at).conditions()
    latest = _changes(connection, [*names, "key"], values | {"key": _encoded(key), "limit": 1})
    truncates = _changes(connection, [*names, "key"], values | {"key": "null", "limit": 1})
    if not latest:
        return RowState(state="before_horizon")
    last = latest[0]
    if truncates and truncates[0].captured_at > last.captured_at:
        last = truncates[0]
    source: dict[str, Any] = {"change_id": last.id, "captured_at": last.captured_at}
    if last.op in {"delete", "truncate"}:
        return RowState(state="deleted", **source)
    stored_key = _decoded(_encoded(key))
    if last.table_pk != stored_key:
        all_changes = _changes(connection, [*names, "key"], values | {"key": _encoded(key), "limit": None})
        since = [change for change in all_changes if not truncates or change.captured_at > truncates[0].captured_at]
        remaining = _remaining_row(since, stored_key)
        if remaining is None:
            return RowState(state="moved", key=last.table_pk, **source)
        return RowState(
            state="present", row=remaining.data_after, change_id=remaining.id, captured_at=remaining.captured_at
        )
    return RowState(state="present", row=last.data_after, **source)


def _remaining_row(changes: list[AuditedChange], key: Any) -> AuditedChange | None:
    """Return the last image under a key whose last change is a departure; None when no row has the key any more.

    One statement may shift or swap keys, and then a row arrives at a key before the previous row departs. Arrivals
    and departures are therefore counted.
    """
    rows, image = 0, None
    for number, change in enumerate(reversed(changes)):
        departs = change.op == "delete" or change.table_pk != key
        arrives = change.op == "insert" or (change.op == "update" and not departs and _old_key(change) != key)
        if number == 0 and not arrives:
            rows = 1  # a row older than the trail
        rows += arrives - departs
        if not departs:
            image = change
    return image if rows > 0 else None


def _old_key(change: AuditedChange) -> Any:
    return {name: (change.changed_from or {}).get(name, value) for name, value in change.table_pk.items()}


def _with_schema(table: str) -> str:
    return table if "." in table else f"public.{table}"


def actor_history(connection: AnyConnection, actor: Actor, *, limit: int = _PAGE) -> list[dict[str, Any]]:
    """Return an actor's transactions, newest first. All anonymous actors count as one."""
    names = ("id", "occurred_at", "actor_ref", "source", "meta", "action_id")
    rows = fetch(connection, statements()["transactions_of_actor"], {"actor": actor.setting, "limit": limit})
    return [dict(zip(names, row, strict=True)) for row in rows]


def changes_of_transaction(connection: AnyConnection, identity: str, *, limit: int = _PAGE) -> list[AuditedChange]:
    """Return the changes of a transaction, newest first; none for an unknown transaction.

    :param identity: the id of the transaction's record, a UUID.
    :raises FilterError: for an invalid UUID.
    """
    try:
        transaction_id = str(UUID(identity))
    except (ValueError, AttributeError, TypeError):
        raise FilterError(f"transaction id: found {identity!r}, needed a UUID") from None
    return _changes(connection, ["transaction_id"], {"transaction_id": transaction_id, "limit": limit})


def diff(change: AuditedChange, *, expand_inserts: bool = False) -> dict[str, Any]:
    """Return the fields that a change changed, as a map that encodes to JSON.

    `before_values` is `sparse` for an update with prior values, else `none`. In a sparse update, a field without a
    prior value has `prior_state: omitted`.

    :param expand_inserts: list the fields of an insert, too.
    :raises ValueError: for an unknown operation.
    """
    if change.op not in {"insert", "update", "delete", "truncate"}:
        raise ValueError(f"found the operation {change.op!r}, needed insert, update, delete or truncate")
    sparse = change.op == "update" and change.changed_from is not None
    fields: list[dict[str, Any]] = []
    after = change.data_after or {}
    if change.op == "update":
        for name in sorted(change.changed_fields or []):
            field = {"name": name, "after": after.get(name)}
            if sparse and name in change.changed_from:
                field["before"] = change.changed_from[name]
            elif sparse:
                field["prior_state"] = "omitted"
            fields.append(field)
    elif change.op == "insert" and expand_inserts:
        fields = [{"name": name, "op": "set", "after": after[name]} for name in sorted(after)]
    return {
        "schema_version": 1,
        "before_values": "sparse" if sparse else "none",
        "op": change.op.upper(),
        "audit_change_id": change.id,
        "transaction_id": change.transaction_id,
        "table_schema": change.table_schema,
        "table_name": change.table_name,
        "table_pk": change.table_pk,
        "captured_at": change.captured_at.isoformat(),
        "data_after": change.data_after,
        "field_changes": fields,
    }


def _changes(connection: AnyConnection, conditions: list[str], values: dict[str, Any]) -> list[AuditedChange]:
    return [read_change(row) for row in fetch(connection, select("changes", conditions), values)]


def read_change(row: tuple[Any, ...]) -> AuditedChange:
    """Return a row of the `changes` statement with its JSON decoded."""
    raw = dict(zip(AuditedChange.__struct_fields__, row, strict=True))
    for name in ("table_pk", "data_after", "changed_from", "actor_ref"):
        raw[name] = None if raw[name] is None else _decoded(raw[name])
    return AuditedChange(**raw)


def _decoded(text: str) -> Any:
    try:
        return json.loads(text, parse_float=Decimal, parse_int=_integer)  # a numeric(30, 10) does not fit into a float
    except RecursionError:
        return text  # nested more deeply than Python can parse: the raw text is better than nothing


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) < _LONG_INT else Decimal(digits)


def _encoded(key: Mapping[str, Any]) -> str:
    """Return a key as JSON in the trail's own text form."""
    return "{" + ", ".join(f"{json.dumps(name)}: {_json_text(value)}" for name, value in key.items()) + "}"


def _json_text(value: Any) -> str:
    if isinstance(value, Decimal) and value.is_finite():
        return f"{value:f}"
    if isinstance(value, datetime):
        moment = value.astimezone(UTC) if value.tzinfo else value
        whole, _, fraction = moment.isoformat(timespec="microseconds").partition(".")
        digits, zone = fraction[:6].rstrip("0"), fraction[6:]
        return json.dumps(whole + (f".{digits}" if digits else "") + zone)
    if isinstance(value, UUID | date):
        return json.dumps(str(value))
    try:
        return json.dumps(value)
    except TypeError:
        raise FilterError(f"key: found {value!r}, needed a JSON value, a Decimal, date, time or UUID") from None
