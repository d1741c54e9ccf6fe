"""GitLab CI: whether a job runs for merge requests, and whether its failure counts, by `rules`, `only` and `when`.

A merge request is checked by its own pipeline, or by that of a push to its branch. Rules are read for both: the first
one that holds decides. https://docs.gitlab.com/ci/yaml/#rules
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.gates.shell_rules import Fate

if TYPE_CHECKING:
    from harness.gates.yaml_nodes import Node

#: conditions that no merge request meets, and no push to its branch
_NEVER = re.compile(
    r"\$CI_COMMIT_TAG\s*(?:$|&&|=~|!=\s*(?:null|\"\"|''))"
    r"|\$CI_COMMIT_(?:BRANCH|REF_NAME)\s*==\s*(?:\$CI_DEFAULT_BRANCH|([\"'])(?:main|master)\1)"
    r"|\$CI_DEFAULT_BRANCH\s*==\s*\$CI_COMMIT_(?:BRANCH|REF_NAME)"
    r"|\$CI_PIPELINE_SOURCE\s*==\s*([\"'])(?:schedule|web|api|trigger|pipeline|parent_pipeline)\2"
)
#: conditions that both pipelines meet
_ALWAYS = re.compile(r"\$CI_COMMIT_TAG\s*==\s*null")
#: those that only the pipeline of the merge request meets
_OF_REQUEST = re.compile(
    r"\$CI_PIPELINE_SOURCE\s*==\s*([\"'])merge_request_event\1|\$CI_MERGE_REQUEST_I?ID"
    r"|\$CI_MERGE_REQUEST_TARGET_BRANCH_NAME\s*==\s*\$CI_DEFAULT_BRANCH"
)
#: those that only the pipeline of a push meets; it may be off where a merge request is open
_OF_PUSH = re.compile(
    r"\$CI_PIPELINE_SOURCE\s*==\s*([\"'])push\1|\$CI_COMMIT_BRANCH"
    r"|\$CI_(?:COMMIT_BRANCH|COMMIT_REF_NAME)\s*!=\s*\$CI_DEFAULT_BRANCH"
    r"|\$CI_COMMIT_BRANCH\s*&&\s*\$CI_OPEN_MERGE_REQUESTS(?:\s*&&.*)?"
)
_REQUEST, _PUSH = "merge request", "push"
#: refs of `only` and `except`, and the pipelines that they name
_REFS = {"merge_requests": {_REQUEST}, "branches": {_PUSH}, "pushes": {_PUSH}}
_LONGEST = 60


class Decision(Struct, frozen=True):
    """What rules decide for merge requests. `never` says why the job does not run for them."""

    fate: Fate = Fate()
    never: str = ""


def decide(rules: list[Node], only: Node, excepted: Node, when: Node, allow_failure: Node) -> Decision:
    """Return what the keys of a job decide, or those of `workflow`."""
    tolerated = _tolerated(allow_failure)
    if when.text == "on_failure":
        return Decision(tolerated, "`when: on_failure`: it runs only after a failure")
    if when.text == "manual":
        if allow_failure.text.lower() == "false":
            return Decision(Fate(unclear="`when: manual`: it blocks the pipeline until somebody starts it"))
        return Decision(tolerated, "`when: manual`: it runs only when somebody starts it")
    if rules:
        return _by_rules(rules, tolerated)
    return _by_refs(only, excepted, tolerated)


def _by_refs(only: Node, excepted: Node, tolerated: Fate) -> Decision:
    pipelines = {_REQUEST, _PUSH}
    for node, sign in ((only, True), (excepted, False)):
        refs = node["refs"].words() if node.is_table else node.words()
        named = {name for ref in refs for name in _REFS.get(ref, ())}
        if sign and refs and not named and not any("/" in ref for ref in refs):
            return Decision(tolerated, f"`only: {', '.join(refs)}` excludes merge requests")
        if not sign:
            pipelines -= named
        other = [key for key in ("changes", "variables") if node.is_table and node[key].exists]
        if other:
            key = "only" if sign else "except"
            return Decision(tolerated.within(Fate(unclear=f"whether `{key}: {other[0]}` holds is not evaluated")))
        if sign and any("/" in ref for ref in refs) and not named:
            return Decision(tolerated.within(Fate(unclear=f"whether a branch matches `only: {refs[0]}` is not known")))
    if not pipelines:
        return Decision(tolerated, "`except` excludes merge requests and branches")
    return Decision(tolerated)


def _by_rules(rules: list[Node], tolerated: Fate) -> Decision:
    """Return what the first rule that holds decides; undecided when whether it holds is not known."""
    pipelines = {_REQUEST, _PUSH}
    doubt = ""
    last = ""
    for rule in rules:
        condition = " ".join(rule["if"].text.split())
        part = next((key for key in ("changes", "exists") if rule[key].exists), "")
        held = _holds(condition)
        shown = f"if: {condition[:_LONGEST]}" if condition else f"{part}: …" if part else "when: never"
        if held is not None and not held:
            last = last or shown
            continue  # for tags, schedules or the default branch
        if rule["when"].text == "never":
            if part or held is None:
                doubt = doubt or f"whether `{shown}` with `when: never` holds is not evaluated"
            else:
                pipelines -= held
                last = last or shown
        elif held is None or part:
            doubt = doubt or f"whether `{shown}` holds is not evaluated"
        elif held & pipelines:
            return _decided(rule, tolerated, doubt)
        if not pipelines:
            break
    if doubt:
        return Decision(tolerated.within(Fate(unclear=doubt)))
    return Decision(tolerated, f"`rules` with `{last or 'no rule'}` exclude merge requests")


def _decided(rule: Node, tolerated: Fate, doubt: str) -> Decision:
    """Return what a rule decides that holds for merge requests."""
    allowed = rule["allow_failure"]
    fate = _tolerated(allowed) if allowed.exists else tolerated
    if rule["when"].text == "on_failure":
        return Decision(fate, "`when: on_failure`: it runs only after a failure")
    if rule["when"].text == "manual":
        if fate.lost:
            return Decision(fate, "`when: manual` with `allow_failure`: it runs only when somebody starts it")
        fate = Fate(unclear="`when: manual`: it blocks the pipeline until somebody starts it").within(fate)
    return Decision(fate.within(Fate(unclear=doubt)) if doubt else fate)


def _holds(condition: str) -> set[str] | None:
    """Return the pipelines that meet a condition: none, one or both; None when it is not known."""
    if not condition or _ALWAYS.fullmatch(condition):
        return {_REQUEST, _PUSH}
    if "||" in condition:
        return None
    if _OF_REQUEST.fullmatch(condition):
        return {_REQUEST}
    if _OF_PUSH.fullmatch(condition):
        return {_PUSH}
    return set() if _NEVER.search(condition) else None


def _tolerated(node: Node) -> Fate:
    if node.text.lower() == "true":
        return Fate(lost="`allow_failure` hides its failure")
    return Fate(unclear="`allow_failure` tolerates some exit codes") if node.is_table else Fate()
