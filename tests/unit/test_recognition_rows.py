"""The rows about recognition: unknown and likely findings are Not run, and only certain ones are an Issue."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from harness.audit.target_loading import reference_target
from harness.checks.record import CheckRecord, NotApplicableError, NotExercisedError
from harness.model import Confidence, Finding
from harness.recognition.security import security_fixes
from harness.suites.pooling.recognition import recognised, security_fixes_above

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.checks.registry import Check

CERTAIN, LIKELY, UNKNOWN = Confidence.CERTAIN, Confidence.LIKELY, Confidence.UNKNOWN


class Recognised(CheckRecord):
    """A check's record with findings and declared values, without a lab."""

    def __init__(self, findings: dict[str, tuple[str, Confidence]], **declared: str) -> None:
        super().__init__(reference_target())
        self._findings = tuple(
            Finding(fact=fact, value=value, how="seen", confidence=confidence)
            for fact, (value, confidence) in findings.items()
        )
        self._declared = declared

    def recognised(self) -> tuple[tuple[Finding, ...], dict[str, str]]:
        return self._findings, self._declared

    def judged(self, check: Check) -> list[bool]:
        """Run a check, and return which expectations held."""
        check.run(cast("CheckContext", self))
        return [expectation.held for expectation in self.expectations]


@pytest.mark.parametrize(
    ("mode", "declared", "held"),
    [
        (("transaction", CERTAIN), "transaction", True),
        (("transaction", LIKELY), "transaction", True),
        (("session", CERTAIN), "transaction", False),
    ],
)
def test_a_mode_that_is_found_agrees_or_is_an_issue(mode: tuple[str, Confidence], declared: str, *, held: bool) -> None:
    assert Recognised({"pool_mode": mode}, pool_mode=declared).judged(recognised) == [held]


@pytest.mark.parametrize(
    "findings",
    [
        {"pool_mode": ("session", LIKELY)},
        {"pool_mode": ("", UNKNOWN)},
        {"pool_mode": ("", UNKNOWN), "pooler": ("yes", CERTAIN)},
        {"pool_mode": ("transaction", CERTAIN), "pool_size": ("2", LIKELY)},
    ],
)
def test_what_could_not_be_forced_is_not_run(findings: dict[str, tuple[str, Confidence]]) -> None:
    with pytest.raises(NotExercisedError):
        Recognised(findings, pool_mode="transaction", pooler="yes", pool_size="4").judged(recognised)


def test_a_certain_contradiction_is_an_issue_whatever_else_is_unknown() -> None:
    findings = {"pool_mode": ("", UNKNOWN), "server_version": ("17.2", CERTAIN)}
    assert Recognised(findings, pool_mode="transaction", server_version="15").judged(recognised) == [False]


@pytest.mark.parametrize(
    ("version", "held", "has_limit"),
    [
        ("1.26.1", True, False),
        ("1.26.0", False, False),
        ("1.25.0", False, False),
        ("1.24.1", True, True),
        ("1.18.0", True, True),
    ],
)
def test_missing_fixes_are_an_issue_unless_a_distribution_maintains_the_version(
    version: str, *, held: bool, has_limit: bool
) -> None:
    row = Recognised({"product": ("PgBouncer", CERTAIN)}, version=version)
    assert row.judged(security_fixes_above) == [held]
    assert (row.limit is not None) is has_limit


@pytest.mark.parametrize("version", ["1.18.0", "1.24.1"])
def test_the_words_of_a_limit_count_the_missing_fixes_and_allow_for_a_backport(version: str) -> None:
    row = Recognised({"product": ("PgBouncer", CERTAIN)}, version=version)
    row.judged(security_fixes_above)
    missing = security_fixes().above("PgBouncer", version)
    assert row.limit
    assert f"is older than {len(missing)} published security fixes (" in row.limit.outcome
    assert all(fix.id in row.limit.outcome for fix in missing)
    assert "backported a fix" in row.limit.outcome


def test_a_certain_version_counts_beside_a_declared_one() -> None:
    findings = {"product": ("PgBouncer", CERTAIN), "version": ("1.26.0", CERTAIN)}
    assert Recognised(findings, version="1.26.1").judged(security_fixes_above) == [False]


def test_a_product_that_could_not_be_probed_is_not_run() -> None:
    with pytest.raises(NotExercisedError, match="product"):
        Recognised({"product": ("", UNKNOWN)}).judged(security_fixes_above)


@pytest.mark.parametrize("version", [">= 1.23", "1.24", ""])
def test_an_inexact_version_is_not_applicable(version: str) -> None:
    findings = {"product": ("PgBouncer", CERTAIN), "version": (version, LIKELY)}
    with pytest.raises(NotApplicableError, match="exact version"):
        Recognised(findings, version="1.24").judged(security_fixes_above)


@pytest.mark.parametrize(
    ("findings", "reason"),
    [
        ({"pooler": ("no", CERTAIN)}, "no pooler"),
        ({"product": ("Odyssey", CERTAIN)}, "no table"),
        ({"product": ("PgBouncer", LIKELY)}, "which product"),
    ],
)
def test_a_chain_without_a_pooler_or_without_a_table_is_not_applicable(
    findings: dict[str, tuple[str, Confidence]], reason: str
) -> None:
    with pytest.raises(NotApplicableError, match=reason):
        Recognised(findings).judged(security_fixes_above)
