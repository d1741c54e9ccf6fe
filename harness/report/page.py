"""The data of `report.html` that the tables do not have: the heat map, and the evidence of each cell for its script.

The evidence is compressed JSON inside the page. The script shows it as text and never as markup, and the page's
content security policy names the script by its hash, so that nothing in the evidence can run.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from typing import TYPE_CHECKING

import msgspec
from markupsafe import escape
from msgspec import Struct

from harness import places
from harness.model import BackendProbe, Expectation, Limit, Section, Status
from harness.report.job_engine_cells import outcome_of_case
from harness.report.limits import LimitKind, limit_kind, practice_text, practice_word
from harness.report.log_slices import log_slices
from harness.report.outcomes import (
    ACCEPTED,
    DRIVERS,
    KNOWN_DEFECT,
    UNDOCUMENTED,
    accepted_as,
    is_shown,
    mark_of,
    reliability_of,
    text_of,
    word_of,
)
from harness.report.proofs import proven
from harness.report.walkthrough import TITLES
from harness.suites.pooling.advice import advice_for

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from harness.model import PlannedCheck
    from harness.report.evidence import Row
    from harness.report.tables import Report

#: the parts of the script and of the style, in the order in which they are joined; each is a file of `templates/page/`
SCRIPTS = (
    *("core.js", "panel.js", "heat.js", "features.js", "compare.js", "timeline.js", "nav.js"),
    "start.js",
)
STYLES = (
    *("base.css", "verdicts.css", "changes.css", "heat.css", "panel.css", "features.css"),
    *("tables.css", "load.css", "print.css"),
)

_AREAS = {
    Section.PATHS: "Audited paths of the host",
    Section.ENVIRONMENT: "Environment",
    Section.RESILIENCE: "Resilience: acknowledged work under faults",
    Section.SOAK: "Soak: judged work under load",
    Section.JOBS: "Job engines",
    Section.INGEST: "Ingest pipeline",
    Section.MIGRATIONS: "Migrations",
    Section.COMMANDS: "Other test suites",
}


class HeatCell(Struct, frozen=True, kw_only=True, gc=False):
    """One check in one topology.

    :param tone: its shape and colour: the outcome of a feature, else `ok`, `limit`, `mustnot`, `security`, `issue`,
        `known`, `na`, `notrun`.
    :param text: what it says, such as `fails (26000)` or `OK`.
    :param marked: whether a feature's outcome is an Issue, known or not.
    """

    tone: str
    text: str
    marked: str = ""

    def html(self) -> str:
        marked = f" at-{escape(self.marked)}" if self.marked else ""
        return f'<td><a class="sq {escape(self.tone)}{marked}">{escape(self.text)}</a>'


class HeatBand(Struct, frozen=True, kw_only=True):
    """A part of the heat map: checks that belong together, with a line for each topology that owes one of them."""

    title: str
    #: a check for each column
    checks: tuple[str, ...]
    #: by topology, then one entry for each check; None where the topology owes no answer
    lines: dict[str, tuple[HeatCell | None, ...]]


def heat_map(rows: Iterable[Row], order: Iterable[str] = ()) -> tuple[HeatBand, ...]:
    """Return the bands of the heat map, in the order of the report.

    :param order: that of the topologies; without it, that of the rows.
    """
    bands: dict[str, dict[str, dict[str, Row]]] = {}
    names: dict[str, None] = dict.fromkeys(order)
    for row in rows:
        if is_shown(*row.answer):
            names.setdefault(row.planned.target)
            bands.setdefault(_band(row), {}).setdefault(row.planned.check, {})[row.planned.target] = row
    found = []
    for title, checks in bands.items():
        lines = {
            name: tuple(_heat_cell(of.get(name)) for of in checks.values())
            for name in names
            if any(name in of for of in checks.values())
        }
        found.append(HeatBand(title=title, checks=tuple(checks), lines=lines))
    return tuple(found)


def _band(row: Row) -> str:
    planned = row.planned
    if planned.job is not None:  # a band for each, because all cases of all engines are too many for one
        return f"Job engine: {planned.job.title}, {planned.job.variant}"
    if planned.section is Section.POOLING:
        return "Drivers" if planned.area == DRIVERS else f"Pooling: {planned.area}"
    return TITLES.get(planned.section) or _AREAS[planned.section]


def _heat_cell(row: Row | None) -> HeatCell | None:
    if row is None:
        return None
    if word := word_of(row.result):
        mark = mark_of(row.result)
        marked = {UNDOCUMENTED: "issue", KNOWN_DEFECT: "known", ACCEPTED: "known"}.get(mark, "")
        return HeatCell(tone=word, text=text_of(row.result), marked=marked)
    outcome = f": {observed}" if (observed := outcome_of_case(row)) else ""
    if row.status is Status.OK:
        cell = _ok_cell(row)
        return HeatCell(tone=cell.tone, text=f"{cell.text}{outcome}")
    if row.status is Status.ISSUE:
        accepted = accepted_as(row.result)
        return HeatCell(tone="known" if accepted else "issue", text=f"{accepted or 'Issue'}{outcome}")
    return HeatCell(tone="na" if row.status is Status.NA else "notrun", text=str(row.status))


def _ok_cell(row: Row) -> HeatCell:
    """Return the cell of an OK row: a limit that warns somebody does not look like what works."""
    match kind := limit_kind(*row.answer):
        case None:
            return HeatCell(tone="ok", text="OK")
        case LimitKind.PRACTICE:
            return HeatCell(tone=practice_word(row.result), text=practice_text(row.result))
        case LimitKind.SECURITY:
            return HeatCell(tone="security", text=kind.word)
    return HeatCell(tone="limit", text=f"OK, {kind.word}")


# --- the evidence of each cell ---------------------------------------------------------------------------


class Claim(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What all rows of one check share."""

    claim: str
    section: str
    severity: str
    area: str
    feature: str = ""
    #: what to do instead of the feature or the practice, and where that is documented
    instead: str = ""
    source_of_instead: str = ""


class Detail(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The evidence of one row. What is empty is left out."""

    status: str
    #: of an Issue, if the outcome decides it; else the check's
    severity: str = ""
    tone: str
    text: str
    mark: str = ""
    reason: str = ""
    #: how far the verdict can be relied on; "" for a row that was tried once and counts
    reliability: str = ""
    expectations: tuple[Expectation, ...] = ()
    probes: tuple[BackendProbe, ...] = ()
    facts: dict[str, str] = {}
    limit: Limit | None = None
    expected: str = ""
    source: str = ""
    link: str = ""
    #: of each control: its name, the expectation that it breaks, and whether it turned the check to Issue
    controls: tuple[tuple[str, str, bool], ...] = ()
    #: milliseconds
    ms: float = 0.0
    started: str = ""
    #: whether a control turned the check to Issue, in words; "" where none applies
    proven: str = ""
    #: the lines of the server logs that explain it
    log: tuple[str, ...] = ()
    reproduce: str = ""
    #: the statements of the check's sessions, for psql
    script: str = ""


class PageData(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the script of the page reads."""

    topologies: tuple[str, ...]
    checks: dict[str, Claim]
    #: by check, then by topology: what neighbours share is compressed
    rows: dict[str, dict[str, Detail]]


def page_data(report: Report, folder: Path) -> PageData:
    """Return the evidence of every row that is shown.

    :param folder: that of the report, from which its links lead to the runs.
    """
    logs = log_slices(report, folder)
    checks: dict[str, Claim] = {}
    rows: dict[str, dict[str, Detail]] = {}
    for row in report.rows:
        if is_shown(*row.answer):
            planned = row.planned
            if planned.check not in checks:
                checks[planned.check] = _claim(planned)
            rows.setdefault(planned.check, {})[planned.target] = _detail(
                row, proven(row, report.audit_target), logs.get((planned.target, planned.check), ())
            )
    return PageData(topologies=tuple(report.counts), checks=checks, rows=rows)


def _claim(planned: PlannedCheck) -> Claim:
    advice = advice_for(planned.check)
    return Claim(
        claim=planned.claim,
        section=planned.section,
        severity=planned.severity,
        area=planned.area,
        feature=planned.feature,
        instead=advice.instead if advice else "",
        source_of_instead=advice.source if advice else "",
    )


def _detail(row: Row, proof: str, log: tuple[str, ...]) -> Detail:
    result, cell = row.result, _heat_cell(row)
    assert cell is not None
    feature = result.feature
    return Detail(
        status=result.status,
        severity=result.severity or "" if result.status is Status.ISSUE else "",
        tone=cell.tone,
        text=cell.text,
        mark=mark_of(result),
        reason=result.reason,
        reliability=reliability_of(result),
        expectations=result.expectations,
        probes=result.probes,
        facts=result.facts,
        limit=result.limit,
        expected=" or ".join(map(str, feature.expected)) if feature else "",
        source=feature.source if feature else "",
        link=result.known.link if result.known else "",
        controls=tuple((proof.control, proof.at, proof.proven) for proof in row.proofs if proof.applicable),
        ms=result.duration_ms,
        started=result.started_at,
        proven=proof,
        log=log,
        reproduce=result.reproduce,
        script=result.reproduction,
    )


def compressed(data: PageData) -> str:
    """Return the data as the page holds it: JSON, compressed by gzip, in base64."""
    return base64.b64encode(gzip.compress(msgspec.json.encode(data), 9, mtime=0)).decode()


# --- style and script ------------------------------------------------------------------------------------


def _joined(names: Iterable[str]) -> str:
    return "\n".join((places.TEMPLATES / "page" / name).read_text(encoding="utf-8").strip() for name in names)


def style() -> str:
    """Return the style of the page."""
    return _joined(STYLES)


def script() -> str:
    """Return the script of the page."""
    return "(() => {\n'use strict';\n" + _joined(SCRIPTS) + "\n})();"


def policy(script: str) -> str:
    """Return the content security policy of the page: nothing is loaded, and only its own script runs."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
