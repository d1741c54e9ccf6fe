"""Pooling: whether the chain is what its declaration says, and whether its pooler lacks security fixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.record import NotApplicableError, NotExercisedError
from harness.checks.registry import P0, Safety, breaks, check
from harness.model import Confidence, PoolMode, Section
from harness.recognition.contradictions import contradictions, doubts
from harness.recognition.findings import Recognition
from harness.recognition.security import security_fixes
from harness.versions import numbers_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.checks.context import CheckContext
    from harness.checks.environment_workspace import EnvironmentContext

_CONTRADICTED = "declared values that a certain finding contradicts"
_MISSING = "security fixes above the version, which no known distribution backports to it"
#: such as 1.24.1: a fix is in a patch release
_EXACT = 3


@check(
    "pooling.recognised",
    claim="what a client finds out from the address alone contradicts nothing that is declared about the chain",
    section=Section.POOLING,
    severity=P0,
    area="topology declaration",
    environment_safety=Safety.READS,
)
def recognised(ctx: CheckContext | EnvironmentContext) -> None:
    findings, declared = ctx.recognised()
    if not declared:
        raise NotExercisedError("no declared value of the chain can be compared with the findings")
    compared = {finding.fact: finding for finding in findings if finding.fact in declared}
    if not any(finding.value for finding in compared.values()):
        raise NotExercisedError("none of the declared values could be recognised from outside")
    for fact, finding in compared.items():
        recognised_as = f"{finding.value or 'unknown'} ({finding.confidence}): {finding.how}"
        ctx.fact(f"{fact}, declared {declared[fact]}", recognised_as)
    recognition = Recognition(findings=findings)
    if not ctx.expect(_CONTRADICTED, list(contradictions(recognition, declared)), equals=[]):
        return
    # neither a slow machine nor a guess is an observation
    mode = compared.get("pool_mode")
    if mode is not None and not mode.value:
        raise NotExercisedError(f"the pool mode could not be recognised: {mode.how}")
    if unsure := doubts(recognition, declared):
        raise NotExercisedError(f"a finding differs, and could not be forced: {unsure[0]}")


@breaks(recognised, at=_CONTRADICTED)
def another_chain_is_declared(ctx: CheckContext) -> None:
    """Declare another pool mode and another server; at least the server's version is found with certainty."""
    other = PoolMode.SESSION if ctx.mode is not PoolMode.SESSION else PoolMode.TRANSACTION
    ctx.declared = {"pool_mode": str(other), "server_version": "9.6"}


@check(
    "pooling.security-fixes",
    claim="no security fix is published above the pooler's version, unless a distribution maintains that version",
    section=Section.POOLING,
    severity=P0,
    area="topology declaration",
    environment_safety=Safety.READS,
)
def security_fixes_above(ctx: CheckContext | EnvironmentContext) -> None:
    findings, declared = ctx.recognised()
    certain = {finding.fact: finding.value for finding in findings if finding.confidence is Confidence.CERTAIN}
    if "no" in {certain.get("pooler"), declared.get("pooler")}:
        raise NotApplicableError("the chain has no pooler")
    product = certain.get("product") or declared.get("product")
    if product is None:
        if any(finding.fact == "product" and finding.value for finding in findings):
            raise NotApplicableError("the chain does not show with certainty which product its pooler is")
        raise NotExercisedError("the pooler's product could not be recognised")
    table = security_fixes()
    ctx.fact("table of security fixes", f"as of {table.as_of}")
    if not table.knows(product):
        raise NotApplicableError(f"the harness has no table of security fixes of {product}")
    versions = _exact_versions(certain, declared)
    if not versions:
        raise NotApplicableError(
            f"the chain does not show the exact version of {product}; declare it, or give the admin console"
        )
    missing: list[str] = []
    for version in versions:
        fixes = table.above(product, version)
        names = [f"{fix.id} (fixed in {fix.fixed_in}, {fix.published}): {fix.defect}" for fix in fixes]
        for number, name in enumerate(names, 1):
            ctx.fact(f"{product} {version} lacks, {number}", name)
        maintainer = table.maintainer(product, version)
        if fixes and maintainer:
            ids = ", ".join(fix.id for fix in fixes)
            ctx.documented_limit(
                f"{product} {version} is older than {_counted(len(fixes))} ({ids}): unless {maintainer.by}, which "
                "maintains this version, backported a fix, the defect is there; the version cannot show it",
                maintainer.source,
            )
        elif fixes:
            missing += names
    ctx.expect(_MISSING, missing, equals=[])


def _counted(number: int) -> str:
    return "1 published security fix" if number == 1 else f"{number} published security fixes"


def _exact_versions(certain: Mapping[str, str], declared: Mapping[str, str]) -> list[str]:
    """Return the versions that were found with certainty or are declared, without repetition."""
    given = (certain.get("version", ""), declared.get("version", ""))
    return list(dict.fromkeys(version for version in given if len(numbers_of(version)) >= _EXACT))


@breaks(security_fixes_above, at=_MISSING)
def a_version_without_fixes_is_declared(ctx: CheckContext) -> None:
    """Declare 1.26.0, which no distribution maintains and which lacks the fixes of 1.26.1."""
    ctx.declared = {"version": "1.26.0"}
