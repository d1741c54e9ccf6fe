"""All gates of a repository, in the order of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.errors import UsageError
from harness.gates.copies import Copies
from harness.gates.documents import owners_row, template_row
from harness.gates.quarantine import quarantine_row
from harness.gates.runbooks import runbook_rows
from harness.gates.secret_rows import secret_rows
from harness.gates.seeding import seeded_rows
from harness.gates.smoke import smoke_row
from harness.gates.tree import Tree
from harness.gates.workflow_rows import read_workflows, workflow_rows
from harness.model import Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date
    from pathlib import Path

    from harness.gates.declaration import GatesDeclaration
    from harness.gates.rows import GateRow


class Gate(Struct, frozen=True):
    """A gate: its name, what must be true, and what is left to people."""

    name: str
    sentence: str
    left: str = ""


GATES = (
    Gate(
        "workflow.present",
        "A workflow runs for each pull request.",
        "which jobs the main branch requires; a skipped job counts as passed",
    ),
    Gate("workflow.lint", "A workflow of pull requests runs a linter, and its failure fails the workflow."),
    Gate("workflow.types", "A workflow of pull requests runs a type checker, and its failure fails the workflow."),
    Gate("workflow.unit", "A workflow of pull requests runs unit tests, and their failure fails the workflow."),
    Gate("workflow.smoke", "A workflow of pull requests runs a smoke test, and its failure fails the workflow."),
    Gate(
        "workflow.failures",
        "No step, script or task hides the failure of a check.",
        "tasks that are known by their name only: those of nox, tox, just and other runners",
    ),
    Gate(
        "smoke.fails",
        "A smoke script fails when each program that it runs fails, and the code of the repository is broken.",
        "whether it notices other mistakes",
    ),
    Gate("seeded", "Each declared check passes, and fails with its seeded mistake.", "whether the seeds are typical"),
    Gate("template.fields", "The template of pull requests has the fields.", "whether authors fill them"),
    Gate("codeowners.patterns", "CODEOWNERS exists, and its patterns match files.", "whether the owners exist"),
    Gate("runbooks.links", "Runbooks exist, and their links lead somewhere.", "whether URLs exist"),
    Gate("runbooks.commands", "The commands that runbooks mark as runnable run.", "whether they do what the text says"),
    Gate("secrets.tree", "No file contains a secret.", "secrets of an unknown form"),
    Gate("secrets.history", "No commit of a branch or tag adds a secret.", "commits that no branch or tag has"),
    Gate("quarantine.entries", "Each test in quarantine has an id, an issue link, a date, an owner and an expiry."),
)  # fmt: skip


def judge_gates(
    root: Path,
    declared: GatesDeclaration,
    today: date,
    *,
    runs: bool,
    say: Callable[[str], None],
    stopped: Callable[[], bool],
) -> list[GateRow]:
    """Judge all gates of a repository.

    :param runs: whether declared checks and the commands of runbooks run, in copies.
    :param say: called with every line of their output.
    :param stopped: returns whether the command is ending.
    :raises UsageError: when `root` is not a folder.
    """
    if not root.is_dir():
        raise UsageError("not a folder", where=str(root), hint="name the folder of a repository: harness gates .")
    tree = Tree(root)
    copies = Copies(tree, declared.also_copy, say, stopped) if runs else None
    workflows = read_workflows(tree, declared.steps)
    has_smoke = any(check.name == "smoke" for check in declared.checks)
    rows = [
        *workflow_rows(tree, workflows),
        smoke_row(tree, workflows, copies, declared=has_smoke),
        *seeded_rows(tree, declared.checks, copies),
        template_row(tree, declared.template_fields),
        owners_row(tree),
        *runbook_rows(tree, declared, copies),
        *secret_rows(tree, declared.secrets, stopped),
        quarantine_row(tree, declared.quarantine, today),
    ]
    return [_unless_omitted(row, declared.omit.get(row.gate)) for row in rows]  # type: ignore[call-overload]


def _unless_omitted(row: GateRow, reason: str | None) -> GateRow:
    """Return the row, N/A if the repository omits its gate. An OK stays an OK."""
    if reason is None or row.status is Status.OK:
        return row
    return replace(row, status=Status.NA, reason=f"omitted: {reason}", places=(), fix="")
