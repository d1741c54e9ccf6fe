"""Resilience of acknowledged writes: one check for each fault, and the controls that break what the judge compares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.target_file import Recorded
from harness.checks.registry import P0, TRANSACTION_BLOCKS, Check, check
from harness.model import Section
from harness.suites.resilience.faults import FAULTS, Where
from harness.suites.resilience.rounds import LONGEST_S, survive

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.suites.resilience.faults import FaultKind


def _check_of(fault: FaultKind) -> Check:
    limits = "; power loss is not tested" if fault.crashes else ""

    @check(
        f"resilience.{fault.id}",
        claim=f"{fault.title}: acknowledged writes are in table and trail once, with their actor, and failed ones are not"
        + limits,
        section=Section.RESILIENCE,
        severity=P0,
        area=str(fault.where),
        needs=tuple(dict.fromkeys((TRANSACTION_BLOCKS, *fault.needs))),
        records=(Recorded.INSERTS, Recorded.UPDATES, Recorded.DELETES, Recorded.IMAGE),
        own_servers=True,
        server_link=fault.where is Where.SERVER_LINK,
        on_demand=not fault.main,
        rounds=True,
        longest_s=LONGEST_S,
    )
    def written_under_fault(ctx: CheckContext) -> None:
        survive(fault, ctx)

    return written_under_fault


#: one check for each fault, in the order of the table
CHECKS = tuple(map(_check_of, FAULTS))
