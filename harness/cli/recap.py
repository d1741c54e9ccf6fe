"""What is said at the end of a run: a line for each topology on stdout, then where to look, then what is wrong."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from harness.model import Status
from harness.report.evidence import Count, Evidence, count, elapsed_s

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from harness.cli.context import Context
    from harness.model import Result
    from harness.store import StoredRun

EXIT_ISSUE, EXIT_NOTHING, EXIT_NOT_RUN, EXIT_INTERRUPTED = 1, 3, 4, 130


def recap(runs: list[StoredRun]) -> None:
    for run in runs:
        names = list(dict.fromkeys(row.target for row in run.record.plan))
        for name in names:
            results = [each for each in run.answers() if each.target == name]
            _recap_line(name.ljust(width(names)), count(results), elapsed_s(results))


def recap_evidence(evidence: Evidence) -> None:
    for name in evidence.names():
        results = [row.result for row in evidence.of(name)]
        _recap_line(name.ljust(width(evidence.names())), count(results), elapsed_s(results))


def width(names: Iterable[str]) -> int:
    return max([12, *map(len, names)])


def _recap_line(name: str, counted: Count, took_s: float) -> None:
    known = f" ({counted.known} known)" if counted.known else ""
    sys.stdout.write(
        f"{name} ok={counted.ok} issue={counted.issue}{known} na={counted.na} "
        f"not_run={counted.not_run}  {took_s:.1f}s\n"
    )
    sys.stdout.flush()


def say_where(context: Context, folder: Path | None, paths: list[Path]) -> None:
    if folder:
        context.terminal.say(f"evidence: {folder}")
    context.terminal.say(
        f"report:   {next(path for path in paths if path.suffix == '.html')} and {len(paths) - 1} more in "
        f"{paths[0].parent}/"
    )


def say_issues(context: Context, runs: list[StoredRun]) -> None:
    for run in runs:
        for each in run.answers():
            if each.status is Status.ISSUE:
                context.terminal.say(issue_line(each))


def issue_line(result: Result) -> str:
    kind = f"Known Issue ({result.known.link})" if result.known else "Issue"
    return f"{kind} {result.target} {result.check}: {result.reason}\n  reproduce: {result.reproduce}"


def _host_was_not_seen(run: StoredRun) -> bool:
    """Say whether an environment was not reached, or its paths were to be taken and none was."""
    if not all(found.reached for found in run.record.environments.values()):
        return True
    mains = {(each.target, each.check) for each in run.record.plan if each.path and not each.path.aspect}
    taken = [each.status for each in run.answers() if (each.target, each.check) in mains]
    return Status.NOT_RUN in taken and not {Status.OK, Status.ISSUE} & set(taken)


def exit_code(context: Context, runs: list[StoredRun], *, strict: bool) -> int:
    if context.signals.received or any(run.record.state == "interrupted" for run in runs):
        return EXIT_INTERRUPTED
    results = [each for run in runs for each in run.answers()]
    if any(each.status is Status.ISSUE and each.known is None for each in results):
        return EXIT_ISSUE
    if all(each.status is Status.NOT_RUN for each in results):
        return EXIT_NOTHING
    if any(not stood.stood for run in runs for stood in run.record.topologies.values()):
        return EXIT_NOTHING
    if any(_host_was_not_seen(run) for run in runs if run.record.environments):
        return EXIT_NOTHING
    return EXIT_NOT_RUN if strict and any(each.status is Status.NOT_RUN for each in results) else 0
