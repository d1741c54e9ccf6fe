"""What a Markdown cell says: its code spans, links and text, without the markup around them."""

from __future__ import annotations

import html
import re
from enum import StrEnum

from msgspec import Struct


class SpanKind(StrEnum):
    TEXT = "text"
    CODE = "code"
    LINK = "link"
    #: a line break that was forced into one line, `<br>`
    BREAK = "break"


class Span(Struct, frozen=True):
    """A stretch of one kind; `target` is where a link leads to."""

    kind: SpanKind
    text: str
    target: str = ""


_TOKEN = re.compile(
    r"""
      (?P<escaped>\\[!-/:-@\[-`{-~])
    | (?P<ticks>`+)
    | (?P<address><(?:https?://|mailto:)[^\s<>]*>)
    | (?P<break><br\s*/?>)
    | (?P<comment><!--.*?-->)
    | (?P<tag></?[A-Za-z][^<>]*>)
    | (?P<link>!?\[(?P<label>(?:\\.|[^\[\]\\])*)\]
        \(\s*(?P<target><[^<>]*>|[^\s()<>]*(?:\([^\s()]*\)[^\s()<>]*)*)(?:\s+"[^"]*")?\s*\))
    | (?P<entity>&(?:\#\d{1,7}|\#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});)
    | (?P<emphasis>\*+|~~|(?<![^\W_])_+|_+(?![^\W_]))
    """,
    re.VERBOSE | re.IGNORECASE,
)
_TICKS = re.compile(r"`+")


def spans(raw: str) -> tuple[Span, ...]:
    """Return the stretches of one line of Markdown, in their order. Never fails: what is no markup is text."""
    found: list[Span] = []
    at = 0
    while match := _TOKEN.search(raw, at):
        _add_text(found, raw[at : match.start()])
        at = _take(found, raw, match)
    _add_text(found, raw[at:])
    return tuple(found)


def plain(raw: str) -> str:
    """Return what a reader sees of one line of Markdown."""
    return _joined(spans(raw))


def _joined(parts: tuple[Span, ...]) -> str:
    return "".join(" " if each.kind is SpanKind.BREAK else each.text for each in parts).strip()


def _take(found: list[Span], raw: str, match: re.Match[str]) -> int:
    """Add what one piece of markup stands for, and return where the text goes on."""
    piece = match[0]
    match match.lastgroup:
        case "escaped":
            _add_text(found, piece[1])
        case "ticks":
            return _take_code(found, raw, match)
        case "address":
            found.append(Span(SpanKind.LINK, piece[1:-1], piece[1:-1]))
        case "break":
            found.append(Span(SpanKind.BREAK, ""))
        case "link" | "label" | "target":
            found.append(Span(SpanKind.LINK, plain(match["label"]), html.unescape(match["target"].strip("<>"))))
        case "entity":
            _add_text(found, html.unescape(piece))
        case "emphasis":
            around = raw[: match.start()][-1:] + raw[match.end() :][:1]
            # a star between blanks multiplies; it does not emphasise
            if piece.startswith("*") and around.isspace() and around.strip() == "" and len(around) > 1:
                _add_text(found, piece)
        case _:  # comments and tags show nothing
            pass
    return match.end()


def _take_code(found: list[Span], raw: str, opening: re.Match[str]) -> int:
    """Add a code span, which ends with as many backticks as it began with; without an end they are text."""
    for closing in _TICKS.finditer(raw, opening.end()):
        if closing[0] == opening[0]:
            inside = raw[opening.end() : closing.start()]
            if inside.startswith(" ") and inside.endswith(" ") and inside.strip():
                inside = inside[1:-1]
            found.append(Span(SpanKind.CODE, inside))
            return closing.end()
    _add_text(found, opening[0])
    return opening.end()


def _add_text(found: list[Span], text: str) -> None:
    if not text:
        return
    if found and found[-1].kind is SpanKind.TEXT:
        found[-1] = Span(SpanKind.TEXT, found[-1].text + text)
    else:
        found.append(Span(SpanKind.TEXT, text))
