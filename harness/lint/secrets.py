"""The shapes of what must not stand in a public file. They tell a shape's name, and never what was found."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.redaction import ACCOUNT_OPTION, COOKIES, MASK, SECRET_NAME, TOKENS, Redactor

if TYPE_CHECKING:
    from collections.abc import Iterator


class Shape(Struct, frozen=True):
    """A shape: what it is called, and whether one of it is wrong wherever it stands.

    What its pattern takes as `nothing` is none: text that was read in vain, and would else be read again and again.
    """

    name: str
    pattern: re.Pattern[str]
    always: bool = True

    def places(self, text: str) -> Iterator[tuple[int, int]]:
        """Return where a text has it."""
        named = "nothing" in self.pattern.groupindex
        return (found.span() for found in self.pattern.finditer(text) if not named or found["nothing"] is None)


#: a value that stands for a secret, and is none: `<password>`, `$PASSWORD`, `***`, `…`, `[redacted]`, `env:PASSWORD`
_STAND_IN = (
    r"(?:\[[^\[\]]*\]|<[^<>]*>|\$\{?\w+\}?|\{\{?\w+\}?\}|%\w+%|\*+|x{3,}|X{3,}|…|\.\.\."
    r"|redacted|REDACTED|env:[A-Za-z_])"
)
#: a secret has a digit, and a word of prose has none
_VALUE = r"(?:(?=[^\s\"'`|,;)]*\d)[^\s\"'`|,;)]{6,}|(?P<nothing>[^\s\"'`|,;)\d]++(?!\d)))"
_COOKIE = r"(?:[^\s\"'`|,;=]++=[^\s\"'`|,;]*+;[ \t]*+)"
_INSIDE = r"internal|local|corp|lan|intranet|home\.arpa|localdomain|private|svc|cluster\.local"
#: endings of names that are nothing else, neither a folder (`.local`) nor a part of a program (`conn.private`)
_ONLY_INSIDE = r"internal|corp|lan|intranet|home\.arpa|localdomain|cluster\.local"
#: a name, as long as RFC 1035 has them at most
_NAME = r"[\w-][\w.-]{0,252}"
_PRIVATE = r"(?:10(?:\.\d{1,3}){3}|(?:192\.168|172\.(?:1[6-9]|2\d|3[01])|169\.254)(?:\.\d{1,3}){2})"
#: where a name or an address ends; a full stop may end its sentence
_END = r"(?![\w-]|\.[\w-])"
_HERE = r"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\]|0\.0\.0\.0)(?![\w.-])"
_SCHEME = r"(?<=[a-z0-9+.-])://(?:[^\s/@]*+@)?"
#: RFC 1918 and RFC 3927 name these networks, and so does whoever speaks of them
_WHOLE_NETWORK = r"(?!10\.0\.0\.0/8|172\.16\.0\.0/12|192\.168\.0\.0/16|169\.254\.0\.0/16)"
_HOST = r"\bhost(?:name|addr)?\s*+=\s*+"
_WORD = r"\bpassword\s*+=\s*+"
#: what stands between two parts of a connection string. It ends before the next first part, which is nearer anyway
_TO_WORD = r"(?:(?!\bhost(?:name|addr)?\s*+=).){0,200}?"
_TO_HOST = r"(?:(?!\bpassword\s*+=).){0,200}?"
_REFUSED = rf"{_STAND_IN}@|\d{{1,5}}/"

SHAPES = (
    Shape(
        "a URL with a password",
        re.compile(
            rf"(?<=[a-zA-Z0-9+.-])://[^\s/@:'\"`<>|]*+:(?:(?!{_REFUSED})[^\s@'\"`<>|]++@"
            rf"|(?P<nothing>(?={_REFUSED})|[^\s@'\"`<>|]*+(?!@)))"
        ),
    ),
    Shape(
        "a connection string with a password",
        re.compile(
            rf"(?i)(?:{_HOST}\S{_TO_WORD}{_WORD}|{_WORD}(?=\S{_TO_HOST}\bhost(?:addr)?\s*+=))"
            rf"(?!['\"]?{_STAND_IN})\S+"
        ),
    ),
    *(Shape(what, re.compile(pattern)) for what, pattern in TOKENS),
    Shape("a private key", re.compile(r"-----BEGIN [A-Z ]*+(?<=PRIVATE KEY)-----")),
    Shape("a password verifier", re.compile(r"SCRAM-SHA-256\$\d++:\S+|\bmd5[0-9a-f]{32}\b")),
    Shape(
        "a bearer token",
        re.compile(r"(?i)\b(?:authorization:?\s++(?:bearer|basic)|bearer)\s++(?=[\w~+/=.-]*\d)[A-Za-z0-9._~+/=-]{12,}"),
    ),
    Shape(
        "a secret",
        re.compile(
            rf"(?i){SECRET_NAME}(?:\s?=\s?(?=\\*[\"'])|=|:\s?)(?!\s*+\\*[\"'`]?{_STAND_IN})"
            rf"\\*+[\"'`]?+{_VALUE}"
        ),
    ),
    Shape(
        "cookies",
        re.compile(
            rf"(?i){COOKIES}(?:{_COOKIE}*?[^\s=]++=(?!{_STAND_IN})(?=[^\s\"'`|,;)]*\d)[^\s\"'`|,;)]{{6,}}"
            rf"|(?P<nothing>{_COOKIE}*+[^\s\"'`|,;)]*+))"
        ),
    ),
    Shape("an account with its password", re.compile(rf"(?i){ACCOUNT_OPTION}(?!{_STAND_IN})[^\s'\"`|]++")),
    Shape(
        "an address inside a network",
        re.compile(
            rf"(?i){_SCHEME}(?:{_NAME}\.(?:{_INSIDE})|{_PRIVATE}){_END}"
            rf"|(?<![\w.-])(?<!section )(?<!version )(?<!\"id\":\"){_WHOLE_NETWORK}{_PRIVATE}{_END}"
            rf"|(?<![\w./-])(?!host\.docker\.internal){_NAME}\.(?:(?:{_INSIDE}):\d{{2,5}}(?!\w)|(?:{_ONLY_INSIDE})(?!\(){_END})"
        ),
    ),
    Shape(
        "a connection string",
        re.compile(
            rf"(?i)\bhost(?:addr)?\s*+=\s*+['\"]?(?!localhost|127\.)[a-z0-9][\w.-]{{2,80}}+{_TO_WORD}"
            r"\b(?:dbname|user|port)\s*+=\s*+['\"]?\w"
        ),
    ),
    Shape(
        "a connection string",
        re.compile(
            rf"(?i)\bpostgres(?:ql)?://(?:(?!\S*?{_STAND_IN})(?:[\w.-]++@)?(?!{_HERE})[\w-]++(?:\.[\w-]++)*(?::\d+)?/\w\S*+"
            r"|(?P<nothing>\S*+))"
        ),
        always=False,
    ),
    Shape("an address of one's own machine", re.compile(rf"(?i)\bhttps?://(?:[^\s/@]*+@)?{_HERE}"), always=False),
)

_redact = Redactor()


def shapes_in(line: str) -> Iterator[Shape]:
    """Return the shapes that a line has; of those that say the same of one place, only the first."""
    taken: list[tuple[int, int]] = []
    for shape in SHAPES:
        for first, last in shape.places(line):
            if not any(start < last and first < end for start, end in taken):
                taken.append((first, last))
                yield shape
                break


def _without(text: str, shape: Shape) -> str:
    parts: list[str] = []
    done = 0
    for first, last in shape.places(text):
        parts += text[done:first], MASK
        done = last
    return "".join([*parts, text[done:]])


def masked(text: str) -> str:
    """Return a text without anything that has one of the shapes of a secret."""
    for shape in SHAPES:
        if shape.always:
            text = _without(text, shape)
    return _redact(text)
