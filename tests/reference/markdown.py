"""Markdown of the reference: paragraphs, code and tables. Text in backticks stays code; other text shows as it is."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from harness.report.escape import code

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WIDTH = 120
_CODE = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)")
#: a role of a docstring, such as `:class:`Change``
_ROLE = re.compile(r":[a-z]+:`[~!]?([^`]+)`")
#: characters that begin markup outside code; an underscore inside a word does not
_SPECIAL = re.compile(r"([\\*<>\[\]|~]|(?<!\w)_|_(?!\w))")


def prose(text: str) -> str:
    """Return a sentence on one line, with its code in backticks and without other markup."""
    line = _ROLE.sub(r"`\1`", " ".join(text.split()))
    parts, end = [], 0
    for span in _CODE.finditer(line):
        parts += [_SPECIAL.sub(r"\\\1", line[end : span.start()]), code(span[2])]
        end = span.end()
    return "".join([*parts, _SPECIAL.sub(r"\\\1", line[end:])])


def paragraphs(text: str) -> str:
    """Return a docstring, or another text of several paragraphs, wrapped."""
    return "\n\n".join(wrapped(prose(paragraph)) for paragraph in re.split(r"\n\s*\n", text.strip()))


def wrapped(line: str) -> str:
    return textwrap.fill(line, _WIDTH, break_long_words=False, break_on_hyphens=False)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already."""
    rule = f"|{'---|' * len(headings)}"
    return "\n".join((f"| {' | '.join(headings)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)))


def page(title: str, *parts: str) -> str:
    """Return a document; empty parts are left out."""
    return "\n\n".join((f"# {title}", wrapped(f"{NOTE} Edit the code instead."), *filter(None, parts))) + "\n"


NOTE = "*Made from the code by `python -m tests.reference`, and checked by a test.*"
