"""Text from outside, made harmless for a Markdown cell. HTML is escaped by the template engine itself."""

from __future__ import annotations

import re
from functools import lru_cache

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~#!])")
_BREAKS = re.compile(r"\s*[\r\n\u2028\u2029\x0b\x0c\x85]+\s*")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


class Ready(str):
    """Markdown that is meant as such and printed as it is."""

    __slots__ = ()


def text(value: object) -> Ready:
    """Return a value as inert text in a table cell: no markup, no line break, no link."""
    return value if isinstance(value, Ready) else _inert(str(value))


@lru_cache(maxsize=16_384)  # statuses, claims and reasons are the same in most rows
def _inert(value: str) -> Ready:
    line = _CONTROL.sub("\ufffd", _BREAKS.sub(" ", value))
    line = _SPECIAL.sub(r"\\\1", line).replace("&", "&amp;").replace("\\<", "&lt;").replace("\\>", "&gt;")
    return Ready(line)


def code(value: object) -> Ready:
    """Return a value as a code span that a table cell can hold."""
    line = _CONTROL.sub("\ufffd", _BREAKS.sub(" ", str(value))).strip()
    if not line:
        return Ready("")
    fence = "`" * (max((len(run) for run in re.findall(r"`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return Ready(f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|"))


def link(label: object, target: str) -> Ready:
    """Return a link where the target is a web address or a path from the report; else show it as code."""
    if re.match(r"^(https?://|runs/|\.\./|(matrix\.md)?#[A-Za-z0-9])", target) and not re.search(
        r"[\s<>()\"'`|]", target
    ):
        return Ready(f"[{text(label)}]({target})")
    return code(target)
