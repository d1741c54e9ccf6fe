"""Claims of an audit target that the checks judge, and those that no check can judge for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.target_file import TrailFeature

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.audit.target import AuditTarget
    from harness.checks.registry import Check
    from harness.model import Topology


def unjudged_claims(
    checks: Iterable[Check], target: AuditTarget, topology: Topology | None = None
) -> list[TrailFeature]:
    """Return the claims of a target that no check can judge: each one that judges the claim needs something else, too.

    :param topology: where the checks run; any when None.
    """
    judged = {TrailFeature.LIBRARY}
    for check in checks:
        if check.lacking(topology, target) is None:
            judged |= {*check.requires_features, *check.judges}
    return sorted(target.claims - judged)
