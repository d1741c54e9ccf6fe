"""The audited rows of a pipeline: which upload a change of the trail belongs to."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from harness.audit.target import Change
from harness.suites.ingest.trace_cases import written_upload
from tests.unit.ingested import upload

UPLOADS = [replace(upload(number), id=str(number)) for number in (1, 2)]
OTHER = replace(upload(7), id="7")


def change(pk: Any, row: Any) -> Change:
    return Change(
        id="c",
        transaction_id="t",
        table_schema="public",
        table_name="uploads",
        table_pk=pk,
        op="update",
        data_after=row,
        actor=None,
    )


@pytest.mark.parametrize(
    ("pk", "row", "number"),
    [
        ({"id": 2}, {"id": 2, "attempts": 1}, 2),
        ({"id": 1}, {"id": 1, "upload_id": 9, "object_key": UPLOADS[1].key}, 2),
        ({"id": 9}, {"id": 9, "upload_id": "2"}, 2),
        ({"id": 1}, None, 1),
        (None, {"id": 2}, 2),
        ({"id": 9}, {"id": 9, "object_key": OTHER.key}, None),
        (None, None, None),
    ],
)
def test_a_change_belongs_to_the_upload_that_its_row_names(pk: Any, row: Any, number: int | None) -> None:
    found = written_upload(change(pk, row), UPLOADS)
    assert (found.number if found else None) == number
