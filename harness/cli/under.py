"""`verify --under CONTROL`: watch one control turn its check to Issue."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from harness.cli.exit_codes import ExitCode, infrastructure_failed, was_interrupted
from harness.cli.running import run_selection
from harness.cli.selection import require_breakable
from harness.config import nearest
from harness.errors import UsageError
from harness.model import Status
from harness.printable import one_line

if TYPE_CHECKING:
    from harness.checks.registry import Control
    from harness.cli.invocation import Invocation
    from harness.cli.selection import Selection
    from harness.cli.settings import Settings
    from harness.model import Result
    from harness.store import StoredRun


def control_of(selection: Selection, name: str, settings: Settings) -> Control:
    """Return the control of the selected check.

    :raises UsageError: when not exactly one check is selected, or the check has no control of this name.
    """
    if len(selection.checks) != 1:
        raise UsageError(
            f"--under: found {len(selection.checks)} selected checks, expected one",
            hint="harness verify transaction --check capture.insert --under insert-trigger-disabled",
        )
    require_breakable(settings, "--under")
    [check] = selection.checks
    controls = {control.name: control for control in settings.catalogue.controls_of(check.id)}
    if name not in controls:
        raise UsageError(f"--under: {check.id} has no control {name!r}", hint=nearest(name, controls))
    return controls[name]


def verify_under(invocation: Invocation, selection: Selection, control: Control, *, strict: bool) -> int:
    """Run the check under the control, print its expectations, and say whether the control turned the check to Issue.

    The run is kept below `under/` in the reports folder and is part of no report.
    """
    run = run_selection(invocation, selection, under=control.name)
    for result in run.answers():
        _print_result(invocation, result, control)
    invocation.terminal.say(f"run: {run.folder} (under a control, so no report includes it)")
    return _exit_code(invocation, run, control, strict=strict)


def _print_result(invocation: Invocation, result: Result, control: Control) -> None:
    lines = [f"{result.target:<12} {result.status} {result.check} under {control.name}: {_verdict(result, control)}"]
    width = max((len(expectation.name) for expectation in result.expectations), default=0)
    for expectation in result.expectations:
        held = "held" if expectation.held else "broken" if expectation.counts else "ended"
        aimed = "  (named by the control)" if expectation.name == control.at else ""
        lines.append(
            f"  {held:<6}  {expectation.name:<{width}}  expected {expectation.expected}, "
            f"observed {expectation.observed}{aimed}"
        )
    sys.stdout.write("".join(f"{one_line(invocation.redactor(line))}\n" for line in lines))
    sys.stdout.flush()


def _verdict(result: Result, control: Control) -> str:
    if _turned(result, control):
        return f"the control turned the check to Issue at {control.at!r}"
    if result.status in {Status.NA, Status.NOT_RUN}:
        return result.reason
    if result.status is Status.OK:
        return f"the check stayed OK, expected an Issue at {control.at!r}"
    return f"the check turned to Issue elsewhere, expected {control.at!r}: {result.reason}"


def _turned(result: Result, control: Control) -> bool:
    return result.status is Status.ISSUE and any(
        expectation.name == control.at and expectation.broken for expectation in result.expectations
    )


def _exit_code(invocation: Invocation, run: StoredRun, control: Control, *, strict: bool) -> ExitCode:
    if was_interrupted(invocation, [run]):
        return ExitCode.INTERRUPTED
    results = run.answers()
    if any(result.status in {Status.OK, Status.ISSUE} and not _turned(result, control) for result in results):
        return ExitCode.ISSUE
    if not any(_turned(result, control) for result in results):
        return ExitCode.NOTHING_VERIFIED
    if infrastructure_failed(run):
        return ExitCode.NOTHING_VERIFIED
    not_run = any(result.status is Status.NOT_RUN for result in results)
    return ExitCode.NOT_RUN if strict and not_run else ExitCode.OK
