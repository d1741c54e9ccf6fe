"""What the linter of filled tables finds, and what its rules are given to judge."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.lint.commands import Pointer, PointerScope
from harness.lint.pointers import pointers
from harness.lint.repository import Repository
from harness.lint.secrets import masked
from harness.markdown.tables import Document, Table, TableRow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.markdown.tables import Kind, TableCell

_LONGEST_QUOTE = 60


class Level(StrEnum):
    ERROR = "error"
    WARNING = "warning"


class LintFinding(Struct, frozen=True):
    """One thing that breaks a rule: where, which rule, what was found, and what mends it."""

    path: str
    line: int
    rule: str
    level: Level
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule} {self.level}: {self.what}. mend: {self.mend}"


class TableEntry(Struct, frozen=True):
    """A row together with its table."""

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
    def whole(self) -> str:
        """Everything that the row says."""
        return " ".join(cell.text for cell in self.row.cells)

    @property
    def is_example(self) -> bool:
        """Whether the row is the one that shows how to fill the template: its first cell is in italics and says so."""
        first = self.row.cells[0]
        return first.raw[:1] in {"_", "*"} and first.text.lower().startswith(("e.g.", "example"))


class Page(Struct, frozen=True, dict=True, kw_only=True):
    """A document that is judged: by what name it is told, what it holds, and the repository that it points into."""

    path: str
    file: Path
    document: Document
    repository: Repository

    def rows(self, *kinds: Kind) -> Iterator[TableEntry]:
        """Return the filled rows of the tables of some kinds."""
        for table in self.tables(*kinds):
            for row in table.rows:
                entry = TableEntry(table, row)
                if any(cell.text for cell in row.cells) and not entry.is_example:
                    yield entry

    def tables(self, *kinds: Kind) -> Iterator[Table]:
        return (table for table in self.document.tables if table.kind in kinds)

    def pointers(self, cell: TableCell) -> tuple[Pointer, ...]:
        """Return what a cell points to, looked up once."""
        if cell.raw not in self._pointers:
            self._pointers[cell.raw] = pointers(cell, self._place, self.file)
        return self._pointers[cell.raw]

    @cached_property
    def _pointers(self) -> dict[str, tuple[Pointer, ...]]:
        return {}

    @cached_property
    def _place(self) -> PointerScope:
        return PointerScope(self.repository, self.file.parent)

    def error(self, line: int, rule: str, what: str, mend: str) -> LintFinding:
        return LintFinding(self.path, line, rule, Level.ERROR, masked(what), masked(mend))

    def warning(self, line: int, rule: str, what: str, mend: str) -> LintFinding:
        return LintFinding(self.path, line, rule, Level.WARNING, masked(what), masked(mend))


def quoted(text: str) -> str:
    """Return a cell's text for a message: in one line, without its secrets, and not too long."""
    text = masked(" ".join(text.split()))
    return f'"{text[: _LONGEST_QUOTE - 1]}…"' if len(text) > _LONGEST_QUOTE else f'"{text}"'
