"""Results of controls and of breaks of the audit trail, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import MutationState, Status
from harness.report.findings import REFERENCE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.model import ObservedProof, TrailProof
    from harness.report.evidence import Row

#: of a check whose controls have not run
NOT_PROVEN = "not proven yet"
#: of a check that stayed green under one of its controls
UNPROVEN = "unproven"


def proven(row: Row, about: str) -> str:
    """Return whether controls turned a check to Issue, in its topology and for this code; "" if none applies.

    :param about: the name of the audit target that the evidence is about. Controls break only the reference layer; of
        another trail, the rows that checks read are mutated.
    """
    if row.status is Status.NA:
        return ""
    if not row.proofs:
        return NOT_PROVEN if about in REFERENCE else ""
    applicable = [proof for proof in row.proofs if proof.applicable]
    if not applicable:
        return ""
    if not all(proof.proven for proof in applicable):
        return UNPROVEN
    return "proven" if about in REFERENCE else "proven on the reference"


class ProofCount(Struct, frozen=True, kw_only=True):
    """How many results come from checks that controls turned to Issue."""

    proven: int
    unproven: int
    #: whose controls have not run
    missing: int

    @property
    def results(self) -> int:
        return self.proven + self.unproven + self.missing

    @property
    def tried(self) -> int:
        return self.proven + self.unproven


def count_proofs(rows: Iterable[Row], about: str) -> ProofCount:
    """Count the rows that are OK or an Issue and that a control applies to, by whether controls turned their check."""
    states = [proven(row, about) for row in rows if row.status in {Status.OK, Status.ISSUE}]
    missing, unproven = states.count(NOT_PROVEN), states.count(UNPROVEN)
    return ProofCount(proven=sum(map(bool, states)) - missing - unproven, unproven=unproven, missing=missing)


#: outcomes of mutations, those that need attention first
_ATTENTION = (MutationState.SURVIVED, MutationState.NEVER_MET, MutationState.NOTICED, MutationState.LEFT_OUT)


def attention_first(proofs: Iterable[ObservedProof]) -> list[ObservedProof]:
    """Return the outcomes of mutations, those that no check noticed first."""
    return sorted(proofs, key=lambda proof: _ATTENTION.index(proof.state))


def not_noticed(proofs: Iterable[ObservedProof]) -> list[ObservedProof]:
    """Return the mutations that no check noticed, or that no check met."""
    states = {MutationState.SURVIVED, MutationState.NEVER_MET}
    return [proof for proof in attention_first(proofs) if proof.state in states]


def kill_rate(proofs: Iterable[ObservedProof]) -> str:
    """Return in words how many mutations were noticed; "" when none was tried."""
    proofs = list(proofs)
    states = [proof.state for proof in proofs]
    noticed, counted = states.count(MutationState.NOTICED), sum(proof.counts for proof in proofs)
    others = [
        f"{number} {state}"
        for state in (MutationState.SURVIVED, MutationState.NEVER_MET, MutationState.LEFT_OUT)
        if (number := states.count(state))
    ]
    return f"{noticed} of {counted} mutations noticed" + (f" ({', '.join(others)})" if others else "") if proofs else ""


def exactness(proof: TrailProof) -> str:
    """Return whether a break of the audit trail turned exactly the checks that cover it."""
    if proof.exact:
        return "yes"
    missed = f"; stayed green: {', '.join(proof.missed)}" if proof.missed else ""
    unexpected = f"; turned unexpectedly: {', '.join(proof.unexpected)}" if proof.unexpected else ""
    return f"no{missed}{unexpected}"
