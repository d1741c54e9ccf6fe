"""The contents of a table cell. Each kind of content defines its Markdown and its HTML in one place."""

from __future__ import annotations

from typing import Protocol

from markupsafe import Markup, escape
from msgspec import Struct

from harness.model import Expectation, Status
from harness.report.escape import Ready, code, link, text

#: characters of the longest command that a cell of the page shows unfolded
_LONG_COMMAND = 120


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
        return element("code", self.value) if self.value else Markup()


class Identifier(Struct, frozen=True):
    """The id of a check, or an image: code in HTML; plain text in Markdown, where code spans make a table too wide."""

    value: str

    def markdown(self) -> Ready:
        return text(self.value)

    def html(self) -> Markup:
        return Code(self.value).html()


class Command(Struct, frozen=True):
    """A command that reproduces a row; the page folds a long one."""

    value: str

    def markdown(self) -> Ready:
        return code(self.value)

    def html(self) -> Markup:
        shown = Code(self.value).html()
        if len(self.value) <= _LONG_COMMAND:
            return shown
        return element("details", element("summary", "how to reproduce it") + shown)


class Script(Struct, frozen=True):
    """Statements for psql, which the page folds; Markdown has them below its tables, because no cell holds lines."""

    value: str

    def markdown(self) -> Ready:
        return Ready("")

    def html(self) -> Markup:
        shown = element("summary", f"SQL to repeat it ({self.value.count(chr(10)) + 1} lines)")
        return element("details", shown + element("pre", self.value, css="log")) if self.value else Markup()


class Folded(Struct, frozen=True):
    """Many pieces that the page folds under their number."""

    summary: str
    pieces: tuple[Piece, ...]

    def markdown(self) -> Ready:
        return Ready("".join(piece.markdown() for piece in self.pieces))

    def html(self) -> Markup:
        inside = Markup().join(piece.html() for piece in self.pieces)
        return element("details", element("summary", self.summary) + inside)


class Evidence(Struct, frozen=True):
    """A row of the evidence: in HTML a link that opens it.

    :param target: its topology or environment; "" for a check that several have: the page opens the worst of them.
    """

    label: str
    target: str
    check: str

    def markdown(self) -> Ready:
        return text(self.label)

    def html(self) -> Markup:
        address = f"#row={self.target}/{self.check}" if self.target else f"#check={self.check}"
        return Link(self.label, address).html() if self.check else escape(self.label)


class Link(Struct, frozen=True):
    """A link into the evidence or the report. The report itself makes these addresses."""

    label: str
    target: str

    def markdown(self) -> Ready:
        return link(self.label, self.target)

    def html(self) -> Markup:
        return element("a", self.label, href=self.target)


class Source(Struct, frozen=True):
    """An address from outside: a link if it is a web address, else code.

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
    """A status, optionally with a remark such as `limit`.

    :param plain: whether it has no colour of its own, because a word next to it says what was observed.
    """

    status: Status
    remark: str = ""
    plain: bool = False

    def markdown(self) -> Ready:
        return text(f"{self.status} ({self.remark})" if self.remark else self.status)

    def html(self) -> Markup:
        tone = "NA" if self.plain else self.status.replace(" ", "").replace("/", "")
        badge = element("span", self.status, css=f"s s-{tone}")
        return badge + " " + element("small", self.remark) if self.remark else badge


class Outcome(Struct, frozen=True):
    """What happens to a feature, in the colour of its word.

    :param text: the whole outcome, such as `fails (26000)`.
    :param word: its word, such as `fails`.
    :param mark: whether it is documented; "" for one that works.
    """

    text: str
    word: str
    mark: str = ""

    def markdown(self) -> Ready:
        return text(", ".join(filter(None, (self.text, self.mark))))

    def html(self) -> Markup:
        shown = element("span", self.text, css=f"s t-{self.word}")
        return shown + " " + element("small", self.mark) if self.mark else shown


class Strong(Struct, frozen=True):
    """A remark that a reader must not miss, such as `Issue`."""

    value: str

    def markdown(self) -> Ready:
        return Ready(f"**{text(self.value)}**")

    def html(self) -> Markup:
        return element("small", self.value)


class Faint(Struct, frozen=True):
    """A detail.

    :param element: the HTML element, `span` or `small`.
    """

    value: str
    element: str = "span"

    def markdown(self) -> Ready:
        return text(self.value)

    def html(self) -> Markup:
        return element(self.element, self.value, css="faint")


class Gap(Struct, frozen=True):
    """A separator between two pieces. The report prints it unescaped, so it never contains a value from outside."""

    in_markdown: str
    in_html: str

    def markdown(self) -> Ready:
        return Ready(self.in_markdown)

    def html(self) -> Markup:
        return Markup(self.in_html)  # noqa: S704 -- one of the constants in harness/report/columns.py


class Anchor(Struct, frozen=True):
    """The target of links to a row of a Markdown table; in HTML the row itself has the id."""

    name: str

    def markdown(self) -> Ready:
        return Ready(f'<a id="{self.name}"></a>')

    def html(self) -> Markup:
        return Markup()


class Expectations(Struct, frozen=True):
    """The expectations of a check: their number in Markdown, and all of them on demand in HTML."""

    compared: tuple[Expectation, ...]

    def markdown(self) -> Ready:
        return text(self._number())

    def html(self) -> Markup:
        items = "".join(
            f"<li>{'held' if expectation.held else 'did not hold'}: {escape(expectation.name)}: "
            f"expected <code>{escape(expectation.expected)}</code>, "
            f"observed <code>{escape(expectation.observed)}</code></li>"
            for expectation in self.compared
        )
        summary = f"<summary>{self._number()}</summary>"
        return Markup(f"<details>{summary}<ul>{items}</ul></details>")  # noqa: S704 -- every value in it is escaped

    def _number(self) -> str:
        return f"{len(self.compared)} expectation{'s' if len(self.compared) != 1 else ''}"


class Cell(Struct, frozen=True):
    """The pieces of a cell, in order.

    :param css: the class of the HTML cell.
    :param title: the tooltip of the HTML cell.
    """

    pieces: tuple[Piece, ...] = ()
    css: str = ""
    title: str = ""

    def markdown(self) -> Ready:
        shown = [piece.markdown() for piece in self.pieces]
        return shown[0] if len(shown) == 1 else Ready("".join(shown))

    def html(self) -> Markup:
        content = Markup("".join([piece.html() for piece in self.pieces]))  # noqa: S704 -- every piece is Markup
        return element("td", content, css=self.css, title=self.title)


def joined(gap: Gap, *pieces: Piece | None) -> tuple[Piece, ...]:
    """Return pieces separated by a gap, without those that are None."""
    found: list[Piece] = []
    for piece in pieces:
        if piece is not None:
            found += [gap, piece] if found else [piece]
    return tuple(found)


def element(name: str, content: object, *, css: str = "", href: str = "", title: str = "") -> Markup:
    """Return an HTML element; content and attributes are escaped, unless the content is Markup already."""
    attributes = ""
    for attribute, value in (("class", css), ("href", href), ("title", title)):
        if value:
            attributes += f' {attribute}="{escape(value)}"'
    return Markup(f"<{name}{attributes}>{escape(content)}</{name}>")  # noqa: S704 -- every value in it is escaped
