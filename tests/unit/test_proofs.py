"""What a report says about controls and about breaks of the audit trail."""

from __future__ import annotations

import pytest

from harness.model import Proof, Status, TrailProof
from harness.report.evidence import Row
from harness.report.proofs import ProofCount, count_proofs, exactness, proven
from tests.tables import each_row
from tests.unit.made_up import planned, result


def proof(*, proven: bool, applicable: bool = True) -> Proof:
    return Proof(
        topology="direct",
        check="capture.insert",
        control="no-trigger",
        at="rows",
        proven=proven,
        applicable=applicable,
        reason="",
    )


PROVEN, FAILED, NOT_APPLICABLE = proof(proven=True), proof(proven=False), proof(proven=False, applicable=False)


@each_row(
    ("proofs", "status", "target", "expected"),
    [
        ((), Status.OK, "reference", "not proven yet"),
        ((), Status.ISSUE, "reference", "not proven yet"),
        ((PROVEN,), Status.OK, "reference", "proven"),
        ((PROVEN,), Status.OK, "", "proven"),
        ((PROVEN,), Status.OK, "carbonite", "proven on the reference"),
        ((FAILED,), Status.OK, "reference", "unproven"),
        ((PROVEN, FAILED), Status.OK, "reference", "unproven"),
        ((FAILED,), Status.OK, "carbonite", "unproven"),
        ((PROVEN, NOT_APPLICABLE), Status.OK, "reference", "proven"),
        ((NOT_APPLICABLE,), Status.OK, "reference", ""),
        ((), Status.NA, "reference", ""),
        ((PROVEN,), Status.NA, "reference", ""),
    ],
)
def test_every_applicable_control_must_turn_its_check(
    proofs: tuple[Proof, ...], status: Status, target: str, expected: str
) -> None:
    row = Row(
        planned=planned("direct", "capture.insert"),
        result=result("direct", "capture.insert", status, "why"),
        run_id="r",
        proofs=proofs,
    )
    assert proven(row, target) == expected


def test_results_are_counted_by_whether_controls_turned_their_check() -> None:
    rows = [
        Row(planned=planned("direct", check), result=result("direct", check, status, "why"), run_id="r", proofs=proofs)
        for check, status, proofs in (
            ("capture.insert", Status.OK, (PROVEN,)),
            ("capture.update", Status.ISSUE, (PROVEN,)),
            ("capture.delete", Status.OK, (FAILED,)),
            ("capture.bulk", Status.OK, ()),
            ("actor.types", Status.OK, (NOT_APPLICABLE,)),
            ("actor.unset", Status.NA, ()),
            ("actor.residue", Status.NOT_RUN, ()),
        )
    ]
    # controls break the reference layer only, so none is missing for another trail
    assert count_proofs(rows, "carbonite") == ProofCount(proven=2, unproven=1, missing=0)
    counted = count_proofs(rows, "reference")
    assert counted == ProofCount(proven=2, unproven=1, missing=1)
    assert (counted.results, counted.tried) == (4, 3)


@pytest.mark.parametrize(
    ("missed", "unexpected", "expected"),
    [
        ((), (), "yes"),
        (("a", "b"), (), "no; stayed green: a, b"),
        ((), ("c",), "no; turned unexpectedly: c"),
        (("a",), ("c", "d"), "no; stayed green: a; turned unexpectedly: c, d"),
    ],
)
def test_a_break_is_exact_if_it_turned_what_it_had_to(
    missed: tuple[str, ...], unexpected: tuple[str, ...], expected: str
) -> None:
    found = TrailProof(
        topology="direct", name="no-trigger", what="it", tried=9, caught=("x",), missed=missed, unexpected=unexpected
    )
    assert exactness(found) == expected
