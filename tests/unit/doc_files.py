"""The Markdown documents of the project, and the parts of them that tests look at."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from harness import places

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = places.PACKAGE.parent
#: generated documents among them
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
)


@cache
def text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str, language: str) -> list[str]:
    """Return the code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", text(document), re.DOTALL)


def prose(document: str) -> str:
    """Return the document without its code blocks."""
    return re.sub(r"```.*?```", "", text(document), flags=re.DOTALL)


def code_spans(document: str) -> list[str]:
    return re.findall(r"`([^`]+)`", prose(document))


def rows(document: str, heading: str) -> Iterator[list[str]]:
    """Yield the cells of every table whose first columns have these headings."""
    table = re.compile(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", re.MULTILINE)
    for found in table.finditer(text(document)):
        for line in found[1].splitlines():
            yield [cell.strip(" `") for cell in line.strip("|").split(" | ")]


def anchors(document: str) -> set[str]:
    """Return the anchors of the headings, as a Markdown renderer spells them."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    own = re.findall(r'<a (?:id|name)="([^"]+)"', text(document))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings} | set(own)
