"""Fill the templates and write the report: Markdown, one HTML page, JUnit XML, JSON."""

from __future__ import annotations

from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import jinja2
import msgspec
from markupsafe import Markup

from harness import places
from harness.model import EvidenceClass, Section, Severity, Status
from harness.printable import printable
from harness.redaction import Redactor
from harness.report import (
    change_columns,
    check_columns,
    columns,
    histories,
    job_engine_columns,
    job_rows,
    load_columns,
    load_rows,
    page,
    proofs,
    spreads,
    trials,
)
from harness.report.cells import Code, Outcome, element
from harness.report.ctrf_report import ctrf
from harness.report.documents import MARKDOWN, SUMMARY, documents
from harness.report.escape import Ready, code, text
from harness.report.feature_differences import differences
from harness.report.feature_map import anchor
from harness.report.issue_groups import issue_groups
from harness.report.json_report import encoded
from harness.report.junit_report import junit
from harness.report.outcomes import WORDS, is_shown
from harness.report.proofs import count_proofs
from harness.report.sections import differing, sections
from harness.report.template_cache import template_cache
from harness.report.walkthrough import TITLES
from harness.store import write_together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from harness.report.changes import Changes
    from harness.report.evidence import Row
    from harness.report.table import Columns
    from harness.report.tables import Report

#: rows with the same long cell, and the length of its HTML
_SAID_ONCE, _LONG_CELL = 3, 60
#: types of fields that hold nothing to redact, by far the most frequent ones
_WITHOUT_TEXT = frozenset((bool, int, float, Status, Severity, Section, EvidenceClass))


def render(report: Report, folder: Path) -> list[Path]:
    """Write every document into a folder; either all of them are replaced, or none.

    A document is written while it is rendered, so the largest one is never in memory as a whole.

    :raises StoreError: when the folder cannot be written to.
    """
    report = scrubbed(report)
    written = write_together(folder, _documents(report, folder))
    for document in MARKDOWN:
        if not document.belongs_to(report):  # a declaration may have been removed since the last report
            (folder / document.name).unlink(missing_ok=True)
    return written


def _documents(report: Report, folder: Path) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield the file name of every document, with its text in pieces that are rendered on demand."""
    context = _context(report)
    for document in (SUMMARY, *MARKDOWN):
        if document.belongs_to(report):
            yield document.name, _markdown_environment().get_template(f"{document.name}.j2").generate(context)
    yield "report.html", html_page(report, folder)
    yield "junit.xml", junit(report)
    yield "ctrf.json", [msgspec.json.encode(ctrf(report)).decode(), "\n"]
    yield "report.json", encoded(report)


#: the tables that a team's own document may contain: the template of each, by the name of its marker
_FRAGMENTS = {
    "stg-01": "_stg-01",
    "stg-02": "_stg-02",
    "checklist": "_checklist",
    "issues": "_issues",
    "feature-map": "_features",
    "resilience": "_resilience",
    "job-engines": "_job_engines",
    "ingest": "_ingest",
    "trials": "_trials",
    "readiness": "_readiness",
    "preflight": "_preflight",
    "parity": "_parity",
    "migrations": "_migrations",
}


def fragments(report: Report) -> dict[str, str]:
    """Return the Markdown of each table that a team's own document may contain, by the name of its marker.

    Links into the evidence are left out, because the evidence is not in the team's repository.
    """
    report = scrubbed(report)
    rows = tuple(msgspec.structs.replace(row, run_link="") for row in report.topologies)
    parity = tuple(msgspec.structs.replace(row, output="") for row in report.parity)
    migrations = tuple(msgspec.structs.replace(row, output="") for row in report.migrations)
    plain = msgspec.structs.replace(report, topologies=rows, parity=parity, migrations=migrations)
    context = _context(plain)
    return {
        name: _markdown_environment().get_template(f"{template}.md.j2").render(context, rows_at=None)
        for name, template in _FRAGMENTS.items()
    }


S = TypeVar("S", "Report", "Changes")


def scrubbed(report: S) -> S:
    """Return a report, or a part of one, without secrets and control characters, so that no document has any."""
    # by shape, because evidence may come from elsewhere; cached, because most rows repeat the same texts
    redact = Redactor()
    found: S = _scrub(report, cache(lambda text: printable(redact(text))))
    return found


def changes_in_markdown(changes: Changes) -> str:
    """Return what changed as a Markdown document, for an issue or a summary; it has no links into a report."""
    template = _markdown_environment().get_template("changes.md.j2")
    return template.render(report={"changes": changes}, change_columns=change_columns)


def _scrub(value: Any, redact: Callable[[str], str]) -> Any:
    """Return a value with redacted texts; a value without anything to redact is returned itself, not a copy."""
    if isinstance(value, msgspec.Struct):
        before = msgspec.structs.astuple(value)
        after = _scrub_all(before, redact)
        fields = zip(value.__struct_fields__, after, strict=True)
        return value if after == before else msgspec.structs.replace(value, **dict(fields))
    if isinstance(value, tuple):
        after = _scrub_all(value, redact)
        return value if after == value else after
    if isinstance(value, dict):
        keys, entries = _scrub_all(tuple(value), redact), _scrub_all(tuple(value.values()), redact)
        same = keys == tuple(value) and entries == tuple(value.values())
        return value if same else dict(zip(keys, entries, strict=True))
    return redact(value) if isinstance(value, str) and not isinstance(value, Enum) else value


def _scrub_all(values: tuple[Any, ...], redact: Callable[[str], str]) -> tuple[Any, ...]:
    # most values are short, and a call for each of them would take longer than all the rest
    return tuple(
        [
            redact(value)
            if type(value) is str
            else value
            if not value or type(value) in _WITHOUT_TEXT
            else _scrub(value, redact)
            for value in values
        ]
    )


def html_page(report: Report, folder: Path) -> Iterator[str]:
    """Return the page in pieces. Its links, and the logs of its runs, are relative to the folder of the report."""
    return _html_environment().get_template("report.html.j2").generate(_context(report), folder=folder)


def _context(report: Report) -> dict[str, object]:
    """Return what every template gets: the report, and the modules with the columns of its tables."""
    rows_of: dict[str, list[Row]] = {name: [] for name in report.counts}
    for row in report.rows:
        if is_shown(*row.answer):
            rows_of[row.planned.target].append(row)
    return {
        "report": report,
        "rows_of": rows_of,
        "titles": TITLES,
        "legend": WORDS,
        "columns": columns,
        "page": page,
        "spreads": spreads,
        "histories": histories,
        "job_engine_columns": job_engine_columns,
        "job_rows": job_rows,
        "load_columns": load_columns,
        "load_rows": load_rows,
        "trials": trials,
        "sections": sections,
        "differing": differing,
        "proof_count": count_proofs(report.rows, report.audit_target),
        "check_columns": check_columns,
        "proofs": proofs,
        "change_columns": change_columns,
        "anchor": anchor,
        "differences": differences,
        "documents": documents,
        "issue_groups": issue_groups,
    }


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _period(report: Report) -> str:
    """Return the time of the evidence to the minute, in UTC: `of 2026-11-28, 16:48 to 16:50 UTC`."""
    (day, begin), (last, end) = ((time[:10], time[11:16]) for time in (report.evidence_from, report.evidence_to))
    return f"of {day}, {begin} to {end} UTC" if day == last else f"from {day} {begin} to {last} {end} UTC"


def _in_document(title: str, _: str, document: str) -> Ready:
    """Return the title of a section that another document has."""
    return Ready(f"{_em(title)} in {code(document)}")


def _em(value: object) -> Ready:
    return Ready(f"*{text(value)}*")


# a row at a time, because a call from a template costs more than most cells


def _markdown_cells(row: object, columns: Columns) -> Ready:
    return Ready(" | ".join([column.markdown(row) for column in columns]))


def _indented(script: str) -> Ready:
    """Return a text as a code block: indented lines are literal, whatever they hold."""
    return Ready("\n".join(f"    {line}".rstrip() for line in script.splitlines()))


def _html_rows(rows: Sequence[object], columns: Columns) -> Iterator[Markup]:
    """Yield the cells of each row. A long text that all rows of a table share is said once, in a cell of all rows."""
    cells = [[column.html(row) for column in columns] for row in rows]
    for number in range(1, len(columns)):
        shared = {row[number] for row in cells}
        if len(shared) == 1 and len(rows) >= _SAID_ONCE and len(cells[0][number]) > _LONG_CELL:
            once = cells[0][number].replace("<td", Markup('<td rowspan="{}"').format(len(rows)), 1)
            for place, row in enumerate(cells):
                row[number] = Markup() if place else once
    return (Markup("".join(row)) for row in cells)  # noqa: S704 -- every cell is Markup already


def _heat_cells(cells: Sequence[page.HeatCell | None]) -> Markup:
    return Markup("".join([cell.html() if cell else "<td>" for cell in cells]))  # noqa: S704 -- every value is escaped


@cache
def _markdown_environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(places.TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        bytecode_cache=template_cache("markdown", __file__),
        autoescape=False,  # noqa: S701 -- Markdown; every value passes `text` unless it is marked Ready
        finalize=text,
    )
    environment.filters |= {"code": code, "em": _em, "word": _em, "ready": Ready, "sentence": _sentence}
    environment.filters |= {"period": _period, "to_section": _in_document}
    environment.filters |= {"markdown_cells": _markdown_cells, "indented": _indented}
    return environment


@cache
def _html_environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(places.TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=template_cache("html", __file__),
        autoescape=True,
    )
    environment.filters |= {"code": lambda value: Code(value).html(), "em": lambda value: element("em", value)}
    environment.filters |= {"sentence": _sentence, "period": _period}
    environment.filters["heat_cells"] = _heat_cells
    environment.filters["to_section"] = lambda title, anchor, _: element("a", title, href=f"#{anchor}")
    # the result of a macro is markup already
    environment.filters |= {"word": lambda word: Outcome(word, word).html(), "ready": Markup, "html_rows": _html_rows}
    return environment
