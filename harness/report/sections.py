"""The sections of the page that are tables: what matters first, the result in words, and the rows.

A suite that has a table of its own adds one :class:`Section` to :func:`sections`. The page prints it, and its
navigation links to it. The sentences are macros of `templates/_words.j2`, which Markdown has as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from harness.report import change_columns, check_columns, columns, job_engine_sections, load_sections, topology_sections
from harness.report.feature_differences import differences
from harness.report.feature_map import safe_drivers
from harness.report.issue_groups import issue_groups
from harness.report.limits import LimitKind
from harness.report.listings import Listing, Paper, Part, Section
from harness.report.proofs import attention_first, kill_rate
from harness.report.readiness import Stance
from harness.report.section_words import (
    counts_in_words,
    numbered,
    one_table,
    rows_in_words,
    statuses_in_words,
    worst_first,
)
from harness.report.walkthrough import TITLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.report.baseline import BaselineComparison
    from harness.report.table import Columns
    from harness.report.tables import Report

#: outcomes of a driver, worst first
_OUTCOMES = ("leaks", "wrong", "lost", "hangs", "fails", "", "works")

#: sections with which a report about an audit trail of somebody else's begins
_OF_FOREIGN_TRAIL = ("baseline", "findings", "limits", "mutated-rows")
#: sections about the audit trail, which say nothing in a report about systems of a project's own
_OF_THE_TRAIL = ("paths", "trials", "checklist")


def sections(report: Report) -> tuple[Section, ...]:
    """Return the sections of tables, in the order of the page; those without a row are said in a line each."""
    found = (
        *((_baseline(report.baseline),) if report.baseline else ()),
        *((_findings(report),) if report.is_foreign else ()),
        _issues(report),
        topology_sections.topology(report),
        topology_sections.paths(report),
        _drivers(report),
        load_sections.trials(report),
        load_sections.faults(report),
        load_sections.loads(report),
        job_engine_sections.job_engines(report),
        _by_status("ingest", "Ingest pipeline", "Ingest", columns.INGEST, report.ingest, noun="row"),
        _limits(report),
        _checklist(report),
        _readiness(report),
        load_sections.repetition(report),
        _by_status("migrations", "Migrations", "Migrations", columns.MIGRATIONS, report.migrations, noun="row"),
        _by_status("parity", "In-repo parity", "Parity", columns.PARITY, report.parity, noun="suite"),
        _by_status(
            "preflight", "Distribution preflight", "Preflight", columns.PREFLIGHT, report.preflight, noun="item"
        ),
        # breaks are about the reference layer; rows of any trail are mutated
        *(() if report.is_foreign else (_breaks(report),)),
        _observed(report),
    )
    if report.is_foreign and not report.about:
        return _in_order(found, _OF_FOREIGN_TRAIL)
    if not report.about:
        return found
    shown = (_not_asked(section) if section.anchor in _OF_THE_TRAIL else section for section in found)
    return _in_order(shown, (*report.about, "findings", "issues", "limits"))


def _in_order(found: Iterable[Section], first: tuple[str, ...]) -> tuple[Section, ...]:
    """Return some sections first, and the others after them in their order."""
    return tuple(sorted(found, key=lambda section: (*first, section.anchor).index(section.anchor)))


def _not_asked(section: Section) -> Section:
    return replace(section, result="", missing=("not_asked", ()), listings=(), parts=())


# --- one function for each section -----------------------------------------------------------------------


def _baseline(found: BaselineComparison) -> Section:
    return Section(
        anchor="baseline",
        title="Since the last release",
        short="Baseline",
        result=found.summary,
        intro=("baseline", (found,)),
        missing=("no_baseline", (found,)),
        listings=one_table(
            "Issues now, and at the baseline: those that fail the run first", change_columns.BASELINE, found.changes
        ),
    )


def _findings(report: Report) -> Section:
    """Return what was found in an audit trail of somebody else's: a part for each cause."""
    found = report.findings
    checks = [row for group in found for row in group.rows]
    return Section(
        anchor="findings",
        title=f"What to change in {report.audit_target}",
        short="What to change",
        result=f"{numbered(checks, 'check')} found an Issue, with {numbered(found, 'cause')}" if found else "",
        intro=("findings", (report,)),
        missing=("no_findings", (report,)),
        listings=(),
        parts=tuple(
            Part(
                title=group.title[:1].upper() + group.title[1:],
                intro=("advice", (group,)),
                listings=one_table("Checks that found it", check_columns.FINDINGS, group.rows, on_paper=True),
            )
            for group in found
        ),
    )


def _issues(report: Report) -> Section:
    severities = counts_in_words(sorted(issue.severity for issue in report.issues))
    accepted = counts_in_words(sorted(issue.accepted for issue in report.issues if issue.accepted))
    apart = f"; {accepted}" if accepted else ""
    return Section(
        anchor="issues",
        title="Prioritised issues",
        short="Issues",
        result=f"{numbered(report.issues, 'Issue')}: {severities}{apart}" if report.issues else "",
        missing=("no_issues", (report,)),
        listings=(
            *one_table(
                "Issues with the same check or the same cause: those that nobody has accepted first, then by severity",
                check_columns.ISSUE_GROUPS,
                issue_groups(row.answer for row in report.rows),
            ),
            Listing(
                caption="Each Issue, with its owner",
                columns=columns.ISSUES,
                groups=(
                    (
                        "",
                        tuple(
                            sorted(report.issues, key=lambda issue: (bool(issue.accepted), issue.severity, issue.id))
                        ),
                    ),
                ),
                summary=rows_in_words(report.issues),
                folded=True,
            ),
        ),
    )


def _drivers(report: Report) -> Section:
    def worst(row: Any) -> int:
        return min((_OUTCOMES.index(cell.word) for cell in row.cells.values()), default=len(_OUTCOMES))

    rows = sorted(report.drivers, key=worst)
    return Section(
        anchor="drivers",
        title="Drivers: which settings are safe",
        short="Drivers",
        result=safe_drivers(report.drivers, {verdict.name: verdict.mode for verdict in report.verdicts}),
        intro=("drivers", ()),
        paper=Paper.OPEN,
        missing=("no_drivers", ()),
        listings=one_table("Drivers by topology", check_columns.drivers(report.feature_topologies, ""), rows),
    )


def _limits(report: Report) -> Section:
    by_kind = {
        kind: tuple(
            sorted((limit for limit in report.limits if limit.kind is kind), key=lambda limit: -len(limit.topologies))
        )
        for kind in LimitKind
    }
    names = {name for limit in report.limits for name in limit.topologies}
    observed = numbered(report.limits, "documented limit")
    return Section(
        anchor="limits",
        title="Documented limits that were observed",
        short="Limits",
        result=f"{observed} observed, in {numbered(names, 'topology', 'topologies')}" if names else "",
        intro=("limits", ()),
        paper=Paper.NONE,
        missing=("no_limits", ()),
        listings=tuple(
            listing for kind, rows in by_kind.items() for listing in one_table(kind.value, columns.LIMITS, rows) if rows
        ),
    )


def _checklist(report: Report) -> Section:
    rows = report.walkthrough
    groups = tuple(
        (f"{number}. {title}", tuple(row for row in rows if row.section is section))
        for number, (section, title) in enumerate(TITLES.items(), 1)
    )
    listing = Listing(caption="Checklist items by section", columns=columns.CHECKLIST, groups=groups)
    return Section(
        anchor="checklist",
        title="Checklist walkthrough",
        short="Checklist",
        result=f"{numbered(rows, 'item')}: {statuses_in_words(rows)}{report.why_items_not_run}" if rows else "",
        intro=("checklist", ()),
        paper=Paper.OPEN,
        missing=("no_verdicts", ()),
        listings=(listing,),
    )


def _readiness(report: Report) -> Section:
    order = list(Stance)
    rows = sorted(report.readiness, key=lambda row: order.index(row.stance))
    stances = counts_in_words(row.stance for row in rows)
    answers = "; ".join(f"{one.workflow} on {one.release}: {one.answer}" for one in report.decisions)
    decisions = tuple(
        Listing(
            caption=f"{decision.workflow} on {decision.release}: {decision.answer}",
            columns=columns.CONDITIONS,
            groups=(("", decision.conjuncts),),
        )
        for decision in report.decisions
    )
    return Section(
        anchor="readiness",
        title="Feature readiness",
        short="Readiness",
        result="; ".join(filter(None, (f"{numbered(rows, 'area')}: {stances}" if rows else "", answers))),
        intro=("readiness", ()),
        missing=("no_readiness", ()),
        listings=one_table("Areas, the least ready first", columns.READINESS, rows),
        parts=(Part(title="Decisions", intro=("decisions", ()), listings=decisions),) if decisions else (),
    )


def _by_status(anchor: str, title: str, short: str, shown: Columns, rows: Sequence[Any], *, noun: str) -> Section:
    return Section(
        anchor=anchor,
        title=title,
        short=short,
        result=f"{numbered(rows, noun)}: {statuses_in_words(rows)}" if rows else "",
        intro=(anchor, ()),
        paper=Paper.OPEN,
        missing=(f"no_{anchor}", ()),
        listings=one_table(title, shown, worst_first(rows)),
    )


def _breaks(report: Report) -> Section:
    rows = sorted(report.trail_proofs, key=lambda proof: proof.exact)
    exact = sum(proof.exact for proof in rows)
    return Section(
        anchor="breaks",
        title="Breaks of the audit trail itself",
        short="Breaks",
        result=f"{exact} of {numbered(rows, 'break')} turned exactly the checks that cover them" if rows else "",
        intro=("breaks", ()),
        missing=("no_breaks", ()),
        listings=one_table("Breaks, the inexact ones first", check_columns.BREAKS, rows),
    )


def _observed(report: Report) -> Section:
    return Section(
        anchor="mutated-rows",
        title="Mutations of rows of the trail",
        short="Mutated rows",
        result=kill_rate(report.observed_proofs),
        intro=("observed", ()),
        missing=("no_observed", ()),
        listings=one_table(
            "Mutations, those that no check noticed first",
            check_columns.OBSERVED,
            attention_first(report.observed_proofs),
        ),
    )


# --- on paper --------------------------------------------------------------------------------------------


def differing(report: Report) -> Listing:
    """Return the features that differ between topologies: what paper has in place of the feature map."""
    rows = differences(report.features)
    return Listing(
        caption="Differences between topologies",
        columns=check_columns.DIFFERENCES,
        groups=(("", rows),),
        empty=("no_differences", (report,)),
    )
