"""The parts of the page that are tables: a table with its caption, tables with a heading, a section of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct

from harness.report.table import Columns

#: a macro of `templates/_words.j2`, and what it is called with
Said = tuple[str, tuple[Any, ...]]


class Listing(Struct, frozen=True, kw_only=True):
    """One table."""

    caption: str
    columns: Columns
    #: groups of rows, each with its heading; "" for rows without one
    groups: tuple[tuple[str, tuple[Any, ...]], ...]
    #: the result in words, which a reader sees while the table is folded
    summary: str = ""
    folded: bool = False
    #: whether it scrolls inside the page, under its headings
    tall: bool = False
    #: what it says if it has no row
    empty: Said = ("", ())

    @property
    def number(self) -> int:
        return sum(len(rows) for _, rows in self.groups)


class Part(Struct, frozen=True, kw_only=True):
    """Tables with a heading of their own."""

    title: str
    intro: Said
    listings: tuple[Listing, ...]


class Paper(StrEnum):
    """The part of a section that is printed."""

    WHOLE = "whole"
    #: the rows that are not OK; for drivers, those that do not work everywhere
    OPEN = "open"
    NONE = "none"


class Section(Struct, frozen=True, kw_only=True):
    """One section of the page, and its entry in the navigation."""

    anchor: str
    title: str
    #: for the navigation
    short: str
    #: the result, in one sentence without a full stop; "" if nothing is declared or nothing ran
    result: str
    intro: Said = ("", ())
    #: what is said in place of a section that has no row
    missing: Said
    listings: tuple[Listing, ...]
    parts: tuple[Part, ...] = ()
    #: paragraphs after the tables: a strong beginning, and the rest
    remarks: tuple[tuple[str, str], ...] = ()
    #: what all remarks share
    shared: Said = ("", ())
    paper: Paper = Paper.WHOLE
    #: the colours of the first table: the class of each, an example, and its meaning
    legend: tuple[tuple[str, str, str], ...] = ()

    @property
    def is_shown(self) -> bool:
        listings = [*self.listings, *(listing for part in self.parts for listing in part.listings)]
        return any(listing.number for listing in listings)
