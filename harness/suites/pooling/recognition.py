"""Pooling: whether the chain is what its declaration says, as recognised from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.record import NotExercisedError
from harness.checks.registry import P0, Safety, breaks, check
from harness.model import PoolMode, Section
from harness.recognition.contradictions import contradictions
from harness.recognition.findings import Recognition

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.checks.environment_workspace import EnvironmentContext

_CONTRADICTED = "declared values that a finding contradicts"


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
    known = [finding for finding in findings if finding.value and finding.fact in declared]
    if not known:
        raise NotExercisedError("none of the declared values could be recognised from outside")
    for finding in findings:
        if finding.fact in declared:
            recognised_as = f"{finding.value or 'unknown'} ({finding.confidence}): {finding.how}"
            ctx.fact(f"{finding.fact}, declared {declared[finding.fact]}", recognised_as)
    contradicted = contradictions(Recognition(findings=findings), declared)
    ctx.expect(_CONTRADICTED, list(contradicted), equals=[])
    if "pool_mode" in declared:
        ctx.expect("pool mode was recognised", any(finding.fact == "pool_mode" for finding in known), equals=True)


@breaks(recognised, at=_CONTRADICTED)
def another_pool_mode_is_declared(ctx: CheckContext) -> None:
    other = PoolMode.SESSION if ctx.mode is not PoolMode.SESSION else PoolMode.TRANSACTION
    ctx.declared = {"pool_mode": str(other)}
