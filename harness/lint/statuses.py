"""Rules about statuses and the evidence that each status needs: R1 to R5, R13, R14 and R18."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from harness.host.reasons import FEWEST_WORDS, is_vague, not_yet
from harness.lint.findings import quoted
from harness.lint.verdicts import PointerVerdict
from harness.markdown.adoption import TableKind
from harness.markdown.headings import TOPOLOGY, name_of
from harness.markdown.inline import SpanKind
from harness.model import Severity, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.lint.findings import LintFinding, Page, TableEntry

WITH_STATUS = (TableKind.PATHS, TableKind.CHECKLIST, TableKind.PREFLIGHT, TableKind.PARITY)

_STATUSES = {status.value for status in Status}
#: a status of the preflight only; it needs the same evidence as OK
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
#: a note that begins like this contradicts the status OK; "Issue #12" is a ticket
_OTHER_STATUS = re.compile(
    r"not\s+run\b|issue(?=\s*[:;,.–—-]|\s+(?:on|in|at|with|behind|when|if|under|for)\b|\s*$)", re.IGNORECASE
)
_FOUR = "OK, Issue, N/A or Not run"


def status_of(entry: TableEntry) -> str:
    """Return a row's status as written; Done in the preflight is OK."""
    status = entry.text("status")
    return Status.OK.value if status == _DONE and entry.table.kind is TableKind.PREFLIGHT else status


def is_blank(text: str) -> bool:
    """Say whether a cell is empty, or contains only a dash or a word such as "none" or "todo"."""
    return text.strip().lower().rstrip(".") in _BLANK


def reason_of(entry: TableEntry) -> str:
    """Return the reason for a row's status: its notes, or its evidence when the notes are blank."""
    notes = entry.text("notes")
    return entry.text("evidence") if is_blank(notes) and "evidence" in entry.table.columns else notes


def r1_one_of_four_statuses(page: Page) -> Iterator[LintFinding]:
    """A status is one of four."""
    for table in page.tables(*WITH_STATUS):
        if "status" not in table.columns:
            problem = f"the table {table.kind} has no column Status"
            yield page.error(table.line, "R1", problem, f"add the column, with {_FOUR}")
        if (columns := table.columns.count("status")) > 1:
            fix = "keep one, and rename the others or move them to another table"
            yield page.error(table.line, "R1", f"the table {table.kind} has {columns} columns Status", fix)
    for entry in page.rows(*WITH_STATUS):
        status = entry.text("status")
        if "status" not in entry.table.columns:
            continue
        if status_of(entry) in _STATUSES:
            yield from _contradicted(page, entry)
            continue
        known = {name.lower().replace("/", ""): name for name in _STATUSES} | {"notrun": "Not run"}
        meant = known.get(status.lower().replace("/", "").replace("-", " "))
        fix = f"write {meant}" if meant else f"write {_FOUR}, and move the rest to another column"
        if "|" not in page.document.lines[entry.line - 1]:
            fix = f"write {_FOUR}; or insert a blank line above, since Markdown reads this line as a row of the table"
        yield page.error(entry.line, "R1", f"invalid status {quoted(status)}", fix)
    for table in page.document.adoption_tables:
        for row in table.rows:
            if row.surplus:
                problem = f"the row has {row.surplus} more cells than the table has columns, which readers never see"
                yield page.warning(row.line, "R1", problem, "write a pipe inside a cell as \\|")


def _contradicted(page: Page, entry: TableEntry) -> Iterator[LintFinding]:
    """Find a status that its own row contradicts."""
    if _STRUCK.search(entry.cell("status").raw):
        fix = f"write the current status only: {_FOUR}"
        yield page.error(entry.line, "R1", f"the status {quoted(entry.text('status'))} is struck through", fix)
    if status_of(entry) == Status.OK and (match := _OTHER_STATUS.match(reason_of(entry))):
        yield page.warning(
            entry.line,
            "R1",
            f"the status is OK, but its reason begins with {quoted(match[0])}",
            f"set the status to {match[0].capitalize()}, or move the part that is not OK to a row of its own",
        )


def r2_not_run_is_not_na(page: Page) -> Iterator[LintFinding]:
    """An item in scope that was not run yet is Not run; an item out of scope is N/A."""
    for entry in page.rows(*WITH_STATUS):
        reason = reason_of(entry)
        if status_of(entry) == Status.NA and (pending := not_yet(reason)):
            yield page.error(
                entry.line,
                "R2",
                f"the reason of N/A says {quoted(pending)}: the item is in scope and was not run",
                "write Not run, or say why the item is out of scope",
            )
        if status_of(entry) == Status.NOT_RUN and (match := _ABSENT.search(reason)):
            yield page.warning(
                entry.line,
                "R2",
                f"the reason of Not run says {quoted(match[0])}: the item seems to be out of scope",
                "write N/A with that reason, or say what prevents the run",
            )


def r3_na_has_a_reason(page: Page) -> Iterator[LintFinding]:
    """N/A has an objective reason in one line."""
    for entry in page.rows(*WITH_STATUS):
        if status_of(entry) != Status.NA:
            continue
        reason = reason_of(entry).strip().rstrip(".")
        fix = "say in one line what this deployment lacks, such as: there is no background job executor"
        cells = (entry.cell("notes"), entry.cell("evidence"))
        if is_blank(reason):
            yield page.error(entry.line, "R3", "N/A without a reason", fix)
        elif is_vague(reason):
            yield page.error(entry.line, "R3", f"N/A with a vague reason: {quoted(reason)}", fix)
        elif len(reason.split()) < FEWEST_WORDS and not any(map(page.pointers, cells)):
            yield page.error(entry.line, "R3", f"N/A with too short a reason: {quoted(reason)}", fix)
        elif any(span.kind is SpanKind.BREAK for cell in cells for span in cell.spans):
            yield page.error(entry.line, "R3", "N/A with a reason of several lines", "shorten the reason to one line")


def r4_ok_points_to_something(page: Page) -> Iterator[LintFinding]:
    """OK has a pointer that others can follow, and its target exists."""
    for entry in page.rows(*WITH_STATUS):
        status, cell = status_of(entry), entry.cell("evidence")
        found = page.pointers(cell)
        if status == Status.OK and not found:
            problem = "OK without evidence" if is_blank(cell.text) else f"OK without a pointer: {quoted(cell.text)}"
            yield page.error(entry.line, "R4", problem, _ADD_POINTER)
        yield from _broken_pointers(page, entry, "evidence", is_error=status == Status.OK)
        yield from _broken_pointers(page, entry, "notes", is_error=False)
    for table in page.tables(TableKind.TOPOLOGY):
        if "evidence" not in table.columns:
            problem = f"the topology table has no column {name_of(TOPOLOGY, 'evidence')}"
            yield page.error(table.line, "R4", problem, f"add the column: {_ADD_POINTER}")
    for entry in page.rows(TableKind.TOPOLOGY):
        if "evidence" not in entry.table.columns:
            continue
        claims = entry.text("matches").lower().startswith(("yes", "partial"))
        if not page.pointers(entry.cell("evidence")) and (claims or is_blank(entry.text("evidence"))):
            evidence = entry.text("evidence")
            lacking = "no evidence link" if is_blank(evidence) else f"no link in its evidence: {quoted(evidence)}"
            report = page.error if claims else page.warning
            problem = f"the environment {quoted(entry.text('environment'))} has {lacking}"
            yield report(entry.line, "R4", problem, _ADD_POINTER)
        yield from _broken_pointers(page, entry, "evidence", is_error=True)
    for entry in page.rows(TableKind.ISSUES):
        yield from _broken_pointers(page, entry, "link", is_error=True)


_ADD_POINTER = "name a command, a test, a file, a link or a ticket that shows it"


def _broken_pointers(page: Page, entry: TableEntry, column: str, *, is_error: bool) -> Iterator[LintFinding]:
    report = page.error if is_error else page.warning
    for pointer in page.pointers(entry.cell(column)):
        if pointer.verdict is PointerVerdict.MISSING:
            problem = f"the pointer {quoted(pointer.text)} is broken: {pointer.reason}"
            yield report(entry.line, "R4", problem, pointer.fix)


def r5_issues_are_tracked(page: Page) -> Iterator[LintFinding]:
    """An Issue has an owner, a ticket or a next step."""
    fix = "name a ticket, the requirement that tracks it, an owner, or the next step"
    for entry in page.rows(*WITH_STATUS):
        if status_of(entry) != Status.ISSUE:
            continue
        text = f"{entry.text('evidence')} {entry.text('notes')} {entry.text('owner')}"
        if is_blank(text):
            yield page.error(entry.line, "R5", "an Issue without any description", fix)
        elif not (
            _TRACKED.search(text)
            or _REQUIREMENT.search(text)
            or any(page.pointers(entry.cell(column)) for column in ("evidence", "notes", "link"))
        ):
            yield page.warning(entry.line, "R5", "an Issue without an owner, a ticket or a next step", fix)
    for entry in page.rows(TableKind.ISSUES):
        identity, link, owner = quoted(entry.text("id")), entry.text("link"), entry.text("owner")
        if is_blank(link) and (is_blank(owner) or owner.lower() in {"unassigned", "nobody"}):
            yield page.error(entry.line, "R5", f"the issue {identity} has neither an owner nor a link", fix)
        elif is_blank(link):
            yield page.warning(entry.line, "R5", f"the issue {identity} has no link", fix)


def r13_both_kinds_of_path(page: Page) -> Iterator[LintFinding]:
    """The rubric has a path over HTTP and a path of a job, and both write."""
    tables = list(page.tables(TableKind.PATHS))
    kinds: Counter[str] = Counter()
    for entry in page.rows(TableKind.PATHS):
        kind = entry.text("kind").lower()
        if "kind" not in entry.table.columns:
            continue
        if kind not in {"http", "job"}:
            yield page.error(
                entry.line, "R13", f"invalid kind of path {quoted(entry.text('kind'))}", "write HTTP or job"
            )
        elif re.match(r"(?:GET|HEAD|OPTIONS)\s", entry.text("path")):
            yield page.warning(
                entry.line,
                "R13",
                "the path only reads, so it writes nothing to the trail",
                "keep it, and add a path that writes",
            )
        else:
            kinds[kind] += 1
    for table in tables[:1]:
        for kind, name in (("http", "an HTTP request"), ("job", "a job")):
            if not kinds[kind]:
                yield page.error(
                    table.line,
                    "R13",
                    f"no row for an audited write by {name}",
                    "add a row; if the deployment has no such path, write N/A with the reason",
                )
    for line, kind in page.document.markers:
        if kind is TableKind.PATHS and page.document.table_after(line) is None:
            yield page.warning(line, "R13", "the marker of the rubric has no table below it", "add the table")


def r14_ids_and_priorities(page: Page) -> Iterator[LintFinding]:
    """Issues have permanent unique ids, and priorities from P0 to P2."""
    lines: dict[str, int] = {}
    for entry in page.rows(TableKind.ISSUES):
        priority, identity = entry.text("p"), entry.text("id")
        if priority not in {severity.value for severity in Severity}:
            yield page.error(
                entry.line,
                "R14",
                f"invalid priority {quoted(priority)}",
                "write P0 for wrong or missing audit data or security, P1 for operations and docs, P2 for depth",
            )
        if not _ISSUE_ID.fullmatch(identity):
            fix = "write AP-SECTION.ROW, such as AP-2.jobs, and never change it"
            yield page.error(entry.line, "R14", f"invalid id {quoted(identity)}", fix)
        elif identity in lines:
            problem = f"the id {identity} is already used on line {lines[identity]}"
            yield page.error(entry.line, "R14", problem, "give each issue its own id")
        lines.setdefault(identity, entry.line)


def r18_every_item_has_evidence(page: Page) -> Iterator[LintFinding]:
    """Every row of the walkthrough has evidence."""
    for entry in page.rows(TableKind.CHECKLIST):
        # R4 judges OK without evidence, and R3 judges N/A without a reason
        if is_blank(entry.text("evidence")) and status_of(entry) in {Status.ISSUE, Status.NOT_RUN}:
            yield page.error(
                entry.line,
                "R18",
                f"the item {quoted(entry.row.cells[0].text)} has no evidence",
                "say what was found, or what prevents the run",
            )
