"""What tells the rows of one request in the audited table itself."""

from __future__ import annotations

from typing import Any

import pytest

from harness.host.declared import Expected
from harness.host.site import Values
from harness.host.table import RowsNotSeenError, _condition

COLUMNS = {"slug": True, "state": True, "data": False, "id": False}


def condition(values: Values, operation: Any = "insert", **told: Any) -> str:
    return _condition(Expected(table="public.posts", operation=operation, **told), values, COLUMNS)


def test_only_what_is_of_this_request_tells_its_rows() -> None:
    """Another column may have been changed since, by the host's own worker."""
    values = Values(None)
    assert condition(values, where={"slug": "{unique}", "state": "new"}) == f"entry.\"slug\" = '{values.unique}'"


def test_what_is_no_text_is_looked_for_within() -> None:
    values = Values(None)
    found = condition(values, where={"data": {"ref": "{unique}"}})
    assert found == f'to_jsonb(entry) @> \'{{"data":{{"ref":"{values.unique}"}}}}\'::jsonb'


def test_the_tables_own_names_are_taken_where_they_are_declared() -> None:
    values = Values(None)
    found = condition(values, where={"title": "{unique}"}, row={"slug": "{unique}", "state": "new"})
    assert found == f"entry.\"slug\" = '{values.unique}' AND entry.\"state\" = 'new'"


@pytest.mark.parametrize("operation", ["delete", "update"])
def test_a_row_that_holds_nothing_of_the_request_is_told_by_its_key(operation: str) -> None:
    values = Values(None)
    values.keep("post_id", 7)
    assert condition(values, operation, key={"id": "{post_id}"}) == "entry.\"id\" = '7'"


def test_a_name_that_only_the_trail_has_cannot_be_counted_by() -> None:
    with pytest.raises(RowsNotSeenError, match="no column title: name those that tell its rows with `row`"):
        condition(Values(None), where={"title": "{unique}"})
