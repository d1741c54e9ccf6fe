"""Rows about runbooks: their links lead somewhere, and the commands that they mark as runnable run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.errors import ConfigError, HarnessError
from harness.gates.rows import GateRow, Place, issue, judged, not_run
from harness.lint.pointers import judge_link
from harness.lint.repository import Repository
from harness.lint.verdicts import PointerScope, PointerVerdict
from harness.markdown.inline import SpanKind, spans
from harness.markdown.parser import parse_blocks
from harness.model import Status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.gates.copies import Copies
    from harness.gates.declaration import GatesDeclaration
    from harness.gates.tree import Tree

_NAMED = re.compile(
    r"(?:.*/)?(?:runbooks?|playbooks?)/.*\.(?:md|markdown)|(?:.*/)?(?:runbook|playbook)[^/]*\.(?:md|markdown)",
    re.IGNORECASE,
)
_SHELLS = frozenset({"sh", "bash", "shell", "console", "shell-session", "shellsession"})
#: words that mark a block, as in ```` ```sh run ````
_MARKS = frozenset({"run", "runnable", "{run}", "{.run}"})
_MANY = 50


class Block(Struct, frozen=True):
    """A block of commands that a runbook marks as runnable."""

    path: str
    line: int
    script: str


def runbook_rows(tree: Tree, declared: GatesDeclaration, copies: Copies | None) -> list[GateRow]:
    """Judge all runbooks.

    :param copies: where to run their commands; None to run nothing.
    """
    patterns = declared.runbooks
    names = [name for name in tree.files if _NAMED.fullmatch(name)]
    if patterns:
        names = sorted({name for pattern in patterns for name in tree.matching(pattern)})
    if not names:
        wanted = f"no file matches {', '.join(patterns)}" if patterns else "no runbook"
        fix = 'add docs/runbooks/NAME.md, or name your own: [gates] runbooks = ["…"]'
        row = issue("runbooks.links", wanted, fix)
        return [row, not_run("runbooks.commands", wanted, fix)]
    missing: list[Place] = []
    unread: list[Place] = []
    blocks: list[Block] = []
    repository = Repository(tree.root)
    count = 0
    for name in names:
        text = tree.text(name)
        if text is None:
            unread.append(Place(name, 0, "it cannot be read: a link, too large, or binary"))
            continue
        try:
            links, found = _read(name, text)
        except ConfigError as error:
            unread.append(Place(name, 0, error.what))
            continue
        blocks += found
        file = tree.root / name
        for line, target in links:
            pointer = judge_link(target, PointerScope(repository, file.parent), file)
            count += 1
            if pointer and pointer.verdict is PointerVerdict.MISSING:
                missing.append(Place(name, line, f"{target}: {pointer.reason}"))
    links_row = judged(
        "runbooks.links",
        broken=missing[:_MANY],
        undecided=unread,
        shown=[Place(name, 0, "") for name in names][:_MANY],
        ok=f"{len(names)} runbooks; {count} links, of which those into the repository lead to a file and a heading",
        fix="correct the link",
    )
    return [links_row, _commands(blocks, declared, copies)]


def _read(name: str, text: str) -> tuple[list[tuple[int, str]], list[Block]]:
    parsed = parse_blocks(text, name)
    lines = text.splitlines()
    links: list[tuple[int, str]] = []
    blocks: list[Block] = []
    for token in parsed.tokens:
        first = token.map[0] + 1 if token.map else 1
        if token.type == "inline":
            links += [
                (_line_of(lines, first, span.target), span.target)
                for span in spans(token.content, parsed.references)
                if span.kind is SpanKind.LINK
            ]
        elif token.type == "fence":
            words = token.info.lower().split()
            if words and words[0] in _SHELLS and _MARKS & set(words[1:]):
                blocks.append(Block(name, first, "\n".join(_commands_of(words[0], token.content))))
    return links, blocks


def _line_of(lines: list[str], first: int, target: str) -> int:
    return next((number for number, line in enumerate(lines[first - 1 : first + 50], first) if target in line), first)


def _commands_of(language: str, content: str) -> Iterator[str]:
    """Return the commands of a block: of a console, the lines behind a prompt."""
    prompts = language in {"console", "shell-session", "shellsession"} or content.lstrip().startswith("$ ")
    for line in content.splitlines():
        if not prompts:
            yield line
        elif match := re.match(r"\s*[$#%>] (.*)", line):
            yield match[1]


def _commands(blocks: list[Block], declared: GatesDeclaration, copies: Copies | None) -> GateRow:
    gate = "runbooks.commands"
    places = [Place(block.path, block.line, "marked as runnable") for block in blocks]
    if not blocks:
        return not_run(gate, "no block of commands is marked as runnable", "mark one: ```sh run")
    if copies is None:
        why = f"{len(blocks)} blocks are marked as runnable; commands run only with --run"
        return not_run(gate, why, "add --run if you trust the repository", places)
    broken: list[Place] = []
    undecided: list[Place] = []
    for path in dict.fromkeys(block.path for block in blocks):
        try:
            with copies.copy() as folder:
                of_path = [block for block in blocks if block.path == path]
                failure = _first_failure(of_path, copies, folder, declared.runbook_deadline_s)
        except (HarnessError, OSError) as error:
            failure = Status.NOT_RUN, Place(path, 0, f"the repository cannot be copied: {error}")
        if failure:
            (broken if failure[0] is Status.ISSUE else undecided).append(failure[1])
    row = judged(
        gate,
        broken=broken,
        undecided=undecided,
        shown=places,
        ok=f"{len(blocks)} marked blocks of commands ran",
        fix="correct the commands, or what they need",
    )
    skipped = copies.skipped
    return row if row.status is not Status.OK or not skipped else GateRow(
        gate=gate, status=row.status, reason=f"{row.reason}; not in the copy: {skipped}", places=row.places
    )  # fmt: skip


def _first_failure(blocks: list[Block], copies: Copies, folder: Path, deadline_s: float) -> tuple[Status, Place] | None:
    """Run the blocks of a runbook up to the first that fails; return its place. It is an Issue in a complete copy."""
    for block in blocks:
        ran = copies.run(("bash", "-euo", "pipefail", "-c", block.script), folder, deadline_s)
        if ran.cannot_run:
            return Status.NOT_RUN, Place(block.path, block.line, ran.cannot_run)
        if ran.exit_code:
            why = f"exit code {ran.exit_code}: {ran.last_line}"
            if copies.skipped:
                return Status.NOT_RUN, Place(block.path, block.line, f"{why}; not in the copy: {copies.skipped}")
            return Status.ISSUE, Place(block.path, block.line, why)
    return None
