"""The linter of filled tables: reads documents, judges them by the rules, and says what it did not judge.

It checks form, and that pointers lead somewhere. That a pointer shows what its row says, it cannot check.
"""

from __future__ import annotations

import re
import stat
from collections import Counter
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.errors import UsageError
from harness.lint.commands import PointerVerdict
from harness.lint.findings import Level, LintFinding, Page
from harness.lint.repository import Repository
from harness.lint.rules import RULES, judge
from harness.markdown.tables import MARKERS, read_document

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LOOKED_FOR = (
    f"a marker on a line of its own ({', '.join(MARKERS)}) with a table below it, or a table with the columns "
    "Environment and Pool mode; Path, Kind and Status; Question, Answer and Matches prod?; Checklist item and Status; "
    "Item, Status and Evidence; Check, Status and Evidence; or P, ID and Symptom"
)


class FoundTable(Struct, frozen=True):
    """A table that was judged: what it is, its line, and how many rows are filled."""

    kind: str
    line: int
    rows: int


class LintReport(Struct, frozen=True):
    """What came of it. `not_judged` are sentences about what the linter leaves to people."""

    findings: tuple[LintFinding, ...]
    #: by document
    tables: dict[str, tuple[FoundTable, ...]]
    not_judged: tuple[str, ...]

    @property
    def errors(self) -> int:
        return sum(each.level is Level.ERROR for each in self.findings)

    @property
    def warnings(self) -> int:
        return len(self.findings) - self.errors


#: the row of dashes of a table in a block quote, and where an HTML table begins
_ELSEWHERE = re.compile(r"\s*>[> ]*\|?[ :]*-+[ :]*\|[-|: ]*$|\s*(?:<\w+>)?<table\b", re.IGNORECASE)


def lint(paths: Sequence[Path], root: Path | None = None) -> LintReport:
    """Judge documents.

    :param root: the repository that pointers lead into; else the nearest folder above each document that has a `.git`,
        else the document's own folder.
    :raises UsageError: for a document that is not there, is no regular file or no text, and where none of them has any
        of the tables.
    """
    repositories: dict[Path, Repository] = {}
    findings: list[LintFinding] = []
    tables: dict[str, tuple[FoundTable, ...]] = {}
    unknown: Counter[str] = Counter()
    unread: list[str] = []
    if root is not None and not root.is_dir():
        raise UsageError("this is no folder", where=str(root), hint="name the repository's folder with --root")
    for path in paths:
        file = path.resolve()
        place = root.resolve() if root else _root_of(file)
        page = Page(
            path=str(path),
            file=file,
            document=read_document(_read(path)),
            repository=repositories.setdefault(place, Repository(place)),
        )
        if not page.document.ours() and len(paths) == 1:
            raise UsageError("none of the adoption tables is in it", where=str(path), hint=f"needed is {_LOOKED_FOR}")
        findings += judge(page)
        tables[str(path)] = tuple(
            FoundTable(str(table.kind), table.line, len(table.rows)) for table in page.document.ours()
        )
        unknown += _unknown(page)
        unread += _unread(page)
    if not any(tables.values()):
        raise UsageError("none of the adoption tables is in any of them", hint=f"needed is {_LOOKED_FOR}")
    return LintReport(tuple(findings), tables, (*_left_to_people(), *_not_looked_up(unknown), *unread))


def _root_of(file: Path) -> Path:
    return next((folder for folder in file.parents if (folder / ".git").exists()), file.parent)


def _read(path: Path) -> str:
    if path.is_dir():
        raise UsageError("this is a folder", where=str(path), hint="name its Markdown files")
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe may never end
            raise UsageError("it is no regular file", where=str(path), hint="name a Markdown file")
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError("there is no such file", where=str(path), hint="name a Markdown file") from None
    except OSError as error:
        raise UsageError(f"it cannot be read: {error.strerror or error}", where=str(path)) from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError("it is no UTF-8 text", where=f"{path}:{line}", hint="save it as UTF-8") from None
    if "\0" in text:
        raise UsageError("it is binary: it has NUL bytes", where=str(path), hint="name a Markdown file")
    return text


def _unknown(page: Page) -> Counter[str]:
    """Count the pointers that were not looked up, by why."""
    cells = {
        cell.raw: cell
        for table in page.document.ours()
        for row in table.rows
        for column in ("evidence", "link", "notes")
        if column in table.columns and (cell := table.cell(row, column)).raw
    }
    every = {each for cell in cells.values() for each in page.pointers(cell)}
    return Counter(each.what for each in every if each.verdict is PointerVerdict.UNKNOWN)


def _unread(page: Page) -> list[str]:
    """Name the tables that a reader sees, and that are not looked for."""
    document = page.document
    return [
        f"the table at {page.path}:{number}: it is in a block quote, or HTML"
        for number, (line, plainly) in enumerate(zip(document.lines, document.plainly, strict=True), 1)
        if plainly and _ELSEWHERE.match(line)
    ]


def _not_looked_up(unknown: Counter[str]) -> list[str]:
    return [
        f"{why} ({count} {'pointer' if count == 1 else 'pointers'}, not looked up)"
        for why, count in sorted(unknown.items())
    ]


def _left_to_people() -> list[str]:
    return [f"{rule.left} ({rule.number})" for rule in RULES if rule.left]
