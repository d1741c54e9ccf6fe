"""Pooling: is the chain what it is declared to be? Recognised from outside, and not believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.bench import NotExercisedError
from harness.checks.registry import P0, breaks, check
from harness.lab.recognised import declared_facts
from harness.model import PoolMode, Section
from harness.recognition import contradictions
from harness.recognition.notes import Recognition

if TYPE_CHECKING:
    from harness.checks.bench import Bench

_CONTRADICTED = "declared values that a finding contradicts"


@check(
    "pooling.recognised",
    claim="nothing that is declared of the chain is contradicted by what a client finds who is told its address only",
    section=Section.POOLING,
    severity=P0,
    area="topology declaration",
)
def recognised(bench: Bench) -> None:
    evidence = bench.lab.evidence
    declared = declared_facts(bench.topology, evidence) | bench.declared
    known = [each for each in evidence.findings if each.value and each.fact in declared]
    if not known:
        raise NotExercisedError("nothing of what is declared could be found out from outside")
    for each in evidence.findings:
        if each.fact in declared:
            told = f"{each.value or 'unknown'} ({each.confidence}): {each.how}"
            bench.fact(f"{each.fact}, declared {declared[each.fact]}", told)
    wrong = contradictions(Recognition(findings=evidence.findings), declared)
    bench.expect(_CONTRADICTED, list(wrong), equals=[])
    bench.expect(
        "something was found about the pool mode", any(each.fact == "pool_mode" for each in known), equals=True
    )


@breaks(recognised, at=_CONTRADICTED)
def another_pool_mode_is_declared(bench: Bench) -> None:
    other = PoolMode.SESSION if bench.mode is not PoolMode.SESSION else PoolMode.TRANSACTION
    bench.declared = {"pool_mode": str(other)}
