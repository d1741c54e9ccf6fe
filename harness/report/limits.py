"""The kinds of documented limits. A row with a limit is OK, and the kind says whom the limit concerns."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from harness.model import Behaviour, Status
from harness.suites.pooling.advice import practices

if TYPE_CHECKING:
    from harness.model import PlannedCheck, Result

#: the check that judges missing security fixes
SECURITY_CHECK = "pooling.security-fixes"
#: the word of a practice that an application does not notice
MUST_NOT = "mustnot"
#: what a check observes if the chain refuses the practice: an application gets an error, and notices it
_REFUSED = "refused"


class LimitKind(StrEnum):
    """The kind of a documented limit, in the order in which a reader needs them; the value titles a list of them."""

    PRACTICE = "What an application must not do with the audit trail"
    SECURITY = "Published security fixes that the version of a pooler lacks"
    TRAIL = "Limits of the audit trail and of its host"
    JOBS = "Limits of job engines behind a pooler"
    FEATURE = "Features of PostgreSQL that do not work, as documented"

    @property
    def word(self) -> str:
        """The word that a cell shows next to OK, or in place of it."""
        return {self.PRACTICE: "must not", self.SECURITY: "fixes missing"}.get(self, "limit")


def limit_kind(planned: PlannedCheck, result: Result) -> LimitKind | None:
    """Return the kind of the limit that a row observed; None without one."""
    if result.limit is None or result.status is not Status.OK:
        return None
    if result.feature is not None:
        return LimitKind.FEATURE
    if planned.job is not None:
        return LimitKind.JOBS
    if planned.check in practices():
        return LimitKind.PRACTICE
    return LimitKind.SECURITY if planned.check == SECURITY_CHECK else LimitKind.TRAIL


def practice_word(result: Result) -> str:
    """Return the word that decides the colour of a practice: a refused one fails, and an application notices it."""
    return Behaviour.FAILS.value if _is_refused(result) else MUST_NOT


def _is_refused(result: Result) -> bool:
    return any(_REFUSED in expectation.observed for expectation in result.expectations)


def practice_text(result: Result) -> str:
    """Return what a cell says about a practice: `must not`, or that the chain refuses it."""
    return f"{LimitKind.PRACTICE.word}: refused" if _is_refused(result) else LimitKind.PRACTICE.word
