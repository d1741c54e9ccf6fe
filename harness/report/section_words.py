"""The words and the order of a section: its tables, its rows worst first, and its counts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from harness.model import Status
from harness.report.listings import Listing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from harness.report.table import Columns

#: the order in which a reader wants them
_WORST_FIRST = (Status.ISSUE, Status.NOT_RUN, Status.OK, Status.NA)
#: the order in which a summary counts them
_COUNTED = (Status.OK, Status.ISSUE, Status.NOT_RUN, Status.NA)
#: tables with more rows are folded: their summary has the result
_LONG = 25


def one_table(caption: str, shown: Columns, rows: Sequence[Any], *, on_paper: bool = False) -> tuple[Listing, ...]:
    """Return one table. A long one is folded, unless it belongs on paper."""
    is_long = len(rows) > _LONG
    return (
        Listing(
            caption=caption,
            columns=shown,
            groups=(("", tuple(rows)),),
            summary=rows_in_words(rows),
            folded=is_long and not on_paper,
            tall=is_long,
        ),
    )


def rows_in_words(rows: Sequence[Any]) -> str:
    return numbered(rows, "row")


def worst_first(rows: Iterable[Any]) -> list[Any]:
    return sorted(rows, key=lambda row: _WORST_FIRST.index(row.status))


def statuses_in_words(rows: Iterable[Any]) -> str:
    found = Counter(row.status for row in rows)
    return ", ".join(f"{found[status]} {status}" for status in _COUNTED if found[status])


def counts_in_words(values: Iterable[str], label: Callable[[str], str] = str) -> str:
    """Return how often each value occurs: `4 P0, 9 P1`."""
    return ", ".join(f"{number} {label(value)}" for value, number in Counter(values).items())


def numbered(rows: Sequence[Any] | set[Any], noun: str, plural: str = "") -> str:
    return f"{len(rows)} {noun}" if len(rows) == 1 else f"{len(rows)} {plural or noun + 's'}"
