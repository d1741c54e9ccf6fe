"""Operators on whole rows: rows that are missing, doubled, in another order, or in another transaction."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

_PAIR = 2
#: columns that differ between equal changes
_OF_THE_CHANGE = ("id", "captured_at", "position")
#: one row of the `changes` statement, by the names of its columns
Row = dict[str, Any]


def known(value: Any) -> str:
    """Return what stands for a value in comparisons; 1, 1.0 and true differ."""
    return repr(value)


def row_of(row: Row) -> Hashable:
    """Return what identifies the audited row of a change."""
    return row.get("table_schema"), row.get("table_name"), known(row.get("table_pk"))


def same_kind(row: Row, op: str) -> bool:
    return str(row.get("op")).lower() == op


def runs_of(rows: Iterable[Row], key: Callable[[Row], Hashable]) -> list[list[Row]]:
    """Return the rows in groups of equal keys. The groups are in the order of their first rows."""
    groups: dict[Hashable, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def transactions_of(rows: Iterable[Row]) -> list[list[Row]]:
    return runs_of(rows, lambda row: known(row.get("transaction_id")))


def without(rows: list[Row], left_out: Callable[[Row], bool]) -> list[Row]:
    return [row for row in rows if not left_out(row)]


def copy_of(row: Row, number: int = 0) -> Row:
    """Return a second row of the same change, with an id of its own."""
    return {**row, "id": f"{row.get('id')}-{number + 2}"}


def doubled(rows: list[Row], chosen: Callable[[Row], bool]) -> list[Row]:
    return [shown for row in rows for shown in ((row, copy_of(row)) if chosen(row) else (row,))]


# --- missing ---------------------------------------------------------------------------------------------


def without_middle(rows: list[Row]) -> list[Row]:
    """Leave out a row that has rows before and after it."""
    middle = len(rows) // 2
    return rows[:middle] + rows[middle + 1 :] if len(rows) > _PAIR else rows


def one_of_equal(rows: list[Row]) -> list[Row]:
    """Leave out each row that equals an earlier one of its transaction, apart from its id and time."""
    seen: set[Hashable] = set()
    kept = []
    for row in rows:
        key = known(sorted((name, known(value)) for name, value in row.items() if name not in _OF_THE_CHANGE))
        if key not in seen:
            kept.append(row)
        seen.add(key)
    return kept


def last_of_each_row(rows: list[Row]) -> list[Row]:
    """Keep the last update of each row in a transaction."""
    last: dict[Hashable, int] = {}
    for number, row in enumerate(rows):
        last[known(row.get("transaction_id")), row_of(row), row.get("op")] = number
    kept = set(last.values())
    return [row for number, row in enumerate(rows) if number in kept or not same_kind(row, "update")]


def first_of_each_row(rows: list[Row]) -> list[Row]:
    """Keep the first update of each row in a transaction."""
    seen: set[Hashable] = set()
    kept = []
    for row in rows:
        key = (known(row.get("transaction_id")), row_of(row))
        if not same_kind(row, "update") or key not in seen:
            kept.append(row)
        if same_kind(row, "update"):
            seen.add(key)
    return kept


def first_of_each(rows: list[Row], key: Callable[[Row], Hashable]) -> list[Row]:
    return [group[0] for group in runs_of(rows, key)]


def up_to(rows: list[Row], most: int) -> list[Row]:
    """Keep the first rows of each transaction."""
    seen: Counter[Hashable] = Counter()
    kept = []
    for row in rows:
        key = known(row.get("transaction_id"))
        seen[key] += 1
        if seen[key] <= most:
            kept.append(row)
    return kept


# --- invented --------------------------------------------------------------------------------------------


def with_undone(rows: list[Row]) -> list[Row]:
    """Add a change that no committed write made, as a trail shows that keeps what was rolled back."""
    if not rows:
        return rows
    image = rows[-1].get("data_after") or {}
    undone = {name: f"{value} undone" if isinstance(value, str) else value for name, value in image.items()}
    return [*rows, {**copy_of(rows[-1]), "data_after": undone or rows[-1].get("data_after")}]


def updates_as_pairs(rows: list[Row]) -> list[Row]:
    """Show an update as a delete and an insert."""
    shown: list[Row] = []
    for row in rows:
        if same_kind(row, "update"):
            plain = {**row, "changed_fields": None, "changed_from": None}
            shown += [{**plain, "op": "delete", "data_after": None}, {**copy_of(plain), "op": "insert"}]
        else:
            shown.append(row)
    return shown


def pairs_as_updates(rows: list[Row]) -> list[Row]:
    """Show a delete and an insert that follow each other in one transaction as an update."""
    shown: list[Row] = []
    for row in rows:
        before = shown[-1] if shown else None
        if (
            before
            and same_kind(before, "delete")
            and same_kind(row, "insert")
            and before.get("transaction_id") == row.get("transaction_id")
            and before.get("table_name") == row.get("table_name")
        ):
            shown[-1] = {**row, "op": "update"}
        else:
            shown.append(row)
    return shown


# --- order -----------------------------------------------------------------------------------------------


def neighbours_swapped(rows: list[Row]) -> list[Row]:
    """Swap the first two rows of each transaction."""
    return [row for group in transactions_of(rows) for row in (group[1::-1] + group[2:] if len(group) > 1 else group)]


def last_two_swapped(rows: list[Row]) -> list[Row]:
    return rows[:-2] + rows[:-3:-1]


def reversed_within(rows: list[Row]) -> list[Row]:
    return [row for group in transactions_of(rows) for row in reversed(group)]


def transactions_reversed(rows: list[Row]) -> list[Row]:
    return [row for group in reversed(transactions_of(rows)) for row in group]


def by_table(rows: list[Row]) -> list[Row]:
    """Order the rows of each transaction by their table."""
    return [row for group in transactions_of(rows) for row in sorted(group, key=lambda row: str(row.get("table_name")))]


def by_operation(rows: list[Row]) -> list[Row]:
    """Order the rows of each transaction by their operation: deletes, inserts, then updates."""
    return [row for group in transactions_of(rows) for row in sorted(group, key=lambda row: str(row.get("op")))]


def by_key(rows: list[Row]) -> list[Row]:
    """Order all rows by table and key, as a trail shows that keeps no order of its own."""
    return sorted(rows, key=lambda row: known(row_of(row)))


# --- transactions ----------------------------------------------------------------------------------------


def with_transaction(rows: list[Row], new_id: Callable[[Row], Any]) -> list[Row]:
    """Give each row another transaction id."""
    return [{**row, "transaction_id": new_id(row)} for row in rows]


def pairs_merged(rows: list[Row]) -> list[Row]:
    """Give every second transaction the id of the one before it."""
    ids = [group[0].get("transaction_id") for group in transactions_of(rows)]
    merged = {known(own): ids[number - number % 2] for number, own in enumerate(ids)}
    return with_transaction(rows, lambda row: merged[known(row.get("transaction_id"))])


def first_reused(rows: list[Row]) -> list[Row]:
    """Give the last transaction the id of the first, when others are between them."""
    ids = [group[0].get("transaction_id") for group in transactions_of(rows)]
    if len(ids) <= _PAIR:
        return rows
    return with_transaction(
        rows, lambda row: ids[0] if row.get("transaction_id") == ids[-1] else row.get("transaction_id")
    )


def edge_attached(rows: list[Row], *, last: bool) -> list[Row]:
    """Attach the first row of each transaction to the one before it, or the last row to the one after it."""
    groups = transactions_of(rows)
    edge, step = (-1, 1) if last else (0, -1)
    moved: dict[int, Any] = {}
    for number, group in enumerate(groups):
        other = number + step
        if 0 <= other < len(groups) and len(group) > 1:
            moved[id(group[edge])] = groups[other][0].get("transaction_id")
    return with_transaction(rows, lambda row: moved.get(id(row), row.get("transaction_id")))
