"""Reading the trail: timeline, history, the state of a row at a time, and what changed."""

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
#: what the trail takes off around a correlation
_BLANKS = " \t\r\n"


class FilterError(ValueError):
    """A filter that would not find what was meant."""


class AuditedChange(Struct, frozen=True, kw_only=True):
    """One change with its transaction and action. Numbers of JSON values are exact: int or Decimal."""

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
    #: as it is stored; a trail from elsewhere may hold what is no actor
    actor_ref: Any
    source: str | None
    action_id: str | None
    correlation_id: str | None


class Filter(Struct, frozen=True, kw_only=True):
    """Which changes to read; what is left out does not restrict. Times are inclusive.

    A correlation finds only changes whose transaction is linked to an action with exactly that correlation.

    :raises FilterError: for a value that can find nothing.
    """

    #: `name`, or `schema.name`, as they are stored: without quotes
    table: str | None = None
    actor: Actor | None = None
    captured_from: datetime | None = None
    captured_to: datetime | None = None
    correlation_id: str | None = None
    #: of an earlier export of the same cluster: only what that one could not see
    since_snapshot: str | None = None

    def __post_init__(self) -> None:
        given: dict[str, Any] = {name: getattr(self, name) for name in self.__struct_fields__}  # types are but promises
        for name in ("captured_from", "captured_to"):
            value = given[name]
            if value is not None and (not isinstance(value, datetime) or value.tzinfo is None):
                raise FilterError(f"{name}: found {value!r}, needed a time with a zone")
        if given["actor"] is not None and not isinstance(given["actor"], Actor):
            raise FilterError(f"actor: found {self.actor!r}, needed an Actor")
        for name in ("table", "correlation_id", "since_snapshot"):
            text = given[name]
            if text is not None and (not isinstance(text, str) or not text.strip(_BLANKS)):
                raise FilterError(f"{name}: found nothing to look for; leave the key out")
        if self.correlation_id is not None and len(self.correlation_id.strip(_BLANKS).encode()) > _LONGEST_CORRELATION:
            raise FilterError(f"correlation_id: it has more than {_LONGEST_CORRELATION} bytes, and none stored has")

    @classmethod
    def from_map(cls, given: Mapping[str, Any]) -> Filter:
        """Return the filter that a plain map describes.

        :raises FilterError: also for an unknown key, and for a key whose value is None: leave it out instead.
        """
        known = cls.__struct_fields__
        for name, value in given.items():
            if name not in known:
                raise FilterError(f"unknown timeline filter {name!r}; {nearest(name, known)}")
            if value is None:
                raise FilterError(f"{name}: found None; leave the key out")
        return cls(**given)

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
    """What a row was at a time, as far as the trail knows.

    `before_horizon` is not "it did not exist": the row may be older than the capture.
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
    return load_queries(Path(__file__).parent / "sql" / "reading.sql")


def select(name: str, conditions: list[str], *, order: bool = True, limit: bool = True) -> str:
    """Return a statement of reading.sql with these conditions."""
    parts = [statements()[name]]
    if conditions:
        parts.append("WHERE " + " AND ".join(statements()[f"where_{each}"] for each in conditions))
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
    """Count what a timeline or an export would hold, without reading it."""
    names, values = (which or Filter()).conditions()
    [(count,)] = fetch(connection, select("count", names, order=False, limit=False), values)
    return int(count)


def history(
    connection: AnyConnection, table: str, key: Mapping[str, Any], *, limit: int = _PAGE
) -> list[AuditedChange]:
    """Return the changes of one row, newest first; also the one by which a row with this key got another.

    :param table: `name`, which is in the schema public, or `schema.name`, as they are stored.
    :param key: the primary key, column to value: `{"id": 42}`. A number is not a text.
    :raises FilterError: for a key of values that JSON has no form for.
    """
    names, values = Filter(table=_with_schema(table)).conditions()
    return _changes(connection, [*names, "key"], values | {"key": _encoded(key), "limit": limit})


def as_of(connection: AnyConnection, table: str, key: Mapping[str, Any], at: datetime) -> RowState:
    """Return what a row was at a time.

    Not repeatable for times that a transaction still running may yet write to: the trail's times are those of the
    changes, and become visible with the commit. A TRUNCATE counts as the deletion of every row.
    """
    names, values = Filter(table=_with_schema(table), captured_to=at).conditions()
    found = _changes(connection, [*names, "key"], values | {"key": _encoded(key), "limit": 1})
    emptied = _changes(connection, [*names, "key"], values | {"key": "null", "limit": 1})
    if not found:
        return RowState(state="before_horizon")
    last = found[0]
    if emptied and emptied[0].captured_at > last.captured_at:
        last = emptied[0]
    seen: dict[str, Any] = {"change_id": last.id, "captured_at": last.captured_at}
    if last.op in {"delete", "truncate"}:
        return RowState(state="deleted", **seen)
    wanted = _decoded(_encoded(key))
    if last.table_pk != wanted:
        every = _changes(connection, [*names, "key"], values | {"key": _encoded(key), "limit": None})
        since = [each for each in every if not emptied or each.captured_at > emptied[0].captured_at]
        stayed = _who_stayed(since, wanted)
        if stayed is None:
            return RowState(state="moved", key=last.table_pk, **seen)
        return RowState(state="present", row=stayed.data_after, change_id=stayed.id, captured_at=stayed.captured_at)
    return RowState(state="present", row=last.data_after, **seen)


def _who_stayed(changes: list[AuditedChange], key: Any) -> AuditedChange | None:
    """Return the last image under a key whose last change is a departure; None when nobody is left there.

    Within one statement keys may be shifted or swapped, and then a row arrives where another has yet to leave. Whether
    somebody is left is a matter of counting arrivals and departures.
    """
    count, image = 0, None
    for number, each in enumerate(reversed(changes)):
        left = each.op == "delete" or each.table_pk != key
        arrived = each.op == "insert" or (each.op == "update" and not left and _old_key(each) != key)
        if number == 0 and not arrived:
            count = 1  # a row older than the trail
        count += arrived - left
        if not left:
            image = each
    return image if count > 0 else None


def _old_key(change: AuditedChange) -> Any:
    return {name: (change.changed_from or {}).get(name, value) for name, value in change.table_pk.items()}


def _with_schema(table: str) -> str:
    return table if "." in table else f"public.{table}"


def actor_history(connection: AnyConnection, actor: Actor, *, limit: int = _PAGE) -> list[dict[str, Any]]:
    """Return an actor's transactions, newest first. All anonymous actors are one."""
    names = ("id", "occurred_at", "actor_ref", "source", "meta", "action_id")
    rows = fetch(connection, statements()["transactions_of_actor"], {"actor": actor.setting, "limit": limit})
    return [dict(zip(names, row, strict=True)) for row in rows]


def changes_of_transaction(connection: AnyConnection, identity: str, *, limit: int = _PAGE) -> list[AuditedChange]:
    """Return the changes of a transaction, newest first; none for an unknown one.

    :raises FilterError: for what is no UUID.
    """
    try:
        given = str(UUID(identity))
    except (ValueError, AttributeError, TypeError):
        raise FilterError(f"transaction id: found {identity!r}, needed a UUID") from None
    return _changes(connection, ["transaction_id"], {"transaction_id": given, "limit": limit})


def diff(change: AuditedChange, *, expand_inserts: bool = False) -> dict[str, Any]:
    """Return what a change changed, as a map that encodes to JSON.

    `before_values` says whether prior values are known: `none`, or `sparse` for an update that kept them. A field
    whose prior value is not among them says `prior_state: omitted`.

    :raises ValueError: for an operation that there is not.
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
        return text  # nested deeper than Python can follow: better told as it is than not at all


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) < _LONG_INT else Decimal(digits)


def _encoded(key: Mapping[str, Any]) -> str:
    """Return a key as the trail spells it."""
    return "{" + ", ".join(f"{json.dumps(name)}: {_spelled(value)}" for name, value in key.items()) + "}"


def _spelled(value: Any) -> str:
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
        raise FilterError(f"key: found {value!r}, needed a value of JSON, a Decimal, date, time or UUID") from None
