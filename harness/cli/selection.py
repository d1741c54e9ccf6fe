"""The selection of `verify` and `prove`, and the plan that `--dry-run` prints."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.checks.registry import Check
from harness.cli.named_topologies import named_topologies, require_used
from harness.cli.planning import plan_topologies
from harness.errors import UsageError
from harness.model import Topology

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.cli.settings import Settings
    from harness.engine.protocol import Engine
    from harness.job_engines.known import KnownJobEngines
    from harness.model import PlannedCheck


class Selection(Struct, frozen=True, kw_only=True):
    """Topologies, and the checks to run in each."""

    topologies: tuple[Topology, ...]
    checks: tuple[Check, ...]
    #: the user named suites or checks: they also run in topologies whose `verify` leaves them out
    named: bool
    #: the number of attempts of each row
    repeat: int = 1
    #: names of selected topologies that no selected check runs in: they are not started
    idle: tuple[str, ...] = ()

    def plan(self, settings: Settings, engine: Engine | None = None, *, under: str = "") -> tuple[PlannedCheck, ...]:
        """Return the rows; see :func:`~harness.cli.planning.plan_topologies`."""
        return plan_topologies(
            self.topologies, self.checks, engine, settings, named=self.named, under=under, repeat=self.repeat
        )


def select_rows(
    settings: Settings,
    topologies: Sequence[str],
    suites: Sequence[str],
    checks: Sequence[str],
    *,
    repeat: int = 1,
) -> Selection:
    """Return what the names select; everything of a kind that is not named. Topologies without a row are left out.

    :param repeat: the number of attempts of each row.

    :raises UsageError: for an unknown name, when no selected check applies to any selected topology, or for a version
        or an image that no topology uses.
    """
    known = settings.job_engines
    chosen = known.chosen
    selected = settings.catalogue.select(suites, checks)
    if chosen:
        selected = tuple(check for check in selected if check.job and known.selects(check.job))
        _require_rows(known, selected)
    selection = Selection(
        topologies=tuple(named_topologies(settings, topologies)),
        checks=selected,
        named=bool(suites or checks or chosen),
        repeat=repeat,
    )
    targets = {row.target for row in selection.plan(settings)}
    if not targets:
        raise UsageError(
            "no selected check runs in these topologies",
            hint="a command runs in the topologies that harness.toml names for it; a path of your host runs in "
            "an environment: harness verify --environment NAME",
        )
    starting = tuple(topology for topology in selection.topologies if topology.name in targets)
    require_used(settings, starting)
    idle = tuple(topology.name for topology in selection.topologies if topology.name not in targets)
    return replace(selection, topologies=starting, idle=idle)


def _require_rows(known: KnownJobEngines, selected: Iterable[Check]) -> None:
    """Reject a job engine or a variant that is named, and that no selected check is about."""
    labels = [check.job for check in selected if check.job]
    without = [f"--job-engine {name}" for name in sorted(known.chosen - {label.engine for label in labels})]
    without += [f"--variant {name}" for name in sorted(known.variants - {label.variant for label in labels})]
    if without:
        raise UsageError(
            f"{' '.join(without)}: no selected suite or check is about it",
            hint="leave --variant out, or --suite and --check, or name checks of this variant"
            if known.variants
            else "leave --suite and --check out, or name checks of the suite jobs",
        )


def require_breakable(settings: Settings, what: str) -> None:
    """Reject another audit trail than the reference layer: controls break the reference layer only.

    :param what: the command or option, for the message.
    """
    if not settings.target.is_reference:
        raise UsageError(
            f"{what} breaks the reference layer to show that checks can fail; it cannot break another audit trail",
            hint="leave --audit-target out; `prove --audit-target` mutates the rows of another trail instead",
        )


def print_plan(plan: Iterable[PlannedCheck], notes: Iterable[str]) -> None:
    """Print one line for each row, with its note where it has one."""
    for row, note in zip(plan, notes, strict=True):
        sys.stdout.write(f"{row.target:<12} {row.check}" + (f"  {note}" if note else "") + "\n")


def print_selection(selection: Selection, settings: Settings, *, under: str = "") -> None:
    """Print the plan, with the reason of each row that is N/A by declaration.

    :param under: name of the control that the other rows run under.
    """
    plan = selection.plan(settings)
    topologies = {topology.name: topology for topology in selection.topologies}
    checks = {check.id: check for check in selection.checks}
    other = f"under {under}" if under else f"{selection.repeat} attempts" if selection.repeat > 1 else ""
    reasons = (checks[row.check].lacking(topologies[row.target], settings.target) for row in plan)
    print_plan(plan, (f"N/A: {reason}" if reason else other for reason in reasons))
