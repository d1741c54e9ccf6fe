"""Versions and requirements as Elixir's `Version` reads and orders them.

https://hexdocs.pm/elixir/Version.html: a version is MAJOR.MINOR.PATCH with an optional pre-release and build, which
the order ignores; a requirement is comparisons joined by `and` and `or`, taken from left to right.
"""

from __future__ import annotations

import operator
import re

from msgspec import Struct

_NUMBER = r"0|[1-9][0-9]*"
_PARTS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
#: the patch may be missing after `~>`, and there only
_VERSION = re.compile(rf"({_NUMBER})\.({_NUMBER})(?:\.({_NUMBER}))?(?:-({_PARTS}))?(?:\+{_PARTS})?", re.ASCII)
_JOINT = re.compile(r" +(and|or) +")
_COMPARISON = re.compile(r" *(==|!=|>=|<=|~>|>|<)? *(\S+) *")
#: Python refuses to read longer numbers, and no version has them
_LONGEST = 256

_ORDERED = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
#: these take a pre-release only where they name one themselves, when pre-releases are not asked for
_UPWARDS = (">=", ">", "~>")


class ElixirVersion(Struct, frozen=True, kw_only=True):
    """One version without its build, in which equal ones may differ."""

    major: int
    minor: int
    patch: int
    #: numbers as numbers: they come before words, and 9 before 10
    pre: tuple[int | str, ...] = ()

    @property
    def _rank(self) -> tuple[object, ...]:
        pre = tuple((isinstance(part, str), part) for part in self.pre)
        # what has no pre-release comes after everything that has one
        return (self.major, self.minor, self.patch, not self.pre, pre)

    def __lt__(self, other: ElixirVersion) -> bool:
        return self._rank < other._rank

    # a struct has comparisons of its own, which functools.total_ordering takes for the missing ones
    def __le__(self, other: ElixirVersion) -> bool:
        return self._rank <= other._rank

    def __gt__(self, other: ElixirVersion) -> bool:
        return self._rank > other._rank

    def __ge__(self, other: ElixirVersion) -> bool:
        return self._rank >= other._rank


def parse_version(text: str) -> ElixirVersion | None:
    """Read a version; None where Elixir would not."""
    return None if (read := _read(text)) is None or read[1] else read[0]


def is_requirement(text: str) -> bool:
    """Say whether Elixir reads it as a requirement."""
    return _comparisons(text) is not None


def admits(requirement: str, version: ElixirVersion, *, allow_pre: bool = True) -> bool:
    """Say whether a requirement takes a version.

    :param allow_pre: as Elixir's option of that name; Hex resolves without it.
    :raises ValueError: where the requirement is none.
    """
    comparisons = _comparisons(requirement)
    if comparisons is None:
        raise ValueError(f"{requirement!r} is no requirement that Elixir reads")
    taken = True
    for joint, sign, wanted, short in comparisons:
        holds = _holds(sign, wanted, short, version)
        if sign in _UPWARDS and version.pre and not wanted.pre and not allow_pre:
            holds = False
        taken = (taken or holds) if joint == "or" else (taken and holds)
    return taken


def _holds(sign: str, wanted: ElixirVersion, short: bool, version: ElixirVersion) -> bool:
    if sign != "~>":
        return bool(_ORDERED[sign](version, wanted))
    # the upper bound's own pre-releases are beyond it: 0 is the least of them
    major, minor = (wanted.major + 1, 0) if short else (wanted.major, wanted.minor + 1)
    return wanted <= version < ElixirVersion(major=major, minor=minor, patch=0, pre=(0,))


def _comparisons(text: str) -> list[tuple[str, str, ElixirVersion, bool]] | None:
    """Return comparisons: how each is joined to those before it, its sign, its version, and if that has no patch."""
    pieces = _JOINT.split(text)
    found = []
    for joint, piece in zip(["and", *pieces[1::2]], pieces[::2], strict=True):
        match = _COMPARISON.fullmatch(piece)
        read = _read(match[2]) if match else None
        if match is None or read is None:
            return None
        sign = match[1] or "=="
        if read[1] and sign != "~>":
            return None
        found.append((joint, sign, *read))
    return found


def _read(text: str) -> tuple[ElixirVersion, bool] | None:
    """Return a version and whether its patch is missing."""
    match = _VERSION.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        return None
    parts = match[4].split(".") if match[4] else []
    if any(re.fullmatch(r"0[0-9]+", part) for part in parts):
        return None
    version = ElixirVersion(
        major=int(match[1]),
        minor=int(match[2]),
        patch=int(match[3] or 0),
        pre=tuple(int(part) if re.fullmatch(r"[0-9]+", part) else part for part in parts),
    )
    return version, match[3] is None
