"""`decide`: whether the evidence allows the rollout of a workflow. The answer is on stdout."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from harness.cli import completion, options
from harness.cli.evidence import evidence_here
from harness.cli.exit_codes import ExitCode
from harness.cli.filling import report_of
from harness.cli.invocation import Invocation, command
from harness.config import nearest
from harness.errors import UsageError
from harness.printable import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence


@command(
    "decide",
    section="Evidence",
    examples=("harness decide", "harness decide publishing"),
    exit_codes=(
        ("0", "every workflow: yes"),
        ("1", "at least one workflow: not yet"),
        ("2", "invalid usage or configuration"),
    ),
)
@click.argument(
    "workflows",
    nargs=-1,
    metavar="[WORKFLOW]...",
    shell_complete=completion.workflow_names,
    help="names from harness.toml; all by default",
)
@options.reading
def decide(invocation: Invocation, workflows: Sequence[str]) -> int:
    """Say whether the evidence allows the rollout of a workflow, and what is missing."""
    settings = invocation.settings
    known = {workflow.name for workflow in settings.workflows}
    if not known:
        raise UsageError("harness.toml declares no workflow", hint="declare one in harness.toml: [[workflows]]")
    for name in workflows:
        if name not in known:
            raise UsageError(f"unknown workflow {name!r}", hint=nearest(name, known))
    evidence = evidence_here(settings)
    for sentence in evidence.edited:
        invocation.terminal.say(one_line(f"note: {sentence}"))
    decisions = report_of(evidence, settings).decisions
    chosen = [decision for decision in decisions if not workflows or decision.workflow in workflows]
    for decision in chosen:
        sys.stdout.write(f"{decision.workflow} on {decision.release}: {decision.answer}\n")
        for conjunct in decision.conjuncts:
            sys.stdout.write(f"  {'holds  ' if conjunct.held else 'missing'}  {conjunct.name}\n")
            for sentence in conjunct.missing:
                sys.stdout.write(f"           {one_line(invocation.redactor(sentence))}\n")
    return ExitCode.OK if all(decision.answer == "yes" for decision in chosen) else ExitCode.ISSUE
