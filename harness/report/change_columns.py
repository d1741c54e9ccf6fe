"""The columns of the tables about what changed since another run; `columns.py` has those of all other tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.report.baseline import BaselineChange
from harness.report.cells import Cell, Gap, Identifier, Link, Text, joined
from harness.report.changes import Change, Changes, Duration, Kind, OneSided
from harness.report.factors import Difference
from harness.report.listings import Listing
from harness.report.table import Column, Columns, Field, identifier, listed, table, text_field

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgspec import Struct

#: the most checks that one cell names
_MOST_CHECKS = 6


def _where(row: Change) -> Cell:
    """Return the topologies, each linked to the newer evidence of the row."""
    links = (Link(target, f"#row={target}/{row.check}") for target in row.targets)
    return Cell(joined(Gap(", ", " "), *links))


def _what_it_means(row: Change) -> Cell:
    return Cell((Text(": ".join(filter(None, (row.direction, row.reason)))),))


def _value(name: str, empty: str) -> Callable[[Change], Cell]:
    """Return the accessor of a status or outcome, in the colour of its word."""

    def cell(row: Change) -> Cell:
        value = getattr(row, name)
        word = value.partition(",")[0].partition(" ")[0].replace("/", "")
        return Cell((Text(value or empty),), css=f"value t-{word}")

    return cell


CHANGES = table(
    Change,
    Column("Change", text_field("kind")),
    Column("P", text_field("severity")),
    Column("Check", identifier("check")),
    Column("Feature or claim", text_field("title")),
    Column("Where", listed("targets"), in_html=_where),
    Column("Before", _value("before", "absent")),
    Column("After", _value("after", "absent")),
    Column("What that means", _what_it_means),
    Column("Cause", text_field("cause")),
)


def _standing(row: BaselineChange) -> Cell:
    return Cell((Text(row.standing),))


def _links(row: BaselineChange) -> Cell:
    links = (Link(target, f"#row={target}/{row.check}") for target in row.topologies)
    return Cell(joined(Gap(", ", " "), *links))


BASELINE = table(
    BaselineChange,
    Column("Since the baseline", _standing),
    Column("P", text_field("severity")),
    Column("Check", identifier("check")),
    Column("Where", listed("topologies"), in_html=_links),
    Column("Then", text_field("before")),
    Column("Now", text_field("after")),
)


def _difference_where(row: Difference) -> Cell:
    return Cell((Text(", ".join(row.targets) + (f": {', '.join(row.checks)}" if row.checks else "")),))


DIFFERENCES = table(
    Difference,
    Column("Differs", text_field("factor")),
    Column("Of", text_field("name")),
    Column("Before", text_field("before")),
    Column("After", text_field("after")),
    Column("Where", _difference_where),
)


def seconds(milliseconds: float) -> str:
    """Return a duration for people."""
    return f"{milliseconds / 1000:.1f} s"


def _time(name: str) -> Field:
    return Field(name, lambda value: Cell((Text(seconds(value)),)))


def _timed(row: Duration) -> Cell:
    return Cell((Identifier(row.check) if row.check else Text("start of the topology"),))


DURATIONS = table(
    Duration,
    Column("Duration of", _timed),
    Column("Where", text_field("target")),
    Column("Before", _time("before_ms")),
    Column("After", _time("after_ms")),
)


def checks_of(row: OneSided) -> str:
    """Return the checks of rows that only one has, in one line."""
    if row.whole:
        return f"all {len(row.checks)} rows" if len(row.checks) > 1 else row.checks[0]
    more = f" and {len(row.checks) - _MOST_CHECKS} more" if len(row.checks) > _MOST_CHECKS else ""
    return ", ".join(row.checks[:_MOST_CHECKS]) + more


ONE_SIDED = table(
    OneSided,
    Column("Where", listed("targets")),
    Column("Rows", lambda row: Cell((Text(checks_of(row)),))),
)


def listings(found: Changes) -> tuple[Listing, ...]:
    """Return the tables of the page that have a row. The headings of groups say how rows changed."""
    by_kind = tuple((str(kind), found.of(kind)) for kind in Kind)
    made = (
        Listing(caption="Rows that changed, the most important ones first", columns=CHANGES[1:], groups=by_kind),
        _listing("What differs between the runs", DIFFERENCES, found.differences),
        _listing("Durations that doubled or halved", DURATIONS, found.durations),
        _listing("Rows that only the older evidence has", ONE_SIDED, found.only_before),
        _listing("Rows that only the newer evidence has", ONE_SIDED, found.only_after),
    )
    return tuple(listing for listing in made if listing.number)


def _listing(caption: str, columns: Columns, rows: tuple[Struct, ...]) -> Listing:
    return Listing(caption=caption, columns=columns, groups=(("", rows),))
