"""Operators on one column of the rows: on the whole column, on names in an object, on the values of an object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.mutants.observed_rows import Row, known, row_of, runs_of, same_kind, transactions_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

_PAIR = 2


def column(
    rows: list[Row], name: str, value: Callable[[Row], Any], where: Callable[[Row], bool] = lambda _row: True
) -> list[Row]:
    """Replace a column in some rows. A row without the column keeps none."""
    return [{**row, name: value(row)} if name in row and where(row) else row for row in rows]


def of_rows_before(rows: list[Row], name: str) -> list[Row]:
    """Give each row the value of the row before it; the first row keeps its own."""
    return [
        {**row, name: before.get(name)} if name in row else row
        for before, row in zip([*rows[:1], *rows], rows, strict=False)
    ]


def of_rows_after(rows: list[Row], name: str) -> list[Row]:
    """Give each row the value of the row after it; the last row keeps its own."""
    return [
        {**row, name: after.get(name)} if name in row else row
        for row, after in zip(rows, [*rows[1:], *rows[-1:]], strict=False)
    ]


def of_first_row(rows: list[Row], name: str) -> list[Row]:
    return column(rows, name, lambda _row: rows[0].get(name))


def of_same_group(rows: list[Row], name: str, key: Callable[[Row], Hashable], *, last: bool) -> list[Row]:
    """Give each row the value of the first or last row of its group."""
    value = {id(row): group[-1 if last else 0].get(name) for group in runs_of(rows, key) for row in group}
    return column(rows, name, lambda row: value[id(row)])


def of_transaction_before(rows: list[Row], name: str) -> list[Row]:
    """Give the rows of each transaction the value of the transaction before it, as a session that keeps it does."""
    value: dict[int, Any] = {}
    before: Any = None
    for number, group in enumerate(transactions_of(rows)):
        value |= {id(row): before if number else row.get(name) for row in group}
        before = group[-1].get(name)
    return column(rows, name, lambda row: value[id(row)])


def exchanged(rows: list[Row], first: str, second: str) -> list[Row]:
    return [{**row, first: row.get(second), second: row.get(first)} for row in rows]


# --- objects ---------------------------------------------------------------------------------------------


def objects(
    rows: list[Row],
    name: str,
    change: Callable[[dict[str, Any]], Any],
    where: Callable[[Row], bool] = lambda _row: True,
) -> list[Row]:
    """Replace the objects of a column; NULL stays NULL."""
    return column(rows, name, lambda row: change(row[name]), lambda row: isinstance(row.get(name), dict) and where(row))


def values(rows: list[Row], name: str, change: Callable[[Any], Any]) -> list[Row]:
    """Replace the values of the objects of a column."""
    return objects(rows, name, lambda found: {key: change(value) for key, value in found.items()})


def renamed(change: Callable[[str], str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda found: {change(key): value for key, value in found.items()}


def first_only(found: dict[str, Any]) -> dict[str, Any]:
    return dict(list(found.items())[:1])


def last_only(found: dict[str, Any]) -> dict[str, Any]:
    return dict(list(found.items())[-1:])


def without_first(found: dict[str, Any]) -> dict[str, Any]:
    return dict(list(found.items())[1:])


def without_last(found: dict[str, Any]) -> dict[str, Any]:
    return dict(list(found.items())[:-1])


def without_nulls(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if value is not None}


def ends_exchanged(found: dict[str, Any]) -> dict[str, Any]:
    """Exchange the first value with the last one."""
    if len(found) < _PAIR:
        return found
    first, *_, last = found
    return {**found, first: found[last], last: found[first]}


def shifted(found: dict[str, Any]) -> dict[str, Any]:
    """Give each column the value of the column after it, as values do that are read by their position."""
    keys = list(found)
    return {key: found[after] for key, after in zip(keys, [*keys[1:], *keys[:1]], strict=True)}


def with_one_more(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "another_column": None}


# --- images ----------------------------------------------------------------------------------------------


def _names(row: Row) -> set[str]:
    return set(row.get("changed_fields") or row.get("changed_from") or ())


def only_changed(rows: list[Row]) -> list[Row]:
    """Keep the changed columns in the image of an update, and the key."""
    before: dict[Hashable, dict[str, Any]] = {}
    shown = []
    for row in rows:
        image, key = row.get("data_after"), row_of(row)
        if same_kind(row, "update") and isinstance(image, dict):
            old = before.get(key, {})
            changed = _names(row) or {name for name, value in image.items() if known(old.get(name)) != known(value)}
            kept = changed | set(row.get("table_pk") or ())
            row = {**row, "data_after": {name: value for name, value in image.items() if name in kept}}  # noqa: PLW2901 -- the copy is shown
        if isinstance(image, dict):
            before[key] = image
        shown.append(row)
    return shown


def only_key(rows: list[Row]) -> list[Row]:
    """Keep the columns of the key in every image."""
    return column(
        rows,
        "data_after",
        lambda row: {name: value for name, value in row["data_after"].items() if name in (row.get("table_pk") or ())},
        lambda row: isinstance(row.get("data_after"), dict),
    )


def prior_images(rows: list[Row]) -> list[Row]:
    """Show the image before an update in place of the one after it."""
    before: dict[Hashable, Any] = {}
    shown = []
    for row in rows:
        image, key = row.get("data_after"), row_of(row)
        old = {**image, **(row.get("changed_from") or {})} if isinstance(image, dict) else image
        prior = before.get(key, old) if same_kind(row, "update") else image
        before[key] = image
        shown.append({**row, "data_after": prior})
    return shown


def final_images(rows: list[Row]) -> list[Row]:
    """Show the last image of a row in each of its changes, as a trail does that joins the audited table."""
    last = {row_of(row): row["data_after"] for row in rows if isinstance(row.get("data_after"), dict)}
    return column(
        rows, "data_after", lambda row: last[row_of(row)], lambda row: isinstance(row.get("data_after"), dict)
    )


def kept_after_delete(rows: list[Row]) -> list[Row]:
    """Show the image before a delete as the one after it."""
    before: dict[Hashable, Any] = {}
    shown = []
    for row in rows:
        if same_kind(row, "delete") and row.get("data_after") is None:
            shown.append({**row, "data_after": before.get(row_of(row), row.get("table_pk"))})
        else:
            before[row_of(row)] = row.get("data_after")
            shown.append(row)
    return shown


def of_other_row(rows: list[Row], name: str) -> list[Row]:
    """Exchange a column between neighbours of one table and operation."""
    shown = list(rows)
    for first, second in zip(range(len(rows)), range(1, len(rows)), strict=False):
        one, other = rows[first], rows[second]
        alike = all(one.get(key) == other.get(key) for key in ("table_schema", "table_name", "op"))
        if alike and name in one and shown[first] is one:
            shown[first], shown[second] = {**one, name: other.get(name)}, {**other, name: one.get(name)}
    return shown


# --- prior values ----------------------------------------------------------------------------------------


def whole_prior_images(rows: list[Row]) -> list[Row]:
    """Keep all columns as prior values, the unchanged ones as well."""
    return column(
        rows,
        "changed_from",
        lambda row: {**row["data_after"], **row["changed_from"]},
        lambda row: isinstance(row.get("changed_from"), dict) and isinstance(row.get("data_after"), dict),
    )


def new_as_prior(rows: list[Row]) -> list[Row]:
    """Keep the new values as prior values."""
    return column(
        rows,
        "changed_from",
        lambda row: {name: row["data_after"].get(name) for name in row["changed_from"]},
        lambda row: isinstance(row.get("changed_from"), dict) and isinstance(row.get("data_after"), dict),
    )


def first_prior_values(rows: list[Row]) -> list[Row]:
    """Keep the values before the first update of a row as the prior values of its later updates."""
    first: dict[Hashable, dict[str, Any]] = {}
    shown = []
    for row in rows:
        prior = row.get("changed_from")
        if isinstance(prior, dict):
            oldest = first.setdefault(row_of(row), dict(prior))
            row = {**row, "changed_from": {name: oldest.get(name, value) for name, value in prior.items()}}  # noqa: PLW2901 -- the copy is shown
            for name, value in prior.items():
                oldest.setdefault(name, value)
        shown.append(row)
    return shown


def prior_values_of_inserts(rows: list[Row]) -> list[Row]:
    """Keep prior values of inserts: NULL for each column."""
    return column(
        rows,
        "changed_from",
        lambda row: dict.fromkeys(row["data_after"]),
        lambda row: same_kind(row, "insert") and isinstance(row.get("data_after"), dict),
    )
