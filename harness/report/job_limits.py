"""The documented limits that job engines observed, one line for each engine and variant: for the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.report.evidence import Row
from harness.report.job_engine_cells import label, outcome_of_case
from harness.report.limits import LimitKind, limit_kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.report.issue_groups import Answer


def job_limits(answers: Iterable[Answer]) -> tuple[str, ...]:
    """Return a sentence without a full stop for each engine and variant with a documented limit, in a fixed order.

    Such as `Oban for Python 0.7.0, default: channels left: 3 (leaves-nothing on transaction)`.
    """
    found: dict[tuple[str, str], dict[tuple[str, str], dict[str, None]]] = {}
    for planned, result in answers:
        if limit_kind(planned, result) is LimitKind.JOBS:
            job = label(row := Row(planned=planned, result=result, run_id=""))
            of_variant = found.setdefault((job.title, job.variant), {})
            of_variant.setdefault((outcome_of_case(row) or job.case, job.case), {}).setdefault(planned.target)
    return tuple(
        f"{title}, {variant}: "
        + "; ".join(f"{said} ({case} on {', '.join(sorted(names))})" for (said, case), names in sorted(limits.items()))
        for (title, variant), limits in sorted(found.items())
    )
