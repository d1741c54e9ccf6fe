"""The versions of the PgBouncers in a chain, from the features they have and from what they say about themselves.

The client logs in to the outermost pooler, so its version decides some features alone. Other features show that some
PgBouncer in the chain has them. If both do not fit one version, there are two PgBouncers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.versions import Range, numbers_of

if TYPE_CHECKING:
    from harness.recognition.findings import Findings

_ANNOUNCED = "pgbouncer.version"
_ANNOUNCED_MODE = "pgbouncer.pool_mode"


class Feature(Struct, frozen=True, kw_only=True):
    """A feature, and the version of PgBouncer that introduced it (https://www.pgbouncer.org/changelog.html)."""

    name: str
    since: tuple[int, int]
    #: whether the pooler that the client logs in to decides it alone
    of_outermost: bool = True


OPTIONS = Feature(name="options as a list of settings, each accepted or refused by its name", since=(1, 20))
INTERVAL_STYLE = Feature(name="IntervalStyle as a startup parameter", since=(1, 20))
#: replication as a startup parameter; negotiation of an unknown protocol version (pull request 1007)
NEGOTIATION = Feature(name="replication as a startup parameter, and negotiation of the protocol", since=(1, 23))
DIRECT_TLS = Feature(name="TLS without a request (sslnegotiation=direct)", since=(1, 25))
SEARCH_PATH = Feature(name="search_path as a startup parameter", since=(1, 26))
TRACKING = Feature(name="tracking of prepared statements", since=(1, 21), of_outermost=False)
#: an error of the server during its login; older versions give 08P01
SQLSTATES = Feature(name="the server's SQLSTATE in the error of a login", since=(1, 20), of_outermost=False)


class Bound(Struct, frozen=True):
    """One side of a range of versions."""

    #: whether the version is at least the number, rather than less
    is_lower: bool
    number: tuple[int, int]
    #: the observation
    how: str

    def __str__(self) -> str:
        return f"{'>=' if self.is_lower else '<'} {self.number[0]}.{self.number[1]}"


class Versions:
    """Collects what shows the versions of PgBouncers in one chain."""

    def __init__(self) -> None:
        self._outermost: list[Bound] = []
        self._anywhere: list[Bound] = []
        #: the versions that one login announced, in the order of their arrival
        self._announced: list[str] = []
        #: the pool modes that it announced
        self._modes: list[str] = []
        #: the versions that the outermost PgBouncer may have, after :meth:`add_findings`
        self.range = Range()

    def has(self, feature: Feature) -> None:
        self._add(feature, is_lower=True)

    def lacks(self, feature: Feature) -> None:
        self._add(feature, is_lower=False)

    def _add(self, feature: Feature, *, is_lower: bool) -> None:
        bounds = self._outermost if feature.of_outermost else self._anywhere
        bounds.append(Bound(is_lower, feature.since, f"it {'has' if is_lower else 'lacks'} {feature.name}"))

    def announced(self, statuses: list[tuple[str, str]]) -> None:
        """Add the ParameterStatus messages of one login."""
        self._announced = [value for name, value in statuses if name == _ANNOUNCED]
        self._modes = [value for name, value in statuses if name == _ANNOUNCED_MODE]

    @property
    def is_old(self) -> bool:
        """Whether the outermost PgBouncer may be older than 1.23."""
        return not any(bound.is_lower and bound.number >= NEGOTIATION.since for bound in self._outermost)

    def add_pool_mode(self, findings: Findings, *, is_alone: bool) -> list[tuple[str, bool]]:
        """Add the pool mode that the login announced, unless another pooler decides the mode of the chain.

        :param is_alone: whether a single pooler was seen.
        :returns: the observation that needs two poolers, if the announced mode is not the mode that was forced.
        """
        if not self._modes:
            return []
        how = f"the login announced it as {_ANNOUNCED_MODE}"
        if findings.is_certain("pool_mode") and findings.value("pool_mode") != self._modes[-1]:
            seen = findings.how("pool_mode")
            return [(f"{how}, {self._modes[-1]}, and the sessions behave otherwise: {seen}", False)]
        if is_alone:
            findings.certain("pool_mode", self._modes[-1], how)
        return []

    def add_findings(self, findings: Findings) -> list[tuple[str, bool]]:
        """Add the version of the outermost PgBouncer, and of one behind it.

        :returns: the observations that need two PgBouncers; for each, whether it is certain.
        """
        reasons: list[tuple[str, bool]] = []
        bounds = list(self._outermost)
        how = _all_of(bounds)
        if len(self._announced) > 1:
            both = " and ".join(self._announced)
            reasons.append((f"one login announced {_ANNOUNCED} {len(self._announced)} times: {both}", True))
            findings.certain("inner_version", self._announced[0], f"the login announced it as {_ANNOUNCED}, too")
        if self._announced:
            # each pooler appends its own after those that it forwards
            version = self._announced[-1]
            if not narrowed(bounds):
                findings.certain("version", version, f"the login announced it as {_ANNOUNCED}")
            elif fits(version, bounds):
                findings.certain("version", version, f"the login announced it as {_ANNOUNCED}; {how}")
            else:
                sentence = f"the login announced {_ANNOUNCED} {version}, and another version answers it: {how}"
                reasons.append((sentence, False))
                findings.likely("inner_version", version, sentence)
            if fits(version, bounds):
                bounds += _exactly(version)
        for bound in self._anywhere:
            if narrowed(bounds) and not narrowed([*bounds, bound]):
                sentence = f"{bound} behind a pooler of version {narrowed(bounds)}: {bound.how}"
                reasons.append((sentence, False))
                findings.likely("inner_version", str(bound), sentence)
            elif narrowed([*bounds, bound]):
                bounds.append(bound)
        self.range = range_of(bounds) or Range()
        if text := narrowed(bounds):
            findings.likely("version", text, _all_of(bounds))
        elif bounds:
            findings.unknown("version", f"its features fit no single version of PgBouncer: {how}")
        return reasons


def _all_of(bounds: list[Bound]) -> str:
    return "; ".join(dict.fromkeys(f"{bound}: {bound.how}" for bound in bounds))


def _exactly(version: str) -> list[Bound]:
    major, minor = (*numbers_of(version), 0, 0)[:2]
    how = f"the login announced it as {_ANNOUNCED}"
    return [Bound(True, (major, minor), how), Bound(False, (major, minor + 1), how)]


def fits(version: str, bounds: list[Bound]) -> bool:
    """Return whether a version is within all bounds."""
    numbers = numbers_of(version)
    return all((numbers >= bound.number) == bound.is_lower for bound in bounds)


def range_of(bounds: list[Bound]) -> Range | None:
    """Return the range within all bounds; None if they conflict."""
    lower = max((bound.number for bound in bounds if bound.is_lower), default=())
    upper = min((bound.number for bound in bounds if not bound.is_lower), default=())
    return None if lower and upper and lower >= upper else Range(at_least=lower, below=upper)


def narrowed(bounds: list[Bound]) -> str:
    """Return the range within all bounds, such as ">= 1.20, < 1.23"; "" without bounds, or if they conflict."""
    found = range_of(bounds) or Range()
    bounds_of_it = ((">=", found.at_least), ("<", found.below))
    return ", ".join(f"{sign} {number[0]}.{number[1]}" for sign, number in bounds_of_it if number)
