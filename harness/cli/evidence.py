"""The evidence at hand: what the reports folder or given run folders hold, merged for these settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.checks.execution import accept_known
from harness.cli.planning import declared_as, named_topologies, plan_environment, plan_topologies
from harness.lab.topologies import load_topologies
from harness.provenance import fingerprint
from harness.report.evidence import Evidence, merge
from harness.store import kept_runs, read_runs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.cli.settings import Settings
    from harness.model import PlannedCheck
    from harness.store import StoredRun


def evidence_here(settings: Settings) -> Evidence:
    """Merge the runs in the reports folder that are of exactly this code and these topology files."""
    code = fingerprint()
    runs, damaged = kept_runs(settings.reports, code)
    ordinary, _ = _without_controls(runs)
    merged = merge(
        ordinary,
        expected_rows(settings),
        declared={topology.name: topology for topology in named_topologies(settings, [])},
        fingerprint=code,
        target=settings.target.identity,
        left_out=damaged,
        environments=_declared_environments(settings),
    )
    verified = set(merged.names())
    not_verified = tuple(
        f"the topology {topology.name} runs on demand only; no run of this code has verified it"
        for topology in load_topologies(settings.topologies).values()
        if topology.on_demand and topology.name not in verified
    )
    return _with_known_issues(replace(merged, left_out=(*merged.left_out, *not_verified)), settings)


def evidence_from(settings: Settings, folders: Iterable[str]) -> Evidence:
    """Merge run folders, also from other machines.

    :raises StoreError: for a folder without runs.
    """
    ordinary, left_out = _without_controls(read_runs([Path(folder) for folder in folders]))
    merged = merge(
        ordinary,
        expected_rows(settings),
        target=settings.target.identity,
        left_out=left_out,
        environments=_declared_environments(settings),
    )
    return _with_known_issues(merged, settings)


def expected_rows(settings: Settings) -> tuple[PlannedCheck, ...]:
    """Return the rows that a report owes an answer to."""
    checks = settings.catalogue.checks
    return plan_topologies(named_topologies(settings, []), checks, None, settings) + tuple(
        row for name in settings.environments for row in plan_environment(name, checks, settings)
    )


def _declared_environments(settings: Settings) -> dict[str, str]:
    return {name: declared_as(name, settings) for name in settings.environments}


def _without_controls(runs: Iterable[StoredRun]) -> tuple[tuple[StoredRun, ...], list[str]]:
    """Return the runs of `verify` and `prove`, and a sentence for each run of `verify --under`.

    A control broke the system under test on purpose, so those rows are not evidence.
    """
    ordinary = tuple(run for run in runs if not run.record.under)
    left_out = [
        f"run {run.record.run_id} is left out: it ran under the control {run.record.under}"
        for run in runs
        if run.record.under
    ]
    return ordinary, left_out


def _with_known_issues(evidence: Evidence, settings: Settings) -> Evidence:
    """Mark the Issues that are accepted today, regardless of what was accepted when they were found."""
    rows = tuple(
        replace(row, result=accept_known(replace(row.result, known=None), settings.known_issues))
        for row in evidence.rows
    )
    return replace(evidence, rows=rows)
