"""GitLab CI: the scripts of jobs that run for merge requests, or for each push to their branch.

Keys: https://docs.gitlab.com/ci/yaml/. GitLab's runner starts Bash with `set -eo pipefail`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.gates.expansion import Expansion, Source
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
#: conditions that no merge request meets, and no push to its branch
_NEVER = re.compile(
    r"\$CI_COMMIT_TAG\s*(?:$|&&|=~|!=\s*(?:null|\"\"|''))"
    r"|\$CI_COMMIT_(?:BRANCH|REF_NAME)\s*==\s*(?:\$CI_DEFAULT_BRANCH|([\"'])(?:main|master)\1)"
    r"|\$CI_DEFAULT_BRANCH\s*==\s*\$CI_COMMIT_(?:BRANCH|REF_NAME)"
    r"|\$CI_PIPELINE_SOURCE\s*==\s*([\"'])(?:schedule|web|api|trigger|pipeline)\2"
)


#: conditions that each merge request meets, or each push to its branch
_ALWAYS = re.compile(
    r"\$CI_PIPELINE_SOURCE\s*==\s*([\"'])(?:merge_request_event|push)\1|\$CI_MERGE_REQUEST_I?ID|\$CI_COMMIT_BRANCH"
    r"|\$CI_(?:COMMIT_BRANCH|COMMIT_REF_NAME)\s*!=\s*\$CI_DEFAULT_BRANCH"
    r"|\$CI_MERGE_REQUEST_TARGET_BRANCH_NAME\s*==\s*\$CI_DEFAULT_BRANCH|\$CI_COMMIT_TAG\s*==\s*null"
)


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
    for name, job in root.items():
        if name in _RESERVED or name.startswith(".") or not _of(root, job, "script").exists:
            continue
        never = _excluded(root, job)
        triggers += [] if never else [Place(_FILE, job.line - 1, f"job {name}")]
        for part in ("before_script", "script", "after_script"):
            executed += _script(root, job, part, never, expansion, unread)
    return Workflows(triggers=tuple(triggers[:1]), executed=tuple(executed), unread=tuple(unread))


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


def _excluded(root: Node, job: Node) -> str:
    """Return why a job does not run for merge requests; "" when it runs, or may run."""
    only, rules = _of(root, job, "only"), _of(root, job, "rules")
    refs = only["refs"].words() if only.is_table else only.words()
    if refs and not {"merge_requests", "branches", "pushes"} & set(refs) and not any("/" in ref for ref in refs):
        return f"`only: {', '.join(refs)}` excludes merge requests"
    if _of(root, job, "when").text == "manual":
        return "`when: manual`: it runs only when somebody starts it"
    conditions = [rule["if"].text for rule in rules.entries() if rule["when"].text not in {"never", "manual"}]
    if conditions and all(_NEVER.search(text) and "||" not in text for text in conditions):
        return f"`rules` with `{conditions[0]}` exclude merge requests"
    return ""


def _tolerated(node: Node) -> Fate:
    if node.text.lower() == "true":
        return Fate(lost="`allow_failure` hides its failure")
    return Fate(unclear="`allow_failure` tolerates some exit codes") if node.is_table else Fate()


def _by_rules(rules: Node) -> Fate:
    """Return what the first rule that each merge request meets does to a failure; unclear when no rule is known to."""
    for rule in rules.entries():
        part = next((key for key in ("changes", "exists") if rule[key].exists), "")
        if rule["when"].text in {"never", "manual"} or _NEVER.search(rule["if"].text):
            continue
        if not part and (not rule["if"].exists or _ALWAYS.fullmatch(rule["if"].text.strip())):
            return _tolerated(rule["allow_failure"])
    return Fate(unclear="whether one of its `rules` holds is not evaluated") if rules.exists else Fate()


def _script(
    root: Node, job: Node, part: str, never: str, expansion: Expansion, unread: list[Place]
) -> Iterator[Executed]:
    lines = _of(root, job, part).flat()
    fate = _tolerated(_of(root, job, "allow_failure")).within(_by_rules(_of(root, job, "rules")))
    if part == "after_script":
        fate = Fate(lost="`after_script` decides no result").within(fate)
    for line in lines:
        source = Source(
            text=line.text, path=_FILE, line=line.first_line, errexit=True, pipefail=True, fate=fate, never=never
        )
        try:
            yield from expansion.executed(source)
        except UnreadableScriptError as error:
            unread.append(Place(_FILE, line.line, f"a script that is not read: {error}"))
