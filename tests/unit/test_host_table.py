"""What tells the rows of one request in the audited table itself."""

from __future__ import annotations

from typing import Any

import pytest

from harness.host.audited_table import RowsNotSeenError, _conditions
from harness.host.declarations import Expected
from harness.host.site import Values

COLUMNS = {"slug": True, "state": True, "data": False, "id": False}


def conditions(values: Values, operation: Any = "insert", **told: Any) -> tuple[str, str]:
    """Return what tells the rows as a whole, and loosely."""
    return _conditions(Expected(table="public.posts", operation=operation, **told), values, COLUMNS)


def test_only_what_is_of_this_request_tells_its_rows() -> None:
    """Another column may have been changed since, by the host's own worker."""
    values = Values(None)
    slug = f"harness_row.\"slug\" = '{values.unique}'"
    found = conditions(values, where={"slug": "{unique}", "state": "new"})
    assert found == (f"{slug} AND harness_row.\"state\" = 'new'", slug)


def test_what_is_no_text_is_looked_for_within() -> None:
    values = Values(None)
    _, found = conditions(values, where={"data": {"ref": "{unique}"}})
    assert found == f'to_jsonb(harness_row) @> \'{{"data":{{"ref":"{values.unique}"}}}}\'::jsonb'


def test_the_tables_own_names_are_taken_where_they_are_declared() -> None:
    values = Values(None)
    found, _ = conditions(values, where={"title": "{unique}"}, row={"slug": "{unique}", "state": "new"})
    assert found == f"harness_row.\"slug\" = '{values.unique}' AND harness_row.\"state\" = 'new'"


@pytest.mark.parametrize("operation", ["delete", "update"])
def test_a_row_that_holds_nothing_of_the_request_is_told_by_its_key(operation: str) -> None:
    values = Values(None)
    values.keep("post_id", 7)
    assert set(conditions(values, operation, key={"id": "{post_id}"})) == {"harness_row.\"id\" = '7'"}


def test_values_of_an_answer_tell_rows_where_nothing_else_does() -> None:
    values = Values(None)
    values.keep("post_id", 7)
    whole, loose = conditions(values, "update", where={"id": "{post_id}"})
    assert whole == loose == "to_jsonb(harness_row) @> '{\"id\":7}'::jsonb"


def test_a_name_that_only_the_trail_has_cannot_be_counted_by() -> None:
    with pytest.raises(RowsNotSeenError, match="no column title: name those that tell its rows with `row`"):
        conditions(Values(None), where={"title": "{unique}"})
