"""The end of a run: one line per topology on stdout, then where the evidence is, then every Issue."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from harness.model import Status
from harness.report.evidence import Count, Evidence, count, elapsed_s

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from harness.cli.invocation import Invocation
    from harness.model import Result
    from harness.store import StoredRun

_NARROWEST = 12


def print_recap(run: StoredRun) -> None:
    names = list(dict.fromkeys(row.target for row in run.record.plan))
    for name in names:
        results = [result for result in run.answers() if result.target == name]
        _print_line(name.ljust(name_width(names)), count(results), elapsed_s(results))


def print_evidence_recap(evidence: Evidence) -> None:
    for name in evidence.names():
        results = [row.result for row in evidence.of(name)]
        _print_line(name.ljust(name_width(evidence.names())), count(results), elapsed_s(results))


def name_width(names: Iterable[str]) -> int:
    """Return the width of the column of topology names."""
    return max([_NARROWEST, *map(len, names)])


def _print_line(name: str, counted: Count, duration_s: float) -> None:
    known = f" ({counted.known} known)" if counted.known else ""
    sys.stdout.write(
        f"{name} ok={counted.ok} issue={counted.issue}{known} na={counted.na} "
        f"not_run={counted.not_run}  {duration_s:.1f}s\n"
    )
    sys.stdout.flush()


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
