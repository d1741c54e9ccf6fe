"""A table of the report: columns with a heading and an accessor, verified against the type of its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from harness.report.cells import Badge, Cell, Code, Identifier, Source, Text

if TYPE_CHECKING:
    from markupsafe import Markup

    from harness.markdown.headings import Column as Heading
    from harness.report.escape import Ready

#: returns what a cell shows, given the row
Accessor = Callable[[Any], Cell]


class Column(Struct, frozen=True):
    """One column of a table of the report.

    :param heading: what is printed above it.
    :param cell: what the cell of a row shows.
    :param in_html: what it shows in HTML, if HTML has room for more.
    """

    heading: str
    cell: Accessor
    in_html: Accessor | None = None

    def markdown(self, row: object) -> Ready:
        return self.cell(row).markdown()

    def html(self, row: object) -> Markup:
        return (self.in_html or self.cell)(row).html()


Columns = tuple[Column, ...]


class Field(Struct, frozen=True):
    """The accessor of a cell that shows one attribute of its row.

    :param name: the attribute; :func:`table` verifies that the rows have it.
    :param shown: what the cell shows, given the value of the attribute.
    """

    name: str
    shown: Callable[[Any], Cell]

    def __call__(self, row: object) -> Cell:
        return self.shown(getattr(row, self.name))


# --- cells that many tables share ------------------------------------------------------------------------


def text_field(name: str, empty: str = "") -> Field:
    return Field(name, lambda value: Cell((Text(value or empty),)))


def number(name: str) -> Field:
    return Field(name, lambda value: Cell((Text(value),)))


def listed(name: str, css: str = "") -> Field:
    return Field(name, lambda value: Cell((Text(", ".join(value)),), css=css))


def code_field(name: str) -> Field:
    return Field(name, lambda value: Cell((Code(value),)))


def identifier(name: str) -> Field:
    return Field(name, lambda value: Cell((Identifier(value),)))


def source(name: str) -> Field:
    return Field(name, lambda value: Cell((Source(value),)))


def badge(name: str) -> Field:
    return Field(name, lambda value: Cell((Badge(value),)))


# --- tables ----------------------------------------------------------------------------------------------


def table(row: type[Struct], *columns: Column) -> Columns:
    """Return the columns of a table, after verifying that its rows have every attribute that they show.

    :param row: the type of the rows.
    :raises ValueError: when the rows lack an attribute.
    """
    accessors = [accessor for column in columns for accessor in (column.cell, column.in_html)]
    shown = {accessor.name for accessor in accessors if isinstance(accessor, Field)}
    if missing := shown - _attributes(row):
        raise ValueError(
            f"{row.__name__} in {row.__module__} has no attribute {', '.join(sorted(missing))}: add a field of that "
            "name, or correct the column in harness/report/columns.py"
        )
    return columns


def headed(row: type[Struct], headings: Sequence[Heading], cells: Mapping[str, Accessor] | None = None) -> Columns:
    """Return the columns of a table that the linter also reads.

    :param row: the type of the rows.
    :param headings: one of the tables of `harness/markdown/headings.py`.
    :param cells: what the cells of a column show, by its key. A column without an entry shows the attribute of the row
        that is named like its key.
    :raises ValueError: when `cells` has a key that the table does not have, or the rows lack an attribute.
    """
    cells = cells or {}
    if unknown := cells.keys() - {heading.key for heading in headings}:
        raise ValueError(f"unknown columns {', '.join(sorted(unknown))}, see harness/markdown/headings.py")
    named = {heading.key for heading in headings} - cells.keys()
    if missing := named - _attributes(row):
        raise ValueError(
            f"the column {', '.join(sorted(missing))} has no cell: add a field of that name to {row.__name__} in "
            f"{row.__module__}, or an entry in harness/report/columns.py"
        )
    return table(
        row, *(Column(heading.heading, cells.get(heading.key, text_field(heading.key))) for heading in headings)
    )


def _attributes(row: type[Struct]) -> set[str]:
    """Return the fields and properties of a type of rows."""
    return {*row.__struct_fields__, *(name for name in dir(row) if isinstance(getattr(row, name), property))}
