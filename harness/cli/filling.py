"""Filling the tables, from evidence and from declarations, into files and into documents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.checks.claims import unjudged_claims
from harness.report.building import build_report
from harness.report.render import fragments, render
from harness.report.tables import Declared, Report

if TYPE_CHECKING:
    from harness.cli.settings import Settings
    from harness.preflight.declaration import GateResult
    from harness.report.baseline import BaselineComparison
    from harness.report.changes import Changes
    from harness.report.evidence import Evidence


def fill(
    evidence: Evidence,
    settings: Settings,
    changes: Changes | None = None,
    baseline: BaselineComparison | None = None,
) -> list[Path]:
    """Render the tables into the folder of the audit target, and return the files.

    :param changes: what changed since another run; None to compare with none.
    :param baseline: what changed since the last release of the audit trail; None to compare with none.
    """
    report = replace(report_of(evidence, settings), changes=changes, baseline=baseline)
    return render(report, settings.rendered)


def report_of(evidence: Evidence, settings: Settings) -> Report:
    """Return the tables as data."""
    declared = Declared(
        target_summary=settings.target.summary,
        limited=tuple(limit.check for limit in settings.target.limits),
        unjudged=tuple(map(str, unjudged_claims(settings.catalogue.checks, settings.target))),
        attestations=settings.attestations,
        environments={name: environment.compare_with for name, environment in settings.environments.items()},
        readiness=settings.readiness,
        workflows=settings.workflows,
        preflight=preflight_of(settings),
        quarantine=settings.quarantine,
        expired_quarantine=settings.expired_quarantine,
    )
    return build_report(evidence, settings.rendered, declared)


def preflight_of(settings: Settings) -> tuple[GateResult, ...]:
    """Return the rows of the distribution preflight; none without a declaration in harness.toml.

    :raises ConfigError: for a folder that is missing or not a project.
    """
    if settings.preflight is None:
        return ()
    from harness.preflight.gates import preflight  # noqa: PLC0415 -- most projects declare none

    return preflight(settings.preflight, Path.cwd())


def put_into(document: Path, evidence: Evidence, settings: Settings, *, check: bool) -> bool:
    """Fill the tables of a document between their markers, and return whether they were up to date.

    :param check: leave the document unchanged.
    """
    from harness.report.splice import into  # noqa: PLC0415 -- it loads a parser of Markdown

    return into(document, fragments(report_of(evidence, settings)), check=check)
