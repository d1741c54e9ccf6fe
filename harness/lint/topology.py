"""Rules about environments and what they stand for: R6 to R10, R12, R16 and R17."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.lint.findings import quoted
from harness.lint.statuses import WITH_STATUS, is_blank, reason_of, status_of
from harness.markdown.headings import TOPOLOGY, name_of
from harness.markdown.tables import Kind
from harness.model import EvidenceClass, PoolMode, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.lint.findings import LintFinding, Page, TableEntry
    from harness.markdown.tables import Prose, Table

_CLASSES = {each.value for each in EvidenceClass}
_MATCHES = ("yes", "no", "partial")
_MODES = frozenset(each.value for each in PoolMode)
_NO_POOLER = re.compile(
    r"(?:none|no(?:\s+pooler)?|direct|n/?a|not\s+used|without(?:\s+pooler)?|[-–—])\b.*|", re.IGNORECASE
)
_POOLER = re.compile(r"\b(?:pgbouncer|pgpool|pgagroal|pgcat|odyssey|supavisor|rds\s+proxy|pooler)\b", re.IGNORECASE)
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
_FEWEST_WORDS = 8


def is_not_run(entry: TableEntry) -> bool:
    """Say whether the row is of a topology that nobody stood up."""
    return entry.text("chain").lower().startswith("not run") or entry.text("product").lower() == "not run"


def has_pooler(entry: TableEntry) -> bool:
    return not _NO_POOLER.fullmatch(entry.text("product").strip()) and not is_not_run(entry)


def is_mode(text: str) -> bool:
    return bool(_MODES & set(re.findall(r"[a-z]+", text.lower())))


def r6_class_is_labelled(page: Page) -> Iterator[LintFinding]:
    """Evidence of paths says whether it is CI-class or host-class."""
    said = any(_CLASS_LABEL.search(each.text) for each in page.document.prose)
    for entry in page.rows(Kind.PATHS):
        if status_of(entry) == Status.OK and not said and not _CLASS_LABEL.search(entry.whole):
            yield page.warning(
                entry.line,
                "R6",
                "the row does not say whose evidence it is",
                "say CI-class, if a pipeline of the library showed it, or host-class, if your environment did",
            )


def r7_class_is_one_of_two(page: Page) -> Iterator[LintFinding]:
    """Each environment is CI or host."""
    yield from _without_column(page, "class", "R7", "CI or host in each row")
    for entry in page.rows(Kind.TOPOLOGY):
        told = entry.text("class")
        if "class" in entry.table.columns and told not in _CLASSES:
            yield page.error(entry.line, "R7", f"the class is {quoted(told)}", "write CI or host, and nothing else")
    for line, kind in page.document.markers:
        if kind is Kind.TOPOLOGY and page.document.marked(line) is None:
            yield page.warning(line, "R7", "the marker of the topology table has no table below it", "put it there")
    for table in page.tables(Kind.TOPOLOGY):
        if not any(entry.table is table for entry in page.rows(Kind.TOPOLOGY)):
            yield page.warning(table.line, "R7", "no environment is filled in", "fill a row for each environment")


def r8_matches_prod(page: Page) -> Iterator[LintFinding]:
    """Matches prod is yes, no or partial; partial has its paragraph; CI is never yes."""
    yield from _without_column(page, "matches", "R8", "yes, no or partial in each row")
    for entry in page.rows(Kind.TOPOLOGY):
        if "matches" not in entry.table.columns:
            continue
        told = entry.text("matches").lower()
        if told not in _MATCHES:
            what = f"Matches prod is {quoted(entry.text('matches'))}"
            yield page.error(entry.line, "R8", what, "write yes, no or partial; the rest belongs below the table")
        if told == "yes" and entry.text("class") == EvidenceClass.CI.value:
            yield page.error(
                entry.line, "R8", "a row of class CI says that it matches production", "write partial at the most"
            )
        if told.startswith("partial"):
            yield from _partial(page, entry)
    for entry in page.rows(Kind.QUESTIONS):
        told = entry.text("matches").lower()
        if not re.match(r"(?:yes|no|partial)\b", told):
            what = f"Matches prod? is {quoted(entry.text('matches'))}"
            yield page.error(entry.line, "R8", what, "begin with yes, no or partial")
        elif told == "partial" and not any(
            "partial" in each.text.lower() for each in page.document.prose if each.line > entry.table.line
        ):
            yield page.warning(
                entry.line, "R8", "partial, and nothing says what differs", "say it in a paragraph below the table"
            )


def _partial(page: Page, entry: TableEntry) -> Iterator[LintFinding]:
    name = entry.text("environment")
    paragraph = _about(page, entry.table, name)
    mend = f"add a paragraph below the table that begins with {name or 'the environment'}, and say what differs"
    if paragraph is None:
        yield page.error(entry.line, "R8", f"{quoted(name)} is partial, and no paragraph below says what differs", mend)
    elif len(paragraph.text.split()) < _FEWEST_WORDS:
        yield page.error(paragraph.line, "R8", f"the paragraph about {quoted(name)} says too little", mend)
    elif not _DIFFERS.search(paragraph.text):
        yield page.warning(
            paragraph.line, "R8", f"the paragraph about {quoted(name)} seems to name no difference", mend
        )


def _about(page: Page, table: Table, name: str) -> Prose | None:
    """Return the paragraph below a table that names an environment, else the first when it names none at all."""
    below = page.document.below(table)
    named = next((each for each in below if _names(each.text, name)), None)
    if named or not below:
        return named
    others = [table.cell(row, "environment").text for row in table.rows]
    return None if any(_names(below[0].text, other) for other in others) else below[0]


def _names(text: str, name: str) -> bool:
    return bool(name) and re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text, re.IGNORECASE) is not None


def r9_pooler_has_a_mode(page: Page) -> Iterator[LintFinding]:
    """A pooler stands with its mode."""
    yield from _without_column(page, "product", "R9", "none where there is no pooler")
    yield from _without_column(page, "mode", "R9", "session, transaction or statement")
    for entry in page.rows(Kind.TOPOLOGY):
        if is_not_run(entry) or not {"product", "mode"} <= set(entry.table.columns):
            continue
        product, mode = entry.text("product"), entry.text("mode")
        mend = "write session, transaction or statement"
        if has_pooler(entry) and re.fullmatch(
            r"(?i)(?:session|transaction|statement)(?:\s*(?:\||/|,|or)\s*\w+)+", mode
        ):
            yield page.error(entry.line, "R9", f"the pool mode is a choice, {quoted(mode)}", mend)
        elif has_pooler(entry) and is_blank(mode):
            yield page.error(entry.line, "R9", f"the pooler {quoted(product)} stands without its mode", mend)
        elif has_pooler(entry) and not is_mode(mode):
            tell = page.error if "pgbouncer" in product.lower() else page.warning
            yield tell(entry.line, "R9", f"the pool mode of {quoted(product)} is {quoted(mode)}", mend)
        elif not has_pooler(entry) and _POOLER.search(entry.text("chain")):
            yield page.error(
                entry.line, "R9", "the chain has a pooler that Pooler product does not name", "name it, with its mode"
            )
        elif not has_pooler(entry) and mode.lower() in _MODES:
            yield page.warning(
                entry.line, "R9", f"the mode is {quoted(mode)}, and there is no pooler", "name the pooler"
            )


def r10_sandbox_is_for_tests(page: Page) -> Iterator[LintFinding]:
    """A test sandbox never stands for production."""
    yield from _without_column(page, "sandbox", "R10", "that the sandbox is for tests only")
    mend = "say that the sandbox is for tests only, and stands for no production"
    for entry in page.rows(Kind.TOPOLOGY):
        note = entry.text("sandbox")
        if "sandbox" not in entry.table.columns:
            continue
        if is_blank(note):
            yield page.error(entry.line, "R10", "the sandbox note is empty", mend)
        elif claims_production(note):
            yield page.error(entry.line, "R10", f"the sandbox is claimed as production, {quoted(note)}", mend)
        elif not _TEST_ONLY.search(note):
            yield page.error(entry.line, "R10", f"the sandbox note does not say test-only, {quoted(note)}", mend)
    for entry in page.rows(*WITH_STATUS):
        said = f"{entry.text('evidence')}. {entry.text('notes')}"
        if "sandbox" in said.lower() and any(
            "sandbox" in each.lower() and claims_production(each) for each in re.split(r"[.;]\s", said)
        ):
            yield page.error(entry.line, "R10", "a sandbox is claimed as production", mend)


def claims_production(text: str) -> bool:
    """Say whether a text speaks of production and denies nothing."""
    return bool(_PRODUCTION.search(text)) and not _NEGATED.search(text)


def r12_versions(page: Page) -> Iterator[LintFinding]:
    """Evidence of a host says which versions it is about."""
    mend = "name the library's version and the application's commit, PostgreSQL, the pooler and its mode"
    for entry in page.rows(Kind.PATHS):
        host = _HOST_LABEL.search(entry.whole)
        if status_of(entry) == Status.OK and host and not _VERSION.search(entry.whole):
            yield page.warning(entry.line, "R12", "host-class evidence without a version or commit", mend)
    for entry in page.rows(Kind.TOPOLOGY):
        if entry.text("class") == EvidenceClass.HOST.value and not is_not_run(entry):
            below = _about(page, entry.table, entry.text("environment"))
            if not _VERSION.search(entry.whole + " " + (below.text if below else "")):
                yield page.warning(entry.line, "R12", "an environment of class host without a version", mend)


def r16_not_only_direct(page: Page) -> Iterator[LintFinding]:
    """One direct, local environment alone is not enough."""
    entries = list(page.rows(Kind.TOPOLOGY))
    stood = [entry for entry in entries if "product" in entry.table.columns]
    # a production without a pooler is matched by an environment without one
    if stood and not any(
        has_pooler(each) or is_not_run(each) or each.text("matches").lower() == "yes" for each in stood
    ):
        yield page.warning(
            stood[0].line,
            "R16",
            "every environment is without a pooler",
            "add the one that has production's chain",
        )


def r17_no_parity_is_implied(page: Page) -> Iterator[LintFinding]:
    """What cannot match the pooler's mode says so, and implies no parity."""
    entries = list(page.rows(Kind.TOPOLOGY))
    production = next((each for each in entries if re.match(r"prod", each.text("environment"), re.IGNORECASE)), None)
    for entry in entries:
        told = entry.text("matches").lower()
        if told == "yes" and is_not_run(entry):
            yield page.error(entry.line, "R17", "yes, and nobody stood it up", "write no, or run it")
        elif told == "yes" and production and production.line != entry.line:
            here, there = entry.text("mode").lower(), production.text("mode").lower()
            if here != there:
                yield page.error(
                    entry.line,
                    "R17",
                    f"yes, and the pool mode is {quoted(here)} where {quoted(production.text('environment'))} "
                    f"has {quoted(there)}",
                    "write partial or no, and say what that leaves unproven",
                )
        elif (
            told == "no"
            and entry.text("class") == EvidenceClass.HOST.value
            and _about(page, entry.table, entry.text("environment")) is None
        ):
            yield page.warning(
                entry.line, "R17", "no, and nothing says what that leaves unproven", "say it below the table"
            )
    for entry in page.rows(*WITH_STATUS):
        reason = reason_of(entry)
        about = re.search(r"(?i)\b(?:pool(?:er|ing)?\s+mode|pgbouncer|pooler)\b", f"{entry.row.cells[0].text} {reason}")
        if status_of(entry) == Status.NA and about and "stag" in entry.whole.lower() and not _RISK.search(reason):
            yield page.warning(
                entry.line,
                "R17",
                "N/A about the pooler of a staging environment, without what that may hide",
                "say that an OK there does not show the same for production's pool mode",
            )


def _without_column(page: Page, column: str, rule: str, content: str) -> Iterator[LintFinding]:
    name = name_of(TOPOLOGY, column)
    for table in page.tables(Kind.TOPOLOGY):
        if column not in table.columns:
            yield page.error(table.line, rule, f"the topology table has no column {name}", f"add it: {content}")
