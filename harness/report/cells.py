"""What a table cell holds. Each kind of content says how it looks in Markdown and how in HTML, in one place."""

from __future__ import annotations

from typing import Protocol

from markupsafe import Markup, escape
from msgspec import Struct

from harness.model import Expectation, Status
from harness.report.escape import Ready, code, link, text


class Piece(Protocol):
    """A part of a cell. Both renderings are escaped: values come from outside."""

    def markdown(self) -> Ready: ...
    def html(self) -> Markup: ...


class Text(Struct, frozen=True):
    """Plain text."""

    value: object

    def markdown(self) -> Ready:
        return text(self.value)

    def html(self) -> Markup:
        return escape(self.value)


class Code(Struct, frozen=True):
    """A command, or a place in a file; an empty one shows nothing."""

    value: str

    def markdown(self) -> Ready:
        return code(self.value)

    def html(self) -> Markup:
        return _element("code", self.value) if self.value else Markup()


class Identifier(Struct, frozen=True):
    """An id of a check, or an image: code in HTML, and plain in Markdown, where code spans widen a table too much."""

    value: str

    def markdown(self) -> Ready:
        return text(self.value)

    def html(self) -> Markup:
        return Code(self.value).html()


class Link(Struct, frozen=True):
    """A link into the evidence or into the report itself; both addresses are made by the report."""

    label: str
    target: str

    def markdown(self) -> Ready:
        return link(self.label, self.target)

    def html(self) -> Markup:
        return _element("a", self.label, href=self.target)


class Source(Struct, frozen=True):
    """An address that somebody else wrote: a link if it is a web address, else code.

    :param label: what Markdown shows instead of the address.
    """

    target: str
    label: str = ""

    def markdown(self) -> Ready:
        return link(self.label or self.target, self.target)

    def html(self) -> Markup:
        if self.target.startswith(("https://", "http://")):
            return Link(self.target, self.target).html()
        return Code(self.target).html()


class Badge(Struct, frozen=True):
    """A status, with a remark such as `limit`."""

    status: Status
    remark: str = ""

    def markdown(self) -> Ready:
        return text(f"{self.status} ({self.remark})" if self.remark else self.status)

    def html(self) -> Markup:
        badge = _element("span", self.status, css=f"s s-{self.status.replace(' ', '').replace('/', '')}")
        return badge + " " + _element("small", self.remark) if self.remark else badge


class Strong(Struct, frozen=True):
    """A remark that a reader must not miss, such as `Issue`."""

    value: str

    def markdown(self) -> Ready:
        return Ready(f"**{text(self.value)}**")

    def html(self) -> Markup:
        return _element("small", self.value)


class Faint(Struct, frozen=True):
    """A detail.

    :param element: the HTML element, `span` or `small`.
    """

    value: str
    element: str = "span"

    def markdown(self) -> Ready:
        return text(self.value)

    def html(self) -> Markup:
        return _element(self.element, self.value, css="faint")


class Gap(Struct, frozen=True):
    """What separates two pieces. It is written into the report unescaped, so it never holds a value."""

    in_markdown: str
    in_html: str

    def markdown(self) -> Ready:
        return Ready(self.in_markdown)

    def html(self) -> Markup:
        return Markup(self.in_html)  # noqa: S704 -- one of the constants in harness/report/columns.py


class Anchor(Struct, frozen=True):
    """Where a link into a Markdown table leads; in HTML the row itself carries the id."""

    name: str

    def markdown(self) -> Ready:
        return Ready(f'<a id="{self.name}"></a>')

    def html(self) -> Markup:
        return Markup()


class Expectations(Struct, frozen=True):
    """What a check compared: the number in Markdown, all of it on demand in HTML."""

    compared: tuple[Expectation, ...]

    def markdown(self) -> Ready:
        return text(f"{len(self.compared)} expectations")

    def html(self) -> Markup:
        items = "".join(
            f"<li>{'held' if expectation.held else 'did not hold'}: {escape(expectation.name)}: "
            f"expected <code>{escape(expectation.expected)}</code>, "
            f"observed <code>{escape(expectation.observed)}</code></li>"
            for expectation in self.compared
        )
        summary = f"<summary>{len(self.compared)} expectations</summary>"
        return Markup(f"<details>{summary}<ul>{items}</ul></details>")  # noqa: S704 -- every value in it is escaped


class Cell(Struct, frozen=True):
    """The pieces of a cell, in their order.

    :param css: the class of the HTML cell.
    :param title: what HTML shows when the pointer rests on the cell.
    """

    pieces: tuple[Piece, ...] = ()
    css: str = ""
    title: str = ""

    def markdown(self) -> Ready:
        return Ready("".join(piece.markdown() for piece in self.pieces))

    def html(self) -> Markup:
        return _element("td", Markup().join(piece.html() for piece in self.pieces), css=self.css, title=self.title)


def joined(gap: Gap, *pieces: Piece | None) -> tuple[Piece, ...]:
    """Return pieces with a gap between each two; None is left out."""
    found: list[Piece] = []
    for piece in pieces:
        if piece is not None:
            found += [gap, piece] if found else [piece]
    return tuple(found)


def _element(name: str, content: object, *, css: str = "", href: str = "", title: str = "") -> Markup:
    """Return an HTML element; content and attributes are escaped, unless the content is Markup already."""
    found = {"class": css, "href": href, "title": title}
    attributes = "".join(f' {attribute}="{escape(value)}"' for attribute, value in found.items() if value)
    return Markup(f"<{name}{attributes}>{escape(content)}</{name}>")  # noqa: S704 -- every value in it is escaped
