"""Pooling: is the chain what it is declared to be? Recognised from outside, and not believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.record import NotExercisedError
from harness.checks.registry import P0, Safety, breaks, check
from harness.model import PoolMode, Section
from harness.recognition.contradictions import contradictions
from harness.recognition.findings import Recognition

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.checks.environment_workspace import EnvironmentBench

_CONTRADICTED = "declared values that a finding contradicts"


@check(
    "pooling.recognised",
    claim="nothing that is declared of the chain is contradicted by what a client finds who is told its address only",
    section=Section.POOLING,
    severity=P0,
    area="topology declaration",
    environment_safety=Safety.READS,
)
def recognised(ctx: CheckContext | EnvironmentBench) -> None:
    findings, declared = ctx.recognised()
    if not declared:
        raise NotExercisedError("nothing is declared of the chain that could be compared with what is found")
    known = [each for each in findings if each.value and each.fact in declared]
    if not known:
        raise NotExercisedError("nothing of what is declared could be found out from outside")
    for each in findings:
        if each.fact in declared:
            told = f"{each.value or 'unknown'} ({each.confidence}): {each.how}"
            ctx.fact(f"{each.fact}, declared {declared[each.fact]}", told)
    wrong = contradictions(Recognition(findings=findings), declared)
    ctx.expect(_CONTRADICTED, list(wrong), equals=[])
    if "pool_mode" in declared:
        ctx.expect(
            "something was found about the pool mode", any(each.fact == "pool_mode" for each in known), equals=True
        )


@breaks(recognised, at=_CONTRADICTED)
def another_pool_mode_is_declared(ctx: CheckContext) -> None:
    other = PoolMode.SESSION if ctx.mode is not PoolMode.SESSION else PoolMode.TRANSACTION
    ctx.declared = {"pool_mode": str(other)}
