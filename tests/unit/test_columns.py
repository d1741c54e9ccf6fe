"""One definition per table: Markdown, HTML and the linter have the same columns, and README has no others."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness import places
from harness.job_engines.target_file import Case
from harness.markdown import headings
from harness.markdown.adoption import TableKind
from harness.markdown.document import read_document
from harness.markdown.headings import Column, key_of
from harness.model import (
    Confidence,
    Finding,
    MutationState,
    ObservedProof,
    Repetition,
    RunAttempts,
    Section,
    Status,
    TrailProof,
)
from harness.preflight.declaration import GateResult
from harness.report import check_columns, columns, job_engine_columns, load_columns
from harness.report.building import build_report
from harness.report.cells import (
    Badge,
    Code,
    Expectations,
    Faint,
    Gap,
    Identifier,
    Link,
    Outcome,
    Source,
    Strong,
    Text,
    joined,
)
from harness.report.documents import documents
from harness.report.evidence import Row
from harness.report.feature_differences import differences
from harness.report.feature_map import DriverRow, FeatureCell, FeatureGroup, FeatureRow
from harness.report.ingest_rows import IngestRow
from harness.report.issue_groups import issue_groups
from harness.report.job_engine_rows import job_engines
from harness.report.job_rows import JOBS, job_rows
from harness.report.limits import LimitKind
from harness.report.load_rows import fault_rows, load_rows
from harness.report.merging import merge
from harness.report.migration_rows import MigrationRow
from harness.report.outcomes import WORDS, OutcomeCount
from harness.report.page import heat_map
from harness.report.readiness import MEANINGS, Conjunct, Decision, ReadinessRow, Stance
from harness.report.render import render
from harness.report.repetition import QuarantineRow, RepeatedRow
from harness.report.table import Column as TableColumn
from harness.report.table import headed, table, text_field
from harness.report.tables import LimitRow, ParityRow, Report
from harness.report.topology_rows import TopologyRow
from tests.tables import each_row
from tests.unit.job_engines import job_row
from tests.unit.made_up import CHECKS, NAMES, PLAN, mixed, planned, record, result, store_run
from tests.unit.pages import evidence_of

if TYPE_CHECKING:
    from pathlib import Path

    from harness.markdown.document import Table
    from harness.report.cells import Piece

LINTED = {
    TableKind.TOPOLOGY: (headings.TOPOLOGY, columns.TOPOLOGY),
    TableKind.PATHS: (headings.PATHS, columns.PATHS),
    TableKind.QUESTIONS: (headings.QUESTIONS, columns.QUESTIONS),
    TableKind.CHECKLIST: (headings.CHECKLIST, columns.CHECKLIST),
    TableKind.PREFLIGHT: (headings.PREFLIGHT, columns.PREFLIGHT),
    TableKind.PARITY: (headings.PARITY, columns.PARITY),
    TableKind.ISSUES: (headings.ISSUES, columns.ISSUES),
}
#: by a name for the test's id; Markdown says what a client found in a paragraph, so that table is one of HTML only
TABLES = {
    "recap": columns.RECAP,
    "outcomes": columns.OUTCOMES,
    "topology": columns.TOPOLOGY,
    "what ran": columns.WHAT_RAN,
    "questions": columns.QUESTIONS,
    "paths": columns.PATHS,
    "readiness": columns.READINESS,
    "conditions": columns.CONDITIONS,
    "parity": columns.PARITY,
    "migrations": columns.MIGRATIONS,
    "preflight": columns.PREFLIGHT,
    "checklist": columns.CHECKLIST,
    "issues": columns.ISSUES,
    "limits": columns.LIMITS,
    "trials": load_columns.TRIALS,
    "faults": load_columns.FAULTS,
    "jobs": load_columns.JOBS,
    "loads": load_columns.LOADS,
    "job engines": job_engine_columns.engines(("transaction",), None),
    "job findings": job_engine_columns.FINDINGS,
    "ingest": columns.INGEST,
    "consecutive": load_columns.CONSECUTIVE,
    "repeated": load_columns.REPEATED,
    "quarantine": load_columns.QUARANTINE,
    "features": check_columns.features(NAMES, None),
    "drivers": check_columns.drivers(NAMES, None),
    "matrix": check_columns.matrix(NAMES),
    "breaks": check_columns.BREAKS,
    "mutations": check_columns.OBSERVED,
    "rows": check_columns.rows("reference"),
    "issue groups": check_columns.ISSUE_GROUPS,
    "differences": check_columns.DIFFERENCES,
    "files": columns.FILES,
}


#: the page draws these in another form: cards, the feature map, the heat map, and the evidence of each of its cells
DRAWN = {"recap", "outcomes", "features", "matrix", "rows"}
#: only report.md has it
SUMMARISED = {"files"}


class PageTables(HTMLParser):
    """The header of each table of a page that prints columns, and how many cells its rows have."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: list[tuple[str, ...]] = []
        self.widths: list[set[int]] = []
        self._header: list[str] | None = None
        self._cells = 0
        self._listed = False
        # the rows that a cell of the current row covers, and how many rows cells of earlier ones still cover
        self._spanning: list[int] = []
        self._spanned: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._listed = ("class", "listed") in attrs
        elif not self._listed:
            return
        elif tag == "thead":
            self._header = []
            self.widths.append(set())
        elif tag == "th" and self._header is not None:
            self._header.append("")
        elif tag == "tr":
            self._cells = 0
        elif tag == "td":
            self._cells += 1
            self._spanning += [int(value or 1) for name, value in attrs if name == "rowspan"]

    def handle_data(self, data: str) -> None:
        if self._header:
            self._header[-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "thead" and self._header is not None:
            self.headers.append(tuple(self._header))
            self._header = None
        elif tag == "tr" and self._listed and self._header is None and self._cells:
            self.widths[-1].add(self._cells + len(self._spanned))
            self._spanned = [rows - 1 for rows in (*self._spanned, *self._spanning) if rows > 1]
            self._spanning = []


def under_load(check: str, section: Section) -> Row:
    plan = replace(planned("direct", CHECKS[0]), check=check, section=section)
    return Row(planned=plan, result=replace(result("direct", CHECKS[0]), check=check), run_id="r")


def about_jobs() -> Row:
    row = under_load("resilience.jobs-queued", Section.RESILIENCE)
    return replace(row, planned=replace(row.planned, area=JOBS))


def everything(folder: Path) -> Report:
    """Return a report with a row in every table."""
    run = record()
    found = Finding(fact="pool_mode", value="session", how="it was forced", confidence=Confidence.CERTAIN)
    session = replace(run.topologies["session"], findings=(found,))
    run = replace(run, topologies=run.topologies | {"session": session})
    cells = {name: FeatureCell(text="works", word="works", mark="Issue", anchor="a", command="c") for name in NAMES}
    cells["session"] = replace(cells["session"], text="lost", word="lost")
    report = build_report(merge([store_run(folder, mixed(), run)], PLAN), folder)
    outcomes = OutcomeCount(works=1, lost=2, wrong=1, known_defects=1)
    return replace(
        report,
        counts={name: replace(counted, features=outcomes) for name, counted in report.counts.items()},
        feature_topologies=NAMES,
        features=(FeatureGroup(name="settings", rows=(FeatureRow(feature="SET", check="pooling.set", cells=cells),)),),
        drivers=(DriverRow(driver="psycopg", check="c", settings="s", versions="v", cells=cells),),
        faults=fault_rows([under_load("resilience.server-killed", Section.RESILIENCE)]),
        jobs=job_rows([about_jobs()]),
        loads=load_rows([under_load("soak.mix", Section.SOAK)]),
        job_engines=job_engines([job_row(), job_row(Case.IDLE, Status.ISSUE, "idle 27 s")]),
        limits=(
            LimitRow(
                kind=LimitKind.TRAIL,
                topologies=NAMES,
                outcome="o",
                check="c",
                source="https://example.org",
            ),
        ),
        repeated=(
            RepeatedRow(
                topology="direct",
                check="",
                number=2,
                status=Status.ISSUE,
                counts=Repetition(ok=2, issue=1),
                runs=(RunAttempts(run_id="r", counts=Repetition(ok=2, issue=1)),),
            ),
        ),
        quarantine=(
            QuarantineRow(
                check="c",
                topologies="all",
                owner="ada",
                link="https://example.org",
                expires="2099-01-01",
                decides="no",
                shown="OK in direct",
            ),
        ),
        ingest=(
            IngestRow(
                target="direct",
                check="ingest.end-to-end",
                pipeline="shop",
                property="a sample is indexed",
                status=Status.OK,
                outcome="works",
                measured="1 of 1 uploads indexed",
            ),
        ),
        preflight=(GateResult(item="version", status=Status.OK, evidence="pyproject.toml:3", notes="n"),),
        parity=(
            ParityRow(
                check="unit tests", target="direct", id="command.t", status=Status.OK, command="nox -s t", notes="n"
            ),
        ),
        migrations=(
            MigrationRow(
                check="c", id="migrations.m-twice", target="direct", status=Status.OK, note="n", instead="i", way="w"
            ),
        ),
        readiness=(
            ReadinessRow(
                area="jobs",
                stance=Stance.PROVEN,
                meaning=MEANINGS[Stance.PROVEN],
                reasons=("r",),
                shown="1 OK",
                commands=("c",),
                host_responsibility="h",
            ),
        ),
        decisions=(
            Decision(workflow="w", release="1", answer="yes", conjuncts=(Conjunct(name="guidance", missing=()),)),
        ),
        trail_proofs=(
            TrailProof(topology="direct", name="b", what="w", tried=2, caught=("c",), missed=("d",), unexpected=("e",)),
        ),
        observed_proofs=(
            ObservedProof(
                topology="direct",
                name="actor.null",
                what="records no actor",
                state=MutationState.NOTICED,
                tried=3,
                check="actor.unset",
                at="actor",
            ),
            ObservedProof(
                topology="direct",
                name="op.padded",
                what="pads the operation",
                state=MutationState.SURVIVED,
                tried=9,
                reason="none of 9 checks turned to Issue",
            ),
        ),
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the text of every document, by its name."""
    folder = tmp_path_factory.mktemp("reports")
    return {path.name: path.read_text() for path in render(everything(folder), folder)}


@pytest.fixture(scope="module")
def markdown_tables(written: dict[str, str]) -> list[Table]:
    """Return the tables of all Markdown documents."""
    texts = [text for name, text in written.items() if name.endswith(".md")]
    return [table for text in texts for table in read_document(text).tables]


@pytest.fixture(scope="module")
def tables_of_the_page(written: dict[str, str]) -> PageTables:
    return page_tables(written["report.html"])


def page_tables(page: str) -> PageTables:
    found = PageTables()
    found.feed(page)
    return found


@each_row("name", TABLES)
def test_markdown_and_html_have_every_column(
    markdown_tables: list[Table], tables_of_the_page: PageTables, name: str
) -> None:
    header = tuple(column.heading for column in TABLES[name])
    assert header in {table.header for table in markdown_tables}
    assert (header in tables_of_the_page.headers) is (name not in DRAWN | SUMMARISED)


def test_no_document_has_a_table_of_its_own(written: dict[str, str]) -> None:
    defined = {tuple(column.heading for column in table) for table in (*TABLES.values(), columns.FINDINGS)}
    for name, text in written.items():
        if name.endswith(".md"):
            assert {table.header for table in read_document(text).tables} <= defined
    drawn = {tuple(column.heading for column in TABLES[name]) for name in DRAWN | SUMMARISED}
    assert set(page_tables(written["report.html"]).headers) == defined - drawn


def test_the_page_draws_what_it_does_not_list(tmp_path: Path) -> None:
    """Each count has its place on a card, each feature in the map, and each row in the evidence of a cell."""
    report = everything(tmp_path)
    render(report, tmp_path)
    page = (tmp_path / "report.html").read_text()
    cards = [re.sub("<[^>]+>", " ", card) for card in re.findall("<article .*?</article>", page, re.DOTALL)]
    for card, (name, counted) in zip(cards, report.counts.items(), strict=True):
        numbers = {"OK": counted.ok, "Issue": counted.issue, "N/A": counted.na, "Not run": counted.not_run}
        numbers |= {word.behaviour: getattr(counted.features, word.behaviour) for word in WORDS}
        assert name in card
        assert [word for word, number in numbers.items() if number and f"{number} {word}" not in card] == []
    for group in report.features:
        for feature in group.rows:
            assert feature.feature in page
            assert f'<tr data-check="{feature.check}">' in page
            assert [name for name in feature.cells if f'data-name="{name}"' not in page] == []
    evidence = evidence_of(page)
    for row in report.rows:
        detail = evidence.rows[row.planned.check][row.planned.target]
        assert (detail.status, detail.reason, detail.reproduce) == (row.status, row.result.reason, row.result.reproduce)
        assert (detail.expectations, detail.facts) == (row.result.expectations, row.result.facts)
    drawn = {
        (name, check): cell
        for band in heat_map(report.rows)
        for name, cells in band.lines.items()
        for check, cell in zip(band.checks, cells, strict=True)
        if cell
    }
    assert drawn.keys() == {(row.planned.target, row.planned.check) for row in report.rows}
    assert re.findall('class="sq [^"]+">([^<]+)</a>', page) == [cell.text for cell in drawn.values()]


def test_every_row_has_a_cell_for_every_column(markdown_tables: list[Table], tables_of_the_page: PageTables) -> None:
    page = tables_of_the_page
    assert page.widths == [{len(header)} for header in page.headers]
    tables = markdown_tables
    assert all(table.rows for table in tables)
    assert [row for table in tables for row in table.rows if row.surplus] == []


@pytest.mark.parametrize("kind", LINTED)
def test_the_linter_knows_every_column(markdown_tables: list[Table], kind: TableKind) -> None:
    shared, printed = LINTED[kind]
    assert [column.heading for column in printed] == [column.heading for column in shared]
    keys = tuple(column.key for column in shared)
    # the table of all rows begins like the one of the user's own suites
    assert keys in {table.columns for table in markdown_tables if table.kind is kind}


@pytest.mark.parametrize("kind", [TableKind.TOPOLOGY, TableKind.PATHS])
def test_documents_show_no_column_that_the_report_lacks(kind: TableKind) -> None:
    texts = [(places.PACKAGE.parent / name).read_text(encoding="utf-8") for name in ("README.md", "docs/report.md")]
    tables = [table for text in texts for table in read_document(text).tables if table.kind is kind]
    known = {name for column in LINTED[kind][0] for name in (column.heading, column.name)}
    assert tables
    assert {heading for table in tables for heading in table.header} <= known


def test_a_column_that_is_added_to_the_headings_is_one_of_markdown_and_html(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cells show the attribute of the row that is named like its key."""
    shared = (*headings.TOPOLOGY, Column("storage", "Where the data is (memory or disk)"))
    cells = {heading.key: column.cell for heading, column in zip(headings.TOPOLOGY, columns.TOPOLOGY, strict=True)}
    monkeypatch.setattr(columns, "TOPOLOGY", headed(TopologyRow, shared, cells))
    report = everything(tmp_path)
    render(report, tmp_path)
    (table,) = (
        table
        for table in read_document((tmp_path / "stg-01-topology.md").read_text()).tables
        if table.kind is TableKind.TOPOLOGY
    )
    assert table.header[-1] == "Where the data is (memory or disk)"
    assert [row.cells[-1].text for row in table.rows] == [row.storage for row in report.topologies]
    assert tuple(column.heading for column in shared) in page_tables((tmp_path / "report.html").read_text()).headers


def test_a_cell_of_an_unknown_column_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown columns colour"):
        headed(TopologyRow, headings.TOPOLOGY, {"colour": columns.TOPOLOGY[0].cell})


@each_row(
    ("heading", "key"),
    [
        ("Environments", "environment"),
        ("Evidence class", "class"),
        ("Pooler", "product"),
        ("Pooling mode", "mode"),
        ("Matches production?", "matches"),
        ("Notes", "notes"),
        ("Evidence / notes", "evidence"),
        ("Pointers", "evidence"),
        ("Priority:", "p"),
        ("", ""),
        ("Colour", ""),
    ],
)
def test_people_may_head_a_column_in_other_words(heading: str, key: str) -> None:
    assert key_of(heading) == key


# --- cells -----------------------------------------------------------------------------------------------


@each_row(
    ("piece", "markdown", "html"),
    [
        (Text("a | <b>"), r"a \| &lt;b&gt;", "a | &lt;b&gt;"),
        (Code("a | <b>"), r"`a \| <b>`", "<code>a | &lt;b&gt;</code>"),
        (Code(""), "", ""),
        (Identifier("actor.many_clients"), r"actor.many\_clients", "<code>actor.many_clients</code>"),
        (Link("a", "runs/x/run.json"), "[a](runs/x/run.json)", '<a href="runs/x/run.json">a</a>'),
        (
            Source("https://example.org/", label="known"),
            "[known](https://example.org/)",
            '<a href="https://example.org/">https://example.org/</a>',
        ),
        (Source("javascript:x"), "`javascript:x`", "<code>javascript:x</code>"),
        (Badge(Status.NOT_RUN), "Not run", '<span class="s s-Notrun">Not run</span>'),
        (
            Outcome("lost", "lost", "documented"),
            "lost, documented",
            '<span class="s t-lost">lost</span> <small>documented</small>',
        ),
        (Outcome("works", "works"), "works", '<span class="s t-works">works</span>'),
        (Badge(Status.OK, "limit"), "OK (limit)", '<span class="s s-OK">OK</span> <small>limit</small>'),
        (Strong("a_b"), r"**a\_b**", "<small>a_b</small>"),
        (Faint("<a>"), "&lt;a&gt;", '<span class="faint">&lt;a&gt;</span>'),
        (Gap("; ", "<br>"), "; ", "<br>"),
    ],
)
def test_each_piece_says_how_it_looks_in_both(piece: Piece, markdown: str, html: str) -> None:
    assert piece.markdown() == markdown
    assert piece.html() == html


def test_markdown_counts_the_expectations_that_html_lists() -> None:
    (held,) = mixed()[0].expectations
    pieces = Expectations((held, replace(held, name="<x>", observed="0", held=False)))
    assert pieces.markdown() == "2 expectations"
    assert pieces.html() == (
        "<details><summary>2 expectations</summary><ul>"
        "<li>held: rows: expected <code>1</code>, observed <code>1</code></li>"
        "<li>did not hold: &lt;x&gt;: expected <code>1</code>, observed <code>0</code></li></ul></details>"
    )


def test_pieces_that_are_missing_leave_no_gap() -> None:
    gap = Gap("; ", "<br>")
    assert joined(gap, None, Text("a"), None, Text("b")) == (Text("a"), gap, Text("b"))
    assert joined(gap, None) == ()


def test_a_column_without_a_field_of_the_row_is_an_error_that_names_both_files() -> None:
    with pytest.raises(
        ValueError, match=r"the column colour has no cell: add a field .* to TopologyRow in harness\.report"
    ):
        headed(TopologyRow, (Column("environment", "Environment"), Column("colour", "Colour")))


def test_a_column_of_an_attribute_that_the_rows_lack_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"DriverRow in harness\.report\.feature_map has no attribute colour"):
        table(DriverRow, TableColumn("Colour", text_field("colour")))


class Watched:
    """A row that remembers which of its attributes were read."""

    def __init__(self, row: object) -> None:
        self.row = row
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> object:
        self.read.add(name)
        return getattr(self.row, name)


#: what a table leaves out, because another table or the paragraph under it has it
NOT_SHOWN = {
    "topology": {"rationale", "findings", "contradictions", "engine", "origins", "ready_ms", "storage"},
    "what ran": set(TopologyRow.__struct_fields__) - {"environment", "engine", "origins", "storage", "ready_ms"},
    # a sentence counts the items that are Not run by their causes
    "checklist": {"section", "unasked", "interrupted"},
    # it titles a table of its own
    "limits": {"kind"},
    # the page has the source of the advice under the feature
    "features": {"check", "instead_source"},
    "matrix": {"section"},
    "breaks": {"duration_ms"},
    "mutations": {"duration_ms"},
    # the attempts of each run are in the table of repeated rows
    "rows": {"run_id", "runs"},
    # the header of the document says it once for all rows
    "faults": {"servers"},
    "loads": {"servers"},
    # its title has the name of the engine
    "job engines": {"engine"},
    # the topologies of the group are their number
    "issue groups": {"number"},
    # it decides the order of the rows, and whether a file is written
    "differences": {"silent"},
    "files": {"field"},
}


def rows_of_tables(report: Report) -> dict[str, tuple[object, ...]]:
    return {
        "recap": columns.RecapRow.of(report.counts),
        "outcomes": columns.OutcomeRow.of(report.counts),
        "topology": report.topologies,
        "what ran": report.topologies,
        "questions": report.questions["session"],
        "paths": report.paths,
        "readiness": report.readiness,
        "conditions": report.decisions[0].conjuncts,
        "parity": report.parity,
        "migrations": report.migrations,
        "preflight": report.preflight,
        "checklist": report.walkthrough,
        "issues": report.issues,
        "limits": report.limits,
        "trials": report.trials,
        "faults": report.faults,
        "jobs": report.jobs,
        "loads": report.loads,
        "job engines": report.job_engines.rows if report.job_engines else (),
        "job findings": report.job_engines.findings if report.job_engines else (),
        "ingest": report.ingest,
        "consecutive": report.consecutive,
        "repeated": report.repeated,
        "quarantine": report.quarantine,
        "features": report.features[0].rows,
        "drivers": report.drivers,
        "matrix": report.matrix,
        "breaks": report.trail_proofs,
        "mutations": report.observed_proofs,
        "rows": report.rows,
        "issue groups": issue_groups(row.answer for row in report.rows),
        "differences": differences(report.features),
        "files": documents(report),
    }


@pytest.fixture(scope="module")
def every_row(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[object, ...]]:
    """Return the rows of each table of a report that has every table."""
    return rows_of_tables(everything(tmp_path_factory.mktemp("everything")))


@each_row("name", TABLES)
def test_every_attribute_of_a_row_is_shown_or_left_out_on_purpose(
    name: str, every_row: dict[str, tuple[object, ...]]
) -> None:
    read, fields = set(), set()
    for row in every_row[name]:
        watched = Watched(row)
        fields |= set(type(row).__struct_fields__)  # type: ignore[attr-defined]
        for column in TABLES[name]:
            column.markdown(watched)
            column.html(watched)
        read |= watched.read
    assert fields
    assert fields - read == NOT_SHOWN.get(name, set())
