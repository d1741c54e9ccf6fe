"""Escape text from outside for a Markdown cell. The template engine and `cells.py` escape HTML."""

from __future__ import annotations

import re
from functools import lru_cache

from harness.printable import CONTROLS

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~#!])")
_BREAKS = re.compile(r"\s*[\r\n\u2028\u2029\x0b\x0c\x85]+\s*")
_CONTROL = re.compile(f"[{CONTROLS}]")


class Ready(str):
    """Markdown that is printed without escaping."""

    __slots__ = ()


def text(value: object) -> Ready:
    """Return a value as plain text for a table cell: without markup, line breaks or links."""
    return value if isinstance(value, Ready) else _inert(str(value))


@lru_cache(maxsize=16_384)  # most rows repeat the same statuses, claims and reasons
def _inert(value: str) -> Ready:
    line = _SPECIAL.sub(r"\\\1", _one_line(value)).replace("&", "&amp;").replace("\\<", "&lt;").replace("\\>", "&gt;")
    return Ready(line)


def _one_line(value: str) -> str:
    """Return a text without line breaks and control characters; neither is printable."""
    return value if value.isprintable() else _CONTROL.sub("\ufffd", _BREAKS.sub(" ", value))


def code(value: object) -> Ready:
    """Return a value as a code span for a table cell; an empty value shows nothing."""
    line = _one_line(str(value)).strip()
    if not line:
        return Ready("")
    fence = "`" * (max(map(len, re.findall(r"`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return Ready(f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|"))


def link(label: object, target: str) -> Ready:
    """Return a link if the target is a web address or a path in the report; otherwise return the target as code."""
    if re.match(r"^(https?://|runs/|\.\.?/|(matrix\.md)?#[A-Za-z0-9])", target) and not re.search(
        r"[\s<>()\"'`|]", target
    ):
        return Ready(f"[{text(label)}]({target})")
    return code(target)
