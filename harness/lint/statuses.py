"""Rules about statuses and what each of them owes: R1 to R5, R13, R14 and R18."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from harness.host.reasons import FEWEST_WORDS, NOT_YET, is_vague
from harness.lint.commands import PointerVerdict
from harness.lint.findings import quoted
from harness.markdown.headings import TOPOLOGY, name_of
from harness.markdown.inline import SpanKind
from harness.markdown.tables import Kind
from harness.model import Severity, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.lint.findings import LintFinding, Page, TableEntry

WITH_STATUS = (Kind.PATHS, Kind.CHECKLIST, Kind.PREFLIGHT, Kind.PARITY)

_STATUSES = {each.value for each in Status}
#: the preflight alone may say that something was done; it owes what OK owes
_DONE = "Done"
_BLANK = frozenset({"", "-", "–", "—", "_", "?", "n/a", "na", "none", "tbd", "todo", "…", "..."})

_ABSENT = re.compile(
    r"\b(?:there\s+(?:is|are)\s+no\b|not\s+applicable|out\s+of\s+scope|does\s+not\s+(?:exist|apply)|do\s+not\s+apply|"
    r"we\s+(?:have|use|run)\s+no\b|no\s+(?:[\w-]+\s+){1,4}in\s+this\s+(?:deployment|application|app|environment)\b)",
    re.IGNORECASE,
)
_TRACKED = re.compile(
    r"(?i)\b(?:owner|owned\s+by|next\s+step|next:|assigned|tracked|mitigation|fix(?:ed)?\s+(?:in|by)|follow-?up)\b|@\w"
)
_REQUIREMENT = re.compile(r"\b[A-Z][A-Z0-9]+-\d+\b|\b(?:AP-|PL\.|PATH\.|ENV\.|CMD\.)[\w.-]+")
_ISSUE_ID = re.compile(r"AP-[A-Za-z0-9]+(?:\.[\w-]+)+|(?:PL|PATH|ENV|CMD)\.[\w-]+(?:\.[\w-]+)*")
#: strikethrough, section 6.5 of the GFM spec, and the tags that GitHub shows in the same way
_STRUCK = re.compile(r"~~|<(?:del|s|strike)\b", re.IGNORECASE)
#: a note that begins so says another status; "Issue #12" is a ticket
_OTHER_STATUS = re.compile(
    r"not\s+run\b|issue(?=\s*[:;,.–—-]|\s+(?:on|in|at|with|behind|when|if|under|for)\b|\s*$)", re.IGNORECASE
)
_FOUR = "OK, Issue, N/A or Not run"


def status_of(entry: TableEntry) -> str:
    """Return a row's status as it is written; the preflight's Done reads OK."""
    status = entry.text("status")
    return Status.OK.value if status == _DONE and entry.table.kind is Kind.PREFLIGHT else status


def is_blank(text: str) -> bool:
    """Say whether a cell says nothing: it is empty, or holds a dash or another word for nothing."""
    return text.strip().lower().rstrip(".") in _BLANK


def reason_of(entry: TableEntry) -> str:
    """Return why a row has its status: its notes, and where there are none its evidence."""
    notes = entry.text("notes")
    return entry.text("evidence") if is_blank(notes) and "evidence" in entry.table.columns else notes


def r1_four_words(page: Page) -> Iterator[LintFinding]:
    """A status is one of four words."""
    for table in page.tables(*WITH_STATUS):
        if "status" not in table.columns:
            yield page.error(table.line, "R1", f"the table {table.kind} has no column Status", f"add one, with {_FOUR}")
        if (columns := table.columns.count("status")) > 1:
            mend = "keep one, and give the others another name or a table of their own"
            yield page.error(table.line, "R1", f"the table {table.kind} has {columns} columns Status", mend)
    for entry in page.rows(*WITH_STATUS):
        status = entry.text("status")
        if "status" not in entry.table.columns:
            continue
        if status_of(entry) in _STATUSES:
            yield from _taken_back(page, entry)
            continue
        known = {each.lower().replace("/", ""): each for each in _STATUSES} | {"notrun": "Not run"}
        meant = known.get(status.lower().replace("/", "").replace("-", " "))
        mend = f"write {meant}" if meant else f"write {_FOUR}, and the rest in another column"
        if "|" not in page.document.lines[entry.line - 1]:
            mend = f"write {_FOUR}; or a blank line above it, for without one it is a row of the table to every reader"
        yield page.error(entry.line, "R1", f"the status is {quoted(status)}", mend)
    for table in page.document.ours():
        for row in table.rows:
            if row.surplus:
                yield page.warning(
                    row.line,
                    "R1",
                    f"the row has {row.surplus} cells more than the table has columns, and no reader sees them",
                    "write a pipe inside a cell as \\|",
                )


def _taken_back(page: Page, entry: TableEntry) -> Iterator[LintFinding]:
    """Find a status that its own row does not stand by."""
    if _STRUCK.search(entry.cell("status").raw):
        mend = f"write {_FOUR}, and nothing that is no longer so"
        yield page.error(entry.line, "R1", f"the status {quoted(entry.text('status'))} is struck out", mend)
    if status_of(entry) == Status.OK and (match := _OTHER_STATUS.match(reason_of(entry))):
        yield page.warning(
            entry.line,
            "R1",
            f"the status is OK, and what is said of it begins with {quoted(match[0])}",
            f"write {match[0].capitalize()} as the status; or give what is not OK a row of its own",
        )


def r2_not_run_is_not_na(page: Page) -> Iterator[LintFinding]:
    """What is in scope and was not run yet is Not run; what is out of scope is N/A."""
    for entry in page.rows(*WITH_STATUS):
        reason = reason_of(entry)
        if status_of(entry) == Status.NA and (match := NOT_YET.search(reason)):
            yield page.error(
                entry.line,
                "R2",
                f"N/A says {quoted(match[0])}: that is in scope, and was not run",
                "write Not run; or say what puts it out of scope",
            )
        if status_of(entry) == Status.NOT_RUN and (match := _ABSENT.search(reason)):
            yield page.warning(
                entry.line,
                "R2",
                f"Not run says {quoted(match[0])}: that sounds out of scope",
                "write N/A with that reason; or say what keeps it from being run",
            )


def r3_na_has_a_reason(page: Page) -> Iterator[LintFinding]:
    """N/A gives an objective reason in one line."""
    for entry in page.rows(*WITH_STATUS):
        if status_of(entry) != Status.NA:
            continue
        reason = reason_of(entry).strip().rstrip(".")
        mend = "say in one line what this deployment lacks, such as: there is no background job executor"
        cells = (entry.cell("notes"), entry.cell("evidence"))
        if is_blank(reason):
            yield page.error(entry.line, "R3", "N/A without a reason", mend)
        elif is_vague(reason):
            yield page.error(entry.line, "R3", f"N/A with a vague reason, {quoted(reason)}", mend)
        elif len(reason.split()) < FEWEST_WORDS and not any(map(page.pointers, cells)):
            yield page.error(entry.line, "R3", f"N/A with too short a reason, {quoted(reason)}", mend)
        elif any(span.kind is SpanKind.BREAK for cell in cells for span in cell.spans):
            yield page.error(entry.line, "R3", "N/A with a reason of several lines", "say it in one line")


def r4_ok_points_to_something(page: Page) -> Iterator[LintFinding]:
    """OK carries a pointer that others can follow, and what is pointed to is there."""
    for entry in page.rows(*WITH_STATUS):
        status, cell = status_of(entry), entry.cell("evidence")
        found = page.pointers(cell)
        if status == Status.OK and not found:
            said = "no evidence" if is_blank(cell.text) else f"only a sentence, {quoted(cell.text)}"
            yield page.error(entry.line, "R4", f"OK with {said}", _POINT)
        yield from _gone(page, entry, "evidence", sure=status == Status.OK)
        yield from _gone(page, entry, "notes", sure=False)
    for table in page.tables(Kind.TOPOLOGY):
        if "evidence" not in table.columns:
            name = name_of(TOPOLOGY, "evidence")
            yield page.error(table.line, "R4", f"the topology table has no column {name}", f"add it: {_POINT}")
    for entry in page.rows(Kind.TOPOLOGY):
        if "evidence" not in entry.table.columns:
            continue
        claims = entry.text("matches").lower().startswith(("yes", "partial"))
        if not page.pointers(entry.cell("evidence")) and (claims or is_blank(entry.text("evidence"))):
            found_text = entry.text("evidence")
            said = "no evidence link" if is_blank(found_text) else f"only a sentence for a link, {quoted(found_text)}"
            tell = page.error if claims else page.warning
            yield tell(entry.line, "R4", f"the environment {quoted(entry.text('environment'))} has {said}", _POINT)
        yield from _gone(page, entry, "evidence", sure=True)
    for entry in page.rows(Kind.ISSUES):
        yield from _gone(page, entry, "link", sure=True)


_POINT = "name a command, a test, a file, a link or a ticket that shows it"


def _gone(page: Page, entry: TableEntry, column: str, *, sure: bool) -> Iterator[LintFinding]:
    for each in page.pointers(entry.cell(column)):
        if each.verdict is PointerVerdict.MISSING:
            tell = page.error if sure else page.warning
            yield tell(entry.line, "R4", f"the pointer {quoted(each.text)} leads nowhere: {each.what}", each.mend)


def r5_issues_are_tracked(page: Page) -> Iterator[LintFinding]:
    """An Issue has an owner, a ticket or a next step."""
    mend = "name a ticket, the requirement that takes it up, an owner, or the next step"
    for entry in page.rows(*WITH_STATUS):
        if status_of(entry) != Status.ISSUE:
            continue
        said = f"{entry.text('evidence')} {entry.text('notes')} {entry.text('owner')}"
        if is_blank(said):
            yield page.error(entry.line, "R5", "an Issue that says nothing", mend)
        elif not (
            _TRACKED.search(said)
            or _REQUIREMENT.search(said)
            or any(page.pointers(entry.cell(column)) for column in ("evidence", "notes", "link"))
        ):
            yield page.warning(entry.line, "R5", "an Issue that nobody tracks", mend)
    for entry in page.rows(Kind.ISSUES):
        link, owner = entry.text("link"), entry.text("owner")
        if is_blank(link) and (is_blank(owner) or owner.lower() in {"unassigned", "nobody"}):
            yield page.error(entry.line, "R5", f"the issue {quoted(entry.text('id'))} has neither owner nor link", mend)
        elif is_blank(link):
            yield page.warning(entry.line, "R5", f"the issue {quoted(entry.text('id'))} has no link", mend)


def r13_both_kinds_of_path(page: Page) -> Iterator[LintFinding]:
    """The rubric has a path over HTTP and one of a job that write."""
    tables = list(page.tables(Kind.PATHS))
    kinds: Counter[str] = Counter()
    for entry in page.rows(Kind.PATHS):
        kind = entry.text("kind").lower()
        if "kind" not in entry.table.columns:
            continue
        if kind not in {"http", "job"}:
            yield page.error(
                entry.line, "R13", f"the kind of path is {quoted(entry.text('kind'))}", "write HTTP or job"
            )
        elif re.match(r"(?:GET|HEAD|OPTIONS)\s", entry.text("path")):
            yield page.warning(
                entry.line, "R13", "the path reads, and writes nothing to the trail", "keep it, and add one that writes"
            )
        else:
            kinds[kind] += 1
    for table in tables[:1]:
        for kind, name in (("http", "an HTTP request"), ("job", "a job")):
            if not kinds[kind]:
                yield page.error(
                    table.line,
                    "R13",
                    f"no row is about an audited write by {name}",
                    "add one; N/A with its reason where the deployment has none",
                )
    for line, kind in page.document.markers:
        if kind is Kind.PATHS and page.document.marked(line) is None:
            yield page.warning(line, "R13", "the marker of the rubric has no table below it", "put the table there")


def r14_ids_and_priorities(page: Page) -> Iterator[LintFinding]:
    """Issues have ids that stay, and priorities from P0 to P2."""
    seen: dict[str, int] = {}
    for entry in page.rows(Kind.ISSUES):
        priority, identity = entry.text("p"), entry.text("id")
        if priority not in {each.value for each in Severity}:
            yield page.error(
                entry.line,
                "R14",
                f"the priority is {quoted(priority)}",
                "write P0 for wrong or missing audit data or security, P1 for operation and docs, P2 for depth",
            )
        if not _ISSUE_ID.fullmatch(identity):
            yield page.error(
                entry.line, "R14", f"the id is {quoted(identity)}", "write AP-SECTION.ROW, such as AP-2.jobs; keep it"
            )
        elif identity in seen:
            yield page.error(
                entry.line, "R14", f"the id {identity} is that of line {seen[identity]}", "give each its own id"
            )
        seen.setdefault(identity, entry.line)


def r18_every_item_has_evidence(page: Page) -> Iterator[LintFinding]:
    """Every row of the walkthrough says something for evidence."""
    for entry in page.rows(Kind.CHECKLIST):
        # OK without evidence is for R4, N/A without a reason for R3
        if is_blank(entry.text("evidence")) and status_of(entry) in {Status.ISSUE, Status.NOT_RUN}:
            yield page.error(
                entry.line,
                "R18",
                f"the item {quoted(entry.row.cells[0].text)} has no evidence",
                "say what was found, or what keeps it from being run",
            )
