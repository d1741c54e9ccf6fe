"""The columns of every table of the report: a heading, and what each cell shows.

Both the Markdown macro (`templates/_table.md.j2`) and the HTML macro (`templates/_table.html.j2`) print these
definitions. The tables that the linter reads have their headings in `harness/markdown/headings.py`. To add a column to
one of them, add it there and a field of the same name to its row: Markdown, HTML and the linter follow. To add a column
to another table, add it here.

Templates get this module as `columns`. A table with fixed columns is a constant; a table with a column for each
topology is a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from harness.markdown import headings
from harness.model import Status
from harness.report.cells import (
    Anchor,
    Badge,
    Cell,
    Code,
    Expectations,
    Faint,
    Gap,
    Identifier,
    Link,
    Source,
    Strong,
    Text,
    joined,
)
from harness.report.feature_map import anchor
from harness.report.proofs import exactness, proven
from harness.report.topology_rows import TopologyRow

if TYPE_CHECKING:
    from markupsafe import Markup

    from harness.markdown.headings import Column as Heading
    from harness.report.cells import Piece
    from harness.report.escape import Ready
    from harness.report.evidence import Row
    from harness.report.feature_map import DriverRow, FeatureCell
    from harness.report.readiness import Conjunct, ReadinessRow
    from harness.report.tables import IssueRow, MatrixRow
    from harness.report.walkthrough import ItemAnswer

#: returns what a cell shows, given the row
Accessor = Callable[[Any], Cell]

_COMMA = Gap(", ", ", ")
_LINE = Gap("; ", "<br>")


class Column(Struct, frozen=True):
    """One column of a table of the report.

    :param heading: what is printed above it.
    :param cell: what the cell of a row shows.
    :param in_html: what it shows in HTML, if HTML has room for more.
    """

    heading: str
    cell: Accessor
    in_html: Accessor | None = None

    def markdown(self, row: object) -> Ready:
        return self.cell(row).markdown()

    def html(self, row: object) -> Markup:
        return (self.in_html or self.cell)(row).html()


Columns = tuple[Column, ...]


# --- cells that many tables share ------------------------------------------------------------------------


def _text(field: str, empty: str = "") -> Accessor:
    return lambda row: Cell((Text(getattr(row, field) or empty),))


def _list(field: str, css: str = "") -> Accessor:
    return lambda row: Cell((Text(", ".join(getattr(row, field))),), css=css)


def _code(field: str) -> Accessor:
    return lambda row: Cell((Code(getattr(row, field)),))


def _identifier(field: str) -> Accessor:
    return lambda row: Cell((Identifier(getattr(row, field)),))


def _source(field: str) -> Accessor:
    return lambda row: Cell((Source(getattr(row, field)),))


def _badge(field: str) -> Accessor:
    return lambda row: Cell((Badge(getattr(row, field)),))


def _evidence_and_notes(evidence: str, gap: Gap) -> Accessor:
    """Return the cell of a command or a place in a file, with the row's notes after it."""

    def cell(row: Any) -> Cell:
        pointer, notes = getattr(row, evidence), row.notes
        return Cell(joined(gap, Code(pointer) if pointer else None, Text(notes) if notes else None))

    return cell


def headed(table: Sequence[Heading], cells: Mapping[str, Accessor], row: type[Struct] | None = None) -> Columns:
    """Return the columns of a table that the linter also reads.

    :param table: one of the tables of `harness/markdown/headings.py`.
    :param cells: what the cells of a column show, by its key. A column without an entry shows the attribute of the row
        that is named like its key.
    :param row: the type of the rows, to check that they have these attributes.
    :raises ValueError: when `cells` has a key that the table does not have, or the rows lack an attribute.
    """
    if unknown := cells.keys() - {heading.key for heading in table}:
        raise ValueError(f"unknown columns {', '.join(sorted(unknown))}, see harness/markdown/headings.py")
    named = {heading.key for heading in table} - cells.keys()
    if row and (missing := named - set(row.__struct_fields__)):
        raise ValueError(
            f"the column {', '.join(sorted(missing))} has no cell: add a field of that name to {row.__name__} in "
            f"{row.__module__}, or an entry in harness/report/columns.py"
        )
    return tuple(Column(heading.heading, cells.get(heading.key, _text(heading.key))) for heading in table)


# --- the recap -------------------------------------------------------------------------------------------


def _counted(field: str) -> Accessor:
    return lambda entry: Cell((Text(getattr(entry[1], field)),))


#: rows are pairs of a topology's name and its counts
RECAP: Columns = (
    Column("Topology", lambda entry: Cell((Text(entry[0]),))),
    Column("OK", _counted("ok")),
    Column("Issue", _counted("issue")),
    Column("of which known", _counted("known")),
    Column("N/A", _counted("na")),
    Column("Not run", _counted("not_run")),
)

# --- topologies and paths --------------------------------------------------------------------------------


def _run_and_command(row: TopologyRow) -> Cell:
    run = Link(row.run_id, row.run_link) if row.run_link else Text(f"run {row.run_id}") if row.run_id else None
    return Cell(joined(Gap(", ", "<br>"), run, Code(row.command)))


TOPOLOGY = headed(
    headings.TOPOLOGY,
    {
        "class": _text("evidence_class"),
        "product": _text("pooler_product"),
        "mode": _text("pool_mode"),
        "prepare": _text("prepare_policy"),
        "sandbox": _text("sandbox_note"),
        "matches": _text("matches_prod"),
        "evidence": _run_and_command,
    },
    TopologyRow,
)


def _servers(row: TopologyRow) -> Cell:
    pieces: list[Piece] = []
    for number, origin in enumerate(row.origins, 1):
        pieces += [Identifier(origin), Gap("" if number == len(row.origins) else "; ", "<br>")]
    return Cell(tuple(pieces) or (Text("Not run"),))


WHAT_RAN: Columns = (
    Column("Environment", _text("environment")),
    Column("Engine", _text("engine", "Not run")),
    Column("Servers", _servers),
    Column("Data", _text("storage", "not recorded")),
    Column("Ready after", lambda row: Cell((Text(f"{row.ready_ms:.0f} ms" if row.ready_ms else "Not run"),))),
)

FINDINGS: Columns = (
    Column("Fact", _text("fact")),
    Column("Value", _text("value", "unknown")),
    Column("Confidence", _text("confidence")),
    Column("How it was found", _text("how")),
)

QUESTIONS = headed(headings.QUESTIONS, {"matches": _text("matches_prod")})

PATHS = headed(headings.PATHS, {"status": _badge("status"), "evidence": _code("evidence")})

# --- readiness, parity and preflight ---------------------------------------------------------------------


def _why_and_commands(row: ReadinessRow) -> Cell:
    return Cell(joined(_LINE, Text(row.shown), *map(Text, row.reasons), *map(Code, row.commands)))


READINESS: Columns = (
    Column("Area", _text("area")),
    Column("Stance", lambda row: Cell((Text(row.stance),), title=row.meaning)),
    Column("Evidence", _why_and_commands),
    Column("Host responsibility", _text("host_responsibility")),
)


def _sentences(field: str) -> Accessor:
    def cell(row: Conjunct) -> Cell:
        return Cell(joined(Gap("; ", "; "), *map(Text, getattr(row, field))) or (Text("nothing"),))

    return cell


CONDITIONS: Columns = (
    Column("Condition", _text("name")),
    Column("Holds", lambda row: Cell((Text("yes" if row.held else "no"),))),
    Column("Missing", _sentences("missing")),
    Column("Shown", _sentences("shown")),
)

PARITY = headed(
    headings.PARITY,
    {"status": _badge("status"), "evidence": _evidence_and_notes("command", Gap(": ", "<br>"))},
)

PREFLIGHT = headed(
    headings.PREFLIGHT,
    {"status": _badge("status"), "evidence": _evidence_and_notes("evidence", Gap(": ", " "))},
)

# --- the checklist, issues and limits --------------------------------------------------------------------


def _answer(row: ItemAnswer) -> Cell:
    """Return the reason for an item's status, and its evidence: a command with its checks, or what was signed."""
    gap = Gap("; ", " ")
    reason = Text(row.reason) if row.reason else None
    if not row.checks:
        return Cell(joined(gap, reason, Source(row.command) if row.command else None))
    command = Code(row.command) if row.command else None
    checks = joined(Gap(": ", "<br>"), command, Faint(", ".join(row.checks)))
    return Cell((*joined(gap, reason, checks[0]), *checks[1:]))


CHECKLIST = headed(
    headings.CHECKLIST,
    {
        "checklist": lambda row: Cell((Text(f"{row.number} {row.summary}"),)),
        "status": _badge("status"),
        "evidence": _answer,
    },
)


def _ticket_and_command(row: IssueRow) -> Cell:
    ticket = Source(row.link, label="known") if row.link else None
    return Cell(joined(Gap(", ", "<br>"), ticket, Code(row.command)))


ISSUES = headed(headings.ISSUES, {"p": _text("severity"), "link": _ticket_and_command})

LIMITS: Columns = (
    Column("Topology", _list("topologies")),
    Column("What happens", _text("outcome")),
    Column("Check", _text("check")),
    Column("Documented at", _source("source")),
    Column("Shown by", _code("command")),
)

# --- the feature map and the drivers ---------------------------------------------------------------------


def features(topologies: Iterable[str], rows_at: str | None) -> Columns:
    """Return the columns of the feature map.

    :param rows_at: the document that holds the rows with the evidence: "" for the same one, None for no links.
    """
    return (Column("Feature", _text("feature")), *_outcomes(topologies, rows_at))


def drivers(topologies: Iterable[str], rows_at: str | None) -> Columns:
    """Return the columns of the table of drivers; `rows_at` is that of :func:`features`."""
    settings = Column("Settings", lambda row: Cell((Text(row.settings or row.versions or "Not run"),)), _settings)
    return (Column("Driver", _text("driver")), settings, *_outcomes(topologies, rows_at))


def _settings(row: DriverRow) -> Cell:
    return Cell((Text(row.settings or "Not run"), Gap("", "<br>"), Faint(row.versions)))


def _outcomes(topologies: Iterable[str], rows_at: str | None) -> Columns:
    def of(topology: str) -> Accessor:
        return lambda row: _outcome(row.cells.get(topology), rows_at)

    return tuple(Column(topology, of(topology)) for topology in topologies)


def _outcome(outcome: FeatureCell | None, rows_at: str | None) -> Cell:
    if outcome is None:
        return Cell((Text("—"),), css="faint")
    shown = Text(outcome.text) if rows_at is None else Link(outcome.text, f"{rows_at}#{outcome.anchor}")
    mark = Strong(outcome.mark) if outcome.mark else None
    return Cell(joined(Gap(" ", "<br>"), shown, mark), css=f"t-{outcome.tone or 'none'}")


# --- checks by topology ----------------------------------------------------------------------------------


def matrix(topologies: Iterable[str]) -> Columns:
    """Return the columns of the matrix of checks."""

    def of(topology: str) -> Accessor:
        return lambda row: _status_and_proof(row, topology)

    return (
        Column("Check", _identifier("check")),
        Column("P", _text("severity")),
        Column("Claim", _text("claim")),
        *(Column(topology, of(topology)) for topology in topologies),
    )


def _status_and_proof(row: MatrixRow, topology: str) -> Cell:
    proof = row.proven.get(topology)
    badge = Badge(row.statuses[topology], row.marks.get(topology, ""))
    return Cell(joined(Gap(", ", " "), badge, Faint(proof, "small") if proof else None))


BREAKS: Columns = (
    Column("Break", _text("name")),
    Column("What the trail no longer does", _text("what")),
    Column("Topology", _text("topology")),
    Column("Checks tried", lambda row: Cell((Text(row.tried),))),
    Column("Turned to Issue", _list("caught", css="faint")),
    Column("Exact", lambda row: Cell((Text(exactness(row)),))),
)


def rows(audit_target: str) -> Columns:
    """Return the columns of the table that holds every row with its evidence.

    :param audit_target: what the evidence is about.
    """
    return (
        Column("Check", lambda row: Cell((Anchor(anchor(row)), Identifier(row.planned.check)))),
        Column("Status", lambda row: Cell((Badge(row.status),))),
        Column("Proven able to fail", lambda row: Cell((Text(proven(row, audit_target)),))),
        Column("Evidence", _evidence, _all_evidence),
    )


def _evidence(row: Row) -> Cell:
    result = row.result
    if result.status is Status.OK:
        return Cell(joined(_LINE, Code(result.reproduce), Expectations(result.expectations), *_pids(row)))
    command = Code(result.reproduce) if result.status is Status.ISSUE else None
    return Cell(joined(_LINE, Text(result.reason) if result.reason else None, command))


def _all_evidence(row: Row) -> Cell:
    """Return everything about a row, including its facts and every expectation."""
    result = row.result
    pieces: list[Piece] = []
    for piece in ([Text(result.reason)] if result.reason else []) + _pids(row):
        pieces += [piece, _LINE]
    if result.expectations:
        pieces.append(Expectations(result.expectations))
    for fact, value in result.facts.items():
        pieces += [Text(f"{fact}: "), Code(value), _LINE]
    return Cell((*pieces, Code(result.reproduce)))


def _pids(row: Row) -> list[Text]:
    return [Text(f"backend pids {probe.first_pid} and {probe.second_pid}: {probe.how}") for probe in row.result.probes]
