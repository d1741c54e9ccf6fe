"""Rows of an attempt are found in trails with types and in trails of texts."""

from __future__ import annotations

from typing import Any

import pytest

from harness.host.trail_reader import holding

_FALSE = '{"on":false}'


@pytest.mark.parametrize(
    ("where", "conditions"),
    [
        ({}, []),
        ({"slug": "it's"}, ["""change.data_after::jsonb @> '{"slug":"it''s"}'::jsonb"""]),
        (
            {"slug": "a", "id": 7},
            [
                """change.data_after::jsonb @> '{"slug":"a"}'::jsonb""",
                """(change.data_after::jsonb @> '{"id":7}'::jsonb OR change.data_after::jsonb ->> 'id' IN ('7'))""",
            ],
        ),
        (
            {"on": False},
            [f"(change.data_after::jsonb @> '{_FALSE}'::jsonb OR change.data_after::jsonb ->> 'on' IN ('false', 'f'))"],
        ),
        ({"data": {"n": 1}}, ["""change.data_after::jsonb @> '{"data":{"n":1}}'::jsonb"""]),
        ({"gone": None}, ["""change.data_after::jsonb @> '{"gone":null}'::jsonb"""]),
    ],
)
def test_a_number_or_a_truth_value_may_be_its_text(where: dict[str, Any], conditions: list[str]) -> None:
    assert holding(where) == conditions
