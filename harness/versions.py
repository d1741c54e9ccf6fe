"""Versions in the text that products print about themselves."""

from __future__ import annotations

import re

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
