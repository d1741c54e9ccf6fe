"""What deliberate breaks have shown about a check, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.model import Status

if TYPE_CHECKING:
    from harness.model import TrailProof
    from harness.report.evidence import Row


def proven(row: Row, about: str) -> str:
    """Return whether a check has been shown to fail when what it watches is broken: in its topology, for this code.

    :param about: the name of the audit target that the evidence is about; controls break the reference layer only.
    """
    applicable = [proof for proof in row.proofs if proof.applicable]
    if row.status is Status.NA or (row.proofs and not applicable):
        return ""
    if not row.proofs:
        return "not proven yet"
    if not all(proof.proven for proof in applicable):
        return "unproven"
    return "proven" if about in {"", "reference"} else "proven on the reference"


def exactness(proof: TrailProof) -> str:
    """Return whether a break of the audit trail turned exactly the checks that watch what it broke."""
    if proof.exact:
        return "yes"
    stayed = f"; stayed green: {', '.join(proof.stayed)}" if proof.stayed else ""
    beside = f"; turned beside: {', '.join(proof.beside)}" if proof.beside else ""
    return f"no{stayed}{beside}"
