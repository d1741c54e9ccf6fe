"""Reads facts from Elixir source as text, without executing it.

Comments and the contents of strings are masked first, one space for each character. Brackets and keys are then found in
the masked text, and values are read from the original text at the same position.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPENING, _CLOSING = "([{", ")]}"
_PAIRS = {"(": ")", "[": "]", "{": "}", "<": ">"}
#: longest dependency; without a limit, each unclosed bracket would extend to the end of the file
_LONGEST_ENTRY = 5000
_SIGIL = re.compile(r"~[a-zA-Z]+(\"\"\"|'''|[(\[{<\"'/|])")
_QUOTES = ('"""', "'''", '"', "'")
_LITERAL = re.compile(r'\s*"((?:[^"\\#]|#(?!\{))*)"\s*(?=[,\]})\n#]|$)')
_ATTRIBUTE = re.compile(r"\s*@([a-z_]\w*)\s*(?=[,\]})\n]|$)")


class DependencyTuple(Struct, frozen=True, kw_only=True):
    """A dependency tuple such as `{:ecto, "~> 3.12", override: true}`."""

    name: str
    text: str
    #: the text with the contents of strings masked
    masked: str
    #: of the opening bracket
    line: int

    def requirement(self) -> str | None:
        """Return the version requirement; None when the second element is not a literal."""
        match = re.match(r'\{\s*:"?[\w@]+[?!]?"?\s*,\s*"([^"\\]*)"', self.text)
        return match[1] if match else None

    def has_key(self, key: str) -> bool:
        return re.search(rf"(?<![\w:]){key}:\s", self.masked) is not None

    def is_true(self, key: str) -> bool:
        return re.search(rf"(?<![\w:]){key}:\s+true\b", self.masked) is not None


def masked(text: str) -> str:
    """Return the text with comments and the contents of strings and sigils replaced by spaces."""
    out = list(text)
    at = 0
    while at < len(text):
        end = _end_of_quoted(text, at)
        if end is None:
            at += 1
            continue
        for position in range(at, end):
            if out[position] != "\n":
                out[position] = " "
        at = end
    return "".join(out)


def _end_of_quoted(text: str, at: int) -> int | None:
    """Return the end of the comment, string, sigil or character literal at a position; None without one."""
    here = text[at]
    if here == "#":
        end = text.find("\n", at)
        return len(text) if end < 0 else end
    if here == "?" and not (at and (text[at - 1].isalnum() or text[at - 1] == "_")):
        return min(len(text), at + (3 if text[at + 1 : at + 2] == "\\" else 2))
    if here == "~" and (sigil := _SIGIL.match(text, at)):
        plain = text[at + 1].isupper()
        return _close(text, sigil.end(), _PAIRS.get(sigil[1], sigil[1]), plain=plain)
    quote = next((mark for mark in _QUOTES if text.startswith(mark, at)), None)
    return None if quote is None else _close(text, at + len(quote), quote)


def _close(text: str, at: int, closing: str, *, plain: bool = False) -> int:
    """Return the position after the closing quote; skips escapes and interpolations.

    :param plain: the sigil allows neither.
    """
    depth = 0
    while at < len(text):
        if text[at] == "\\" and not plain:
            at += 2
        elif depth == 0 and text.startswith(closing, at):
            return at + len(closing)
        elif text.startswith("#{", at) and not plain:
            depth, at = depth + 1, at + 2
        elif depth and text[at] == "{":
            depth, at = depth + 1, at + 1
        elif depth and text[at] == "}":
            depth, at = depth - 1, at + 1
        elif depth and text[at] == '"':
            end = text.find('"', at + 1)
            at = len(text) if end < 0 else end + 1
        else:
            at += 1
    return len(text)


def line_at(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def project_key(text: str, blank: str, key: str) -> tuple[int, str] | None:
    """Return position and text of the value of a key in `def project`; None without a literal key.

    :param blank: the text as :func:`masked` returns it.
    """
    start = re.search(r"\bdef\s+project(?:\(\))?\s*,?\s*do:?\s*\[", blank)
    if start is None:
        return None
    depth = 1
    at = start.end()
    pattern = re.compile(rf"(?<![\w:]){key}:\s")
    while at < len(blank) and depth:
        if depth == 1 and (match := pattern.match(blank, at)):
            end = blank.find("\n", match.end())
            return match.end(), text[match.end() : len(text) if end < 0 else end + 1]
        depth += (blank[at] in _OPENING) - (blank[at] in _CLOSING)
        at += 1
    return None


def literal(value: str) -> str | None:
    """Return the content of a value that is a plain string; None for any other expression."""
    match = _LITERAL.match(value)
    return match[1] if match else None


def attribute_of(value: str) -> str | None:
    """Return the name of a module attribute, such as `version` for `@version`; None for any other expression."""
    match = _ATTRIBUTE.match(value)
    return match[1] if match else None


def attributes(text: str, blank: str, name: str) -> list[tuple[int, str]]:
    """Return position and text of each value that is assigned to a module attribute."""
    # a single space, because the value itself may be masked
    pattern = re.compile(rf"^[ \t]*@{name}[ \t]", re.MULTILINE)
    return [(match.end(), text[match.end() :].partition("\n")[0] + "\n") for match in pattern.finditer(blank)]


def dependency_tuples(text: str) -> Iterator[DependencyTuple]:
    """Yield every tuple that begins with an atom and a comma, which includes all dependencies."""
    blank = masked(text)
    ends = _closings(blank)
    line, counted = 1, 0
    for match in re.finditer(r"\{\s*:(\w+[?!]?)\s*,", blank):
        start = match.start()
        line, counted = line + text.count("\n", counted, start), start
        end = min(ends.get(start, len(blank)), start + _LONGEST_ENTRY)
        yield DependencyTuple(name=match[1], text=text[start:end], masked=blank[start:end], line=line)


def _closings(blank: str) -> dict[int, int]:
    """Return the position after the closing bracket, by position of the opening bracket."""
    ends: dict[int, int] = {}
    stack: list[int] = []
    for match in re.finditer(r"[(\[{}\])]", blank):
        if match[0] in _OPENING:
            stack.append(match.start())
        elif stack:
            ends[stack.pop()] = match.end()
    return ends
