"""Pointers in table cells: commands, tests, files, links and tickets, and whether they exist in the repository.

The linter checks what the repository contains. It fetches no URL, asks no ticket system and looks for no installed
programs: those count as pointers, and the report lists them as not checked.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from harness.errors import ConfigError
from harness.lint.commands import judge_command
from harness.lint.tools import has_test
from harness.lint.verdicts import EXISTS, Pointer, PointerVerdict, missing, unknown
from harness.markdown.document import read_document
from harness.markdown.inline import SpanKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.lint.verdicts import PointerScope
    from harness.markdown.document import TableCell
    from harness.markdown.inline import Span

_URL = re.compile(r"https?://[^\s<>|]*[^\s<>|.,;:)]")
_TICKET = re.compile(
    # a name of a repository begins where its characters begin: trying it at each of them takes quadratic time
    r"(?<![\w/#&.-])[\w.-]++/[\w.-]+[#!]\d+\b"
    r"|(?<![\w/#&])(?:GH-|(?:PR|MR|[Ii]ssue|[Pp]ull request|[Tt]icket) ?)?[#!]\d+\b"
    r"|\b(?:PR|MR|[Pp]ull request|[Ii]ssue|[Tt]icket)\s+(?:\d+|[A-Z][A-Z0-9]+-\d+)\b|\bGH-\d+\b"
)
_STATEMENT = re.compile(r"(?i)(?:select|with|show|explain|table|values|insert into|update|delete from)\s.+")
_STEPS = re.compile(r"(?:^|\s)1[.)]\s\S.*\s2[.)]\s\S")
#: a path: its name, then tests after `::`, a line or a range of lines, or an anchor
_PATH = re.compile(
    r"(?P<path>[\w.@+*?\[\]{},<>…-]*(?:/[\w.@+*?\[\]{},<>…-]+)*/?)"
    r"(?P<tests>(?:::[^\s:]+)*)(?::(?P<line>\d+)(?:[-:,]\d+)*)?(?:\#(?P<anchor>[^\s#]+))?"
)
_PATH_IN_TEXT = re.compile(r"(?<![\w/.:@\\-])(?:\.{0,2}/)?[\w.@+*-]+(?:/[\w.@+*-]+)+/?(?:::[\w\[\].-]+)*(?::\d+)?")
_FILE_IN_TEXT = re.compile(r"(?<![\w/.:@-])[\w-]+(?:\.[\w-]+)*\.[a-z]{1,5}(?:::[\w\[\].-]+)*(?::\d+)?(?![\w/])")
_EXTENSION = re.compile(
    r"\.(?:md|mdx|rst|txt|adoc|py|pyi|exs?|heex|erl|rb|tsx?|jsx?|mjs|go|rs|java|kts?|scala|cs|php|c|h|cpp|sh|bash|sql|"
    r"ya?ml|toml|json|jsonl|ini|cfg|conf|lock|log|csv|xml|html?|j2|feature|pdf|png|svg|tf|proto|gradle|env)$",
    re.IGNORECASE,
)
_LIBRARY = re.compile(r"[A-Z]\w*\.js")
_LINE_ANCHOR = re.compile(r"L(\d+)(?:-L?\d+)?")


def pointers(cell: TableCell, scope: PointerScope, document: Path) -> tuple[Pointer, ...]:
    """Return the pointers of a cell, in their order; none when the cell only makes a statement.

    :param document: the file that the cell is in, for links such as `#heading`.
    """
    found: list[Pointer] = []
    for span in cell.spans:
        found += _in_span(span, scope, document)
    if not found and _STEPS.search(cell.text):
        found.append(Pointer(cell.text, *unknown("whether the steps lead to what the row says")))
    return tuple(dict.fromkeys(found))


def _in_span(span: Span, scope: PointerScope, document: Path) -> Iterator[Pointer]:
    match span.kind:
        case SpanKind.LINK:
            if pointer := judge_link(span.target, scope, document):
                yield pointer
        case SpanKind.CODE:
            yield from _in_code(span.text.strip(), scope)
        case SpanKind.TEXT:
            yield from _in_text(span.text, scope)
        case SpanKind.BREAK:
            pass


def judge_link(target: str, scope: PointerScope, document: Path) -> Pointer | None:
    """Judge the destination of a link; None for a scheme such as `mailto:`.

    :param document: the file that the link is in.
    """
    if _URL.match(target):
        return _url(target)
    if re.match(r"[a-zA-Z][\w+.-]*:|//", target) or not target:
        return None
    path, _, anchor = target.partition("#")
    path = unquote(path.partition("?")[0])
    if path.startswith("/"):
        file = scope.repository.find(path.lstrip("/"), scope.repository.root)
    else:
        file = scope.repository.find(path, scope.folder) if path else document
    if file is None:
        fix = "name a file of the repository, relative to the document's folder"
        return Pointer(target, *missing(f"{path} not found", fix))
    return _at_anchor(target, file, anchor, scope) if anchor else Pointer(target, *EXISTS)


def _url(target: str) -> Pointer:
    return Pointer(target, *unknown("whether the URL exists"))


def _at_anchor(text: str, file: Path, anchor: str, scope: PointerScope) -> Pointer:
    content = scope.repository.text(file) if file.is_file() else None
    if match := _LINE_ANCHOR.fullmatch(anchor):
        return _at_line(text, file, int(match[1]), scope)
    if content is None or not file.name.lower().endswith((".md", ".markdown", ".mdx")):
        return Pointer(text, *EXISTS)
    try:
        anchors = read_document(content).anchors()
    except ConfigError:  # larger or nested deeper than the parser's limits
        return Pointer(text, *unknown(f"whether {file.name} has the heading #{anchor}"))
    if unquote(anchor).lower().removeprefix("user-content-") in anchors:
        return Pointer(text, *EXISTS)
    return Pointer(text, *missing(f"{file.name} has no heading #{anchor}", "name an existing heading"))


def _at_line(text: str, file: Path, line: int, scope: PointerScope) -> Pointer:
    count = len((scope.repository.text(file) or "").splitlines())
    if 1 <= line <= count:
        return Pointer(text, *EXISTS)
    return Pointer(text, *missing(f"{file.name} has {count} lines, not {line}", "update the line number"))


def _in_code(text: str, scope: PointerScope) -> Iterator[Pointer]:
    if _URL.fullmatch(text):
        yield _url(text)
    elif _TICKET.fullmatch(text):
        yield _ticket(text)
    elif _STATEMENT.fullmatch(text):
        yield Pointer(text, *unknown("what the statement returns"))
    elif re.search(r"\s", text) or text in {"nox", "make", "pytest"} or text.startswith("./"):
        yield from judge_command(text, scope)
    elif pointer := _path(text, scope, is_code=True):
        yield pointer
    elif re.search(r"[-_]", text) and text in scope.repository.ci_jobs:
        yield Pointer(text, *EXISTS)


def _in_text(text: str, scope: PointerScope) -> Iterator[Pointer]:
    yield from map(_url, _URL.findall(text))
    text = _URL.sub(" ", text)
    yield from (_ticket(match[0]) for match in _TICKET.finditer(text))
    for segment in re.split(r"[;,:]\s|\.\s", text):
        yield from judge_command(segment.strip().rstrip("."), scope, is_code=False)
    for match in _PATH_IN_TEXT.finditer(text):
        if pointer := _path(match[0].rstrip(".,;:"), scope, is_code=False):
            yield pointer
    for match in _FILE_IN_TEXT.finditer(text):
        pointer = _path(match[0], scope, is_code=False)
        if pointer and pointer.verdict is not PointerVerdict.MISSING:
            yield pointer


def _ticket(text: str) -> Pointer:
    return Pointer(text.strip(), *unknown("what the ticket says"))


def _path(text: str, scope: PointerScope, *, is_code: bool) -> Pointer | None:
    """Judge a text that may be a path; None for a word, a route, a name in code or an absolute path.

    :param is_code: the text is set as code, not a part of a sentence.
    """
    match = _PATH.fullmatch(text)
    if not match or not match["path"] or text.startswith("/") or re.fullmatch(r"[.\d/…]+", match["path"]):
        return None
    path = match["path"]
    folders = (scope.repository.root, scope.folder)
    if re.search(r"[<>…*]|\.\.\.", path):
        return _pattern(text, path, scope) if is_code else None
    found = scope.repository.find(path, *folders)
    if found is None and "/" not in path and (same_name := scope.repository.named(path)):
        found = same_name[0]
    if found is None:
        return _not_found(text, path) if _is_meant_as_a_path(path, scope, is_code=is_code) else None
    # a word may happen to be the name of a folder
    return None if found.is_dir() and "/" not in path else _within(text, found, match, scope)


def _pattern(text: str, path: str, scope: PointerScope) -> Pointer | None:
    """Judge a path with wildcards or placeholders."""
    if "*" not in path:
        fix = "write the path of the file in full"
        return Pointer(text, *missing(f"{path} has a placeholder", fix)) if _EXTENSION.search(path) else None
    if scope.repository.matches(path, scope.repository.root, scope.folder):
        return Pointer(text, *EXISTS)
    return _not_found(text, path) if "/" in path else None


def _within(text: str, file: Path, match: re.Match[str], scope: PointerScope) -> Pointer:
    """Judge the tests, the line or the anchor that a pointer names in an existing file."""
    for name in match["tests"].split("::")[1:]:
        if not has_test(scope.repository.text(file) or "", name):
            return Pointer(text, *missing(f"{file.name} has no test {name}", "name an existing test"))
    if match["line"]:
        return _at_line(text, file, int(match["line"]), scope)
    return _at_anchor(text, file, match["anchor"], scope) if match["anchor"] else Pointer(text, *EXISTS)


def _is_meant_as_a_path(path: str, scope: PointerScope, *, is_code: bool) -> bool:
    """Say whether a name that does not exist is meant as a path, by its extension or its first folder."""
    if _LIBRARY.fullmatch(path) or re.search(r"[{}?\[\]]", path):
        return False
    if "/" not in path:
        return is_code and bool(_EXTENSION.search(path)) and not path.startswith(".")
    first = path.partition("/")[0]
    if _EXTENSION.search(path) or first in {".", ".."}:
        return True
    return is_code and (path.endswith("/") or scope.repository.find(first, scope.repository.root) is not None)


def _not_found(text: str, path: str) -> Pointer:
    return Pointer(text, *missing(f"{path} not found", "name a file of the repository"))
