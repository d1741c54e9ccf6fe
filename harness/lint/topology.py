"""Rules about environments and the parity with production that they claim: R6 to R10, R12, R16 and R17."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.lint.findings import quoted
from harness.lint.statuses import WITH_STATUS, is_blank, reason_of, status_of
from harness.markdown.adoption import TableKind
from harness.markdown.headings import TOPOLOGY, name_of
from harness.model import EvidenceClass, PoolMode, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.lint.findings import LintFinding, Page, TableEntry
    from harness.markdown.document import Prose, Table

_CLASSES = {evidence_class.value for evidence_class in EvidenceClass}
_MATCHES = ("yes", "no", "partial")
_MODES = frozenset(mode.value for mode in PoolMode)
_NO_POOLER = re.compile(
    r"(?:none|no(?:\s+pooler)?|direct|n/?a|not\s+used|without(?:\s+pooler)?|[-–—])\b.*|", re.IGNORECASE
)
_POOLER = re.compile(r"\b(?:pgbouncer|pgpool|pgagroal|pgcat|odyssey|supavisor|rds\s+proxy|pooler)\b", re.IGNORECASE)
_POOLER_OR_MODE = re.compile(r"\b(?:pool(?:er|ing)?\s+mode|pgbouncer|pooler)\b", re.IGNORECASE)
_NEGATED = re.compile(r"\b(?:no|not|never|nor|neither|only|cannot|without|nobody|none)\b|n['’]t\b", re.IGNORECASE)
_PRODUCTION = re.compile(r"\bprod(?:uction)?\b", re.IGNORECASE)
_TEST_ONLY = re.compile(
    r"\btest(?:s|ing)?\b|\bnever\b|\bno\s+(?:\w+\s+)?sandbox|\bnot\s+(?:used|production|prod)\b|\bonly\b", re.IGNORECASE
)
_CLASS_LABEL = re.compile(r"\b(?:CI|host)[- ](?:class|scoped)\b", re.IGNORECASE)
_HOST_LABEL = re.compile(r"\bhost[- ]class\b", re.IGNORECASE)
_VERSION = re.compile(
    r"\bv?\d+\.\d+|(?i:\b(?:postgres(?:ql)?|pgbouncer)\s+\d)|\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,40}\b"
)
_DIFFERS = re.compile(
    r"(?i)\b(?:differ\w*|not|never|no|only|instead|unlike|whereas|while|but|smaller|fewer|without|lacks?|missing|other)\b"
)
_RISK = re.compile(
    r"(?i)\b(?:risk|confidence|(?:not|cannot|never|doesn['’]t)\s+(?:\w+\s+)?(?:show|shown|prove|represent|stand|imply)\w*|unproven)\b"
)
#: a paragraph with fewer words cannot describe a difference
_FEWEST_WORDS = 8


def is_not_run(entry: TableEntry) -> bool:
    """Say whether the row is about a topology that was not started."""
    return entry.text("chain").lower().startswith("not run") or entry.text("product").lower() == "not run"


def has_pooler(entry: TableEntry) -> bool:
    return not _NO_POOLER.fullmatch(entry.text("product").strip()) and not is_not_run(entry)


def is_mode(text: str) -> bool:
    return bool(_MODES & set(re.findall(r"[a-z]+", text.lower())))


def r6_class_is_labelled(page: Page) -> Iterator[LintFinding]:
    """Evidence for a path says whether it is CI-class or host-class."""
    labelled = any(_CLASS_LABEL.search(prose.text) for prose in page.document.prose)
    for entry in page.rows(TableKind.PATHS):
        if status_of(entry) == Status.OK and not labelled and not _CLASS_LABEL.search(entry.all_text):
            yield page.warning(
                entry.line,
                "R6",
                "the row does not name the class of its evidence",
                "write CI-class if a pipeline of the library produced it, host-class if your environment did",
            )


def r7_class_is_one_of_two(page: Page) -> Iterator[LintFinding]:
    """The class of every environment is CI or host."""
    yield from _without_column(page, "class", "R7", "CI or host in each row")
    for entry in page.rows(TableKind.TOPOLOGY):
        evidence_class = entry.text("class")
        if "class" in entry.table.columns and evidence_class not in _CLASSES:
            yield page.error(entry.line, "R7", f"invalid class {quoted(evidence_class)}", "write only CI or host")
    for line, kind in page.document.markers:
        if kind is TableKind.TOPOLOGY and page.document.table_after(line) is None:
            yield page.warning(line, "R7", "the marker of the topology table has no table below it", "add the table")
    for table in page.tables(TableKind.TOPOLOGY):
        if not any(entry.table is table for entry in page.rows(TableKind.TOPOLOGY)):
            yield page.warning(table.line, "R7", "the topology table has no filled row", "add a row per environment")


def r8_matches_prod(page: Page) -> Iterator[LintFinding]:
    """Matches prod is yes, no or partial; partial has a paragraph below the table; class CI is never yes."""
    yield from _without_column(page, "matches", "R8", "yes, no or partial in each row")
    for entry in page.rows(TableKind.TOPOLOGY):
        if "matches" not in entry.table.columns:
            continue
        matches = entry.text("matches").lower()
        if matches not in _MATCHES:
            problem = f"invalid value of Matches prod: {quoted(entry.text('matches'))}"
            yield page.error(entry.line, "R8", problem, "write yes, no or partial, and move the rest below the table")
        if matches == "yes" and entry.text("class") == EvidenceClass.CI.value:
            yield page.error(
                entry.line, "R8", "an environment of class CI claims to match production", "write partial or no"
            )
        if matches.startswith("partial"):
            yield from _partial(page, entry)
    for entry in page.rows(TableKind.QUESTIONS):
        matches = entry.text("matches").lower()
        if not re.match(r"(?:yes|no|partial)\b", matches):
            problem = f"invalid value of Matches prod?: {quoted(entry.text('matches'))}"
            yield page.error(entry.line, "R8", problem, "begin with yes, no or partial")
        elif matches == "partial" and not any(
            "partial" in prose.text.lower() for prose in page.document.prose if prose.line > entry.table.line
        ):
            fix = "describe the difference in a paragraph below the table"
            yield page.warning(entry.line, "R8", "partial without a description of the difference", fix)


def _partial(page: Page, entry: TableEntry) -> Iterator[LintFinding]:
    name = entry.text("environment")
    paragraph = _about(page, entry.table, name)
    fix = f"add a paragraph below the table that begins with {name or 'the environment'}, and describe the difference"
    if paragraph is None:
        problem = f"{quoted(name)} is partial, but no paragraph below describes the difference"
        yield page.error(entry.line, "R8", problem, fix)
    elif len(paragraph.text.split()) < _FEWEST_WORDS:
        problem = f"the paragraph about {quoted(name)} has fewer than {_FEWEST_WORDS} words"
        yield page.error(paragraph.line, "R8", problem, fix)
    elif not _DIFFERS.search(paragraph.text):
        problem = f"the paragraph about {quoted(name)} does not seem to name a difference"
        yield page.warning(paragraph.line, "R8", problem, fix)


def _about(page: Page, table: Table, name: str) -> Prose | None:
    """Return the paragraph below a table that names an environment.

    If there is none, the first paragraph counts, unless it names another environment of the table.
    """
    below = page.document.prose_below(table)
    named = next((prose for prose in below if _names(prose.text, name)), None)
    if named or not below:
        return named
    others = [table.cell(row, "environment").text for row in table.rows]
    return None if any(_names(below[0].text, other) for other in others) else below[0]


def _names(text: str, name: str) -> bool:
    return bool(name) and re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text, re.IGNORECASE) is not None


def r9_pooler_has_a_mode(page: Page) -> Iterator[LintFinding]:
    """Every pooler has its pool mode."""
    yield from _without_column(page, "product", "R9", "the product, or none")
    yield from _without_column(page, "mode", "R9", "session, transaction or statement")
    for entry in page.rows(TableKind.TOPOLOGY):
        if is_not_run(entry) or not {"product", "mode"} <= set(entry.table.columns):
            continue
        product, mode = entry.text("product"), entry.text("mode")
        fix = "write session, transaction or statement"
        if has_pooler(entry) and re.fullmatch(
            r"(?i)(?:session|transaction|statement)(?:\s*(?:\||/|,|or)\s*\w+)+", mode
        ):
            yield page.error(entry.line, "R9", f"the pool mode lists alternatives: {quoted(mode)}", fix)
        elif has_pooler(entry) and is_blank(mode):
            yield page.error(entry.line, "R9", f"the pooler {quoted(product)} has no pool mode", fix)
        elif has_pooler(entry) and not is_mode(mode):
            report = page.error if "pgbouncer" in product.lower() else page.warning
            yield report(entry.line, "R9", f"unknown pool mode {quoted(mode)} of {quoted(product)}", fix)
        elif not has_pooler(entry) and _POOLER.search(entry.text("chain")):
            problem = "the chain names a pooler, but Pooler product does not"
            yield page.error(entry.line, "R9", problem, "name the pooler and its mode")
        elif not has_pooler(entry) and mode.lower() in _MODES:
            yield page.warning(entry.line, "R9", f"the pool mode {quoted(mode)} without a pooler", "name the pooler")


def r10_sandbox_is_for_tests(page: Page) -> Iterator[LintFinding]:
    """The sandbox note says that the sandbox is for tests, and no claim about production depends on it."""
    yield from _without_column(page, "sandbox", "R10", "the sandbox is for tests only")
    fix = "say that the sandbox is for tests only and does not represent production"
    for entry in page.rows(TableKind.TOPOLOGY):
        note = entry.text("sandbox")
        if "sandbox" not in entry.table.columns:
            continue
        if is_blank(note):
            yield page.error(entry.line, "R10", "the sandbox note is empty", fix)
        elif claims_production(note):
            yield page.error(entry.line, "R10", f"the sandbox note claims production behaviour: {quoted(note)}", fix)
        elif not _TEST_ONLY.search(note):
            problem = f"the sandbox note does not limit the sandbox to tests: {quoted(note)}"
            yield page.error(entry.line, "R10", problem, fix)
    for entry in page.rows(*WITH_STATUS):
        text = f"{entry.text('evidence')}. {entry.text('notes')}"
        sentences = [sentence for sentence in re.split(r"[.;]\s", text) if "sandbox" in sentence.lower()]
        if any(map(claims_production, sentences)):
            yield page.error(entry.line, "R10", "the evidence claims production behaviour for a sandbox", fix)


def claims_production(text: str) -> bool:
    """Say whether a text mentions production without a negation."""
    return bool(_PRODUCTION.search(text)) and not _NEGATED.search(text)


def r12_versions(page: Page) -> Iterator[LintFinding]:
    """Evidence from a host names versions or commits."""
    fix = "name the library's version and the application's commit, PostgreSQL, the pooler and its mode"
    for entry in page.rows(TableKind.PATHS):
        host = _HOST_LABEL.search(entry.all_text)
        if status_of(entry) == Status.OK and host and not _VERSION.search(entry.all_text):
            yield page.warning(entry.line, "R12", "host-class evidence without a version or commit", fix)
    for entry in page.rows(TableKind.TOPOLOGY):
        if entry.text("class") == EvidenceClass.HOST.value and not is_not_run(entry):
            below = _about(page, entry.table, entry.text("environment"))
            if not _VERSION.search(entry.all_text + " " + (below.text if below else "")):
                yield page.warning(entry.line, "R12", "an environment of class host without a version or commit", fix)


def r16_not_only_direct(page: Page) -> Iterator[LintFinding]:
    """An environment without a pooler is not the only environment."""
    entries = [entry for entry in page.rows(TableKind.TOPOLOGY) if "product" in entry.table.columns]
    # an environment without a pooler can match a production without a pooler
    if entries and not any(
        has_pooler(entry) or is_not_run(entry) or entry.text("matches").lower() == "yes" for entry in entries
    ):
        yield page.warning(
            entries[0].line,
            "R16",
            "no environment has a pooler",
            "add an environment with the same chain as production",
        )


def r17_no_parity_is_implied(page: Page) -> Iterator[LintFinding]:
    """If an environment cannot match production's pool mode, the table says so and does not imply parity."""
    entries = list(page.rows(TableKind.TOPOLOGY))
    production = next((entry for entry in entries if re.match(r"(?i)prod", entry.text("environment"))), None)
    for entry in entries:
        matches = entry.text("matches").lower()
        if matches == "yes" and is_not_run(entry):
            problem = "Matches prod is yes, but the environment was not started"
            yield page.error(entry.line, "R17", problem, "write no, or run it")
        elif matches == "yes" and production and production.line != entry.line:
            mode, expected = entry.text("mode").lower(), production.text("mode").lower()
            if mode != expected:
                yield page.error(
                    entry.line,
                    "R17",
                    f"Matches prod is yes, but the pool mode is {quoted(mode)}, and "
                    f"{quoted(production.text('environment'))} has {quoted(expected)}",
                    "write partial or no, and say what remains unproven",
                )
        elif (
            matches == "no"
            and entry.text("class") == EvidenceClass.HOST.value
            and _about(page, entry.table, entry.text("environment")) is None
        ):
            problem = "Matches prod is no, but no paragraph below says what remains unproven"
            yield page.warning(entry.line, "R17", problem, "add the paragraph below the table")
    for entry in page.rows(*WITH_STATUS):
        reason = reason_of(entry)
        names_pooler = _POOLER_OR_MODE.search(f"{entry.row.cells[0].text} {reason}")
        if (
            status_of(entry) == Status.NA
            and names_pooler
            and "stag" in entry.all_text.lower()
            and not _RISK.search(reason)
        ):
            yield page.warning(
                entry.line,
                "R17",
                "N/A about the pooler of a staging environment does not name the risk for production",
                "say that an OK on staging does not show the same for production's pool mode",
            )


def _without_column(page: Page, column: str, rule: str, content: str) -> Iterator[LintFinding]:
    name = name_of(TOPOLOGY, column)
    for table in page.tables(TableKind.TOPOLOGY):
        if column not in table.columns:
            yield page.error(table.line, rule, f"the topology table has no column {name}", f"add the column: {content}")
