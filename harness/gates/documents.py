"""Rows about documents: the template of pull requests, and the owners of code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.errors import ConfigError
from harness.gates.rows import GateRow, Place, issue, judged, not_run
from harness.gates.tree import wildcards
from harness.markdown.document import read_document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.gates.tree import Tree

_TEMPLATES = re.compile(
    r"(?:(?:\.github/|docs/)?pull_request_template(?:\.\w+)?|(?:\.github/|docs/)?pull_request_template/[^/]+\.(?:md|txt)"
    r"|\.gitlab/merge_request_templates/[^/]+\.md)",
    re.IGNORECASE,
)
#: the first one counts: https://docs.github.com/articles/about-code-owners
_OWNERS = (".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS", ".gitlab/CODEOWNERS")
_OWNER = re.compile(r"@[\w.-]+(?:/[\w./-]+)?|@@[a-z]+|[^\s@]+@[^\s@]+\.[^\s@]+|%\{\w+\}")
_SECTION = re.compile(r"\^?\[[^\]]+\](?:\[\d+\])?(?:\s+\S.*)?")
_MANY = 50


def template_row(tree: Tree, fields: Sequence[str]) -> GateRow:
    """Judge the fields of each template: a heading, or a label at the beginning of a line."""
    gate, fix = "template.fields", f"add .github/pull_request_template.md with headings: {', '.join(fields)}"
    templates = [name for name in tree.files if _TEMPLATES.fullmatch(name)]
    if not templates:
        return issue(gate, "no template of pull requests", fix)
    missing: list[Place] = []
    unread: list[Place] = []
    for name in templates:
        text = tree.text(name)
        if text is None:
            unread.append(Place(name, 0, "it cannot be read: a link, too large, or binary"))
            continue
        try:
            lines = _visible(text)
        except ConfigError as error:
            unread.append(Place(name, 0, error.what))
            continue
        absent = [field for field in fields if not any(_is_field(line, field) for line in lines)]
        missing += [Place(name, 0, f"without {', '.join(absent)}")] if absent else []
    shown = [Place(name, 0, "") for name in templates]
    ok = f"each template has {', '.join(fields)}"
    return judged(gate, broken=missing, undecided=unread, shown=shown, ok=ok, fix=fix)


def _visible(text: str) -> list[str]:
    """Return the lines that are not code and not in a comment."""
    document = read_document(
        re.sub(r"<!--.*?(?:-->|\Z)", lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)
    )
    return [line for number, line in enumerate(document.lines, 1) if number not in document.opaque_lines]


def _is_field(line: str, field: str) -> bool:
    words = r"\s+".join(map(re.escape, field.split()))
    heading = rf"#{{1,6}}\s+(?:[^\w\s]+\s*)?{words}\W*"
    label = rf"[\s>*_\-+|]*(?:\[[ x]\]\s*)?{words}\s*(?:\([^)]*\)\s*)?[*_]*\s*(?::.*|[*_|].*|)"
    return bool(re.fullmatch(rf"(?i){heading}|{label}", line.strip()))


def owners_row(tree: Tree) -> GateRow:
    """Judge CODEOWNERS: each pattern matches a file, and has owners in a valid form."""
    gate, fix = "codeowners.patterns", "add .github/CODEOWNERS, for example with `* @org/team`"
    name = next((name for name in _OWNERS if name in tree.files), None)
    text = tree.text(name) if name else None
    if name is None:
        return issue(gate, "no CODEOWNERS", fix)
    if text is None:
        return not_run(gate, f"{name} cannot be read: a link, too large, or binary", fix)
    broken: list[Place] = []
    rules = 0
    default = False
    for number, line in enumerate(text.splitlines(), 1):
        entry = re.sub(r"(?:^|\s)#.*", "", line).strip()
        if not entry:
            continue
        if _SECTION.fullmatch(entry):
            default = len(entry.rpartition("]")[2].split()) > 0
            continue
        pattern, *owners = re.split(r"(?<!\\)\s+", entry)
        rules += bool(owners) or default
        if invalid := [owner for owner in owners if not _OWNER.fullmatch(owner)]:
            broken.append(Place(name, number, f"invalid owner {invalid[0]}, expected @user, @org/team or an address"))
        if not owns(tree, pattern):
            broken.append(Place(name, number, f"{pattern} matches no file"))
    if not rules:
        broken.append(Place(name, 0, "it names no owner"))
    ok = f"{rules} patterns with owners, and each pattern matches a file"
    return judged(gate, broken=broken[:_MANY], shown=(Place(name, 0, ""),), ok=ok, fix=f"correct {name}")


def owns(tree: Tree, pattern: str) -> bool:
    """Say whether a pattern of CODEOWNERS matches a file. Its syntax is that of gitignore, without `!` and `[]`."""
    plain = pattern.replace("\\ ", " ")
    anchored = "/" in plain.rstrip("/")
    body = wildcards(plain.strip("/"))
    below = "/.*" if plain.endswith("/") else "" if plain.endswith(("/*", "/**")) else "(?:/.*)?"
    wanted = re.compile(("" if anchored else "(?:.*/)?") + body + below, re.DOTALL)
    return any(wanted.fullmatch(name) for name in tree.files)
