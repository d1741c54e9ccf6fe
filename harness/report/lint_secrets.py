"""The shapes of what must not stand in a public file. They tell a shape's name, and never what was found."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.redaction import MASK, TOKENS, Redactor

if TYPE_CHECKING:
    from collections.abc import Iterator


class Shape(Struct, frozen=True):
    """A shape: what it is called, and whether one of it is wrong wherever it stands."""

    name: str
    pattern: re.Pattern[str]
    always: bool = True


#: a value that stands for a secret, and is none: `<password>`, `$PASSWORD`, `***`, `…`, `[redacted]`
_STAND_IN = r"(?:\[[^\]]*\]|<[^<>]*>|\$\{?\w+\}?|\{\{?\w+\}?\}|%\w+%|\*+|x{3,}|X{3,}|…|\.\.\.|redacted|REDACTED)"
_INSIDE = r"(?:[\w-]+\.)*[\w-]+\.(?:internal|local|corp|lan|intranet|home\.arpa|localdomain|private|svc|cluster\.local)"
_PRIVATE = r"(?:10(?:\.\d{1,3}){3}|(?:192\.168|172\.(?:1[6-9]|2\d|3[01])|169\.254)(?:\.\d{1,3}){2})"
_END = r"(?![\w.-])"
_HERE = rf"(?:localhost|127(?:\.\d{{1,3}}){{3}}|\[::1\]|0\.0\.0\.0){_END}"

SHAPES = (
    Shape(
        "a URL with a password",
        re.compile(
            rf"\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s/@:'\"`<>|]{{0,80}}:(?!{_STAND_IN}@|\d{{1,5}}/)[^\s@'\"`<>|]{{1,200}}@"
        ),
    ),
    Shape(
        "a connection string with a password",
        re.compile(
            r"(?i)(?:\bhost(?:name|addr)?\s*=\s*\S.{0,200}?\bpassword\s*=\s*|\bpassword\s*=\s*(?=\S.{0,200}?\bhost(?:addr)?\s*=))"
            rf"(?!['\"]?{_STAND_IN})\S+"
        ),
    ),
    *(Shape(what, re.compile(pattern)) for what, pattern in TOKENS),
    Shape("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
    Shape("a password verifier", re.compile(r"SCRAM-SHA-256\$\d+:\S+|\bmd5[0-9a-f]{32}\b")),
    Shape(
        "a bearer token",
        re.compile(r"(?i)\b(?:authorization:?\s+(?:bearer|basic)|bearer)\s+(?=[\w~+/=.-]*\d)[A-Za-z0-9._~+/=-]{12,}"),
    ),
    Shape(
        "a secret",
        re.compile(
            r"(?i)(?<![/\w.-])(?:[a-z_]*password|passwd|pgpassword|sslpassword|[a-z_]*api_?key|[a-z_]*secret(?:_key)?|"
            rf"[a-z_]*token)[\"']?(?:=|:\s?)(?!\s*[\"'`]?{_STAND_IN})[\"'`]?(?=[^\s\"'`|,;)]*\d)[^\s\"'`|,;)]{{6,}}"
        ),
    ),
    Shape(
        "an address inside a network",
        re.compile(rf"(?i)\b[a-z][a-z0-9+.-]*://(?:[^\s/@]*@)?(?:{_INSIDE}|{_PRIVATE}){_END}"),
    ),
    Shape(
        "a connection string",
        re.compile(
            r"(?i)\bhost(?:addr)?\s*=\s*['\"]?(?!localhost|127\.)[a-z0-9][\w.-]{2,80}.{0,200}?\b(?:dbname|user|port)\s*=\s*['\"]?\w+"
        ),
    ),
    Shape(
        "a connection string",
        re.compile(
            rf"(?i)\bpostgres(?:ql)?://(?![^\s]*{_STAND_IN})(?:[\w.-]+@)?(?!{_HERE})[\w-]+(?:\.[\w-]+)*(?::\d+)?/\w+"
        ),
        always=False,
    ),
    Shape("an address of one's own machine", re.compile(rf"(?i)\bhttps?://(?:[^\s/@]*@)?{_HERE}"), always=False),
)

_redact = Redactor()


def shapes_in(line: str) -> Iterator[Shape]:
    """Return the shapes that a line has; of those that say the same of one place, only the first."""
    taken: list[tuple[int, int]] = []
    for shape in SHAPES:
        for match in shape.pattern.finditer(line):
            if not any(start < match.end() and match.start() < end for start, end in taken):
                taken.append(match.span())
                yield shape
                break


def masked(text: str) -> str:
    """Return a text without anything that has one of the shapes of a secret."""
    for shape in SHAPES:
        if shape.always:
            text = shape.pattern.sub(MASK, text)
    return _redact(text)
