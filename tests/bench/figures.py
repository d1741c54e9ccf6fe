"""Figures as tables: on a terminal, and as the Markdown that docs/performance.md holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence


class Table(Struct, frozen=True, kw_only=True):
    """One table of figures; the title is also the heading that it has in docs/performance.md."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    #: what was skipped and why, and how to read it; one sentence each
    notes: tuple[str, ...] = ()

    def plain(self) -> str:
        widths = [max(map(len, cells)) for cells in zip(self.columns, *self.rows, strict=True)]
        lines = [_line(self.columns, widths), *(_line(row, widths) for row in self.rows)]
        return "\n".join([f"\n{self.title}", *(f"  {line}" for line in lines), *(f"  {note}" for note in self.notes)])

    def markdown(self) -> str:
        lines = [_cells(self.columns), "|" + "---|" * len(self.columns), *map(_cells, self.rows)]
        notes = "".join(f"\n{note}\n" for note in self.notes)
        return f"\n### {self.title}\n\n" + "\n".join(lines) + "\n" + notes


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def verdict(value: float, bound: float, unit: str = "s") -> str:
    """Return `within 50 s` or `OVER 50 s`."""
    return f"{'within' if value <= bound else 'OVER'} {bound:g}{f' {unit}' if unit else ''}"
