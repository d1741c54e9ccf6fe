"""`report`: fill the tables from evidence, and complete the evidence first when asked to."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import completion, options
from harness.cli.baseline import failing, find_baseline, save_baseline, say_baseline
from harness.cli.diff import lines_of
from harness.cli.evidence import evidence_from, evidence_here
from harness.cli.exit_codes import ExitCode, exit_code
from harness.cli.filling import fill, put_into
from harness.cli.integrity import verify_runs, write_statement
from harness.cli.invocation import Invocation, command
from harness.cli.named_topologies import named_topologies
from harness.cli.recap import print_evidence_recap, say_causes, say_interrupted, say_issues, say_limits, say_where
from harness.cli.run_evidence import ACCEPTED, evidence_of
from harness.cli.running import run_selection
from harness.cli.selection import Selection
from harness.errors import UsageError
from harness.lab.topologies import load_topologies
from harness.printable import one_line
from harness.report.badge import badge_of
from harness.report.changes import compare
from harness.report.issue_groups import issue_groups
from harness.report.job_summary import summary, workflow_commands
from harness.report.render import scrubbed
from harness.report.scope import scoped
from harness.report.sides import THIS_REPORT, newer_than
from harness.store import require_writable

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from harness.cli.settings import Settings
    from harness.model import Result
    from harness.report.changes import Changes
    from harness.report.evidence import Evidence
    from harness.store import StoredRun

#: the pool modes that people compare; the native engine verifies them first
_FIRST = ("direct", "session", "transaction")


@command(
    "report",
    section="Evidence",
    examples=(
        "harness report",
        "harness report --complete",
        "harness report --from runs/job-1 runs/job-2 --strict --markdown",
        "harness report --since 20260131T120000Z-1a2b3c4d",
        "harness report --audit-target my-trail.toml --save-baseline my-trail.baseline.json",
        "harness report --into docs/adoption.md --check",
        "harness report --verify --from runs",
    ),
)
@options.option(
    "--from",
    "folders",
    several=True,
    metavar="DIR...",
    section="Source",
    shell_complete=completion.folder_names,
    help="run folders to merge, also from other machines, in place of those in the reports folder",
)
@options.option(
    "--verify",
    "verify_only",
    is_flag=True,
    section="Integrity",
    help="only say for each run whether it is whole, edited, unfinished or not chained; exit with 1 if one was edited",
)
@options.option(
    "--statement",
    metavar="FILE",
    section="Integrity",
    shell_complete=completion.file_names,
    help="with --verify: also compare the runs with a statement about them",
)
@options.option(
    "--write-statement",
    "statement_file",
    metavar="FILE",
    section="Integrity",
    shell_complete=completion.file_names,
    help="only write an in-toto statement about the runs, for a CI service to sign",
)
@options.option(
    "--complete", is_flag=True, section="Source", help="first run the topologies without evidence for this code"
)
@options.option("--fresh", is_flag=True, section="Source", help="with --complete: run all topologies again")
@options.option(
    "--since",
    metavar="RUN",
    section="Comparison",
    shell_complete=completion.run_names,
    help=f"also report what changed since other evidence: {ACCEPTED}; exit with 1 only for new Issues, and with 3 if "
    "nothing can be compared",
)
@options.baseline
@options.option(
    "--save-baseline",
    "baseline_file",
    metavar="FILE",
    section="Comparison",
    shell_complete=completion.file_names,
    help="also write what the checks of the audit trail found, such as NAME.baseline.json next to the target file",
)
@options.option(
    "--badge",
    is_flag=True,
    section="Output",
    help="print one line about the audit trail, for a badge or release notes, in place of the counts",
)
@options.option(
    "--into",
    "documents",
    multiple=True,
    metavar="FILE",
    section="Output",
    shell_complete=completion.file_names,
    help="also fill the tables between their markers in a document of yours; may be repeated",
)
@options.option(
    "--check", "check_only", is_flag=True, section="Output", help="with --into: change nothing, exit with 1 if outdated"
)
@options.option(
    "--markdown",
    is_flag=True,
    section="Output",
    help="print report.md on stdout, for the summary of a CI job: 200 KiB at most; the end names what is left out",
)
@options.running
def report(
    invocation: Invocation,
    folders: Sequence[str],
    documents: Sequence[str],
    statement: str | None,
    statement_file: str | None,
    since: str | None,
    baseline: str | None,
    baseline_file: str | None,
    *,
    verify_only: bool,
    complete: bool,
    fresh: bool,
    check_only: bool,
    markdown: bool,
    badge: bool,
    strict: bool,
) -> int:
    """Fill the tables from evidence.

    Evidence of other code, other topology files or other servers than the newest is left out, and the report says so.
    So are runs that were edited: the exit code is then 1.
    """
    _require_consistent(folders, documents, complete=complete, fresh=fresh, check_only=check_only)
    compares = {"--since": since is not None, "--baseline": baseline is not None}
    writes = {"--badge": badge, "--save-baseline": baseline_file is not None}
    _require_compatible(
        compares,
        {"--badge": badge, "--markdown": markdown},
        *({name: given, "--check": check_only} for name, given in (compares | writes).items()),
    )
    only = "--verify" if verify_only else "--write-statement" if statement_file is not None else ""
    if only:
        fills = complete or markdown or any((compares | writes).values())
        _require_alone(only, documents, fills=fills, two=verify_only and statement_file is not None)
    if statement is not None and not verify_only:
        raise UsageError("--statement requires --verify", hint="harness report --verify --statement FILE")
    if verify_only:
        return verify_runs(invocation, folders, statement=statement, strict=strict)
    if statement_file is not None:
        return write_statement(invocation, folders, statement_file)
    settings = invocation.settings
    # before anything runs: a wrong name is found at once, and `latest` is not the run that --complete makes
    older = evidence_of(settings, since) if since is not None else None
    known = find_baseline(settings, baseline) if older is None else None
    if folders:
        evidence = evidence_from(settings, folders)
    else:
        require_writable(settings.reports)
        evidence = evidence_here(settings)
    runs: list[StoredRun] = []
    if complete:
        evidence, runs = _complete(invocation, evidence, fresh=fresh)
    for reason in (*evidence.edited, *evidence.left_out):
        invocation.terminal.say(one_line(f"note: {reason}"))
    up_to_date = [_fill_document(invocation, name, evidence, check_only=check_only) for name in documents]
    if check_only:
        return ExitCode.OK if all(up_to_date) else ExitCode.ISSUE
    changes = compare(older, newer_than(older, scoped(evidence)), (since or "", THIS_REPORT)) if older else None
    compared = known.compared_with(evidence) if known else None
    paths = fill(evidence, settings, changes, compared)
    if baseline_file is not None:
        save_baseline(invocation, evidence, baseline_file)
    if badge:
        sys.stdout.write(f"{one_line(badge_of(evidence))}\n")
    else:
        _print(settings, evidence, changes, markdown=markdown)
    say_where(invocation, runs[-1].folder if runs else None, paths)
    answers = [row.answer for row in evidence.rows]
    say_limits(invocation, answers)
    say_causes(invocation, answers)
    say_issues(invocation, answers)
    if compared is not None:
        say_baseline(invocation, compared)
    new_issues = failing(compared, answers) if compared else _new_issues(changes)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        # an error would mark what does not fail the report
        shown = (row for row in answers if new_issues is None or not row[1].gates or _key(row[1]) in new_issues)
        for line in workflow_commands(issue_groups(shown)):
            invocation.terminal.say(line)
    code = exit_code(invocation, answers, runs, strict=strict, new_issues=new_issues)
    # an edited run is a finding, whatever the other runs show
    if evidence.edited and code is not ExitCode.INTERRUPTED:
        return ExitCode.ISSUE
    # as `diff` exits: an answer to "what changed" needs rows to compare
    says_nothing = changes is not None and changes.void and code in {ExitCode.OK, ExitCode.NOT_RUN}
    return ExitCode.NOTHING_VERIFIED if says_nothing else code


def _print(settings: Settings, evidence: Evidence, changes: Changes | None, *, markdown: bool) -> None:
    """Print the counts and what changed, or the whole report.md."""
    if markdown:
        sys.stdout.write(summary((settings.rendered / "report.md").read_text(encoding="utf-8")))
        return
    print_evidence_recap(scoped(evidence))
    if changes is not None:
        sys.stdout.writelines(f"{line}\n" for line in ("", *lines_of(scrubbed(changes))))


def _require_compatible(*pairs: dict[str, bool]) -> None:
    """Reject two options that exclude each other.

    :param pairs: by the name of the option, whether it was given.
    """
    for pair in pairs:
        if all(pair.values()):
            raise UsageError(f"found {' and '.join(pair)}, expected one of them")


def _key(result: Result) -> tuple[str, str]:
    return result.target, result.check


def _new_issues(changes: Changes | None) -> Collection[tuple[str, str]] | None:
    """Return the rows whose Issues fail the report; None for all. An edited run excuses no Issue."""
    return None if changes is None or changes.edited else changes.new_issues


def _require_alone(option: str, documents: Sequence[str], *, fills: bool, two: bool) -> None:
    """Reject options that fill tables with one that does not.

    :param fills: whether another option asks for tables.
    :param two: whether both options that fill no tables were given.
    """
    if documents or fills:
        raise UsageError(f"{option} fills no tables", hint=f"harness report {option} --from DIR")
    if two:
        raise UsageError("found --verify and --write-statement, expected one of them")


def _require_consistent(
    folders: Sequence[str], documents: Sequence[str], *, complete: bool, fresh: bool, check_only: bool
) -> None:
    if fresh and not complete:
        raise UsageError("--fresh requires --complete", hint="harness report --complete --fresh")
    if not all(folders):
        raise UsageError("--from: found an empty name, expected a folder")
    if check_only and not documents:
        raise UsageError("--check requires --into", hint="harness report --into FILE --check")
    if complete and folders:
        raise UsageError(
            "found --complete and --from, expected one of them: --complete runs what is missing here, --from merges "
            "evidence of other machines"
        )


def _complete(invocation: Invocation, evidence: Evidence, *, fresh: bool) -> tuple[Evidence, list[StoredRun]]:
    """Run the topologies without complete evidence; return the merged evidence and the runs.

    :param fresh: run all topologies.
    """
    settings = invocation.settings
    declared = {topology.name: topology for topology in named_topologies(settings, [])}
    on_demand = {name for name, topology in load_topologies(settings.topologies).items() if topology.on_demand}
    known = [name for name in evidence.names() if name in declared or name in on_demand]
    # evidence about a topology of the same name in another folder completes nothing
    others = {
        name for name, found in evidence.topologies.items() if found.declared != declared.get(name, found.declared)
    }
    missing = known if fresh else [name for name in known if name in {*evidence.missing(settings.engine), *others}]
    for name in known:
        if outdated := evidence.to_repeat(name):
            for row in outdated:
                again = f"run it again: {row.result.reproduce}"
                invocation.terminal.say(one_line(f"{name}: {row.planned.check}: {row.result.reason}; {again}"))
        elif name not in missing:
            invocation.terminal.say(f"{name}: the evidence for this code is complete; --fresh runs it again")
    runs: list[StoredRun] = []
    for names in _batches(settings, missing):
        if invocation.signals.received:
            break
        if runs:
            fill(evidence, settings)
            done = ", ".join(runs[-1].record.topologies)
            invocation.terminal.say(f"the tables of {done} are in {settings.rendered}/; the others follow")
        selection = Selection(
            topologies=tuple(named_topologies(settings, names)), checks=settings.catalogue.checks, named=False
        )
        runs.append(run_selection(invocation, selection))
        evidence = evidence_here(settings)
    say_interrupted(invocation, evidence, runs)
    return evidence, runs


def _batches(settings: Settings, missing: list[str]) -> list[list[str]]:
    """Return the topologies of each run.

    People choose the native engine for early results, so it runs the common pool modes in a first run of their own.
    """
    if settings.engine != "native":
        return [missing] if missing else []
    first = [name for name in missing if name in _FIRST]
    others = [name for name in missing if name not in _FIRST]
    return [batch for batch in (first, others) if batch]


def _fill_document(invocation: Invocation, name: str, evidence: Evidence, *, check_only: bool) -> bool:
    """Fill the tables of a document, or only compare them; return whether they were up to date."""
    up_to_date = put_into(Path(name), evidence, invocation.settings, check=check_only)
    outdated = "outdated" if check_only else "filled again"
    invocation.terminal.say(f"{name}: {'up to date' if up_to_date else outdated}")
    return up_to_date
