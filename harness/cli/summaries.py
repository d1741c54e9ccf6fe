"""What the help text of the program says about a command, read from the command's source without importing it."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

#: between two definitions
_BETWEEN = "\n\n\n"
_QUOTES = '"""'
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
    found: dict[str, str] = {}
    for node in ast.parse(_declaration(_source(module), variable)).body:
        if isinstance(node, ast.FunctionDef):
            # the outermost decorator makes the command
            found = _keywords(node.decorator_list[:1]) | {"help": ast.get_docstring(node) or ""}
        elif isinstance(node, ast.Assign):
            found = _keywords([node.value])
    if not (found.get("section") and found.get("help")):
        return None
    return Summary(found["section"], click.Command(variable, help=found["help"]).get_short_help_str(_LONGEST))


@cache
def _source(module: str) -> str:
    spec = find_spec(module)
    read = getattr(spec.loader, "get_source", None) if spec else None
    return (read(module) if read else None) or ""


def _declaration(source: str, variable: str) -> str:
    """Return the statement that declares a command, without the body of a function: parsing all takes too long."""
    for part in source.split(_BETWEEN):
        if begin := re.search(rf"^(def {variable}\(|{variable} = )", part, re.MULTILINE):
            if not begin[1].startswith("def"):
                return part
            docstring = part.find(_QUOTES, begin.end())
            return part[: part.find(_QUOTES, docstring + len(_QUOTES)) + len(_QUOTES)] if docstring >= 0 else ""
    return ""


def _keywords(calls: list[ast.expr]) -> dict[str, str]:
    """Return the texts that calls pass by name."""
    return {name: value for call in calls if isinstance(call, ast.Call) for name, value in _texts(call)}


def _texts(call: ast.Call) -> Iterator[tuple[str, str]]:
    for keyword in call.keywords:
        value = keyword.value
        if keyword.arg and isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield keyword.arg, value.value
