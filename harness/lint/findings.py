"""The findings of the linter, and the pages and table entries that its rules judge."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field

from harness.lint.pointers import pointers
from harness.lint.repository import Repository
from harness.lint.secrets import masked
from harness.lint.verdicts import Pointer, PointerScope
from harness.markdown.document import Document, Table, TableRow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.markdown.adoption import TableKind
    from harness.markdown.document import TableCell

_LONGEST_QUOTE = 60


class Level(StrEnum):
    ERROR = "error"
    WARNING = "warning"


class LintFinding(Struct, frozen=True):
    """A violation of a rule. In JSON, `problem` is `what` and `fix` is `mend`."""

    path: str
    line: int
    rule: str
    level: Level
    problem: str = field(name="what")
    fix: str = field(name="mend")

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule} {self.level}: {self.problem}. fix: {self.fix}"


class TableEntry(Struct, frozen=True):
    """A row of a table, together with the table."""

    table: Table
    row: TableRow

    @property
    def line(self) -> int:
        return self.row.line

    def cell(self, column: str) -> TableCell:
        return self.table.cell(self.row, column)

    def text(self, column: str) -> str:
        return self.cell(column).text

    @property
    def all_text(self) -> str:
        """The text of all cells."""
        return " ".join(cell.text for cell in self.row.cells)

    @property
    def is_example(self) -> bool:
        """Whether the row is the example of the template: its first cell is in italics and begins with "example"."""
        first = self.row.cells[0]
        return first.raw[:1] in {"_", "*"} and first.text.lower().startswith(("e.g.", "example"))


class Page(Struct, frozen=True, dict=True, kw_only=True):
    """A document to judge.

    `path` is its name in findings, and `file` its resolved path. Its pointers refer to `repository`.
    """

    path: str
    file: Path
    document: Document
    repository: Repository

    def rows(self, *kinds: TableKind) -> Iterator[TableEntry]:
        """Return the filled rows of the tables of these kinds, without the examples of templates."""
        for table in self.tables(*kinds):
            for row in table.rows:
                entry = TableEntry(table, row)
                if any(cell.text for cell in row.cells) and not entry.is_example:
                    yield entry

    def tables(self, *kinds: TableKind) -> Iterator[Table]:
        return (table for table in self.document.tables if table.kind in kinds)

    def pointers(self, cell: TableCell) -> tuple[Pointer, ...]:
        """Return the pointers of a cell. Each text is judged once."""
        if cell.raw not in self._pointers:
            self._pointers[cell.raw] = pointers(cell, self._scope, self.file)
        return self._pointers[cell.raw]

    @cached_property
    def _pointers(self) -> dict[str, tuple[Pointer, ...]]:
        return {}

    @cached_property
    def _scope(self) -> PointerScope:
        return PointerScope(self.repository, self.file.parent)

    def error(self, line: int, rule: str, problem: str, fix: str) -> LintFinding:
        return LintFinding(self.path, line, rule, Level.ERROR, masked(problem), masked(fix))

    def warning(self, line: int, rule: str, problem: str, fix: str) -> LintFinding:
        return LintFinding(self.path, line, rule, Level.WARNING, masked(problem), masked(fix))


def quoted(text: str) -> str:
    """Return a text for a message: quoted, in one line, with secrets masked, and shortened."""
    text = masked(" ".join(text.split()))
    return f'"{text[: _LONGEST_QUOTE - 1]}…"' if len(text) > _LONGEST_QUOTE else f'"{text}"'
