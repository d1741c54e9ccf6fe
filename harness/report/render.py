"""Fill the templates and write the report: Markdown, one HTML page, JUnit XML, JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jinja2
import msgspec

from harness import places
from harness.model import Status
from harness.redaction import Redactor
from harness.report.escape import Ready, code, link, text
from harness.report.features import anchor
from harness.report.junit import junit
from harness.report.tables import proven
from harness.report.walkthrough import TITLES
from harness.store import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from harness.report.tables import Report

#: each is a template of its own, and all are parts of report.md
_DOCUMENTS = ("report", "feature-map", "stg-01-topology", "stg-02-paths", "checklist", "issues", "matrix")


def render(report: Report, folder: Path) -> list[Path]:
    """Write every document into a folder; each is replaced whole or not at all.

    :raises StoreError: when the folder cannot be written to.
    """
    report = _scrubbed(report)
    texts = {f"{name}.md": _markdown(report, name) for name in _DOCUMENTS}
    texts["report.html"] = _html(report)
    texts["junit.xml"] = junit(report)
    texts["report.json"] = msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n"
    for name, content in texts.items():
        write_atomically(folder / name, content)
    return [folder / name for name in texts]


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
    redact = Redactor()  # by shape: evidence may come from elsewhere
    return msgspec.convert(_scrub(msgspec.to_builtins(report), redact), type(report))


def _scrub(value: Any, redact: Redactor) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(key): _scrub(each, redact) for key, each in value.items()}
    return [_scrub(each, redact) for each in value] if isinstance(value, list) else value


def _markdown(report: Report, name: str, **more: object) -> str:
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
    return environment.get_template(f"{name}.md.j2").render(
        report=report, titles=TITLES, Status=Status, proven=proven, anchor=anchor, **more
    )


def _html(report: Report) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(places.TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
    environment.tests["web"] = lambda value: str(value).startswith(("https://", "http://"))
    return environment.get_template("report.html.j2").render(
        report=report, titles=TITLES, Status=Status, proven=proven, anchor=anchor
    )
