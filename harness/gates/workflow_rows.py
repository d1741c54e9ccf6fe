"""Rows about CI: what runs for each pull request, and whether its failure counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.gates.expansion import Expansion
from harness.gates.github import github_workflows
from harness.gates.gitlab import gitlab_workflow
from harness.gates.programs import Kind
from harness.gates.rows import GateRow, Place, issue, judged, not_run
from harness.gates.steps import Workflows, joined
from harness.model import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.gates.declaration import Steps
    from harness.gates.tree import Tree

_OTHER_SYSTEMS = (
    "Jenkinsfile", ".circleci/config.yml", "azure-pipelines.yml", "bitbucket-pipelines.yml", ".travis.yml",
    ".drone.yml", ".woodpecker.yml", ".woodpecker.yaml", ".buildkite/pipeline.yml", ".forgejo/workflows",
    ".gitea/workflows", "appveyor.yml", ".cirrus.yml", ".builds",
)  # fmt: skip
_WORDS = {
    Kind.LINT: "a linter",
    Kind.TYPES: "a type checker",
    Kind.UNIT: "unit tests",
    Kind.SMOKE: "a smoke test",
}
_SHOWN = 5


def read_workflows(tree: Tree, declared: Steps) -> Workflows:
    """Return what all workflows execute."""
    expansion = Expansion(tree, declared)
    gitlab = gitlab_workflow(tree, expansion)
    parts = [*github_workflows(tree, expansion), *([gitlab] if gitlab else [])]
    return joined([*parts, Workflows(unread=tuple(expansion.unread))])


def workflow_rows(tree: Tree, found: Workflows) -> list[GateRow]:
    """Return the rows of continuous integration."""
    other = [name for name in tree.files if name.startswith(_OTHER_SYSTEMS)]
    return [_present(found, other), *(_kind_row(kind, found, other) for kind in Kind), _failures(found)]


def _present(found: Workflows, other: list[str]) -> GateRow:  # noqa: PLR0911 -- one for each outcome
    gate, fix = "workflow.present", "add a workflow that runs on pull_request"
    if found.broken and not found.triggers:
        return judged(gate, broken=found.broken, ok="", fix="correct the workflow")
    if found.triggers and (names := _excluded(found.excluded)):
        reason = f"a pull request that changes only {names} runs no workflow: `paths` exclude it"
        return not_run(gate, reason, "remove the filter, or let people decide", found.triggers)
    if found.triggers:
        broken = [place for place in found.broken if place.what.startswith(("invalid", "not a workflow"))]
        return judged(
            gate,
            broken=broken,
            shown=found.triggers,
            ok="a workflow runs for pull requests",
            fix="correct the workflow",
        )
    if found.doubtful:
        return judged(gate, undecided=found.doubtful, ok="", fix="name the main branch in `branches`")
    if found.unread:
        return judged(gate, undecided=found.unread, ok="", fix=fix)
    if other:
        return not_run(gate, f"{other[0]} is not read: only GitHub Actions and GitLab CI are", "review it by hand")
    return issue(gate, "no workflow runs for pull requests", fix, found.elsewhere)


def _excluded(parts: Sequence[frozenset[str]]) -> str:
    """Return a file that each of the parts excludes, and how many there are; "" without one."""
    common = sorted(frozenset.intersection(*parts)) if parts else []
    return common[0] + (f" (or {len(common) - 1} other files)" if common[1:] else "") if common else ""


def _kind_row(  # noqa: PLR0911 -- one for each outcome
    kind: Kind, found: Workflows, other: list[str]
) -> GateRow:
    gate = f"workflow.{kind}"
    steps = [step for step in found.executed if kind in step.kinds]
    keeping = [step for step in steps if not (step.lost or step.unclear or step.never)]
    kept = [step.place for step in keeping]
    if kept and (names := _excluded([step.excluded for step in keeping])):
        reason = f"`paths` exclude {names}, and whether a change of it alone needs {_WORDS[kind]} is not known"
        return not_run(gate, reason, "remove the filter, or let people decide", tuple(dict.fromkeys(kept))[:_SHOWN])
    if kept:
        reason = f"{_WORDS[kind]}: {kept[0].what}"
        return GateRow(gate=gate, status=Status.OK, reason=reason, places=tuple(dict.fromkeys(kept))[:_SHOWN])
    undecided = [step.place for step in steps if not step.lost and not step.never]
    if undecided:
        return judged(gate, undecided=undecided, ok="", fix="run it without a condition, or review it by hand")
    if steps:
        fix = "let its failure fail the workflow of each pull request"
        return judged(gate, broken=[step.place for step in steps], ok="", fix=fix)
    declare = f'name its command: [gates.steps] {kind} = ["…"]'
    unseen = [step.place for step in found.executed if (step.unseen or step.by_name) and not step.never]
    if unseen or found.unread:
        places = [*unseen, *found.unread]
        reason = f"no step is recognised as {_WORDS[kind]}, and not every step is read: {places[0].what}"
        return not_run(gate, reason, declare, tuple(dict.fromkeys(places))[:_SHOWN])
    if other and not found.triggers:
        return not_run(gate, f"{other[0]} is not read", "review it by hand")
    return issue(gate, f"no pull-request workflow runs {_WORDS[kind]}", f"add it, or {declare}", found.triggers)


def _failures(found: Workflows) -> GateRow:
    gate = "workflow.failures"
    running = [step for step in found.executed if not step.never]
    checks = [step for step in running if step.kinds]
    undecided = [step.place for step in checks if step.unclear and not step.lost]
    undecided += [
        Place(step.path, step.line, f"{step.text}: {step.lost}; whether it checks anything is not known")
        for step in running
        if step.unseen and step.lost
    ]
    hidden = [place for place in found.broken if not place.what.startswith(("invalid", "not a workflow"))]
    if not checks and not hidden and not undecided:
        return not_run(gate, "no step is recognised as a check", 'name commands: [gates.steps] unit = ["…"]')
    return judged(
        gate,
        broken=[*hidden, *(step.place for step in checks if step.lost)],
        undecided=[*undecided, *found.unread],
        shown=[step.place for step in checks][:_SHOWN],
        ok="the failure of each recognised check fails its workflow",
        fix="let the failure of the command fail the step: docs/gates.md lists what hides it",
    )
