"""Parses and compares versions and requirements as Elixir's `Version` does.

https://hexdocs.pm/elixir/Version.html: a version is MAJOR.MINOR.PATCH with an optional pre-release and build. The build
does not affect the order. A requirement joins comparisons with `and` and `or`, evaluated from left to right.
"""

from __future__ import annotations

import operator
import re

from msgspec import Struct

_NUMBER = r"0|[1-9][0-9]*"
_PARTS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
#: the patch is optional after `~>` only
_VERSION = re.compile(rf"({_NUMBER})\.({_NUMBER})(?:\.({_NUMBER}))?(?:-({_PARTS}))?(?:\+{_PARTS})?", re.ASCII)
_BOOLEAN = re.compile(r" +(and|or) +")
_COMPARISON = re.compile(r" *(==|!=|>=|<=|~>|>|<)? *(\S+) *")
#: longest version text; Python rejects very long integers
_LONGEST = 256

_ORDERED = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
#: without `allow_pre`, these admit a pre-release only if they name one
_LOWER_BOUNDS = (">=", ">", "~>")


class ElixirVersion(Struct, frozen=True, kw_only=True):
    """One version. The build is left out, because equal versions may differ in it."""

    major: int
    minor: int
    patch: int
    #: numeric parts as integers: they sort before words, and 9 before 10
    pre: tuple[int | str, ...] = ()

    @property
    def _rank(self) -> tuple[object, ...]:
        pre = tuple((isinstance(part, str), part) for part in self.pre)
        # a release sorts after all of its pre-releases
        return (self.major, self.minor, self.patch, not self.pre, pre)

    def __lt__(self, other: ElixirVersion) -> bool:
        return self._rank < other._rank

    # functools.total_ordering does not work here, because a struct already has these methods
    def __le__(self, other: ElixirVersion) -> bool:
        return self._rank <= other._rank

    def __gt__(self, other: ElixirVersion) -> bool:
        return self._rank > other._rank

    def __ge__(self, other: ElixirVersion) -> bool:
        return self._rank >= other._rank


def parse_version(text: str) -> ElixirVersion | None:
    """Parse a version; None when Elixir rejects it."""
    return None if (parsed := _parse(text)) is None or parsed[1] else parsed[0]


def is_requirement(text: str) -> bool:
    """Return whether Elixir accepts a text as a requirement."""
    return _comparisons(text) is not None


def admits(requirement: str, version: ElixirVersion, *, allow_pre: bool = True) -> bool:
    """Return whether a requirement admits a version.

    :param allow_pre: as Elixir's option with this name; Hex resolves with `allow_pre: false`.
    :raises ValueError: for an invalid requirement.
    """
    comparisons = _comparisons(requirement)
    if comparisons is None:
        raise ValueError(f"invalid Elixir requirement {requirement!r}")
    admitted = True
    for operator_before, sign, wanted, short in comparisons:
        holds = _holds(sign, wanted, short, version)
        if sign in _LOWER_BOUNDS and version.pre and not wanted.pre and not allow_pre:
            holds = False
        admitted = (admitted or holds) if operator_before == "or" else (admitted and holds)
    return admitted


def _holds(sign: str, wanted: ElixirVersion, short: bool, version: ElixirVersion) -> bool:
    if sign != "~>":
        return bool(_ORDERED[sign](version, wanted))
    # the pre-releases of the upper bound are excluded; 0 is the lowest pre-release
    major, minor = (wanted.major + 1, 0) if short else (wanted.major, wanted.minor + 1)
    return wanted <= version < ElixirVersion(major=major, minor=minor, patch=0, pre=(0,))


def _comparisons(text: str) -> list[tuple[str, str, ElixirVersion, bool]] | None:
    """Return the comparisons: operator before it, sign, version, and whether the patch is missing."""
    pieces = _BOOLEAN.split(text)
    found = []
    for operator_before, piece in zip(["and", *pieces[1::2]], pieces[::2], strict=True):
        match = _COMPARISON.fullmatch(piece)
        parsed = _parse(match[2]) if match else None
        if match is None or parsed is None:
            return None
        sign = match[1] or "=="
        if parsed[1] and sign != "~>":
            return None
        found.append((operator_before, sign, *parsed))
    return found


def _parse(text: str) -> tuple[ElixirVersion, bool] | None:
    """Return a version, and whether its patch is missing; None for an invalid one."""
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
