"""The linter of adoption tables: reads documents, judges them by the rules, and lists what it did not judge.

It checks the form, and that pointers exist. It cannot check whether a pointer shows what its row says.
"""

from __future__ import annotations

import stat
from collections import Counter
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.errors import UsageError
from harness.lint.findings import Level, LintFinding, Page
from harness.lint.repository import Repository
from harness.lint.rules import RULES, judge
from harness.lint.verdicts import PointerVerdict
from harness.markdown.adoption import MARKERS
from harness.markdown.document import read_document

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_HINT = (
    f"add a marker on a line of its own ({', '.join(MARKERS)}) with a table below it, or a table with the columns "
    "Environment and Pool mode; Path, Kind and Status; Question, Answer and Matches prod?; Checklist item and Status; "
    "Item, Status and Evidence; Check, Status and Evidence; or P, ID and Symptom"
)


class FoundTable(Struct, frozen=True):
    """A table that was judged: its kind, its line and its number of rows."""

    kind: str
    line: int
    rows: int


class LintReport(Struct, frozen=True):
    """The result of judging documents. `not_judged` lists questions that the linter leaves to people."""

    findings: tuple[LintFinding, ...]
    #: by the path of the document
    tables: dict[str, tuple[FoundTable, ...]]
    not_judged: tuple[str, ...]

    @property
    def errors(self) -> int:
        return sum(finding.level is Level.ERROR for finding in self.findings)

    @property
    def warnings(self) -> int:
        return len(self.findings) - self.errors


def lint(paths: Sequence[Path], root: Path | None = None) -> LintReport:
    """Judge documents.

    :param root: the repository that pointers refer to. The default is the nearest folder above each document with a
        `.git`, otherwise the document's own folder.
    :raises UsageError: when a document is missing, is not a regular file or not UTF-8 text, when no document has an
        adoption table, and when `root` is not a folder.
    :raises ConfigError: when a document exceeds the limits of the Markdown parser.
    """
    repositories: dict[Path, Repository] = {}
    findings: list[LintFinding] = []
    tables: dict[str, tuple[FoundTable, ...]] = {}
    unknown: Counter[str] = Counter()
    unread: list[str] = []
    if root is not None and not root.is_dir():
        raise UsageError("not a folder", where=str(root), hint="name the repository's folder with --root")
    for path in paths:
        file = path.resolve()
        repository = root.resolve() if root else _root_of(file)
        page = Page(
            path=str(path),
            file=file,
            document=read_document(_read(path), str(path)),
            repository=repositories.setdefault(repository, Repository(repository)),
        )
        if not page.document.adoption_tables and len(paths) == 1:
            raise UsageError("no adoption table in the document", where=str(path), hint=_HINT)
        findings += judge(page)
        tables[str(path)] = tuple(
            FoundTable(str(table.kind), table.line, len(table.rows)) for table in page.document.adoption_tables
        )
        unknown += _unknown(page)
        unread += _unread(page)
    if not any(tables.values()):
        raise UsageError("no adoption table in any of the documents", hint=_HINT)
    return LintReport(tuple(findings), tables, (*_left_to_people(), *_not_checked(unknown), *unread))


def _root_of(file: Path) -> Path:
    return next((folder for folder in file.parents if (folder / ".git").exists()), file.parent)


def _read(path: Path) -> str:
    if path.is_dir():
        raise UsageError("the document is a folder", where=str(path), hint="name its Markdown files")
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe may never end
            raise UsageError("the document is not a regular file", where=str(path), hint="name a Markdown file")
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError("document not found", where=str(path), hint="name a Markdown file") from None
    except OSError as error:
        raise UsageError(f"cannot read the document: {error.strerror or error}", where=str(path)) from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError("invalid UTF-8 in the document", where=f"{path}:{line}", hint="save it as UTF-8") from None
    if "\0" in text:
        raise UsageError("the document is binary: it contains NUL bytes", where=str(path), hint="name a Markdown file")
    return text


def _unknown(page: Page) -> Counter[str]:
    """Count the pointers that were not checked, by the reason."""
    cells = {
        cell.raw: cell
        for table in page.document.adoption_tables
        for row in table.rows
        for column in ("evidence", "link", "notes")
        if column in table.columns and (cell := table.cell(row, column)).raw
    }
    pointers = {pointer for cell in cells.values() for pointer in page.pointers(cell)}
    return Counter(pointer.reason for pointer in pointers if pointer.verdict is PointerVerdict.UNKNOWN)


def _unread(page: Page) -> list[str]:
    """List the tables that a reader sees and the linter does not read."""
    return [
        f"the table at {page.path}:{line}, which is in a block quote or in HTML" for line in page.document.unread_tables
    ]


def _not_checked(unknown: Counter[str]) -> list[str]:
    return [
        f"{reason} ({count} {'pointer' if count == 1 else 'pointers'}, not checked)"
        for reason, count in sorted(unknown.items())
    ]


def _left_to_people() -> list[str]:
    return [f"{rule.left} ({rule.number})" for rule in RULES if rule.left]
