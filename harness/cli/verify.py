"""`verify`: run checks in topologies or in an environment, then fill the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.cli import completion, options
from harness.cli.baseline import failing, find_baseline, say_baseline
from harness.cli.environments import verify_environment
from harness.cli.evidence import evidence_here
from harness.cli.exit_codes import exit_code, rows_of
from harness.cli.filling import fill
from harness.cli.invocation import Invocation, command
from harness.cli.recap import print_recap, say_causes, say_issues, say_limits, say_where
from harness.cli.repeating import require_repeatable, say_attempts
from harness.cli.run_evidence import evidence_of
from harness.cli.running import run_selection
from harness.cli.selection import print_selection, select_rows
from harness.cli.under import control_of, verify_under
from harness.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


@command(
    "verify",
    section="Evidence",
    examples=(
        "harness verify transaction",
        "harness verify direct transaction --suite actor --check capture.insert",
        "harness verify transaction --set postgres=15 --engine docker",
        "harness verify direct transaction --job-engine absurd --job-engine path/to/mine.toml",
        "harness verify transaction --check capture.insert --under insert-trigger-disabled",
        "harness verify transaction --suite pooling --repeat 59",
        "harness verify transaction --audit-target my-trail.toml --baseline my-trail.baseline.json",
        "harness verify --environment staging --dry-run",
    ),
)
@options.selection
@options.option(
    "--environment",
    metavar="NAME",
    section="Selection",
    shell_complete=completion.environment_names,
    help="verify an environment of harness.toml instead of topologies; only checks that are safe there run",
)
@options.option(
    "--under",
    metavar="CONTROL",
    section="Selection",
    shell_complete=completion.control_names,
    help="run the one selected check under this control, which breaks the system under test on purpose; exits with 0 "
    "if the check turns to Issue at the expectation that the control names, otherwise with 1; reports omit the run",
)
@options.repeat
@options.baseline
@options.running
def verify(
    invocation: Invocation,
    topologies: Sequence[str],
    suites: Sequence[str],
    checks: Sequence[str],
    *,
    dry_run: bool,
    environment: str | None,
    under: str | None,
    repeat: int,
    baseline: str | None,
    strict: bool,
) -> int:
    """Run checks in topologies, and fill the tables.

    Without arguments, all checks run in all topologies but those on demand. The last lines name the evidence, the
    report, and for each Issue the command that reproduces it.
    """
    settings = invocation.settings
    require_repeatable(repeat, environment=environment is not None, under=under is not None)
    if baseline is not None and (environment is not None or under is not None):
        raise UsageError("--baseline compares topologies that ran without a control")
    if environment is not None:
        if topologies or under is not None:
            other = "topologies" if topologies else "--under"
            raise UsageError(f"found {other} and --environment, expected one of them")
        if settings.job_engines.chosen:
            raise UsageError("found --job-engine and --environment, expected one of them")
        selected = settings.catalogue.select(suites, checks)
        return verify_environment(invocation, environment, selected, dry_run=dry_run, strict=strict)
    selection = select_rows(settings, topologies, suites, checks, repeat=repeat)
    control = None if under is None else control_of(selection, under, settings)
    if dry_run:
        print_selection(selection, settings, under="" if control is None else control.name)
        return 0
    if control is not None:
        return verify_under(invocation, selection, control, strict=strict)
    known = find_baseline(settings, baseline)
    run = run_selection(invocation, selection)
    evidence = evidence_here(settings.of_project)
    paths = fill(evidence, settings, baseline=known.compared_with(evidence) if known else None)
    compared = known.compared_with(evidence_of(settings, str(run.folder))) if known else None
    print_recap(run)
    say_attempts(invocation, run)
    say_where(invocation, run.folder, paths)
    say_limits(invocation, rows_of(run))
    say_causes(invocation, rows_of(run))
    say_issues(invocation, rows_of(run))
    if compared is not None:
        say_baseline(invocation, compared)
    new_issues = failing(compared, rows_of(run))
    return exit_code(invocation, rows_of(run), [run], strict=strict, new_issues=new_issues)
