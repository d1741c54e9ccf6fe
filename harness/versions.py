"""Versions in the text that products print about themselves, and ranges of versions."""

from __future__ import annotations

import re

from msgspec import Struct

Numbers = tuple[int, ...]
#: a version with fewer numbers is continued with zeros: 1.26 is 1.26.0
_PLACES = 3

#: numbers with dots, and a suffix such as -rc1 or +deb13u1; not in the middle of a word or of another number
_DOTTED = re.compile(r"(?<![\w.])(?:[vV]=?)?(\d+(?:\.\d+)+(?:[-+~]?[A-Za-z0-9]+)*)", re.ASCII)
#: one number, such as 18, 18beta1 or 19devel
_SINGLE = re.compile(r"(?<![\w.])(?:[vV]=?)?(\d+(?:(?:beta|rc|devel)\d*)?)(?![\w.])", re.ASCII)
_NUMBERS = re.compile(r"\d+(?:\.\d+)*", re.ASCII)


def version_in(text: str) -> str:
    """Return the first version in a product's output; "" without one.

    `PgBouncer 1.26.1`, `v=8.0.2`, `pgpool-II version 4.7.3 (tamiboshi)` and `postgres (PostgreSQL) 18beta1` give
    1.26.1, 8.0.2, 4.7.3 and 18beta1. A number with dots is preferred to one without.
    """
    found = _DOTTED.search(text) or _SINGLE.search(text)
    return found[1] if found else ""


def numbers_of(text: str) -> tuple[int, ...]:
    """Return the numbers of the first version in a text, without its suffix: (8, 0, 2) for `8.0.2-rc1`."""
    found = _NUMBERS.match(version_in(text))
    return tuple(int(number) for number in found[0].split(".")) if found else ()


class Range(Struct, frozen=True, kw_only=True):
    """The versions that a product may have."""

    #: the first of them; () if unknown
    at_least: Numbers = ()
    #: the first above them; () if unknown
    below: Numbers = ()

    def is_before(self, version: str) -> bool:
        """Return whether every version of the range is below another one."""
        return bool(self.below) and _padded(self.below) <= _padded(numbers_of(version))

    def is_from(self, version: str) -> bool:
        """Return whether every version of the range is another one or above it."""
        return bool(self.at_least) and _padded(self.at_least) >= _padded(numbers_of(version))

    def contains(self, version: str) -> bool:
        numbers = _padded(numbers_of(version))
        return _padded(self.at_least) <= numbers and (not self.below or numbers < _padded(self.below))


def exactly(version: str) -> Range:
    """Return the range of one version."""
    numbers = numbers_of(version)
    return Range(at_least=numbers, below=(*_padded(numbers), 0))


def _padded(numbers: Numbers) -> Numbers:
    return numbers + (0,) * (_PLACES - len(numbers))
