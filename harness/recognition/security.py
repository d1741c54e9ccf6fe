"""Whether a pooler's version lies below a published security fix, from a dated table."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path

from msgspec import Struct

from harness import config
from harness.versions import Range, exactly, numbers_of

TABLE = Path(__file__).with_name("security_fixes.toml")


class SecurityFix(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A published fix."""

    product: str
    id: str
    #: the first version that has it
    fixed_in: str
    #: the first version with the defect; "" if unknown
    since: str = ""
    published: date
    defect: str
    source: str

    def is_missing(self, versions: Range) -> bool | None:
        """Return whether versions have the defect; None if it differs between them."""
        if versions.is_from(self.fixed_in) or (self.since and versions.is_before(self.since)):
            return False
        if versions.is_before(self.fixed_in) and (not self.since or versions.is_from(self.since)):
            return True
        return None


class Maintained(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version that a distribution maintains; its packages may have fixes without a new version number."""

    product: str
    version: str
    by: str
    source: str


class SecurityFixes(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table."""

    #: the day on which the table was compared with the sources
    as_of: date
    fix: tuple[SecurityFix, ...]
    maintained: tuple[Maintained, ...] = ()

    def __post_init__(self) -> None:
        for row in self.fix:
            if not numbers_of(row.fixed_in) or (row.since and numbers_of(row.since) >= numbers_of(row.fixed_in)):
                raise ValueError(f"{row.id}: {row.since or 'no version'} to {row.fixed_in} is not a range of versions")
            if row.published > self.as_of:
                raise ValueError(f"{row.id} is published after {self.as_of}, the date of the table")

    def knows(self, product: str) -> bool:
        return any(row.product == product for row in self.fix)

    def above(self, product: str, version: str) -> tuple[SecurityFix, ...]:
        """Return the fixes that a version lacks, unless a distribution backported them; the newest first.

        :param version: an exact version, such as 1.24.1.
        """
        return self.missing(product, exactly(version))[0]

    def missing(self, product: str, versions: Range) -> tuple[tuple[SecurityFix, ...], tuple[SecurityFix, ...]]:
        """Return the fixes that all versions of a range lack, and those that some of them lack; the newest first."""
        found = [(row, row.is_missing(versions)) for row in self.fix if row.product == product]
        return tuple(row for row, lacks in found if lacks), tuple(row for row, lacks in found if lacks is None)

    def maintainers(self, product: str, versions: Range) -> tuple[Maintained, ...]:
        """Return the distributions that maintain a version of a range."""
        return tuple(row for row in self.maintained if row.product == product and versions.contains(row.version))

    def maintainer(self, product: str, version: str) -> Maintained | None:
        """Return the distribution that maintains a version; None if none is known."""
        return next(iter(self.maintainers(product, exactly(version))), None)


@cache
def security_fixes() -> SecurityFixes:
    """Return the table of the harness.

    :raises ConfigError: when it is invalid.
    """
    return config.load(TABLE, SecurityFixes)
