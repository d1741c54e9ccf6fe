"""What a cell points to: commands, tests, files, links and tickets, and whether they are in the repository.

A pointer that can be looked up exists or is missing. Links to the web are not fetched, tickets are not asked for, and
programs that come from elsewhere are not looked for: those count as pointers, and are told as not judged.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from harness.lint.commands import Pointer, PointerScope, PointerVerdict, has_test, judge_command
from harness.markdown.inline import SpanKind
from harness.markdown.tables import read_document

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.markdown.inline import Span
    from harness.markdown.tables import TableCell

_WEB = re.compile(r"https?://[^\s<>|]*[^\s<>|.,;:)]")
_TICKET = re.compile(
    r"(?<![\w/#&])(?:[\w.-]+/[\w.-]+|GH-|(?:PR|MR|[Ii]ssue|[Pp]ull request|[Tt]icket) ?)?[#!]\d+\b"
    r"|\b(?:PR|MR|[Pp]ull request|[Ii]ssue|[Tt]icket)\s+(?:\d+|[A-Z][A-Z0-9]+-\d+)\b|\bGH-\d+\b"
)
_STATEMENT = re.compile(r"(?i)(?:select|with|show|explain|table|values|insert into|update|delete from)\s.+")
_STEPS = re.compile(r"(?:^|\s)1[.)]\s\S.*\s2[.)]\s\S")
#: a path: its name, then tests behind `::`, a line or a range of lines, or an anchor
_PATH = re.compile(
    r"(?P<path>[\w.@+*?\[\]{},<>…-]*(?:/[\w.@+*?\[\]{},<>…-]+)*/?)"
    r"(?P<tests>(?:::[^\s:]+)*)(?::(?P<line>\d+)(?:[-:,]\d+)*)?(?:\#(?P<anchor>[^\s#]+))?"
)
_IN_TEXT = re.compile(r"(?<![\w/.:@\\-])(?:\.{0,2}/)?[\w.@+*-]+(?:/[\w.@+*-]+)+/?(?:::[\w\[\].-]+)*(?::\d+)?")
_BARE_IN_TEXT = re.compile(r"(?<![\w/.:@-])[\w-]+(?:\.[\w-]+)*\.[a-z]{1,5}(?:::[\w\[\].-]+)*(?::\d+)?(?![\w/])")
_EXTENSION = re.compile(
    r"\.(?:md|mdx|rst|txt|adoc|py|pyi|exs?|heex|erl|rb|tsx?|jsx?|mjs|go|rs|java|kts?|scala|cs|php|c|h|cpp|sh|bash|sql|"
    r"ya?ml|toml|json|jsonl|ini|cfg|conf|lock|log|csv|xml|html?|j2|feature|pdf|png|svg|tf|proto|gradle|env)$",
    re.IGNORECASE,
)
_LIBRARY = re.compile(r"[A-Z]\w*\.js")
_LINES = re.compile(r"L(\d+)(?:-L?\d+)?")


def pointers(cell: TableCell, place: PointerScope, document: Path) -> tuple[Pointer, ...]:
    """Return everything that a cell points to; nothing when it only says something."""
    found: list[Pointer] = []
    for span in cell.spans:
        found += _of_span(span, place, document)
    if not found and _STEPS.search(cell.text):
        found.append(Pointer(cell.text, PointerVerdict.UNKNOWN, "whether the steps lead to what the row says"))
    return tuple(dict.fromkeys(found))


def _of_span(span: Span, place: PointerScope, document: Path) -> Iterator[Pointer]:
    match span.kind:
        case SpanKind.LINK:
            if each := _link(span.target, place, document):
                yield each
        case SpanKind.CODE:
            yield from _code(span.text.strip(), place)
        case SpanKind.TEXT:
            yield from _text(span.text, place)
        case SpanKind.BREAK:
            pass


def _link(target: str, place: PointerScope, document: Path) -> Pointer | None:
    if _WEB.match(target):
        return _web(target)
    if re.match(r"[a-zA-Z][\w+.-]*:|//", target) or not target:
        return None
    path, _, anchor = target.partition("#")
    path = unquote(path.partition("?")[0])
    if path.startswith("/"):
        file = place.repository.find(path.lstrip("/"), place.repository.root)
    else:
        file = place.repository.find(path, place.folder) if path else document
    if file is None:
        return Pointer(target, PointerVerdict.MISSING, f"the link leads to {path}, which is not there", _NAME_ANOTHER)
    return _anchored(target, file, anchor, place) if anchor else Pointer(target, PointerVerdict.EXISTS)


_NAME_ANOTHER = "name a file that is in the repository, from this document's folder"


def _web(target: str) -> Pointer:
    return Pointer(target, PointerVerdict.UNKNOWN, "whether the web has it")


def _anchored(text: str, file: Path, anchor: str, place: PointerScope) -> Pointer:
    content = place.repository.text(file) if file.is_file() else None
    if match := _LINES.fullmatch(anchor):
        return _at_line(text, file, int(match[1]), place)
    if content is None or not file.name.lower().endswith((".md", ".markdown", ".mdx")):
        return Pointer(text, PointerVerdict.EXISTS)
    if unquote(anchor).lower().removeprefix("user-content-") in read_document(content).anchors():
        return Pointer(text, PointerVerdict.EXISTS)
    return Pointer(text, PointerVerdict.MISSING, f"{file.name} has no heading #{anchor}", "name an existing heading")


def _at_line(text: str, file: Path, line: int, place: PointerScope) -> Pointer:
    count = len((place.repository.text(file) or "").splitlines())
    if 1 <= line <= count:
        return Pointer(text, PointerVerdict.EXISTS)
    return Pointer(text, PointerVerdict.MISSING, f"{file.name} has {count} lines, not {line}", "name the line again")


def _code(text: str, place: PointerScope) -> Iterator[Pointer]:
    if _WEB.fullmatch(text):
        yield _web(text)
    elif _TICKET.fullmatch(text):
        yield _ticket(text)
    elif _STATEMENT.fullmatch(text):
        yield Pointer(text, PointerVerdict.UNKNOWN, "what the statement returns")
    elif re.search(r"\s", text) or text in {"nox", "make", "pytest"} or text.startswith("./"):
        yield from judge_command(text, place)
    elif each := _path(text, place, sure=True):
        yield each
    elif re.search(r"[-_]", text) and text in place.repository.ci_jobs:
        yield Pointer(text, PointerVerdict.EXISTS)


def _text(text: str, place: PointerScope) -> Iterator[Pointer]:
    yield from map(_web, _WEB.findall(text))
    text = _WEB.sub(" ", text)
    yield from (_ticket(match[0]) for match in _TICKET.finditer(text))
    for segment in re.split(r"[;,:]\s|\.\s", text):
        yield from judge_command(segment.strip().rstrip("."), place, sure=False)
    for match in _IN_TEXT.finditer(text):
        if each := _path(match[0].rstrip(".,;:"), place, sure=False):
            yield each
    for match in _BARE_IN_TEXT.finditer(text):
        each = _path(match[0], place, sure=False)
        if each and each.verdict is not PointerVerdict.MISSING:
            yield each


def _ticket(text: str) -> Pointer:
    return Pointer(text.strip(), PointerVerdict.UNKNOWN, "what the ticket says")


def _path(text: str, place: PointerScope, *, sure: bool) -> Pointer | None:
    """Judge what may be a path. None when it is a word, a route, a name of code, or an absolute path.

    :param sure: the text is set as code, and not a part of a sentence.
    """
    match = _PATH.fullmatch(text)
    if not match or not match["path"] or text.startswith("/") or re.fullmatch(r"[.\d/…]+", match["path"]):
        return None
    path = match["path"]
    folders = (place.repository.root, place.folder)
    if re.search(r"[<>…*]|\.\.\.", path):
        return _pattern(text, path, place) if sure else None
    found = place.repository.find(path, *folders)
    if found is None and "/" not in path and (elsewhere := place.repository.named(path)):
        found = elsewhere[0]
    if found is None:
        return _gone(text, path) if _meant_as_a_path(path, place, sure=sure) else None
    # a word may happen to be a folder's name
    return None if found.is_dir() and "/" not in path else _within(text, found, match, place)


def _pattern(text: str, path: str, place: PointerScope) -> Pointer | None:
    """Judge a path with stars, or with gaps."""
    if "*" not in path:
        return _placeholder(text, path) if _EXTENSION.search(path) else None
    if place.repository.matches(path, place.repository.root, place.folder):
        return Pointer(text, PointerVerdict.EXISTS)
    return _gone(text, path) if "/" in path else None


def _within(text: str, found: Path, match: re.Match[str], place: PointerScope) -> Pointer:
    """Judge what a pointer names inside a file that is there."""
    for name in match["tests"].split("::")[1:]:
        if not has_test(place.repository.text(found) or "", name):
            return Pointer(text, PointerVerdict.MISSING, f"{found.name} has no {name}", "name a test that is there")
    if match["line"]:
        return _at_line(text, found, int(match["line"]), place)
    return _anchored(text, found, match["anchor"], place) if match["anchor"] else Pointer(text, PointerVerdict.EXISTS)


def _meant_as_a_path(path: str, place: PointerScope, *, sure: bool) -> bool:
    """Say whether something that is not there was meant to be: by its extension, or the folder it begins with."""
    if _LIBRARY.fullmatch(path) or re.search(r"[{}?\[\]]", path):
        return False
    if "/" not in path:
        return sure and bool(_EXTENSION.search(path)) and not path.startswith(".")
    first = path.partition("/")[0]
    if _EXTENSION.search(path) or first in {".", ".."}:
        return True
    return sure and (path.endswith("/") or place.repository.find(first, place.repository.root) is not None)


def _gone(text: str, path: str) -> Pointer:
    return Pointer(text, PointerVerdict.MISSING, f"there is no {path}", "name a file that is in the repository")


def _placeholder(text: str, path: str) -> Pointer:
    return Pointer(text, PointerVerdict.MISSING, f"{path} has a gap in it", "name the file in full")
