"""The judges of all suites. A stored history names one of them, and `harness judge` finds it here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.checks.judges import Judge

#: to add a judge, add it here
JUDGES: tuple[Judge, ...] = ()
