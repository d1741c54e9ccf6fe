"""Filling the tables: from evidence and from what the project declares, into files and into documents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.preflight.gates import GateResult, preflight
from harness.report.render import fragments, render
from harness.report.splice import into
from harness.report.tables import Declared, Report, build_report

if TYPE_CHECKING:
    from harness.cli.settings import Settings
    from harness.report.evidence import Evidence


def fill(evidence: Evidence, settings: Settings) -> list[Path]:
    """Fill the tables. Another audit target than the reference has a folder of its own: it never mixes with it."""
    return render(report_of(evidence, settings), settings.rendered)


def report_of(evidence: Evidence, settings: Settings) -> Report:
    declared = Declared(
        target_summary=settings.target.summary,
        attestations=settings.attestations,
        environments={name: each.compare_with for name, each in settings.environments.items()},
        readiness=settings.readiness,
        workflows=settings.workflows,
        preflight=preflight_of(settings),
    )
    return build_report(evidence, settings.rendered, declared)


def preflight_of(settings: Settings) -> tuple[GateResult, ...]:
    """Fill the distribution preflight; nothing where none is declared.

    :raises ConfigError: for a project that is not there, or is none.
    """
    return preflight(settings.preflight, Path.cwd()) if settings.preflight else ()


def put_into(document: Path, evidence: Evidence, settings: Settings, *, check: bool) -> bool:
    return into(document, fragments(report_of(evidence, settings)), check=check)
