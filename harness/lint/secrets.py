"""The shapes of secrets and internal addresses. A finding names the shape, never the text that matched."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.redaction import ACCOUNT_OPTION, COOKIES, MASK, SECRET_NAME, TOKENS, Redactor

if TYPE_CHECKING:
    from collections.abc import Iterator


class Shape(Struct, frozen=True):
    """A shape: its name in findings, its pattern, and whether it is always an error, not only in a table.

    A match of the pattern's group `nothing` is not a match of the shape. The group consumes text that cannot match, so
    that the text is not scanned again from its next character.
    """

    name: str
    pattern: re.Pattern[str]
    always: bool = True

    def matches(self, text: str) -> Iterator[tuple[int, int]]:
        """Return the start and end of each match in a text."""
        has_group = "nothing" in self.pattern.groupindex
        return (match.span() for match in self.pattern.finditer(text) if not has_group or match["nothing"] is None)


#: a placeholder for a secret: `<password>`, `$PASSWORD`, `***`, `…`, `[redacted]`, `env:PASSWORD`
_PLACEHOLDER = (
    r"(?:\[[^\[\]]*\]|<[^<>]*>|\$\{?\w+\}?|\{\{?\w+\}?\}|%\w+%|\*+|x{3,}|X{3,}|…|\.\.\."
    r"|redacted|REDACTED|env:[A-Za-z_])"
)
#: a secret contains a digit; a word of prose does not
_VALUE = r"(?:(?=[^\s\"'`|,;)]*\d)[^\s\"'`|,;)]{6,}|(?P<nothing>[^\s\"'`|,;)\d]++(?!\d)))"
_COOKIE = r"(?:[^\s\"'`|,;=]++=[^\s\"'`|,;]*+;[ \t]*+)"
_INTERNAL = r"internal|local|corp|lan|intranet|home\.arpa|localdomain|private|svc|cluster\.local"
#: suffixes of internal host names only, not of folders (`.local`) or attributes in code (`conn.private`)
_ONLY_INTERNAL = r"internal|corp|lan|intranet|home\.arpa|localdomain|cluster\.local"
#: a host name, whose length RFC 1035 limits
_NAME = r"[\w-][\w.-]{0,252}"
_PRIVATE = r"(?:10(?:\.\d{1,3}){3}|(?:192\.168|172\.(?:1[6-9]|2\d|3[01])|169\.254)(?:\.\d{1,3}){2})"
#: the end of a name or an address; a full stop may end the sentence
_END = r"(?![\w-]|\.[\w-])"
_LOCAL_MACHINE = r"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\]|0\.0\.0\.0)(?![\w.-])"
_SCHEME = r"(?<=[a-z0-9+.-])://(?:[^\s/@]*+@)?"
#: the networks of RFC 1918 and RFC 3927 as a whole; naming them reveals no address
_WHOLE_NETWORK = r"(?!10\.0\.0\.0/8|172\.16\.0\.0/12|192\.168\.0\.0/16|169\.254\.0\.0/16)"
_HOST = r"\bhost(?:name|addr)?\s*+=\s*+"
_CREDENTIAL = r"\bpassword\s*+=\s*+"
#: the text between two parts of a connection string; it ends before the next first part, where a nearer match begins
_TO_CREDENTIAL = r"(?:(?!\bhost(?:name|addr)?\s*+=).){0,200}?"
_TO_HOST = r"(?:(?!\bpassword\s*+=).){0,200}?"
_NOT_A_PASSWORD = rf"{_PLACEHOLDER}@|\d{{1,5}}/"

SHAPES = (
    Shape(
        "a URL with a password",
        re.compile(
            rf"(?<=[a-zA-Z0-9+.-])://[^\s/@:'\"`<>|]*+:(?:(?!{_NOT_A_PASSWORD})[^\s@'\"`<>|]++@"
            rf"|(?P<nothing>(?={_NOT_A_PASSWORD})|[^\s@'\"`<>|]*+(?!@)))"
        ),
    ),
    Shape(
        "a connection string with a password",
        re.compile(
            rf"(?i)(?:{_HOST}\S{_TO_CREDENTIAL}{_CREDENTIAL}|{_CREDENTIAL}(?=\S{_TO_HOST}\bhost(?:addr)?\s*+=))"
            rf"(?!['\"]?{_PLACEHOLDER})\S+"
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
            rf"(?i){SECRET_NAME}(?:\s?=\s?(?=\\*[\"'])|=|:\s?)(?!\s*+\\*[\"'`]?{_PLACEHOLDER})"
            rf"\\*+[\"'`]?+{_VALUE}"
        ),
    ),
    Shape(
        "cookies",
        re.compile(
            rf"(?i){COOKIES}(?:{_COOKIE}*?[^\s=]++=(?!{_PLACEHOLDER})(?=[^\s\"'`|,;)]*\d)[^\s\"'`|,;)]{{6,}}"
            rf"|(?P<nothing>{_COOKIE}*+[^\s\"'`|,;)]*+))"
        ),
    ),
    Shape("an account with its password", re.compile(rf"(?i){ACCOUNT_OPTION}(?!{_PLACEHOLDER})[^\s'\"`|]++")),
    Shape(
        "an internal network address",
        re.compile(
            rf"(?i){_SCHEME}(?:{_NAME}\.(?:{_INTERNAL})|{_PRIVATE}){_END}"
            rf"|(?<![\w.-])(?<!section )(?<!version )(?<!\"id\":\"){_WHOLE_NETWORK}{_PRIVATE}{_END}"
            rf"|(?<![\w./-])(?!host\.docker\.internal){_NAME}\.(?:(?:{_INTERNAL}):\d{{2,5}}(?!\w)|(?:{_ONLY_INTERNAL})(?!\(){_END})"
        ),
    ),
    Shape(
        "a connection string",
        re.compile(
            rf"(?i)\bhost(?:addr)?\s*+=\s*+['\"]?(?!localhost|127\.)[a-z0-9][\w.-]{{2,80}}+{_TO_CREDENTIAL}"
            r"\b(?:dbname|user|port)\s*+=\s*+['\"]?\w"
        ),
    ),
    Shape(
        "a connection string",
        re.compile(
            rf"(?i)\bpostgres(?:ql)?://(?:(?!\S*?{_PLACEHOLDER})(?:[\w.-]++@)?(?!{_LOCAL_MACHINE})[\w-]++(?:\.[\w-]++)*(?::\d+)?/\w\S*+"
            r"|(?P<nothing>\S*+))"
        ),
        always=False,
    ),
    Shape(
        "an address of the local machine", re.compile(rf"(?i)\bhttps?://(?:[^\s/@]*+@)?{_LOCAL_MACHINE}"), always=False
    ),
)

_redact = Redactor()


def shapes_in(line: str) -> Iterator[Shape]:
    """Return the shapes that a line matches, each once. Of shapes with overlapping matches, the first one wins."""
    taken: list[tuple[int, int]] = []
    for shape in SHAPES:
        for first, last in shape.matches(line):
            if not any(start < last and first < end for start, end in taken):
                taken.append((first, last))
                yield shape
                break


def _without(text: str, shape: Shape) -> str:
    parts: list[str] = []
    done = 0
    for first, last in shape.matches(text):
        parts += text[done:first], MASK
        done = last
    return "".join([*parts, text[done:]])


def masked(text: str) -> str:
    """Return a text in which everything that has the shape of a secret is masked."""
    for shape in SHAPES:
        if shape.always:
            text = _without(text, shape)
    return _redact(text)
