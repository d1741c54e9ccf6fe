"""The mutations of the names of tables and of changed columns, of operations, times and actions."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from harness.audit.target_file import Recorded, TrailFeature
from harness.mutants import observed_columns as columns
from harness.mutants.observed_columns import column
from harness.mutants.observed_mutation import Mutation, mutation
from harness.mutants.observed_rows import Row, same_kind

if TYPE_CHECKING:
    from collections.abc import Callable


def _of_op(op: str) -> Callable[[Row], bool]:
    return lambda row: same_kind(row, op)


#: operators on names of schemas and tables
_NAMES: tuple[tuple[str, str, Callable[[str], str]], ...] = (
    ("lower-cased", "in lower case", str.lower),
    ("upper-cased", "in upper case", str.upper),
    ("cut-to-3", "cut to 3 characters", lambda name: name[:3]),
    ("cut-to-8", "cut to 8 characters", lambda name: name[:8]),
    ("cut-to-36", "cut to 36 characters", lambda name: name[:36]),
    ("emptied", "as an empty text", lambda _name: ""),
    ("prefixed", "with a prefix", lambda name: f"audit_{name}"),
    (
        "quoted",
        "with quotes where it needs them",
        lambda name: name if re.fullmatch("[a-z_][a-z0-9_]*", name) else f'"{name}"',
    ),
    ("in-ascii", "without letters beyond ASCII", lambda name: name.encode("ascii", "replace").decode()),
    ("without-blanks", "with underscores for blanks", lambda name: re.sub(r"\s", "_", name)),
    ("without-quotes", "without quotes that are part of it", lambda name: name.replace('"', "")),
    ("first-part", "up to its first dot", lambda name: name.partition(".")[0]),
)


def _names(name: str, noun: str) -> tuple[Mutation, ...]:
    def of(change: Callable[[str], str]) -> Callable[[list[Row]], list[Row]]:
        return lambda rows: column(rows, name, lambda row: change(str(row[name])))

    return (
        *(
            mutation(f"{name}.{operator}", f"records the name of the {noun} {what}", of(change))
            for operator, what, change in _NAMES
        ),
        mutation(
            f"{name}.of-the-row-before",
            f"records the {noun} of the change before",
            lambda rows: columns.of_rows_before(rows, name),
        ),
        mutation(
            f"{name}.first-for-all",
            f"records the first {noun} for all changes",
            lambda rows: columns.of_first_row(rows, name),
        ),
        mutation(
            f"{name}.wrong-for-deletes",
            f"records another {noun} for deletes",
            lambda rows: column(rows, name, lambda row: f"{row[name]}_deleted", _of_op("delete")),
        ),
    )


TABLES = (
    *_names("table_schema", "schema"),
    mutation(
        "table_schema.public-for-all",
        "records the schema public for all tables",
        lambda rows: column(rows, "table_schema", lambda _row: "public"),
    ),
    *_names("table_name", "table"),
    mutation(
        "table_name.qualified",
        "records the name of the table with its schema",
        lambda rows: column(rows, "table_name", lambda row: f"{row['table_schema']}.{row['table_name']}"),
    ),
    mutation(
        "table_name.schema-instead",
        "exchanges schema and table",
        lambda rows: columns.exchanged(rows, "table_schema", "table_name"),
    ),
)


def _recorded_as(old: str, new: str) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: column(rows, "op", lambda _row: new, _of_op(old))


OPERATIONS = (
    *(
        mutation(
            f"op.{old}-as-{new}",
            f"records {'an' if old[0] in 'iu' else 'a'} {old} as {'an' if new[0] in 'iu' else 'a'} {new}",
            _recorded_as(old, new),
            feature=TrailFeature.TRUNCATE if old == "truncate" else None,
        )
        for old, new in (
            ("insert", "update"),
            ("insert", "delete"),
            ("update", "insert"),
            ("update", "delete"),
            ("delete", "update"),
            ("delete", "insert"),
            ("delete", "truncate"),
            ("truncate", "delete"),
        )
    ),
    mutation(
        "op.insert-for-all", "records every change as an insert", lambda rows: column(rows, "op", lambda _row: "insert")
    ),
    mutation(
        "op.first-letter",
        "records the first letter of the operation",
        lambda rows: column(rows, "op", lambda row: str(row["op"])[:1]),
    ),
    mutation("op.emptied", "records no operation", lambda rows: column(rows, "op", lambda _row: "")),
    mutation(
        "op.padded", "pads the operation with blanks", lambda rows: column(rows, "op", lambda row: f"{row['op']}  ")
    ),
    mutation(
        "op.past-tense",
        "records the operation in another word",
        lambda rows: column(rows, "op", lambda row: f"{str(row['op']).rstrip('e')}ed"),
    ),
    mutation(
        "op.of-the-row-before",
        "records the operation of the change before",
        lambda rows: columns.of_rows_before(rows, "op"),
    ),
    mutation(
        "op.upper-cased",
        "records the operation in upper case",
        lambda rows: column(rows, "op", lambda row: str(row["op"]).upper()),
        sound="the harness reads operations in any case",
    ),
)


def _moved(by: timedelta) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: column(
        rows,
        "captured_at",
        lambda row: row["captured_at"] + by,
        lambda row: isinstance(row.get("captured_at"), datetime),
    )


def _times_reversed(rows: list[Row]) -> list[Row]:
    return [
        {**row, "captured_at": other.get("captured_at")} if "captured_at" in row else row
        for row, other in zip(rows, rows[::-1], strict=True)
    ]


def _time(name: str, what: str, apply: Callable[[list[Row]], list[Row]]) -> Mutation:
    return mutation(name, what, apply, records=Recorded.TIME)


TIMES = (
    _time("captured_at.null", "records no time", lambda rows: column(rows, "captured_at", lambda _row: None)),
    _time(
        "captured_at.equal-for-all",
        "records the same time for all changes",
        lambda rows: columns.of_first_row(rows, "captured_at"),
    ),
    _time("captured_at.reversed", "records later times for earlier changes", _times_reversed),
    _time("captured_at.an-hour-late", "records times of another time zone", _moved(timedelta(hours=1))),
    _time("captured_at.a-day-early", "records times that are a day too early", _moved(timedelta(days=-1))),
    _time(
        "captured_at.midnight",
        "records the day of a change",
        lambda rows: column(
            rows,
            "captured_at",
            lambda row: row["captured_at"].replace(hour=0, minute=0, second=0, microsecond=0),
            lambda row: isinstance(row.get("captured_at"), datetime),
        ),
    ),
    mutation("txid.null", "records no number of the transaction", lambda rows: column(rows, "txid", lambda _row: None)),
)

ACTIONS = tuple(
    mutation(f"action_id.{name}", what, apply, feature=TrailFeature.ACTIONS)
    for name, what, apply in (
        ("null", "links no action", lambda rows: column(rows, "action_id", lambda _row: None)),
        (
            "another",
            "links an action that is not recorded",
            lambda rows: column(
                rows, "action_id", lambda row: row["action_id"] and "00000000-0000-4000-8000-000000000000"
            ),
        ),
        ("first-for-all", "links all changes to the same action", lambda rows: columns.of_first_row(rows, "action_id")),
        (
            "of-the-row-before",
            "links the action of the change before",
            lambda rows: columns.of_rows_before(rows, "action_id"),
        ),
        (
            "invented",
            "links changes without an action to one",
            lambda rows: column(
                rows, "action_id", lambda row: row["action_id"] or "00000000-0000-4000-8000-000000000000"
            ),
        ),
    )
)

_FIELDS = TrailFeature.CHANGED_FIELDS


def _fields(
    name: str, what: str, change: Callable[[list[str], Row], object], where: Callable[[Row], bool] | None = None
) -> Mutation:
    chosen = where or (lambda row: bool(row.get("changed_fields")))
    return mutation(
        f"changed_fields.{name}",
        what,
        lambda rows: column(rows, "changed_fields", lambda row: change(list(row["changed_fields"] or ()), row), chosen),
        feature=_FIELDS,
    )


CHANGED_FIELDS = (
    _fields("null", "names no changed columns", lambda _names, _row: None),
    _fields("emptied", "names no changed column", lambda _names, _row: []),
    _fields("all", "names every column as changed", lambda _names, row: sorted(row["data_after"] or ())),
    _fields("first-dropped", "loses the first changed column", lambda names, _row: names[1:]),
    _fields("last-dropped", "loses the last of several changed columns", lambda names, _row: names[:-1] or names),
    _fields("one-more", "names a column that did not change", lambda names, _row: [*names, "id"]),
    _fields(
        "upper-cased",
        "turns the names of changed columns into upper case",
        lambda names, _row: [name.upper() for name in names],
    ),
    _fields(
        "lower-cased",
        "turns the names of changed columns into lower case",
        lambda names, _row: [name.lower() for name in names],
    ),
    _fields(
        "cut", "cuts the names of changed columns to 3 characters", lambda names, _row: [name[:3] for name in names]
    ),
    _fields(
        "for-inserts",
        "names the columns of an insert as changed",
        lambda _names, row: sorted(row["data_after"] or ()),
        lambda row: same_kind(row, "insert"),
    ),
    mutation(
        "changed_fields.of-the-row-before",
        "names the columns that the change before changed",
        lambda rows: columns.of_rows_before(rows, "changed_fields"),
        feature=_FIELDS,
    ),
    Mutation(
        name="changed_fields.reversed",
        column="changed_fields",
        what="names changed columns in another order",
        apply=lambda rows, _reads: column(
            rows, "changed_fields", lambda row: row["changed_fields"] and row["changed_fields"][::-1]
        ),
        sound="the names of changed columns have no order",
    ),
)

MUTATIONS = (*TABLES, *OPERATIONS, *TIMES, *ACTIONS, *CHANGED_FIELDS)
