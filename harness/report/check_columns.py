"""The columns of the tables that have a row for each check: features, drivers, the matrix, breaks, and the evidence.

A table with a column for each topology is a function of the topologies. Templates get this module as `check_columns`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.model import MutationState, ObservedProof, Status, TrailProof
from harness.report.cells import (
    Anchor,
    Badge,
    Cell,
    Code,
    Evidence,
    Expectations,
    Faint,
    Gap,
    Identifier,
    Link,
    Outcome,
    Script,
    Source,
    Strong,
    Text,
    joined,
)
from harness.report.evidence import Row
from harness.report.feature_differences import Difference
from harness.report.feature_map import DriverRow, FeatureRow, anchor
from harness.report.findings import Finding
from harness.report.issue_groups import IssueGroup, in_words
from harness.report.job_engine_cells import outcome_of_case
from harness.report.limits import limit_kind
from harness.report.outcomes import KNOWN_DEFECT, mark_of, reliability_of, text_of, word_of
from harness.report.proofs import exactness, proven
from harness.report.table import Column, Field, code_field, identifier, listed, number, table, text_field
from harness.report.tables import MatrixRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.report.cells import Piece
    from harness.report.feature_map import FeatureCell
    from harness.report.table import Accessor, Columns
    from harness.report.tables import MatrixCell

_LINE, _AND = Gap("; ", "<br>"), Gap(", ", " ")
#: the cell of a topology or environment that owes no answer to the row
_NOT_OWED = Cell((Text("—"),), css="faint")

# --- the feature map and the drivers ---------------------------------------------------------------------


def features(topologies: Iterable[str], rows_at: str | None) -> Columns:
    """Return the columns of the feature map.

    :param rows_at: the document that holds the rows with the evidence: "" for the same one, None for no links.
    """
    instead = Column("What to do instead", text_field("instead"))
    return table(FeatureRow, Column("Feature", text_field("feature")), *_outcomes(topologies, rows_at), instead)


def drivers(topologies: Iterable[str], rows_at: str | None) -> Columns:
    """Return the columns of the table of drivers; `rows_at` is that of :func:`features`."""
    settings = Column("Settings", _settings, _settings_and_versions)
    cells = [replace(column, in_html=_evidence_of(column.heading)) for column in _outcomes(topologies, rows_at)]
    return table(DriverRow, Column("Driver", text_field("driver")), settings, *cells)


def _evidence_of(topology: str) -> Accessor:
    """Return the cell of the page, which links to the evidence of the row."""

    def cell(row: DriverRow) -> Cell:
        found = row.cells.get(topology)
        return _linked(found, f"#row={topology}/{row.check}") if found else _NOT_OWED

    return cell


def _settings(row: DriverRow) -> Cell:
    return Cell((Text(row.settings or row.versions or "Not run"),))


def _settings_and_versions(row: DriverRow) -> Cell:
    return Cell((Text(row.settings or "Not run"), Gap("", "<br>"), Faint(row.versions)))


def _outcomes(topologies: Iterable[str], rows_at: str | None) -> Columns:
    def of(topology: str) -> Field:
        return Field("cells", lambda cells: _outcome(cells.get(topology), rows_at))

    return tuple(Column(topology, of(topology)) for topology in topologies)


def _outcome(outcome: FeatureCell | None, rows_at: str | None) -> Cell:
    if outcome is None:
        return _NOT_OWED
    return _linked(outcome, "" if rows_at is None else f"{rows_at}#{outcome.anchor}")


def _linked(outcome: FeatureCell, address: str) -> Cell:
    shown = Link(outcome.text, address) if address else Text(outcome.text)
    mark = Strong(outcome.mark) if outcome.mark else None
    return Cell(joined(Gap(" ", "<br>"), shown, mark), css=f"t-{outcome.word or 'none'}")


def _features(row: Difference) -> Cell:
    return Cell((Text("; ".join(row.features)),))


def _works_in(row: Difference) -> Cell:
    return Cell((Text(", ".join(row.works_in) or "none"),))


def _elsewhere(row: Difference) -> Cell:
    pieces = (Text(f"{outcome}: {', '.join(names)}") for outcome, names in row.elsewhere.items())
    return Cell(joined(_LINE, *pieces))


DIFFERENCES = table(
    Difference,
    Column("Features", _features),
    Column("Work in", _works_in),
    Column("Elsewhere", _elsewhere),
)


def _what_and_cause(row: IssueGroup) -> Cell:
    attempts = f" ({row.attempts})" if row.attempts else ""
    return Cell((Text(f"{row.about}: {in_words(row.symptoms)}{attempts}"),))


def _known_and_command(row: IssueGroup) -> Cell:
    known = Source(row.link, label=row.accepted) if row.link else None
    return Cell(joined(_LINE, known, Code(row.command)))


def _checks(row: IssueGroup) -> Cell:
    return Cell(joined(Gap(", ", ", "), *(Evidence(check, "", check) for check in row.checks)))


ISSUE_GROUPS = table(
    IssueGroup,
    Column("Priority", text_field("severity")),
    Column("Checks", listed("checks"), _checks),
    Column("Topologies", listed("topologies")),
    Column("What was found", _what_and_cause),
    Column("Reproduce", _known_and_command),
)


def _claim_and_script(row: Finding) -> Cell:
    return Cell(joined(_LINE, Text(row.found), Faint(f"expected: {row.claim}"), Script(row.script)))


def _check_and_acceptance(row: Finding) -> Cell:
    accepted = Strong(row.accepted) if row.accepted else None
    return Cell(joined(Gap(" ", " "), Evidence(row.check, "", row.check), accepted))


FINDINGS = table(
    Finding,
    Column("Priority", text_field("severity")),
    Column("Check", _check_and_acceptance),
    Column("Topologies", listed("topologies")),
    Column("What was found", _claim_and_script),
    Column("Run it again", code_field("command")),
)

# --- checks by topology ----------------------------------------------------------------------------------


def matrix(topologies: Iterable[str]) -> Columns:
    """Return the columns of the matrix of checks."""

    def of(topology: str) -> Field:
        return Field("cells", lambda cells: _status_and_proof(cells.get(topology)))

    return table(
        MatrixRow,
        Column("Check", identifier("check")),
        Column("P", text_field("severity")),
        Column("Claim", text_field("claim")),
        *(Column(topology, of(topology)) for topology in topologies),
    )


def _status_and_proof(cell: MatrixCell | None) -> Cell:
    if cell is None:
        return _NOT_OWED
    proof = Faint(cell.proven, "small") if cell.proven else None
    shown = Outcome(cell.outcome, cell.word, cell.mark) if cell.outcome else Badge(cell.status, cell.mark)
    return Cell(joined(_AND, shown, proof))


def _caught(row: TrailProof) -> Cell:
    return Cell(joined(Gap(", ", ", "), *(Evidence(check, row.topology, check) for check in row.caught)), css="faint")


def _exact(row: TrailProof) -> Cell:
    return Cell((Text(exactness(row)),))


BREAKS = table(
    TrailProof,
    Column("Break", text_field("name")),
    Column("What the trail no longer does", text_field("what")),
    Column("Topology", text_field("topology")),
    Column("Checks tried", number("tried")),
    Column("Turned to Issue", _caught),
    Column("Exact", _exact),
)


def _noticed(row: ObservedProof) -> Cell:
    if not row.check:
        return Cell((Text(row.reason),))
    return Cell(joined(Gap(": ", ": "), Evidence(row.check, row.topology, row.check), Text(row.at)), css="faint")


def _state(row: ObservedProof) -> Cell:
    needs_attention = row.state in {MutationState.SURVIVED, MutationState.NEVER_MET}
    return Cell((Strong(row.state.value) if needs_attention else Text(row.state.value),))


OBSERVED = table(
    ObservedProof,
    Column("Mutation", identifier("name")),
    Column("A trail that …", text_field("what")),
    Column("Topology", text_field("topology")),
    Column("Outcome", _state),
    Column("Checks tried", number("tried")),
    Column("Noticed by, or why not", _noticed),
)


def rows(audit_target: str) -> Columns:
    """Return the columns of the table that holds every row with its evidence.

    :param audit_target: what the evidence is about.
    """

    def proof(row: Row) -> Cell:
        return Cell((Text(proven(row, audit_target)),))

    return table(
        Row,
        Column("Check", _anchor_and_check),
        Column("Status", _status),
        Column("What happens", _what_happens),
        Column("Proven able to fail", proof),
        Column("Evidence", _evidence, _all_evidence),
    )


def _anchor_and_check(row: Row) -> Cell:
    return Cell((Anchor(anchor(row)), Identifier(row.planned.check)))


def _status(row: Row) -> Cell:
    # green is for what works: a documented limit is OK, and the word next to it has the colour
    return Cell((Badge(row.status, plain=row.status is Status.OK and row.result.limit is not None),))


def _what_happens(row: Row) -> Cell:
    """Return the outcome of a feature or of a job engine, and the documented limit that another check observed."""
    if text := text_of(row.result):
        return Cell((Outcome(text, word_of(row.result), mark_of(row.result)),))
    kind, outcome = limit_kind(*row.answer), outcome_of_case(row)
    limit = Text(f"{kind.word}: {row.result.limit.outcome}") if row.result.limit and kind else None
    return Cell(joined(_LINE, Text(outcome) if outcome else None, limit))


def _evidence(row: Row) -> Cell:
    result = row.result
    said = Text(reliability) if (reliability := reliability_of(result)) else None
    if result.status is Status.OK:
        return Cell(joined(_LINE, Code(result.reproduce), said, Expectations(result.expectations), *_pids(row)))
    command = Code(result.reproduce) if result.status is Status.ISSUE else None
    return Cell(joined(_LINE, Text(result.reason) if result.reason else None, said, command))


def _all_evidence(row: Row) -> Cell:
    """Return everything about a row, including its facts, its source and every expectation."""
    result = row.result
    source = result.limit.source if result.limit else result.feature.source if result.feature else ""
    named = "known defect: " if mark_of(result) == KNOWN_DEFECT else "documented at "
    pieces: list[Piece] = []
    said = [Text(text) for text in (result.reason, reliability_of(result)) if text]
    for piece in said + _pids(row):
        pieces += [piece, _LINE]
    if source:
        pieces += [Text(named), Source(source), _LINE]
    if result.expectations:
        pieces.append(Expectations(result.expectations))
    for fact, value in result.facts.items():
        pieces += [Text(f"{fact}: "), Code(value), _LINE]
    return Cell((*pieces, Code(result.reproduce)))


def _pids(row: Row) -> list[Text]:
    return [Text(f"backend pids {probe.first_pid} and {probe.second_pid}: {probe.how}") for probe in row.result.probes]
