"""Figures as tables: plain text for a terminal, and the Markdown of docs/performance.md."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

#: as :func:`verdict` writes it
_VERDICT = re.compile(r"\b(?:within|OVER) [0-9][0-9.]*(?: (?:s|MB))?(?![0-9.])")


class Table(Struct, frozen=True, kw_only=True):
    """One table of figures. Its title is also its heading in docs/performance.md."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    #: how to read the table, and anything skipped with the reason; one sentence per note
    notes: tuple[str, ...] = ()

    def plain(self) -> str:
        widths = [max(map(len, cells)) for cells in zip(self.columns, *self.rows, strict=True)]
        lines = [_line(self.columns, widths), *(_line(row, widths) for row in self.rows)]
        return "\n".join([f"\n{self.title}", *(f"  {line}" for line in lines), *(f"  {note}" for note in self.notes)])

    def markdown(self) -> str:
        lines = [_cells(self.columns), "|" + "---|" * len(self.columns), *map(_cells, self.rows)]
        notes = "".join(f"\n{note}\n" for note in self.notes)
        return f"\n### {self.title}\n\n" + "\n".join(lines) + "\n" + notes

    def without_verdicts(self) -> Table:
        """Return the table without verdicts: bounds apply to the usual scale only."""
        rows = tuple(tuple(_VERDICT.sub("", cell).strip() for cell in row) for row in self.rows)
        notes = tuple(_VERDICT.sub("", note).replace(" ()", "") for note in self.notes)
        return msgspec.structs.replace(self, rows=rows, notes=notes)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def verdict(value: float, bound: float, unit: str = "s") -> str:
    """Return `within 50 s` or `OVER 50 s`."""
    return f"{'within' if value <= bound else 'OVER'} {bound:g}{f' {unit}' if unit else ''}"
