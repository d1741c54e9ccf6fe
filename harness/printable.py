"""Text from outside without the characters that control a terminal, or reorder what a reader sees."""

from __future__ import annotations

import re

#: control characters except tab and line ends, marks and embeddings of bidirectional text
#: (https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters), separators of lines and paragraphs, and
#: surrogates, which no encoding can print
CONTROLS = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROLS = re.compile(f"[{CONTROLS}]|\r(?!\n)")
_BREAKS = re.compile(r"[ \t]*[\r\n]+[ \t]*")
#: the sequences that only set colours and weights, see Select Graphic Rendition in ECMA-48
_COLOUR = re.compile(r"(\x1b\[[0-9;:]*m)")


def printable(text: str) -> str:
    r"""Return a text with its control characters written out, as `\x1b` and `\u202e`.

    Characters above U+007E are written as in JSON, so a JSON document keeps its meaning.
    """
    return _CONTROLS.sub(_written_out, text)


def one_line(text: str) -> str:
    """Return a text with its line breaks folded: the line of a CI log that begins with `::` is a command there."""
    return _BREAKS.sub(" ", text)


def printable_with_colours(text: str) -> str:
    """Return the output of a program for a terminal: colours and carriage returns stay, other controls do not."""
    parts = _COLOUR.split(text)
    return "".join(
        part if number % 2 else "\r".join(printable(piece) for piece in part.split("\r"))
        for number, part in enumerate(parts)
    )


def _written_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < ord("~") else f"\\u{code:04x}"
