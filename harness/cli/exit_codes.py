"""Exit codes of the command line, and the code of a command that ran checks. `harness --help` prints the meanings."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from harness.model import EndedBy, Status

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from harness.cli.invocation import Invocation
    from harness.model import PlannedCheck, Result
    from harness.store import StoredRun


class ExitCode(IntEnum):
    """How a command ended, for scripts and CI."""

    OK = 0
    ISSUE = 1
    USAGE = 2
    NOTHING_VERIFIED = 3
    NOT_RUN = 4
    INTERRUPTED = 130


MEANINGS: tuple[tuple[str, str], ...] = (
    (
        "0",
        "every row is OK, N/A, a known Issue or in quarantine; owed rows that are Not run count only under --strict",
    ),
    ("1", "at least one Issue, or a finding of the command at hand"),
    ("2", "invalid usage or configuration"),
    ("3", "nothing verified; a topology, server or engine failed; no path of an environment ran; evidence not kept"),
    ("4", "at least one Not run row that is owed, under --strict"),
    ("130", "interrupted by Ctrl-C, SIGTERM or SIGHUP; servers are removed, and every planned row has its answer"),
)


def rows_of(run: StoredRun) -> list[tuple[PlannedCheck, Result]]:
    """Return the planned rows of a run, each with its result."""
    return list(zip(run.record.plan, run.answers(), strict=True))


def was_interrupted(invocation: Invocation, runs: Iterable[StoredRun]) -> bool:
    """Return whether a signal ended the command, or one of its runs."""
    return invocation.signals.received or any(run.record.state == "interrupted" for run in runs)


def exit_code(
    invocation: Invocation,
    rows: Sequence[tuple[PlannedCheck, Result]],
    runs: Sequence[StoredRun],
    *,
    strict: bool,
    new_issues: Collection[tuple[str, str]] | None = None,
) -> ExitCode:
    """Return the exit code of a command.

    :param rows: every row that the command answers for.
    :param runs: the runs that the command made.
    :param new_issues: target and check of the Issues that count, of a command that compares with other evidence; all
        Issues by default.
    """
    if was_interrupted(invocation, runs):
        return ExitCode.INTERRUPTED
    issues = [result for _, result in rows if result.gates]
    if any(new_issues is None or (result.target, result.check) in new_issues for result in issues):
        return ExitCode.ISSUE
    owed = [result for planned, result in rows if planned.owed]
    not_run = [result for result in owed if result.status is Status.NOT_RUN]
    if len(not_run) == len(owed) or any(map(infrastructure_failed, runs)):
        return ExitCode.NOTHING_VERIFIED
    if any(_host_not_observed(run) for run in runs if run.record.environments):
        return ExitCode.NOTHING_VERIFIED
    gaps = [result for result in not_run if result.quarantine is None]
    return ExitCode.NOT_RUN if strict and gaps else ExitCode.OK


def infrastructure_failed(run: StoredRun) -> bool:
    """Return whether a topology did not start, or a server or the engine failed under a check."""
    return any(not evidence.stood for evidence in run.record.topologies.values()) or any(
        result.status is Status.NOT_RUN and result.ended_by is EndedBy.INFRASTRUCTURE for result in run.results
    )


def _host_not_observed(run: StoredRun) -> bool:
    """Return whether an environment was not reached, or all of its declared paths are Not run or N/A."""
    if not all(found.reached for found in run.record.environments.values()):
        return True
    statuses = {result.status for row, result in rows_of(run) if row.owed and row.path and not row.path.aspect}
    return Status.NOT_RUN in statuses and not {Status.OK, Status.ISSUE} & statuses
