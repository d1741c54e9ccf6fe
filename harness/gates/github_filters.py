"""Filters of `on: pull_request`: which pull requests a workflow does not run for.

https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax#onpull_requestpull_request_targetbranchesbranches-ignore
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.gates.tree import glob

if TYPE_CHECKING:
    import re

    from harness.gates.tree import Tree
    from harness.gates.yaml_nodes import Node

#: names of main branches, where git does not know the name
_MAIN = ("main", "master", "trunk", "develop", "dev")
_EACH_COMMIT = frozenset({"opened", "synchronize"})


class Filters(Struct, frozen=True):
    """What the filters exclude. Nothing here means that the workflow runs for each pull request."""

    #: why it does not run for pull requests into the main branch, or for their commits
    never: str = ""
    #: why that is not known
    unclear: str = ""
    #: files of code whose changes alone do not start it
    excluded: frozenset[str] = frozenset()
    #: the filters, in words
    shown: str = ""


def filters_of(event: Node, tree: Tree) -> Filters:
    """Return what the filters of `pull_request` exclude in a repository."""
    keys = {key: value.words() for key, value in event.items()}
    shown = "; ".join(f"{key}: {', '.join(values)}" for key, values in keys.items())
    types = keys.get("types", [])
    if types and not set(types) >= _EACH_COMMIT:
        return Filters(never=f"`types: {', '.join(types)}` excludes the commits of a pull request", shown=shown)
    never = unclear = ""
    for key, includes in (("branches", True), ("branches-ignore", False)):
        if key not in keys:
            continue
        known = [tree.main_branch] if tree.main_branch else []
        patterns = _compiled(keys[key])
        runs = [_matches(patterns, name) is includes for name in known or _MAIN]
        named = f"`{key}: {', '.join(keys[key])[:80]}`"
        if known and not runs[0]:
            never = f"{named} excludes pull requests into {tree.main_branch}"
        elif not known and not (any(runs) if includes else all(runs)):
            unclear = f"whether {named} includes pull requests into the main branch is not known"
    return Filters(never=never, unclear=unclear, excluded=_excluded(keys, tree), shown=shown)


def _excluded(keys: dict[str, list[str]], tree: Tree) -> frozenset[str]:
    excluded: set[str] = set()
    for key, excludes in (("paths", False), ("paths-ignore", True)):
        if key in keys:
            patterns = _compiled(keys[key])
            excluded |= {name for name in tree.code if _matches(patterns, name) is excludes}
    return frozenset(excluded)


def _compiled(patterns: list[str]) -> list[tuple[re.Pattern[str], bool]]:
    """Return patterns, each with whether it includes; `!` excludes."""
    return [(glob(pattern.removeprefix("!")), not pattern.startswith("!")) for pattern in patterns]


def _matches(patterns: list[tuple[re.Pattern[str], bool]], name: str) -> bool:
    """Say whether the last pattern that matches a name includes it."""
    return next((includes for pattern, includes in reversed(patterns) if pattern.fullmatch(name)), False)
