"""GitLab CI: the scripts of jobs that run for merge requests, or for each push to their branch.

Keys: https://docs.gitlab.com/ci/yaml/. GitLab's runner starts Bash with `set -eo pipefail`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.gates.expansion import Expansion, Source
from harness.gates.gitlab_rules import Decision, decide
from harness.gates.rows import Place
from harness.gates.shell_rules import Fate
from harness.gates.shell_words import UnreadableScriptError
from harness.gates.steps import Executed, Workflows
from harness.gates.yaml_nodes import LARGEST, Node, read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.gates.tree import Tree

_FILE = ".gitlab-ci.yml"
_RESERVED = frozenset(
    {"default", "include", "stages", "variables", "workflow", "image", "services", "cache", "spec", "pages"}
)
_DEEPEST = 5


def gitlab_workflow(tree: Tree, expansion: Expansion) -> Workflows | None:
    """Return what the pipeline executes; None without one."""
    text = tree.text(_FILE, LARGEST)
    if text is None:
        return Workflows(unread=(Place(_FILE, 0, "it cannot be read"),)) if _FILE in tree.files else None
    root = read_yaml(text)
    if isinstance(root, str):
        place = Place(_FILE, 0, root)
        return Workflows(broken=(place,)) if root.startswith("invalid") else Workflows(unread=(place,))
    executed: list[Executed] = []
    unread = [Place(_FILE, node.line, "included files are not read") for node in [root["include"]] if node.exists]
    triggers: list[Place] = []
    all_jobs = _decided(root, root["workflow"])
    for name, job in root.items():
        if name in _RESERVED or name.startswith("."):
            continue
        if _of(root, job, "trigger")["include"].exists:
            unread.append(Place(_FILE, job.line - 1, f"the pipeline that job {name} starts is not read"))
        if not _of(root, job, "script").exists:
            continue
        decision = _decided(root, job)
        decision = Decision(decision.fate.within(all_jobs.fate), all_jobs.never or decision.never)
        triggers += [] if decision.never else [Place(_FILE, job.line - 1, f"job {name}")]
        executed += _scripts(root, job, decision, expansion, unread)
    shown = tuple(triggers[:1])
    return Workflows(
        triggers=shown,
        excluded=(frozenset(),) * len(shown),
        executed=tuple(executed),
        unread=tuple(unread),
    )


def _of(root: Node, job: Node, key: str, depth: int = 0) -> Node:
    """Return a key of a job, of the jobs that it extends, or of the defaults."""
    if job[key].exists or depth > _DEEPEST:
        return job[key]
    for parent in reversed(job["extends"].words()):
        if (found := _of(root, root[parent], key, depth + 1)).exists:
            return found
    if depth or key not in {"before_script", "after_script"}:
        return Node()
    return root["default"][key] if root["default"][key].exists else root[key]


def _decided(root: Node, job: Node) -> Decision:
    """Return whether a job runs for merge requests, and what happens to its failure."""
    rules = list(_entries(root, _of(root, job, "rules")))
    only, excepted, when, allow_failure = (_of(root, job, key) for key in ("only", "except", "when", "allow_failure"))
    return decide(rules, only, excepted, when, allow_failure)


def _entries(root: Node, node: Node, depth: int = 0) -> Iterator[Node]:
    """Yield the entries of a list, and those that `!reference [job, key]` names."""
    for entry in node.entries():
        if entry.is_reference and depth < _DEEPEST:
            names = entry.words()
            yield from _entries(root, root[names[0]][names[1]] if names[1:] else Node(), depth + 1)
        else:
            yield entry


def _scripts(
    root: Node, job: Node, decision: Decision, expansion: Expansion, unread: list[Place]
) -> Iterator[Executed]:
    """Yield the commands of a job: `before_script` and `script` run in one shell, `after_script` in another."""
    for parts in (("before_script", "script"), ("after_script",)):
        entries = [entry for part in parts for entry in _entries(root, _of(root, job, part))]
        lines = [line for entry in entries for line in entry.flat()]
        if not lines:
            continue
        fate = decision.fate
        if parts[0] == "after_script":
            fate = Fate(lost="`after_script` decides no result").within(fate)
        text, first = "", lines[0].first_line
        for line in lines:  # in its own line of the file, if that comes later
            behind = line.first_line - first - text.count("\n")
            text += "\n" * max(behind, 0) + line.text.rstrip("\n") + "\n"
        source = Source(text=text, path=_FILE, line=first, pipefail=True, fate=fate, never=decision.never)
        try:
            yield from expansion.executed(source)
        except UnreadableScriptError as error:
            unread.append(Place(_FILE, first, f"a script that is not read: {error}"))
