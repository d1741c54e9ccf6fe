"""Tests of tables with many rows that are judged within a millisecond each."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_LONGEST = 200


def each_row(
    names: str | Sequence[str],
    rows: Iterable[Any],
    ids: Callable[[Any], object] | Iterable[object] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Call a test function with each row of a table, as one test.

    It has the parameters of `pytest.mark.parametrize`, which makes a test of each row. Pytest takes longer to collect a
    test in each process, to hand it out and to report it than these rows take. A failing row is named, and does not end
    the others. The rows share the fixtures of the test.
    """
    columns = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    table = [_row(row, columns) for row in rows]
    if not table:
        raise ValueError("a table without rows tests nothing")
    if ids is None or callable(ids):
        named = [(name or _name(values, ids), values) for name, values in table]
    else:
        named = [(str(name), values) for name, (_, values) in zip(ids, table, strict=True)]

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(test)
        others = [parameter for name, parameter in signature.parameters.items() if name not in columns]

        @functools.wraps(test)
        def run(**fixtures: object) -> None:
            failed: list[BaseException] = []
            for name, values in named:
                try:
                    test(**dict(zip(columns, values, strict=True)), **fixtures)
                except (Exception, pytest.fail.Exception, pytest.skip.Exception) as error:  # noqa: BLE001 -- raised below
                    error.add_note(f"in the row {name}")
                    failed.append(error)
            if failed:
                raise BaseExceptionGroup(f"{len(failed)} of {len(named)} rows fail", failed)

        run.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
        return run

    return decorate


def _row(row: Any, columns: list[str]) -> tuple[str, Sequence[object]]:
    """Return the name of a row, if it has one of its own, and its values."""
    name = ""
    if isinstance(row, type(pytest.param())):
        if row.marks:
            raise ValueError("a row has no marks: all rows are one test")
        name, values = str(row.id or ""), row.values
    else:
        values = row if len(columns) > 1 else (row,)
    if len(values) != len(columns):
        raise ValueError(f"expected {len(columns)} values in each row, found {values!r}")
    return name, values


def _name(values: Sequence[object], ids: Callable[[Any], object] | None) -> str:
    named = (ids(value) if ids else None for value in values)
    texts = (repr(value) if name is None else str(name) for name, value in zip(named, values, strict=True))
    return ", ".join(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…" for text in texts)
