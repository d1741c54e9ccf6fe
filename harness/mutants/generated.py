"""The faulty variants that are made of tables of faults; their authors knew the checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.mutants.actor_faults import actor_faults, transaction_faults
from harness.mutants.burden_faults import burden_faults
from harness.mutants.change_faults import change_faults
from harness.mutants.claim_faults import claim_faults
from harness.mutants.redaction_faults import redaction_faults
from harness.mutants.safety_faults import safety_faults
from harness.mutants.value_faults import value_faults

if TYPE_CHECKING:
    from harness.mutants.variant import Variant


def generated_variants() -> tuple[Variant, ...]:
    """Return the variants of all tables."""
    return (
        *value_faults(),
        *change_faults(),
        *actor_faults(),
        *transaction_faults(),
        *safety_faults(),
        *burden_faults(),
        *claim_faults(),
        *redaction_faults(),
    )
