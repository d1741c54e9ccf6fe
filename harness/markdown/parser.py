"""The Markdown parser: markdown-it-py with GitHub's tables and strikethrough, within limits.

markdown-it-py reports the lines of each block. This module adds the column at which each table row begins, so that
cells can be found in the source. Sections are those of https://github.github.com/gfm/.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from markdown_it import MarkdownIt
from markdown_it.rules_block import table
from markdown_it.token import Token
from msgspec import Struct

from harness.errors import ConfigError

if TYPE_CHECKING:
    from markdown_it.rules_block import StateBlock

#: characters; parsing is linear, with about 1 MB per second for prose and 0.1 MB per second for tiny or hostile blocks
_LARGEST = 2_000_000
#: markdown-it-py silently skips all blocks that are nested deeper, and each level needs frames of the Python stack
_DEEPEST = 100
_CONTAINERS = frozenset({"blockquote_open", "bullet_list_open", "ordered_list_open", "list_item_open"})


class Blocks(Struct, frozen=True):
    """The block structure of a document.

    `tokens` are those of markdown-it-py; the inline content in them is not parsed. The token `tr_open` of a row has
    `meta["column"]`, which counts from 0. `references` holds the document's link reference definitions.
    """

    tokens: Sequence[Token]
    references: MutableMapping[str, Any]


class _Parser(MarkdownIt):
    """A parser that renders nothing: it keeps link targets as they are written, whatever their scheme."""

    def normalizeLink(self, url: str) -> str:  # noqa: N802 - overrides markdown-it-py's method
        return url

    def normalizeLinkText(self, link: str) -> str:  # noqa: N802
        return link

    def validateLink(self, url: str) -> bool:  # noqa: ARG002, N802
        return True


def _table(state: StateBlock, first: int, end: int, silent: bool) -> bool:
    """Parse a table as markdown-it-py does, and note at which column of its line each row begins."""
    before = len(state.tokens)
    if not table(state, first, end, silent):
        return False
    for token in state.tokens[before:]:
        if token.type == "tr_open" and token.map:
            begin = state.bMarks[token.map[0]] + state.tShift[token.map[0]]
            token.meta["column"] = begin - (state.src.rfind("\n", 0, begin) + 1)
    return True


_BLOCKS = _Parser("commonmark", {"maxNesting": _DEEPEST}).enable("table")
_BLOCKS.block.ruler.at("table", _table, {"alt": ["paragraph", "reference"]})
_BLOCKS.core.ruler.enableOnly(["normalize", "block"])
_INLINE = _Parser("commonmark").enable("strikethrough")


def parse_blocks(text: str, where: str = "") -> Blocks:
    """Parse the block structure of a document.

    :param where: the document's name in errors.
    :raises ConfigError: when the document is larger or nested deeper than the parser's limits.
    """
    if len(text) > _LARGEST:
        raise ConfigError(
            f"the document has {len(text):,} characters, expected at most {_LARGEST:,}",
            where=where,
            hint="divide the document",
        )
    references: MutableMapping[str, Any] = {}
    tokens = _BLOCKS.parse(text, references)
    for token in tokens:
        if token.level >= _DEEPEST - 1 and token.type in _CONTAINERS and token.map:
            raise ConfigError(
                f"lists and block quotes are nested more than {_DEEPEST} levels deep, and deeper blocks are not parsed",
                where=f"{where}:{token.map[0] + 1}" if where else f"line {token.map[0] + 1}",
                hint="reduce the nesting; a list and its item count as two levels",
            )
    return Blocks(tokens, references)


def parse_inline(markdown: str, references: MutableMapping[str, Any] | None = None) -> Sequence[Token]:
    """Parse inline Markdown, such as a cell or a paragraph.

    :param references: the link reference definitions of the document; none by default.
    """
    return _INLINE.parseInline(markdown, references)[0].children or ()
