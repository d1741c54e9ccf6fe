"""Placeholders in the commands and requests that a project declares: `{word}`; a shell's `${word}` stays as it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PLACEHOLDER = re.compile(r"(?<!\$)\{([A-Za-z_][A-Za-z0-9_.]*)\}")


def placeholders_in(texts: Iterable[str]) -> list[str]:
    """Return the words of all placeholders, each once, in the order of their first appearance."""
    return list(dict.fromkeys(word for text in texts for word in _PLACEHOLDER.findall(text)))


def filled(arguments: Iterable[str], values: Mapping[str, object]) -> tuple[str, ...]:
    """Return arguments with the value of each placeholder.

    :raises KeyError: for one without a value.
    """
    return tuple(_PLACEHOLDER.sub(lambda found: str(values[found[1]]), argument) for argument in arguments)


def braced(words: Iterable[str]) -> str:
    """Return words as placeholders, for a message."""
    return ", ".join(f"{{{word}}}" for word in words)
