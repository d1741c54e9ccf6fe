"""The number of rows that the audited table must hold, given a path's changes in the trail."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from harness.audit.target import Change
from harness.host.declarations import Expected
from harness.host.path_rows import Seen
from harness.suites.paths.expectations import expected_table_rows
from tests.tables import each_row


def change(op: str, key: int | None, transaction: str = "1") -> Change:
    return Change(
        id=f"{op}-{key}-{transaction}",
        transaction_id=transaction,
        table_schema="public",
        table_name="posts",
        table_pk=None if key is None else {"id": key},
        op=op,
        data_after=None,
        actor=None,
    )


def expected_rows(operation: Any, *changes: Change, others: tuple[Change, ...] = (), **declared: Any) -> int:
    """Return the expected table rows, for the path's changes and others in the same transactions."""
    run: Any = SimpleNamespace(expected=Expected(table="public.posts", operation=operation, **declared))
    return expected_table_rows(run, Seen(changes=changes, all_changes=(*changes, *others), actions=()))


@each_row(
    ("operation", "changes", "rows"),
    [
        ("insert", (change("insert", 1),), 1),
        ("insert", (change("insert", 1), change("insert", 2, "2")), 2),
        ("insert", (change("insert", None), change("insert", None, "2")), 2),
        ("insert", (change("insert", 1), change("update", 1, "2")), 1),
        ("update", (change("update", 1), change("update", 1, "2")), 1),
        ("update", (change("update", 1), change("update", 2)), 2),
        ("update", (change("update", None), change("update", None, "2")), 1),
        ("delete", (change("delete", 1),), 0),
    ],
)
def test_expects_one_row_per_inserted_or_updated_key(operation: str, changes: tuple[Change, ...], rows: int) -> None:
    assert expected_rows(operation, *changes) == rows


def test_a_row_that_replaces_another_counts_once() -> None:
    first, second = change("insert", 1), change("insert", 2, "2")
    assert expected_rows("insert", first, second, others=(change("delete", 1, "2"),)) == 1


def test_a_declared_number_of_rows_counts_per_insert() -> None:
    assert expected_rows("insert", change("insert", 1), left=0) == 0
    assert expected_rows("insert", change("insert", 1), change("insert", 2, "2"), left=1) == 2
    assert expected_rows("update", change("update", 1), change("update", 1, "2"), left=1) == 1
