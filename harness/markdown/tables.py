"""The tables of a Markdown document, with their lines, and which of the adoption tables each of them is.

Read as GitHub reads them (https://github.github.com/gfm/): a pipe behind a backslash belongs to its cell, also in a
code span; outer pipes may be missing; what lies in code, an HTML block or a comment is no table; and every line below a
table is a row of it, also one without a pipe, up to a blank line or the beginning of another block. Tables in list
items are found, and those in block quotes are not looked for.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.markdown.blocks import Blocks, split_cells
from harness.markdown.headings import key_of
from harness.markdown.inline import Span, plain, spans

if TYPE_CHECKING:
    from collections.abc import Sequence


class Kind(StrEnum):
    """The tables that are known, each by the name that people call it."""

    TOPOLOGY = "STG-01 topology"
    PATHS = "STG-02 audited paths"
    QUESTIONS = "topology questions"
    CHECKLIST = "checklist walkthrough"
    PREFLIGHT = "distribution preflight"
    PARITY = "in-repo parity"
    ISSUES = "prioritised issues"


#: a line of its own says what the next table below it is
MARKERS = {"STG-HOST-TOPOLOGY-TEMPLATE": Kind.TOPOLOGY, "STG-AUDITED-PATH-RUBRIC": Kind.PATHS}

#: the columns that make a table one of ours: all of the first, and as many of the second as the number says
_SIGNS: dict[Kind, tuple[frozenset[str], frozenset[str], int]] = {
    Kind.TOPOLOGY: (
        frozenset({"environment"}),
        frozenset({"class", "chain", "product", "mode", "prepare", "sandbox", "matches"}),
        3,
    ),
    Kind.PATHS: (frozenset({"path", "status"}), frozenset({"kind", "evidence"}), 1),
    Kind.QUESTIONS: (frozenset({"question", "matches"}), frozenset(), 0),
    Kind.CHECKLIST: (frozenset({"checklist", "status"}), frozenset(), 0),
    Kind.PREFLIGHT: (frozenset({"item", "status", "evidence"}), frozenset(), 0),
    Kind.PARITY: (frozenset({"check", "status", "evidence"}), frozenset(), 0),
    Kind.ISSUES: (frozenset({"p", "id", "symptom"}), frozenset(), 0),
}

_LINE_END = re.compile(r"\r\n|\n|\r")
_HEADING = re.compile(r" {0,3}(?P<level>#{1,6})(?:[ \t]+(?P<title>.*?))??(?:[ \t]+#+)?[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(?P<kind>=+|-+)[ \t]*")
_ANCHOR = re.compile(r"<a\s[^>]*\b(?:id|name)\s*=\s*[\"']?(?P<name>[^\"'\s>]+)", re.IGNORECASE)


class TableCell(Struct, frozen=True, dict=True):
    """A cell as it is written; its pipes are those of its text."""

    raw: str = ""

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        return spans(self.raw)

    @cached_property
    def text(self) -> str:
        return plain(self.raw)


class TableRow(Struct, frozen=True):
    line: int
    cells: tuple[TableCell, ...]
    #: cells that the table has no column for, which a reader never sees
    surplus: int = 0


class Table(Struct, frozen=True, kw_only=True):
    """A table; lines count from 1, and `last_line` is that of its last row."""

    line: int
    last_line: int
    header: tuple[str, ...]
    #: the names of the columns that are known, "" for others
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    kind: Kind | None = None

    def cell(self, row: TableRow, column: str) -> TableCell:
        """Return a row's cell; an empty one where the table lacks the column."""
        return row.cells[self.columns.index(column)] if column in self.columns else TableCell()


class Heading(Struct, frozen=True):
    line: int
    level: int
    title: str


class Prose(Struct, frozen=True):
    """A paragraph, list or quotation between blank lines: the line it begins at, and what a reader sees."""

    line: int
    text: str


class Document(Struct, frozen=True, kw_only=True):
    """A document: all its lines, and what was found in them."""

    lines: tuple[str, ...]
    #: for each line whether it is Markdown: neither code, nor a comment
    plainly: tuple[bool, ...]
    headings: tuple[Heading, ...]
    prose: tuple[Prose, ...]
    tables: tuple[Table, ...]
    #: markers on lines of their own: line and kind
    markers: tuple[tuple[int, Kind], ...]

    def ours(self) -> tuple[Table, ...]:
        return tuple(table for table in self.tables if table.kind)

    def below(self, table: Table) -> tuple[Prose, ...]:
        """Return what is said below a table: up to the next one, or the end of its section.

        A paragraph under a heading of its own comes with that heading.
        """
        level = next((each.level for each in reversed(self.headings) if each.line < table.line), 1)
        ends = [other.line for other in self.tables if other.line > table.line]
        ends += [each.line for each in self.headings if each.line > table.line and each.level <= level]
        end = min(ends, default=len(self.lines) + 1)
        found = []
        for each in self.prose:
            if table.last_line < each.line < end:
                title = next((h.title for h in reversed(self.headings) if table.last_line < h.line < each.line), "")
                found.append(Prose(each.line, f"{title} {each.text}".strip()))
        return tuple(found)

    def marked(self, line: int) -> Table | None:
        """Return the table that a marker at a line is about: the next one before another heading."""
        end = next((each.line for each in self.headings if each.line > line), len(self.lines) + 1)
        return next((table for table in self.tables if line < table.line < end), None)

    def anchors(self) -> frozenset[str]:
        """Return what a link may name behind `#`, in lower case, as GitHub makes it from headings."""
        found: dict[str, int] = {}
        for heading in self.headings:
            slug = re.sub(r"[^\w\- ]", "", heading.title.lower()).strip().replace(" ", "-")
            count = found[slug] = found.get(slug, -1) + 1
            if count:
                found.setdefault(f"{slug}-{count}", 0)
        named = {match["name"].lower() for line in self.lines for match in _ANCHOR.finditer(line)}
        return frozenset(found) | named


def split_lines(text: str) -> list[str]:
    """Return a document's lines without their ends; nothing but LF, CRLF and CR ends one."""
    return _LINE_END.split(text)


def read_document(text: str) -> Document:
    """Read a document. Never fails: what is no table is prose."""
    lines = split_lines(text.removeprefix("\ufeff"))
    blocks = Blocks()
    for line in lines:
        blocks.read(line)
    plainly = blocks.plainly
    tables = [_table(each) for each in blocks.tables]
    headings, prose = _around(lines, plainly, tables)
    markers = tuple(
        (number, MARKERS[name])
        for number, line in enumerate(lines, 1)
        if plainly[number - 1] and (name := line.strip(" \t*_`:")) in MARKERS
    )
    document = Document(
        lines=tuple(lines),
        plainly=tuple(plainly),
        headings=headings,
        prose=prose,
        tables=tuple(tables),
        markers=markers,
    )
    return _with_kinds(document)


def _with_kinds(document: Document) -> Document:
    """Name the tables: columns decide, and where they do not, the marker above."""
    marked = {table.line: kind for line, kind in document.markers if (table := document.marked(line))}
    tables = tuple(
        Table(
            line=each.line,
            last_line=each.last_line,
            header=each.header,
            columns=each.columns,
            rows=each.rows,
            kind=kind_of(each.columns) or marked.get(each.line),
        )
        for each in document.tables
    )
    return Document(
        lines=document.lines,
        plainly=document.plainly,
        headings=document.headings,
        prose=document.prose,
        tables=tables,
        markers=document.markers,
    )


def _table(lines: Sequence[tuple[int, str]]) -> Table:
    header = split_cells(lines[0][1])
    texts = tuple(plain(each) for each in header)
    return Table(
        line=lines[0][0] + 1,
        last_line=lines[-1][0] + 1,
        header=texts,
        columns=tuple(map(key_of, texts)),
        rows=tuple(_row(text, number + 1, len(header)) for number, text in lines[2:]),
    )


def _row(line: str, number: int, width: int) -> TableRow:
    cells = split_cells(line)
    padded = [*cells, *[""] * (width - len(cells))][:width]
    return TableRow(number, tuple(TableCell(each) for each in padded), max(0, len(cells) - width))


def kind_of(columns: Sequence[str]) -> Kind | None:
    """Return which of our tables has these columns; None for any other table."""
    there = set(columns)
    return next(
        (
            kind
            for kind, (all_of, some_of, least) in _SIGNS.items()
            if all_of <= there and len(some_of & there) >= least
        ),
        None,
    )


def _around(
    lines: Sequence[str], plainly: Sequence[bool], tables: Sequence[Table]
) -> tuple[tuple[Heading, ...], tuple[Prose, ...]]:
    """Return the headings and the paragraphs outside of tables."""
    in_table = {number for table in tables for number in range(table.line, table.last_line + 1)}
    headings: list[Heading] = []
    prose: list[Prose] = []
    paragraph: list[str] = []

    def close(number: int) -> None:
        if paragraph:
            prose.append(Prose(number - len(paragraph), plain(" ".join(paragraph))))
            paragraph.clear()

    for number, line in enumerate([*lines, ""], 1):
        text = line.strip()
        if number > len(lines) or number in in_table or not text or not plainly[number - 1] or text.startswith("<!--"):
            close(number)
        elif match := _HEADING.fullmatch(line):
            close(number)
            headings.append(Heading(number, len(match["level"]), plain(match["title"] or "")))
        elif len(paragraph) == 1 and (match := _UNDERLINE.fullmatch(line)):
            headings.append(Heading(number - 1, 1 if match["kind"][0] == "=" else 2, plain(paragraph.pop())))
        else:
            paragraph.append(text)
    return tuple(headings), tuple(prose)
