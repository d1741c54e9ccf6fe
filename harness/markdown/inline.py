"""Inline Markdown as spans: text, code and links, without the markup around them."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.markdown.parser import parse_inline

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping, Sequence
    from typing import Any

    from markdown_it.token import Token


class SpanKind(StrEnum):
    TEXT = "text"
    CODE = "code"
    #: a link or an image
    LINK = "link"
    #: a hard line break, such as `<br>`
    BREAK = "break"


class Span(Struct, frozen=True):
    """A stretch of one kind. `target` is the destination of a link, as it is written."""

    kind: SpanKind
    text: str
    target: str = ""


_BREAK_TAG = re.compile(r"<br\s*/?>", re.IGNORECASE)


def spans(markdown: str, references: MutableMapping[str, Any] | None = None) -> tuple[Span, ...]:
    """Return the spans of inline Markdown, in their order. Never fails: unmatched markup is text.

    :param references: the link reference definitions of the document; none by default.
    """
    return _spans(parse_inline(markdown, references))


def plain_text(parts: Iterable[Span]) -> str:
    """Return the text that a reader sees for spans, in one line."""
    return "".join(" " if span.kind is SpanKind.BREAK else span.text for span in parts).strip()


def _spans(tokens: Sequence[Token]) -> tuple[Span, ...]:
    found: list[Span] = []
    link: Token | None = None
    label: list[Token] = []
    for token in tokens:
        if token.type == "link_close" and link:
            found.append(Span(SpanKind.LINK, plain_text(_spans(label)), str(link.attrs.get("href", ""))))
            link = None
        elif link:  # links cannot contain other links, section 6.6
            label.append(token)
        elif token.type == "link_open":
            link, label = token, []
        elif span := _span(token):
            _append(found, span)
    return tuple(found)


def _span(token: Token) -> Span | None:
    """Return the span of a token. Emphasis, tags and comments have none: a reader does not see them."""
    if token.type == "hardbreak" or (token.type == "html_inline" and _BREAK_TAG.fullmatch(token.content)):
        return Span(SpanKind.BREAK, "")
    match token.type:
        case "text" | "text_special":
            return Span(SpanKind.TEXT, token.content)
        case "softbreak":
            return Span(SpanKind.TEXT, " ")
        case "code_inline":
            return Span(SpanKind.CODE, token.content)
        case "image":
            return Span(SpanKind.LINK, plain_text(_spans(token.children or ())), str(token.attrs.get("src", "")))
        case _:
            return None


def _append(found: list[Span], span: Span) -> None:
    """Append a span. Adjacent text becomes one span, and empty text none."""
    if span == Span(SpanKind.TEXT, ""):
        return
    if span.kind is SpanKind.TEXT and found and found[-1].kind is SpanKind.TEXT:
        found[-1] = Span(SpanKind.TEXT, found[-1].text + span.text)
    else:
        found.append(span)
