"""A table that is one test: every row runs, and the rows that fail are named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.tables import each_row

if TYPE_CHECKING:
    from collections.abc import Callable

#: pairs of numbers, of which the last two differ
PAIRS = [(1, 1), pytest.param(2, 3, id="the second"), (4, 4), (5, 6)]


def rows_fail(pairs: Callable[..., None]) -> list[str]:
    """Return the notes of the rows that fail."""
    with pytest.raises(BaseExceptionGroup) as caught:
        pairs()
    return [note for error in caught.value.exceptions for note in error.__notes__]


def test_every_row_runs_and_those_that_fail_are_named() -> None:
    ran = []

    @each_row(("one", "two"), PAIRS)
    def equal(one: int, two: int) -> None:
        ran.append(one)
        assert one == two

    assert rows_fail(equal) == ["in the row the second", "in the row 5, 6"]
    assert ran == [1, 2, 4, 5]


def test_a_table_whose_rows_hold_passes() -> None:
    @each_row("one, two", [(1, 1), (2, 2)])
    def equal(one: int, two: int) -> None:
        assert one == two

    equal()


@pytest.mark.parametrize("ids", [lambda value: f"n{value}", ["n1", "n2"]])
def test_rows_are_named_by_their_ids(ids: Callable[[int], str] | list[str]) -> None:
    @each_row("number", [1, 2], ids=ids)
    def fails(number: int) -> None:
        assert number == 2

    assert rows_fail(fails) == ["in the row n1"]


@pytest.mark.parametrize("end", [pytest.fail, pytest.skip])
def test_a_row_that_is_ended_or_skipped_fails(end: Callable[[str], None]) -> None:
    @each_row("number", [1])
    def ended(number: int) -> None:
        end(str(number))

    assert rows_fail(ended) == ["in the row 1"]


def test_a_row_that_expects_an_error_and_gets_none_fails() -> None:
    @each_row("number", [1])
    def raises(number: int) -> None:
        with pytest.raises(ValueError, match="x"):
            assert number == 1

    assert rows_fail(raises) == ["in the row 1"]


@pytest.mark.parametrize("rows", [[], [(1,)], [(1, 2, 3)], [pytest.param(1, 2, marks=pytest.mark.skip)]])
def test_a_table_that_tests_less_than_it_says_is_refused(rows: list[object]) -> None:
    with pytest.raises(ValueError, match=r"rows|values|marks"):
        each_row(("one", "two"), rows)


@each_row("number", [1, 2, 3])
def test_the_other_parameters_are_fixtures(number: int, request: pytest.FixtureRequest) -> None:
    assert request.function is not None
    assert number
