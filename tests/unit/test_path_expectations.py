"""How many rows the table must hold after what the trail tells of a path."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.audit.target import Change
from harness.host.declarations import Expected
from harness.host.path_runner import Seen
from harness.suites.paths.expectations import written


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


def wanted(operation: Any, *changes: Change, beside: tuple[Change, ...] = (), **told: Any) -> int:
    path: Any = SimpleNamespace(expected=Expected(table="public.posts", operation=operation, **told))
    return written(path, Seen(changes=changes, all_changes=(*changes, *beside), actions=()))


@pytest.mark.parametrize(
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
def test_rows_are_those_that_were_inserted_or_changed(operation: str, changes: tuple[Change, ...], rows: int) -> None:
    assert wanted(operation, *changes) == rows


def test_a_row_that_takes_the_place_of_another_is_one() -> None:
    first, second = change("insert", 1), change("insert", 2, "2")
    assert wanted("insert", first, second, beside=(change("delete", 1, "2"),)) == 1


def test_what_is_left_is_as_declared_each_time_that_rows_are_inserted() -> None:
    assert wanted("insert", change("insert", 1), left=0) == 0
    assert wanted("insert", change("insert", 1), change("insert", 2, "2"), left=1) == 2
    assert wanted("update", change("update", 1), change("update", 1, "2"), left=1) == 1
