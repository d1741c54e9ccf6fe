"""Lines that break between words at the width of a terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: what a line begins with that ends in a command
REPRODUCE = "reproduce: "
_COMMAND = re.compile(rf"( *{REPRODUCE})(.*)")
#: a word of a command line, with what is quoted in it
_ARGUMENT = re.compile(r"""(?:[^\s'"\\]|'[^']*'|"(?:[^"\\]|\\.)*"|\\.)+""")
_GAP_AND_WORD = re.compile(r"( *)([^ ]+)")
_MORE = "  "


def wrapped(text: str, width: int, measure: Callable[[str], int] = len) -> Iterator[str]:
    r"""Yield the lines of a text, none wider than `width`, unless it is a single word.

    A word is never cut, so that a path can be copied. A command breaks as a shell allows it: the line ends in ` \`.

    :param measure: returns the number of cells that a text takes.
    """
    for line in text.expandtabs().split("\n"):
        if measure(line) <= width:
            yield line
        elif found := _COMMAND.fullmatch(line):
            yield from _wrapped_command(found[1], found[2], width, measure)
        else:
            yield from _joined(_GAP_AND_WORD.findall(line), width, measure)


def items_in_lines(items: Sequence[str], width: int, measure: Callable[[str], int] = len) -> Iterator[str]:
    """Yield the lines of an indented list. A line never ends within an item, unless the item is wider than it."""
    words = [(_MORE if not place else " ", item) for place, item in enumerate(_with_commas(items))]
    for line in _joined(words, width, measure, ""):
        yield from wrapped(line, width, measure)


def _with_commas(items: Sequence[str]) -> list[str]:
    return [*(f"{item}," for item in items[:-1]), *items[-1:]]


def _wrapped_command(before: str, command: str, width: int, measure: Callable[[str], int]) -> Iterator[str]:
    arguments = _ARGUMENT.findall(command)
    if " ".join(arguments) != command:  # a quote without its end: no place is safe
        yield before + command
        return
    indent = " " * (len(before) - len(before.lstrip()))
    words = [(before, arguments[0]), *((" ", word) for word in arguments[1:])]
    lines = list(_joined(words, width - len(" \\"), measure, indent))
    yield from (f"{line} \\" for line in lines[:-1])
    yield lines[-1]


def _joined(
    words: list[tuple[str, str]], width: int, measure: Callable[[str], int], indent: str | None = None
) -> Iterator[str]:
    """Yield lines of words.

    :param words: each with what is before it on the same line.
    :param indent: of the further lines; by default that of the first line. They get two spaces more.
    """
    line = ""
    for gap, word in words:
        if not line:
            line = gap + word
            indent = (gap if indent is None else indent) + _MORE
        elif measure(line) + len(gap) + measure(word) > width:
            yield line
            line = f"{indent}{word}"
        else:
            line += gap + word
    if line:
        yield line


def shortened(text: str, width: int, measure: Callable[[str], int] = len) -> str:
    """Return a text of at most `width` cells; one that is longer ends in `…`."""
    if measure(text) <= width:
        return text
    while text and measure(text) > width - 1:
        text = text[:-1]
    return f"{text}…" if width > 0 else ""
