"""The judges of all suites. A stored history names one of them, and `harness judge` finds it here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.judges.acknowledged import ACKNOWLEDGED
from harness.checks.judges.ingest import INGEST_JUDGE
from harness.checks.judges.jobs import JOBS_JUDGE
from harness.checks.judges.soak import SOAK_JUDGE

if TYPE_CHECKING:
    from harness.checks.judges import Judge

#: to add a judge, add it here
JUDGES: tuple[Judge, ...] = (ACKNOWLEDGED, SOAK_JUDGE, JOBS_JUDGE, INGEST_JUDGE)
