"""Which lines of a Markdown document are Markdown, and which of them are tables: its quotes, lists, code and HTML.

Sections are those of https://github.github.com/gfm/, which is what a reader sees a document by.
"""

from __future__ import annotations

import re
from enum import StrEnum

_DELIMITER = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)*\|?")
_BLOCK_TAGS = (
    "address|article|aside|base|basefont|blockquote|body|caption|center|col|colgroup|dd|details|dialog|dir|div|dl|dt|"
    "fieldset|figcaption|figure|footer|form|frame|frameset|h[1-6]|head|header|hr|html|iframe|legend|li|link|main|menu|"
    "menuitem|nav|noframes|ol|optgroup|option|p|param|section|source|summary|table|tbody|td|tfoot|th|thead|title|tr|"
    "track|ul"
)
#: how an HTML block begins and how it ends, section 4.6; without an end it goes on up to a blank line
_HTML = tuple(
    (re.compile(begin, re.IGNORECASE), re.compile(end, re.IGNORECASE) if end else None)
    for begin, end in (
        (r"<(?:pre|script|style|textarea)(?:[\s>]|$)", r"</(?:pre|script|style|textarea)>"),
        (r"<!--", r"-->"),
        (r"<\?", r"\?>"),
        (r"<![a-z]", r">"),
        (r"<!\[CDATA\[", r"\]\]>"),
        (rf"</?(?:{_BLOCK_TAGS})(?:\s|/?>|$)", ""),
    )
)
#: any other tag, alone on its line; it does not interrupt a paragraph
_LONE_TAG = re.compile(
    r"<(?:[a-z][a-z\d-]*(?:\s+[a-z_:][\w.:-]*(?:\s*=\s*(?:[^\s\"'=<>`]+|'[^']*'|\"[^\"]*\"))?)*\s*/?|/[a-z][a-z\d-]*\s*)>"
    r"[ \t]*$",
    re.IGNORECASE,
)
_FENCE = re.compile(r"`{3,}(?=[^`]*$)|~{3,}")
_ITEM = re.compile(r"(?:[-+*]|(?P<number>\d{1,9})[.)])(?= |$)")
_ATX = re.compile(r"#{1,6}(?:[ \t]|$)")
_SETEXT = re.compile(r"(?:=+|-+) *$")
#: all that may stand before the text of a line: blanks, and the marks of quotes and list items
_MARKS = " \t>*+-.)0123456789"
_QUOTE = 0
#: with as many blanks a line is code, and begins no other block
_CODE_INDENT = 4


class _Leaf(StrEnum):
    """What the last line left open, within the quotes and list items that it is in."""

    NOTHING = "nothing"
    PARAGRAPH = "paragraph"
    TABLE = "table"
    FENCE = "fence"
    HTML = "html"


class Blocks:
    """Reads lines one after the other, and says of each whether it is Markdown, and which are tables.

    A part of the parsing strategy in the appendix of the GFM spec: first the quotes and list items that a line is still
    in, then what begins in it, then its text. Columns are counted, and a tab goes up to the next multiple of four.
    """

    def __init__(self) -> None:
        self.plainly: list[bool] = []
        #: of each table the lines with their indices, without what they are in
        self.tables: list[list[tuple[int, str]]] = []
        #: what is open: a block quote, or a list item by how far its content is indented
        self._inside: list[int] = []
        #: whether the last of these is an item that has nothing in it yet
        self._hollow = False
        self._leaf = _Leaf.NOTHING
        self._fence = ""
        self._html: tuple[re.Pattern[str] | None, bool] = (None, True)
        #: the last line of the paragraph, which may be the header of a table, and the table that is open
        self._above = ""
        self._rows: list[tuple[int, str]] = []
        self._seeks_table = True

    def read(self, line: str) -> None:
        until = len(line) - len(line.lstrip(_MARKS))
        text = line[:until].expandtabs(_CODE_INDENT) + line[until:].rstrip(" \t")
        at, kept = self._still_inside(text)
        goes_on = self._leaf if kept == len(self._inside) else _Leaf.NOTHING
        if goes_on in {_Leaf.FENCE, _Leaf.HTML}:
            self.plainly.append(self._read_verbatim(text[at:]))
            return
        opened: list[int] = []
        while (begun := self._container(text, at, goes_on)) is not None:
            width, at = begun
            opened.append(width)
            goes_on = _Leaf.NOTHING
        self.plainly.append(self._read_rest(text[at:], kept, opened, goes_on))

    def _still_inside(self, text: str) -> tuple[int, int]:
        """Return where the content of a line begins, and how many of the open containers it is in."""
        at = kept = 0
        for number, width in enumerate(self._inside, 1):
            start = _past_blanks(text, at)
            if width == _QUOTE:
                if start - at >= _CODE_INDENT or text[start : start + 1] != ">":
                    break
                at = start + 1 + (text[start + 1 : start + 2] == " ")
            elif start - at >= width:
                at += width
            # a blank line is in an item, but none that begins with two of them
            elif start == len(text) and not (self._hollow and number == len(self._inside)):
                at = start
            else:
                break
            kept += 1
        return at, kept

    def _container(self, text: str, at: int, goes_on: _Leaf) -> tuple[int, int] | None:
        """Return the quote or list item that begins at a place, and where its content does; sections 5.1 and 5.2."""
        start = _past_blanks(text, at)
        if start - at >= _CODE_INDENT:
            return None
        if text[start : start + 1] == ">":
            return _QUOTE, start + 1 + (text[start + 1 : start + 2] == " ")
        match = _ITEM.match(text, start)
        if not match or _is_rule(text, start) or (goes_on is _Leaf.PARAGRAPH and _SETEXT.match(text, start)):
            return None
        content = _past_blanks(text, match.end())
        blank = content == len(text)
        if goes_on is _Leaf.PARAGRAPH and (blank or int(match["number"] or 1) != 1):
            return None
        if blank or content - match.end() > _CODE_INDENT:
            content = min(match.end() + 1, len(text))
        return (match.end() + 1 if blank else content) - at, content

    def _read_verbatim(self, text: str) -> bool:
        if self._leaf is _Leaf.FENCE:
            closing = text.strip(" ")
            indent = _past_blanks(text, 0)
            if indent < _CODE_INDENT and closing.startswith(self._fence) and not closing.strip(self._fence[0]):
                self._leaf = _Leaf.NOTHING
            return False
        end, plainly = self._html
        if end.search(text) if end else not text.strip(" "):
            self._leaf = _Leaf.NOTHING
        return plainly

    def _read_rest(self, rest: str, kept: int, opened: list[int], goes_on: _Leaf) -> bool:
        """Take what is left of a line behind its marks, and say whether it is Markdown."""
        text = rest.lstrip(" ")
        indented = len(rest) - len(text) >= _CODE_INDENT
        begun = None if indented or not text else self._begin(text, goes_on)
        # a paragraph goes on, also without the marks of what it is in
        paragraph = self._leaf is _Leaf.PARAGRAPH and bool(text) and not opened and begun is None
        if not paragraph:
            self._inside[kept:] = opened
        self._hollow = not text and opened[-1:] not in ([], [_QUOTE])
        if begun:
            self._leaf, plainly = begun
            return plainly
        number = len(self.plainly)
        if goes_on is _Leaf.TABLE and _has_cells(text) and not indented:
            self._rows.append((number, text))
        elif not text or (indented and not paragraph):
            self._leaf = _Leaf.NOTHING
            return not text
        elif goes_on is _Leaf.PARAGRAPH and not indented and self._makes_table(text):
            self._leaf = _Leaf.TABLE
            self._rows = [(number - 1, self._above), (number, text)]
            if _QUOTE not in self._inside:
                self.tables.append(self._rows)
        else:
            self._seeks_table = self._seeks_table or not paragraph
            self._leaf = _Leaf.PARAGRAPH
            # without the marks of what it is in, the blanks before its first pipe are a cell to GitHub
            self._above = f"|{text}" if kept < len(self._inside) and paragraph and rest.startswith(" ") else text
        return True

    def _makes_table(self, text: str) -> bool:
        """Say whether a line makes the one above it the header of a table: with as many cells, section 4.10.

        GitHub's parser looks once in a paragraph: below a row of dashes that did not fit, there is no table.
        """
        if not (self._seeks_table and _DELIMITER.fullmatch(text.rstrip(" "))):
            return False
        self._seeks_table = _has_cells(self._above) and len(split_cells(text)) == len(split_cells(self._above))
        return self._seeks_table

    def _begin(self, text: str, goes_on: _Leaf) -> tuple[_Leaf, bool] | None:
        """Return the block that begins with a text, and whether that line is Markdown; None for mere text."""
        if match := _FENCE.match(text):
            self._fence = match[0]
            return _Leaf.FENCE, False
        for begin, end in _HTML:
            if begin.match(text):
                self._html = end, end is None
                closed = bool(end and end.search(text))
                # a comment of one line hides itself only, and may be a marker
                plainly = end is None or (closed and text.startswith("<!--"))
                return (_Leaf.NOTHING if closed else _Leaf.HTML), plainly
        if goes_on is not _Leaf.PARAGRAPH and _LONE_TAG.match(text):
            self._html = None, True
            return _Leaf.HTML, True
        if _ATX.match(text) or _is_rule(text, 0) or (goes_on is _Leaf.PARAGRAPH and _SETEXT.match(text)):
            return _Leaf.NOTHING, True
        return None


def _past_blanks(text: str, at: int) -> int:
    while text.startswith(" ", at):
        at += 1
    return at


def _is_rule(text: str, start: int) -> bool:
    """Say whether a thematic break begins at a place, section 4.1."""
    mark = text[start : start + 1]
    return mark in {"-", "_", "*"} and len(text.rstrip(f"{mark} \t")) <= start and text.count(mark, start) > 2  # noqa: PLR2004


def _has_cells(text: str) -> bool:
    return text.strip(" ") not in {"", "|"}


def split_cells(line: str) -> list[str]:
    r"""Return the cells of a row as they are written, with `\|` as the pipe that it stands for."""
    cells = re.split(r"(?<!\\)\|", line.strip(" \t"))
    if not cells[0].strip(" \t") and len(cells) > 1:
        cells = cells[1:]
    if not cells[-1].strip(" \t") and len(cells) > 1:
        cells = cells[:-1]
    return [cell.strip(" \t").replace("\\|", "|") for cell in cells]
