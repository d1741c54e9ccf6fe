"""Fill the templates and write the report: Markdown, one HTML page, JUnit XML, JSON."""

from __future__ import annotations

from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

import jinja2
import msgspec

from harness import places
from harness.redaction import Redactor
from harness.report import columns
from harness.report.escape import Ready, code, link, text
from harness.report.feature_map import anchor
from harness.report.junit_report import junit
from harness.report.walkthrough import TITLES
from harness.store import write_together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from harness.report.evidence import Row
    from harness.report.tables import Report

#: each is a template of its own, and all are parts of report.md
_DOCUMENTS = ("report", "feature-map", "stg-01-topology", "stg-02-paths", "checklist", "issues", "matrix")


def render(report: Report, folder: Path) -> list[Path]:
    """Write every document into a folder: all of them are replaced, or none.

    Each is written while it is rendered, so that the largest of them never lies in memory as a whole.

    :raises StoreError: when the folder cannot be written to.
    """
    report = _scrubbed(report)
    return write_together(folder, _documents(report))


def _documents(report: Report) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield the file name and the text of every document, each made when it is asked for."""
    for name in _DOCUMENTS:
        yield f"{name}.md", _pieces(_markdown_environment().get_template(f"{name}.md.j2"), report)
    yield "report.html", _pieces(_html_environment().get_template("report.html.j2"), report)
    yield "junit.xml", [junit(report)]
    yield "report.json", _json(report)


def _json(report: Report) -> Iterator[str]:
    """Yield the report as indented JSON; its rows are nearly all of it, and are encoded one by one."""
    text = _formatted(msgspec.structs.replace(report, rows=()))
    before, rows, after = text.partition('\n "rows": [],')
    yield before
    if report.rows:
        yield rows.removesuffix("],")
        for number, row in enumerate(report.rows):
            yield (",\n  " if number else "\n  ") + _formatted(row).replace("\n", "\n  ")
        yield "\n ],"
    else:
        yield rows
    yield after + "\n"


def _formatted(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=1).decode()


#: what can be put into a team's own document: by the name of its marker, the template that it is filled by
_FRAGMENTS = {
    "stg-01": "_stg-01",
    "stg-02": "_stg-02",
    "checklist": "_checklist",
    "issues": "_issues",
    "feature-map": "_features",
    "readiness": "_readiness",
    "preflight": "_preflight",
    "parity": "_parity",
}


def fragments(report: Report) -> dict[str, str]:
    """Return the Markdown of each table that a document of somebody's may hold, by the name of its marker.

    Links into the evidence are left out: its folder is no part of their repository.
    """
    report = _scrubbed(report)
    rows = tuple(msgspec.structs.replace(row, run_link="") for row in report.topologies)
    plain = msgspec.structs.replace(report, topologies=rows)
    return {name: _markdown(plain, template, rows_at=None) for name, template in _FRAGMENTS.items()}


def _scrubbed(report: Report) -> Report:
    # by shape: evidence may come from elsewhere; the same few texts are in every row
    found: Report = _scrub(report, cache(Redactor()))
    return found


def _scrub(value: Any, redact: Callable[[str], str]) -> Any:
    """Return a value with redacted texts; what holds nothing to redact is returned as it is, and not copied."""
    if isinstance(value, Enum):
        return value
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, msgspec.Struct):
        before = {name: getattr(value, name) for name in value.__struct_fields__}
        after = {name: _scrub(found, redact) for name, found in before.items()}
        return value if _same(before.values(), after.values()) else msgspec.structs.replace(value, **after)
    if isinstance(value, dict):
        entries = {redact(key): _scrub(found, redact) for key, found in value.items()}
        return value if _same((*value, *value.values()), (*entries, *entries.values())) else entries
    if isinstance(value, tuple):
        items = tuple(_scrub(found, redact) for found in value)
        return value if _same(value, items) else items
    return value


def _same(before: Iterable[object], after: Iterable[object]) -> bool:
    return all(
        first is second or (isinstance(first, str) and first == second)
        for first, second in zip(before, after, strict=False)
    )


def _markdown(report: Report, name: str, **more: object) -> str:
    return "".join(_pieces(_markdown_environment().get_template(f"{name}.md.j2"), report, **more))


def _pieces(template: jinja2.Template, report: Report, **more: object) -> Iterator[str]:
    rows_of: dict[str, list[Row]] = {name: [] for name in report.counts}
    for row in report.rows:
        rows_of[row.planned.topology].append(row)
    return template.generate(report=report, rows_of=rows_of, titles=TITLES, columns=columns, anchor=anchor, **more)


@cache
def _markdown_environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(places.TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 -- Markdown; what is printed passes `text` unless it is marked Ready
        finalize=text,
    )
    environment.filters |= {"code": code, "ready": Ready, "link": link}
    return environment


@cache
def _html_environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(places.TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
