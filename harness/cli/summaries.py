"""What the help text of the program says about a command, read from the command's source without importing it."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

#: longer than any first sentence
_LONGEST = 200


class Summary(NamedTuple):
    """The heading of a command in the help text of its group, and the first sentence of its own help text."""

    section: str
    text: str


def summary_of(place: str) -> Summary | None:
    """Return the summary of a command; None if its source does not show it, or is not installed.

    :param place: module and variable: `harness.cli.verify:verify`.
    """
    module, _, variable = place.partition(":")
    for node in _parsed(module).body:
        if isinstance(node, ast.FunctionDef) and node.name == variable:
            found = _keywords(node.decorator_list[:1])  # the outermost one makes the command
            found["help"] = ast.get_docstring(node) or ""
        elif isinstance(node, ast.Assign) and variable in map(ast.unparse, node.targets):
            found = _keywords([node.value])
        else:
            continue
        if found.get("section") and found.get("help"):
            return Summary(found["section"], click.Command(variable, help=found["help"]).get_short_help_str(_LONGEST))
    return None


@cache
def _parsed(module: str) -> ast.Module:
    spec = find_spec(module)
    source = getattr(spec.loader, "get_source", None) if spec else None
    return ast.parse((source(module) if source else None) or "")


def _keywords(calls: list[ast.expr]) -> dict[str, str]:
    """Return the texts that calls pass by name."""
    return {name: value for call in calls if isinstance(call, ast.Call) for name, value in _texts(call)}


def _texts(call: ast.Call) -> Iterator[tuple[str, str]]:
    for keyword in call.keywords:
        value = keyword.value
        if keyword.arg and isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield keyword.arg, value.value
