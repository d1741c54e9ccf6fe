"""The end of a run: one line per topology on stdout, then where the evidence is, then every Issue."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from harness.cli.exit_codes import rows_of
from harness.model import Status
from harness.report.evidence import elapsed_s
from harness.report.outcomes import count

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from harness.cli.invocation import Invocation
    from harness.model import PlannedCheck, Result
    from harness.report.evidence import Evidence
    from harness.store import StoredRun

_NARROWEST = 12


def print_recap(run: StoredRun) -> None:
    """Print the counts of the rows of one run."""
    _print_counts(rows_of(run))


def print_evidence_recap(evidence: Evidence) -> None:
    """Print the counts of merged evidence."""
    _print_counts(row.answer for row in evidence.rows)


def _print_counts(answers: Iterable[tuple[PlannedCheck, Result]]) -> None:
    """Print a line for the checks of each topology, and one for what happens to its features and its drivers."""
    by_target: dict[str, list[tuple[PlannedCheck, Result]]] = {}
    for planned, result in answers:
        by_target.setdefault(planned.target, []).append((planned, result))
    width = name_width(by_target)
    for target, rows in by_target.items():
        counted, name = count(rows), target.ljust(width)
        limits = f" ({counted.limits} documented limit{'s' if counted.limits > 1 else ''})" if counted.limits else ""
        known = f" ({counted.known} known)" if counted.known else ""
        sys.stdout.write(
            f"{name} checks:   ok={counted.ok}{limits} issue={counted.issue}{known} na={counted.na} "
            f"not_run={counted.not_run}  {elapsed_s(result for _, result in rows):.1f}s\n"
        )
        for kind, found in (("features:", counted.features), ("drivers: ", counted.drivers)):
            if found.observed:
                sys.stdout.write(f"{name} {kind} {found}\n")
    sys.stdout.flush()


def name_width(names: Iterable[str]) -> int:
    """Return the width of the column of topology names."""
    return max([_NARROWEST, *map(len, names)])


def say_where(invocation: Invocation, folder: Path | None, paths: list[Path]) -> None:
    """Say where the evidence and the report are.

    :param folder: the run folder, if the command made one.
    :param paths: the rendered files.
    """
    if folder:
        invocation.terminal.say(f"evidence: {folder}")
    page = next(path for path in paths if path.suffix == ".html")
    invocation.terminal.say(f"report:   {page} and {len(paths) - 1} more files in {paths[0].parent}/")


def say_issues(invocation: Invocation, results: Iterable[Result]) -> None:
    """Say every Issue, known ones included, with the command that reproduces it."""
    for result in results:
        if result.status is Status.ISSUE:
            kind = f"Known Issue ({result.known.link})" if result.known else "Issue"
            invocation.terminal.say(
                f"{kind} {result.target} {result.check}: {result.reason}\n  reproduce: {result.reproduce}"
            )
