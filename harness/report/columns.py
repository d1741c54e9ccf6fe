"""The columns of the tables of the report that have a row for each subject: a heading, and what each cell shows.

Both the Markdown macro (`templates/_table.md.j2`) and the HTML macro (`templates/_table.html.j2`) print these
definitions. The tables that the linter reads have their headings in `harness/markdown/headings.py`. To add a column to
one of them, add it there and a field of the same name to its row: Markdown, HTML and the linter follow. To add a column
to another table, add it here. The tables with a row for each check are in `check_columns.py`.

Templates get both modules by their names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.markdown import headings
from harness.model import Finding
from harness.preflight.declaration import GateResult
from harness.report.cells import Cell, Code, Command, Evidence, Folded, Gap, Identifier, Link, Source, Text, joined
from harness.report.documents import Document
from harness.report.ingest_rows import IngestRow
from harness.report.migration_rows import MigrationRow
from harness.report.outcomes import WORDS, Count, OutcomeCount
from harness.report.path_rows import PathRow
from harness.report.readiness import Conjunct, ReadinessRow
from harness.report.table import Column, Field, badge, code_field, headed, listed, source, table, text_field
from harness.report.tables import IssueRow, LimitRow, ParityRow
from harness.report.topology_rows import Question, TopologyRow
from harness.report.walkthrough import ItemAnswer
from harness.suites.migrations.comparison import in_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.report.cells import Piece
    from harness.report.outcomes import Word

_LINE = Gap("; ", "<br>")
#: checks of an item that the page lists without folding them
_FEW = 4


# --- the recap -------------------------------------------------------------------------------------------


class RecapRow(Struct, frozen=True):
    """One topology or environment with its counts."""

    topology: str
    count: Count

    @classmethod
    def of(cls, counts: Mapping[str, Count]) -> tuple[RecapRow, ...]:
        return tuple(cls(name, counted) for name, counted in counts.items())


def _counted(name: str) -> Field:
    if name not in Count.__struct_fields__:
        raise ValueError(f"Count in {Count.__module__} has no attribute {name}")
    return Field("count", lambda counted: Cell((Text(getattr(counted, name)),)))


RECAP = table(
    RecapRow,
    Column("Topology", text_field("topology")),
    Column("OK", _counted("ok")),
    Column("of which documented limits", _counted("limits")),
    Column("Issue", _counted("issue")),
    Column("of which known", _counted("known")),
    Column("of which in quarantine", _counted("quarantined")),
    Column("N/A", _counted("na")),
    Column("Not run", _counted("not_run")),
    Column("Flaky", _counted("flaky")),
)


class OutcomeRow(Struct, frozen=True):
    """How many features, or drivers, of one topology have each outcome."""

    topology: str
    #: `features` or `drivers`
    kind: str
    count: OutcomeCount

    @classmethod
    def of(cls, counts: Mapping[str, Count]) -> tuple[OutcomeRow, ...]:
        """Return a row for each topology with an outcome: its features, then its drivers."""
        rows = (
            cls(name, kind, found)
            for name, counted in counts.items()
            for kind, found in (("features", counted.features), ("drivers", counted.drivers))
        )
        return tuple(row for row in rows if row.count.observed)


def _outcomes_counted(word: Word) -> Field:
    """Return the number of one outcome, in its colour unless it is 0."""

    def shown(counted: OutcomeCount) -> Cell:
        number: int = getattr(counted, word.behaviour)
        return Cell((Text(number),), css=f"t-{word.behaviour}" if number else "faint")

    return Field("count", shown)


OUTCOMES = table(
    OutcomeRow,
    Column("Topology", text_field("topology")),
    Column("Rows about", text_field("kind")),
    *(Column(word.behaviour, _outcomes_counted(word)) for word in WORDS),
    Column("of which known defects", Field("count", lambda counted: Cell((Text(counted.known_defects),)))),
    Column("of which undocumented", Field("count", lambda counted: Cell((Text(counted.undocumented),)))),
    Column("better than documented", Field("count", lambda counted: Cell((Text(counted.better),)))),
    Column("no outcome (N/A, Not run)", Field("count", lambda counted: Cell((Text(counted.unobserved),)))),
)

# --- topologies and paths --------------------------------------------------------------------------------


def _run_and_command(row: TopologyRow) -> Cell:
    run = Link(row.run_id, row.run_link) if row.run_link else Text(f"run {row.run_id}") if row.run_id else None
    return Cell(joined(Gap(", ", "<br>"), run, Code(row.command)))


TOPOLOGY = headed(
    TopologyRow,
    headings.TOPOLOGY,
    {
        "class": text_field("evidence_class"),
        "product": text_field("pooler_product"),
        "mode": text_field("pool_mode"),
        "prepare": text_field("prepare_policy"),
        "sandbox": text_field("sandbox_note"),
        "matches": text_field("matches_prod"),
        "evidence": _run_and_command,
    },
)


def _servers(row: TopologyRow) -> Cell:
    pieces: list[Piece] = []
    for number, origin in enumerate(row.origins, 1):
        pieces += [Identifier(origin), Gap("" if number == len(row.origins) else "; ", "<br>")]
    return Cell(tuple(pieces) or (Text("Not run"),))


def _ready(milliseconds: float) -> Cell:
    return Cell((Text(f"{milliseconds:.0f} ms" if milliseconds else "Not run"),))


WHAT_RAN = table(
    TopologyRow,
    Column("Environment", text_field("environment")),
    Column("Engine", text_field("engine", "Not run")),
    Column("Servers", _servers),
    Column("Data", text_field("storage", "not recorded")),
    Column("Ready after", Field("ready_ms", _ready)),
)

FINDINGS = table(
    Finding,
    Column("Fact", text_field("fact")),
    Column("Value", text_field("value", "unknown")),
    Column("Confidence", text_field("confidence")),
    Column("How it was found", text_field("how")),
)

QUESTIONS = headed(Question, headings.QUESTIONS, {"matches": text_field("matches_prod")})


def _path(row: PathRow) -> Cell:
    return Cell((Evidence(row.path, row.target, row.check),))


def _suite(row: ParityRow) -> Cell:
    return Cell((Evidence(row.check, row.target, row.id),))


PATHS = headed(PathRow, headings.PATHS, {"path": _path, "status": badge("status"), "evidence": code_field("evidence")})

# --- readiness, parity and preflight ---------------------------------------------------------------------


def _why_and_commands(row: ReadinessRow) -> Cell:
    return Cell(joined(_LINE, Text(row.shown), *map(Text, row.reasons), *map(Command, row.commands)))


def _stance(row: ReadinessRow) -> Cell:
    return Cell((Text(row.stance),), title=row.meaning)


READINESS = table(
    ReadinessRow,
    Column("Area", text_field("area")),
    Column("Stance", _stance),
    Column("Evidence", _why_and_commands),
    Column("Host responsibility", text_field("host_responsibility")),
)


def _sentences(name: str) -> Field:
    return Field(name, lambda sentences: Cell(joined(Gap("; ", "; "), *map(Text, sentences)) or (Text("nothing"),)))


CONDITIONS = table(
    Conjunct,
    Column("Condition", text_field("name")),
    Column("Holds", Field("held", lambda held: Cell((Text("yes" if held else "no"),)))),
    Column("Missing", _sentences("missing")),
    Column("Shown", _sentences("shown")),
)


def _evidence_and_notes(pointer: str, notes: str, gap: Gap) -> Cell:
    """Return the cell of a command or a place in a file, with the row's notes after it."""
    return Cell(joined(gap, Code(pointer) if pointer else None, Text(notes) if notes else None))


def _command_and_notes(row: ParityRow) -> Cell:
    shown = _evidence_and_notes(row.command, row.notes, Gap(": ", "<br>"))
    return Cell((*shown.pieces, Gap("; ", "<br>"), Link("output", row.output))) if row.output else shown


def _place_and_notes(row: GateResult) -> Cell:
    return _evidence_and_notes(row.evidence, row.notes, Gap(": ", " "))


PARITY = headed(
    ParityRow, headings.PARITY, {"check": _suite, "status": badge("status"), "evidence": _command_and_notes}
)

PREFLIGHT = headed(GateResult, headings.PREFLIGHT, {"status": badge("status"), "evidence": _place_and_notes})

# --- migrations ------------------------------------------------------------------------------------------


def _migration(row: MigrationRow) -> Cell:
    return Cell((Evidence(row.check, row.target, row.id),))


def _found(row: MigrationRow) -> Cell:
    found = (*in_lines(row.note), row.instead, row.way and f"ran: {row.way}")
    texts = (Text(text) for text in found if text)
    return Cell(joined(Gap("<br>", "<br>"), *texts, Link("output", row.output) if row.output else None))


MIGRATIONS = table(
    MigrationRow,
    Column("Migrations", _migration),
    Column("Topology", text_field("target")),
    Column("Status", badge("status")),
    Column("Found", _found),
)

# --- an ingest pipeline ----------------------------------------------------------------------------------


def _ingested(row: IngestRow) -> Cell:
    return Cell((Evidence(row.outcome or str(row.status), row.target, row.check),))


INGEST = table(
    IngestRow,
    Column("Pipeline", text_field("pipeline")),
    Column("Check", code_field("check")),
    Column("Property", text_field("property")),
    Column("Topology", text_field("target")),
    Column("Status", badge("status")),
    Column("Outcome", _ingested),
    Column("Measured", text_field("measured")),
)

# --- the checklist, issues and limits --------------------------------------------------------------------


def _answer(row: ItemAnswer) -> Cell:
    """Return the reason for an item's status, and its evidence: a command with its checks, or what was signed."""
    gap = Gap("; ", " ")
    reason = Text(row.reason) if row.reason else None
    if not row.checks:
        return Cell(joined(gap, reason, Source(row.command) if row.command else None))
    command = Command(row.command) if row.command else None
    checks = joined(Gap(", ", ", "), *(Evidence(check, "", check) for check in row.checks))
    if len(row.checks) > _FEW:
        checks = (Folded(f"{len(row.checks)} checks", checks),)
    before = joined(gap, reason, command)
    return Cell((*before, *([Gap(": ", "<br>")] if command else [gap] if reason else []), *checks))


def _item(row: ItemAnswer) -> Cell:
    return Cell((Text(f"{row.number} {row.summary}"),))


CHECKLIST = headed(
    ItemAnswer,
    headings.CHECKLIST,
    {
        "checklist": _item,
        "status": badge("status"),
        "evidence": _answer,
    },
)


def _issue(row: IssueRow) -> Cell:
    return Cell((Evidence(row.id, row.topology, row.check),))


def _ticket_and_command(row: IssueRow) -> Cell:
    ticket = Source(row.link, label=row.accepted) if row.link else None
    return Cell(joined(Gap(", ", "<br>"), ticket, Code(row.command)))


ISSUES = headed(IssueRow, headings.ISSUES, {"p": text_field("severity"), "id": _issue, "link": _ticket_and_command})

LIMITS = table(
    LimitRow,
    Column("Topology", listed("topologies")),
    Column("What happens", text_field("outcome")),
    Column("Check", Field("check", lambda check: Cell((Evidence(check, "", check),)))),
    Column("Documented at", source("source")),
)


def _file(row: Document) -> Cell:
    return Cell((Link(row.name, f"./{row.name}"),))


FILES = table(
    Document,
    Column("File", _file),
    Column("Content", text_field("contents")),
)
