"""The comments `#: …` above the fields of a Struct, and above the members of an enumeration."""

from __future__ import annotations

import ast
import inspect
import textwrap

_MARK = "#:"


def comments_of(kind: type) -> dict[str, str]:
    """Return the comment directly above each field or member, on one line; names without a comment are left out."""
    source = textwrap.dedent(inspect.getsource(kind))
    lines = source.splitlines()
    [declaration] = ast.parse(source).body
    comments = {}
    for node in declaration.body if isinstance(declaration, ast.ClassDef) else ():
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                if comment := _above(lines[: node.lineno - 1]):
                    comments[name] = comment
    return comments


def _above(lines: list[str]) -> str:
    """Return the marked comment at the end of some lines."""
    found: list[str] = []
    while lines and lines[-1].strip().startswith(_MARK):
        found.insert(0, lines.pop().strip().removeprefix(_MARK).strip())
    return " ".join(found)
