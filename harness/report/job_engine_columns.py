"""The columns of the tables about job engines. Templates get it by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.report.cells import Badge, Cell, Evidence, Faint, Gap, Source, Text, element, joined
from harness.report.escape import Ready, link, text
from harness.report.job_engine_cells import WORKS, JobWord
from harness.report.job_engine_rows import JobEngineRow
from harness.report.job_findings import JobFinding
from harness.report.section_words import numbered
from harness.report.table import Column, Field, listed, table, text_field

if TYPE_CHECKING:
    from collections.abc import Iterable

    from markupsafe import Markup

    from harness.report.job_engine_cells import JobEngineCell
    from harness.report.table import Columns

_LINE, _NEXT = Gap("; ", "<br>"), Gap(", ", "<br>")
#: cases that a cell names; more are counted
_FEW = 2


class Word(Struct, frozen=True):
    """One word of a cell, in the colour of its kind, as a link to its evidence.

    :param rows_at: the Markdown document that holds the rows with the evidence; None for no links.
    """

    word: JobWord
    rows_at: str | None

    def markdown(self) -> Ready:
        word = self.word
        shown = text(word.text) if self.rows_at is None else link(word.text, f"{self.rows_at}#{word.anchor}")
        return Ready(f"{shown} ({text(word.mark)})") if word.mark else shown

    def html(self) -> Markup:
        word = self.word
        shown = element(
            "a",
            word.text,
            css=f"tag j-{word.tone}",
            href=f"#row={word.target}/{word.check}",
            title=f"case {', '.join(word.cases)}",
        )
        return shown + " " + element("small", word.mark) if word.mark else shown


def engines(topologies: Iterable[str], rows_at: str | None) -> Columns:
    """Return the columns of the table of job engines.

    :param rows_at: the document that holds the rows with the evidence: "" for the same one, None for no links.
    """

    def of(topology: str) -> Field:
        return Field("cells", lambda cells: _cell(cells.get(topology), rows_at))

    return table(
        JobEngineRow,
        Column("Job engine", text_field("title"), _engine),
        Column("Variant", text_field("variant")),
        *(Column(topology, of(topology)) for topology in topologies),
        Column("Settings and versions", _settings),
    )


def _engine(row: JobEngineRow) -> Cell:
    return Cell((Text(row.title),), css="engine")


def _settings(row: JobEngineRow) -> Cell:
    pieces = [Faint(value) for value in (row.settings, row.versions) if value]
    return Cell(joined(_LINE, *pieces))


def _cell(cell: JobEngineCell | None, rows_at: str | None) -> Cell:
    if cell is None:
        return Cell((Text("—"),), css="faint absent")
    if not cell.words:
        return Cell(joined(Gap(": ", " "), Badge(cell.status), Text(cell.note) if cell.note else None))
    words = [Word(word, rows_at) for word in cell.words]
    # a few cases do not speak for an engine of which most were not tried
    ran = numbered(cell.ran, "case") if any(word.text == WORKS for word in cell.words) else ""
    details = [f"{cell.more} more" if cell.more else "", ran, cell.note, _not_run(cell)]
    return Cell(joined(_NEXT, *words, *(Faint(detail, "small") for detail in details if detail)))


def _not_run(cell: JobEngineCell) -> str:
    number = len(cell.not_run)
    named = f": {', '.join(cell.not_run)}" if 0 < number <= _FEW else ""
    return f"{number} not run{named}" if number else ""


def _found(row: JobFinding) -> Cell:
    return Cell((Evidence(row.observed, row.target, row.check),))


def _sources(row: JobFinding) -> Cell:
    return Cell(joined(_LINE, *map(Source, row.sources)))


FINDINGS = table(
    JobFinding,
    Column("Job engine", text_field("title")),
    Column("Variant", text_field("variant")),
    Column("Topologies", listed("topologies")),
    Column("Cases", listed("cases")),
    Column("Kind", text_field("kind")),
    Column("What was observed", _found),
    Column("What to do instead", text_field("instead")),
    Column("Source", _sources),
)
