"""Attempts of one row on the same subject: their counts, and an upper bound of the failure rate."""

from __future__ import annotations

from math import ceil, exp, lgamma, log, log1p
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

#: of the upper bound, one-sided: 0 Issues in 59 attempts are needed to say that the failure rate is below 5 %
CONFIDENCE = 0.95
#: halvings of the interval in which the bound lies: its width is then below the precision of a float
_HALVINGS = 60


class Repetition(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many attempts of a row had each status."""

    ok: int = 0
    issue: int = 0
    na: int = 0
    #: Not run, or planned and never begun: they say nothing about the subject
    not_run: int = 0

    @property
    def attempts(self) -> int:
        return self.ok + self.issue + self.na + self.not_run

    @property
    def judged(self) -> int:
        """The attempts that say something about the subject."""
        return self.ok + self.issue

    @property
    def flaky(self) -> bool:
        """Whether both outcomes were seen."""
        return bool(self.ok and self.issue)

    @property
    def bound(self) -> float:
        """The upper bound of the failure rate."""
        return upper_bound(self.issue, self.judged)

    def __str__(self) -> str:
        """Return the counts in words, such as `Issue in 3 of 20 attempts, 1 more Not run`."""
        others = ((self.na, "N/A"), (self.not_run, "Not run"))
        more = "".join(f", {number} more {word}" for number, word in others if number)
        return f"Issue in {self.issue} of {self.judged} attempt{'' if self.judged == 1 else 's'}{more}"


class RunAttempts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The attempts of a row in one run."""

    run_id: str
    counts: Repetition


def total(counts: Iterable[Repetition]) -> Repetition:
    """Return the sum of the counts."""
    counts = tuple(counts)
    return Repetition(
        ok=sum(found.ok for found in counts),
        issue=sum(found.issue for found in counts),
        na=sum(found.na for found in counts),
        not_run=sum(found.not_run for found in counts),
    )


def upper_bound(failures: int, attempts: int) -> float:
    """Return the upper end of the one-sided 95 % confidence interval of a failure rate, after Clopper and Pearson.

    It is the largest rate at which so few failures still have a probability of 5 %. It takes the attempts as
    independent of each other.

    :param attempts: those that were OK or an Issue; without any, every rate is possible.
    :raises ValueError: for counts that no attempts have.
    """
    if not 0 <= failures <= attempts:
        raise ValueError(f"found {failures} failures in {attempts} attempts")
    if failures == attempts:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _at_most(failures, attempts, middle) > 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def _at_most(failures: int, attempts: int, rate: float) -> float:
    """Return the probability of at most so many failures at a rate between 0 and 1, exclusive."""
    return sum(
        exp(
            lgamma(attempts + 1)
            - lgamma(number + 1)
            - lgamma(attempts - number + 1)
            + number * log(rate)
            + (attempts - number) * log1p(-rate)
        )
        for number in range(failures + 1)
    )


def spelled(bound: float) -> str:
    """Return a bound in words. It is rounded up, so that it stays a bound."""
    return "up to 100 %" if bound >= 1 else f"below {min(ceil(bound * 1000 + 1e-9), 1000) / 10:.1f} %"
