"""Markdown documents: tables with the position of each cell, headings, prose, and lines that are not Markdown.

A document is read as GitHub renders it. A pipe after a backslash belongs to its cell, also in a code span. Outer pipes
are optional. Every line below a table is a row of it, also a line without a pipe, up to a blank line or the beginning
of another block. Text that looks like a table in code, an HTML block or a comment is not a table. Tables in list items
are read; the content of block quotes is read as prose only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from markdown_it.common.utils import MD_TRIM_CHARS
from msgspec import Struct

from harness.markdown.adoption import TableKind, kind_by_columns, marker_in
from harness.markdown.headings import key_of
from harness.markdown.inline import Span, plain_text, spans
from harness.markdown.parser import Blocks, parse_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping, Sequence
    from typing import Any

    from markdown_it.token import Token

_LINE_END = re.compile(r"\r\n|\n|\r")
_SEPARATOR = re.compile(r"(?<!\\)\|")
#: HTML blocks of the kinds 1 to 5 in section 4.6: they may contain anything up to their end
_RAW_HTML = re.compile(r"\s*<(?:!|\?|(?:pre|script|style|textarea)(?:[\s>]|$))", re.IGNORECASE)
_COMMENT_IN_ONE_LINE = re.compile(r"\s*<!--[^\n]*-->[^\n]*\n?")
_HTML_TABLE = re.compile(r"\s*(?:<\w+>)?<table\b", re.IGNORECASE)
_ANCHOR = re.compile(r"<a\s[^>]*\b(?:id|name)\s*=\s*[\"']?(?P<name>[^\"'\s>]+)", re.IGNORECASE)


class TableCell(Struct, frozen=True, kw_only=True):
    """A cell. `raw` is its source text, which is `document.lines[line - 1][start:end]`.

    Lines count from 1 and columns from 0. A cell that its row lacks is empty, and is positioned at the row's end.
    """

    line: int = 0
    start: int = 0
    end: int = 0
    raw: str = ""
    spans: tuple[Span, ...] = ()

    @property
    def text(self) -> str:
        """The text that a reader sees."""
        return plain_text(self.spans)


class TableRow(Struct, frozen=True):
    """A row: its line, the column at which it begins, and one cell for each column of the table."""

    line: int
    start: int
    cells: tuple[TableCell, ...]
    #: the number of cells that the table has no column for; a reader never sees them
    surplus: int = 0


class Table(Struct, frozen=True, kw_only=True):
    """A table. Lines count from 1; `last_line` is the line of its last row."""

    line: int
    last_line: int
    header_row: TableRow
    #: the keys of the columns (see `headings`); "" for unknown columns
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    #: which adoption table it is; None for any other table
    kind: TableKind | None = None

    @property
    def header(self) -> tuple[str, ...]:
        """The texts of the header's cells."""
        return tuple(cell.text for cell in self.header_row.cells)

    def cell(self, row: TableRow, column: str) -> TableCell:
        """Return a row's cell; an empty cell when the table lacks the column."""
        return row.cells[self.columns.index(column)] if column in self.columns else TableCell()


class Heading(Struct, frozen=True):
    line: int
    level: int
    title: str


class Prose(Struct, frozen=True):
    """Adjacent paragraphs, list items or quotations, up to a blank line or another block.

    `line` is the first line, and `text` is the text that a reader sees.
    """

    line: int
    text: str


class Document(Struct, frozen=True, kw_only=True):
    """A document: its lines without their ends, and the blocks in them. Lines count from 1."""

    lines: tuple[str, ...]
    #: lines that are not Markdown: code, `<pre>`, `<script>` and the like, and comments of several lines
    opaque_lines: frozenset[int]
    headings: tuple[Heading, ...]
    prose: tuple[Prose, ...]
    tables: tuple[Table, ...]
    #: the first lines of tables that are not read, because they are in block quotes or in HTML
    unread_tables: tuple[int, ...]
    #: markers on lines of their own: the line, and the kind of table that the marker names
    markers: tuple[tuple[int, TableKind], ...]

    @property
    def adoption_tables(self) -> tuple[Table, ...]:
        return tuple(table for table in self.tables if table.kind)

    def prose_below(self, table: Table) -> tuple[Prose, ...]:
        """Return the prose below a table, up to the next table or the end of the section.

        A text under a heading of its own includes that heading.
        """
        level = next((heading.level for heading in reversed(self.headings) if heading.line < table.line), 1)
        ends = [other.line for other in self.tables if other.line > table.line]
        ends += [heading.line for heading in self.headings if heading.line > table.line and heading.level <= level]
        end = min(ends, default=len(self.lines) + 1)
        found = []
        for prose in self.prose:
            if table.last_line < prose.line < end:
                title = next((h.title for h in reversed(self.headings) if table.last_line < h.line < prose.line), "")
                found.append(Prose(prose.line, f"{title} {prose.text}".strip()))
        return tuple(found)

    def table_after(self, line: int) -> Table | None:
        """Return the table that a marker on a line refers to: the next table before another heading."""
        end = next((heading.line for heading in self.headings if heading.line > line), len(self.lines) + 1)
        return next((table for table in self.tables if line < table.line < end), None)

    def anchors(self) -> frozenset[str]:
        """Return the fragments that links can use, in lower case, as GitHub derives them from headings."""
        found: dict[str, int] = {}
        for heading in self.headings:
            slug = re.sub(r"[^\w\- ]", "", heading.title.lower()).strip().replace(" ", "-")
            count = found[slug] = found.get(slug, -1) + 1
            if count:
                found.setdefault(f"{slug}-{count}", 0)
        named = {match["name"].lower() for line in self.lines for match in _ANCHOR.finditer(line)}
        return frozenset(found) | named


def split_lines(text: str) -> list[str]:
    """Return a document's lines without their ends. Only LF, CRLF and CR end a line."""
    return _LINE_END.split(text)


def read_document(text: str, where: str = "") -> Document:
    """Read a document. A byte order mark at its beginning is not a part of its first line.

    :param where: the document's name in errors.
    :raises ConfigError: when the document is larger or nested deeper than the parser's limits.
    """
    text = text.removeprefix("\ufeff")
    return _Reader(split_lines(text)).document(parse_blocks(text, where))


class _Reader:
    """Collects tables, headings and prose from the tokens of the parser."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._references: MutableMapping[str, Any] = {}
        self._opaque: set[int] = set()
        self._headings: list[Heading] = []
        #: prose by its first line, as the pieces that are adjacent
        self._prose: dict[int, list[str]] = {}
        #: the line below the last piece; a piece that begins there continues the same prose
        self._below_prose = 0
        self._tables: list[Table] = []
        self._unread_tables: set[int] = set()

    def document(self, blocks: Blocks) -> Document:
        self._references = blocks.references
        tokens = iter(blocks.tokens)
        quotes = 0
        for token in tokens:
            if token.type in {"blockquote_open", "blockquote_close"}:
                quotes += token.nesting
            elif token.map:
                self._read_block(token, tokens, first=token.map[0] + 1, last=token.map[1], quoted=quotes > 0)
        visible = [(number, line) for number, line in enumerate(self._lines, 1) if number not in self._opaque]
        self._unread_tables.update(number for number, line in visible if _HTML_TABLE.match(line))
        document = Document(
            lines=tuple(self._lines),
            opaque_lines=frozenset(self._opaque),
            headings=tuple(self._headings),
            prose=tuple(Prose(line, " ".join(pieces).strip()) for line, pieces in self._prose.items()),
            tables=tuple(self._tables),
            unread_tables=tuple(sorted(self._unread_tables)),
            markers=tuple((number, kind) for number, line in visible if (kind := marker_in(line))),
        )
        return _with_marked_kinds(document)

    def _read_block(self, token: Token, following: Iterator[Token], *, first: int, last: int, quoted: bool) -> None:
        """Read a block that begins and ends on these lines, and take the tokens inside it from those that follow."""
        match token.type:
            case "table_open" if quoted:
                self._unread_tables.add(first)
            case "table_open":
                self._tables.append(self._table(following, last))
            case "heading_open" if not quoted and not self._is_front_matter(token, first):
                title = plain_text(spans(next(following).content, self._references))
                self._headings.append(Heading(first, int(token.tag.removeprefix("h")), title))
            case "fence" | "code_block":
                self._opaque.update(range(first, last + 1))
            case "html_block" if _RAW_HTML.match(token.content):
                if not _COMMENT_IN_ONE_LINE.fullmatch(token.content):
                    self._opaque.update(range(first, last + 1))
            case "html_block" | "inline":
                self._add_prose(token.content, first, last)
            case _:
                pass

    def _is_front_matter(self, heading: Token, first: int) -> bool:
        """Say whether a heading is YAML front matter, which GitHub does not render: lines between two lines `---`."""
        return first == 2 and heading.markup == "-" and self._lines[0].rstrip() == "---"  # noqa: PLR2004

    def _add_prose(self, markdown: str, first: int, last: int) -> None:
        if not self._prose or first > self._below_prose:
            self._prose[first] = []
        next(reversed(self._prose.values())).append(plain_text(spans(markdown, self._references)))
        self._below_prose = last + 1

    def _table(self, tokens: Iterator[Token], last_line: int) -> Table:
        header, *rows = self._rows(tokens)
        columns = tuple(key_of(cell.text) for cell in header.cells)
        return Table(
            line=header.line,
            last_line=last_line,
            header_row=header,
            columns=columns,
            rows=tuple(rows),
            kind=kind_by_columns(columns),
        )

    def _rows(self, tokens: Iterator[Token]) -> Iterator[TableRow]:
        line = start = 0
        contents: list[str] = []
        for token in tokens:
            match token.type:
                case "tr_open" if token.map:
                    line, start, contents = token.map[0] + 1, token.meta["column"], []
                case "inline":
                    contents.append(token.content)
                case "tr_close":
                    yield self._row(line, start, contents)
                case "table_close":
                    return

    def _row(self, line: int, start: int, contents: Sequence[str]) -> TableRow:
        """Return a row with the positions of its cells.

        :param contents: the Markdown of the cells, in which an escaped pipe is a pipe.
        """
        source = self._lines[line - 1]
        places = _cell_places(source, start)
        surplus = len(places) - len(contents)
        end = len(source.rstrip(MD_TRIM_CHARS))
        places += [(end, end)] * -surplus
        cells = tuple(
            TableCell(line=line, start=first, end=last, raw=source[first:last], spans=spans(content, self._references))
            for content, (first, last) in zip(contents, places, strict=False)
        )
        return TableRow(line, start, cells, max(0, surplus))


def _cell_places(line: str, start: int) -> list[tuple[int, int]]:
    """Return where the cells of a row begin and end in its line, without the blanks around them.

    :param start: the column at which the row begins, after the indentation and the marks of lists.
    """
    first = len(line) - len(line[start:].lstrip(MD_TRIM_CHARS))
    end = len(line.rstrip(MD_TRIM_CHARS))
    pipes = [match.start() for match in _SEPARATOR.finditer(line[:end], first)]
    cells = list(zip([first, *(pipe + 1 for pipe in pipes)], [*pipes, end], strict=True))
    if cells[0] == (first, first):  # the row begins with a pipe
        cells = cells[1:]
    if cells and cells[-1] == (end, end):  # the row ends with a pipe
        cells = cells[:-1]
    return [_trimmed(line, *cell) for cell in cells]


def _trimmed(line: str, start: int, end: int) -> tuple[int, int]:
    text = line[start:end]
    end -= len(text) - len(text.rstrip(MD_TRIM_CHARS))
    return end - len(text.strip(MD_TRIM_CHARS)), end


def _with_marked_kinds(document: Document) -> Document:
    """Give the kind that a marker names to each table that is not recognised by its columns."""
    marked = {table.line: kind for line, kind in document.markers if (table := document.table_after(line))}
    tables = tuple(
        msgspec.structs.replace(table, kind=table.kind or marked.get(table.line)) for table in document.tables
    )
    return msgspec.structs.replace(document, tables=tables)
