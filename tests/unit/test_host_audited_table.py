"""The SQL conditions that identify the rows of one attempt in the audited table."""

from __future__ import annotations

from typing import Any

import pytest

from harness.host.audited_table import RowsNotSeenError, _conditions
from harness.host.declarations import Expected
from harness.host.site import Values

COLUMNS = {"slug": True, "state": True, "data": False, "id": False}


def conditions(values: Values, operation: Any = "insert", **declared: Any) -> tuple[str, str]:
    """Return the condition for all identifying values, and the one for the values unique to the attempt."""
    return _conditions(Expected(table="public.posts", operation=operation, **declared), values, COLUMNS)


def test_the_loose_condition_compares_unique_values_only() -> None:
    """The host's own worker may have changed any other column since."""
    values = Values(None)
    slug = f"harness_row.\"slug\" = '{values.unique}'"
    found = conditions(values, where={"slug": "{unique}", "state": "new"})
    assert found == (f"{slug} AND harness_row.\"state\" = 'new'", slug)


def test_a_column_that_is_not_text_is_searched_as_json() -> None:
    values = Values(None)
    _, found = conditions(values, where={"data": {"ref": "{unique}"}})
    assert found == f'to_jsonb(harness_row) @> \'{{"data":{{"ref":"{values.unique}"}}}}\'::jsonb'


def test_row_takes_precedence_over_where() -> None:
    values = Values(None)
    found, _ = conditions(values, where={"title": "{unique}"}, row={"slug": "{unique}", "state": "new"})
    assert found == f"harness_row.\"slug\" = '{values.unique}' AND harness_row.\"state\" = 'new'"


@pytest.mark.parametrize("operation", ["delete", "update"])
def test_the_key_identifies_a_row_without_unique_values(operation: str) -> None:
    values = Values(None)
    values.keep("post_id", 7)
    assert set(conditions(values, operation, key={"id": "{post_id}"})) == {"harness_row.\"id\" = '7'"}


def test_without_unique_values_both_conditions_are_the_same() -> None:
    values = Values(None)
    values.keep("post_id", 7)
    whole, loose = conditions(values, "update", where={"id": "{post_id}"})
    assert whole == loose == "to_jsonb(harness_row) @> '{\"id\":7}'::jsonb"


def test_a_column_that_only_the_trail_has_is_rejected() -> None:
    with pytest.raises(RowsNotSeenError, match="no column title: declare the table's own columns with `row`"):
        conditions(Values(None), where={"title": "{unique}"})
