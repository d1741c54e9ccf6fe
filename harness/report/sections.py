"""The sections of the page that are tables: what matters first, the result in words, and the rows.

A suite that has a table of its own adds one :class:`Section` to :func:`sections`. The page prints it, and its
navigation links to it. The sentences are macros of `templates/_words.j2`, which Markdown has as well.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from harness.model import Confidence, EvidenceClass, Status
from harness.report import check_columns, columns, load_columns
from harness.report.feature_differences import differences
from harness.report.feature_map import safe_drivers
from harness.report.issue_groups import issue_groups
from harness.report.limits import LimitKind
from harness.report.listings import Listing, Paper, Part, Section
from harness.report.load_rows import faults_in_words, loads_in_words
from harness.report.readiness import Stance
from harness.report.spreads import readable
from harness.report.trials import ASKS, Trial
from harness.report.walkthrough import TITLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from harness.report.table import Columns
    from harness.report.tables import Report
    from harness.report.topology_rows import TopologyRow

#: the order in which a reader wants them
_WORST_FIRST = (Status.ISSUE, Status.NOT_RUN, Status.OK, Status.NA)
#: the order in which a summary counts them
_COUNTED = (Status.OK, Status.ISSUE, Status.NOT_RUN, Status.NA)
#: outcomes of a driver, worst first
_OUTCOMES = ("leaks", "wrong", "lost", "hangs", "fails", "", "works")
#: tables with more rows are folded: their summary has the result
_LONG = 25


def sections(report: Report) -> tuple[Section, ...]:
    """Return the sections of tables, in the order of the page; those without a row are said in a line each."""
    return (
        _issues(report),
        _topology(report),
        _paths(report),
        _drivers(report),
        _trials(report),
        _faults(report),
        _loads(report),
        _limits(report),
        _checklist(report),
        _readiness(report),
        _repetition(report),
        _by_status("parity", "In-repo parity", "Parity", columns.PARITY, report.parity, noun="suite"),
        _by_status(
            "preflight", "Distribution preflight", "Preflight", columns.PREFLIGHT, report.preflight, noun="item"
        ),
        _breaks(report),
    )


# --- one function for each section -----------------------------------------------------------------------


def _issues(report: Report) -> Section:
    severities = _counts(sorted(issue.severity for issue in report.issues))
    unknown = [issue for issue in report.issues if not issue.link]
    accepted = len(report.issues) - len(unknown)
    known = f"; {accepted} of them {'is' if accepted == 1 else 'are'} known" if accepted else ""
    return Section(
        anchor="issues",
        title="Prioritised issues",
        short="Issues",
        result=f"{_number(report.issues, 'Issue')}: {severities}{known}" if report.issues else "",
        missing=("no_issues", (report,)),
        listings=(
            *_one(
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
                        tuple(sorted(report.issues, key=lambda issue: (bool(issue.link), issue.severity, issue.id))),
                    ),
                ),
                summary=_rows(report.issues),
                folded=True,
            ),
        ),
    )


def _topology(report: Report) -> Section:
    rows = report.topologies
    ready = [row.ready_ms for row in rows if row.ready_ms]
    took = f"ready after {readable(min(ready))} to {readable(max(ready))}" if ready else "Not run"
    what_ran = Listing(
        caption="Engine, servers and data",
        columns=columns.WHAT_RAN,
        groups=(("", rows),),
        summary=f"{_counts(row.engine or 'Not run' for row in rows)}; {took}",
        folded=True,
    )
    findings = tuple(
        Listing(
            caption=row.environment,
            columns=columns.FINDINGS,
            groups=(("", row.findings),),
            summary=_recognised(row),
            folded=True,
        )
        for row in rows
        if row.findings
    )
    questions = tuple(
        Listing(
            caption=name,
            columns=columns.QUESTIONS,
            groups=(("", answered),),
            summary=_number(answered, "answer"),
            folded=True,
            empty=("no_questions", (name in report.hosts,)),
        )
        for name, answered in report.questions.items()
    )
    matches = _counts(row.matches_prod for row in rows)
    return Section(
        anchor="topology",
        title="STG host topology template (STG-01)",
        short="STG-01",
        result=f"{_number(rows, 'environment')}; matches production: {matches}" if rows else "",
        missing=("no_verdicts", ()),
        listings=_one("STG-01: the chain of each environment", columns.TOPOLOGY, rows, on_paper=True),
        remarks=tuple((f"{row.environment}: matches prod {row.matches_prod}.", row.rationale) for row in rows),
        shared=("ci_class", ()) if any(row.evidence_class == EvidenceClass.CI for row in rows) else ("", ()),
        parts=(
            Part(title="What ran", intro=("what_ran", ()), listings=(what_ran,)),
            Part(
                title="What a client recognises",
                intro=("recognised", ()) if findings else ("not_recognised", ()),
                listings=findings,
            ),
            Part(title="Topology questions", intro=("partial", ()), listings=questions),
        ),
    )


def _recognised(row: TopologyRow) -> str:
    certain = sum(finding.confidence is Confidence.CERTAIN for finding in row.findings)
    counted = f"{_number(row.findings, 'fact')}, {certain} of them certain"
    return "; ".join((counted, *(f"contradicted: {sentence}" for sentence in row.contradictions)))


def _paths(report: Report) -> Section:
    return Section(
        anchor="paths",
        title="STG audited write paths (STG-02)",
        short="STG-02",
        result=f"{_number(report.paths, 'path')}: {_statuses(report.paths)}" if report.paths else "",
        missing=("no_verdicts", ()),
        listings=_one(
            "STG-02: audited paths of each environment", columns.PATHS, _worst_first(report.paths), on_paper=True
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
        listings=_one("Drivers by topology", check_columns.drivers(report.feature_topologies, ""), rows),
    )


def _trials(report: Report) -> Section:
    rows = report.trials
    answers = [(trial, _statuses([getattr(row, trial) for row in rows])) for trial in Trial]
    return Section(
        anchor="trials",
        title="Smoke, resilience, soak",
        short="Smoke to soak",
        result="; ".join(f"{trial}: {statuses}" for trial, statuses in answers) if rows else "",
        intro=("trials", (ASKS,)),
        missing=("no_verdicts", ()),
        listings=_one("Three questions about each topology and environment", load_columns.TRIALS, rows),
    )


def _faults(report: Report) -> Section:
    return Section(
        anchor="resilience",
        title="Resilience: acknowledged writes under faults",
        short="Resilience",
        result=faults_in_words(report.faults),
        intro=("resilience", ()),
        paper=Paper.OPEN,
        missing=("no_resilience", ()),
        listings=_one("Faults by topology", load_columns.FAULTS, _worst_first(report.faults)),
    )


def _loads(report: Report) -> Section:
    return Section(
        anchor="soak",
        title="Soak: judged work under load",
        short="Soak",
        result=loads_in_words(report.loads),
        intro=("soak", ()),
        missing=("no_soak", ()),
        listings=_one("Loads by topology", load_columns.LOADS, _worst_first(report.loads)),
    )


def _limits(report: Report) -> Section:
    by_kind = {
        kind: tuple(
            sorted((limit for limit in report.limits if limit.kind is kind), key=lambda limit: -len(limit.topologies))
        )
        for kind in LimitKind
    }
    names = {name for limit in report.limits for name in limit.topologies}
    observed = _number(report.limits, "documented limit")
    return Section(
        anchor="limits",
        title="Documented limits that were observed",
        short="Limits",
        result=f"{observed} observed, in {_number(names, 'topology', 'topologies')}" if names else "",
        intro=("limits", ()),
        paper=Paper.NONE,
        missing=("no_limits", ()),
        listings=tuple(
            listing for kind, rows in by_kind.items() for listing in _one(kind.value, columns.LIMITS, rows) if rows
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
        result=f"{_number(rows, 'item')}: {_statuses(rows)}" if rows else "",
        intro=("checklist", ()),
        paper=Paper.OPEN,
        missing=("no_verdicts", ()),
        listings=(listing,),
    )


def _readiness(report: Report) -> Section:
    order = list(Stance)
    rows = sorted(report.readiness, key=lambda row: order.index(row.stance))
    stances = _counts(row.stance for row in rows)
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
        result="; ".join(filter(None, (f"{_number(rows, 'area')}: {stances}" if rows else "", answers))),
        intro=("readiness", ()),
        missing=("no_readiness", ()),
        listings=_one("Areas, the least ready first", columns.READINESS, rows),
        parts=(Part(title="Decisions", intro=("decisions", ()), listings=decisions),) if decisions else (),
    )


def _repetition(report: Report) -> Section:
    flaky = sum(row.counts.flaky for row in report.repeated)
    repeated = sum(row.number for row in report.repeated)
    said = (
        f"Three consecutive runs of a topology: {_statuses(report.consecutive)}" if report.consecutive else "",
        f"{flaky} flaky of {repeated} repeated row{'' if repeated == 1 else 's'}" if report.repeated else "",
        f"{_number(report.quarantine, 'check')} in quarantine" if report.quarantine else "",
    )
    return Section(
        anchor="repetition",
        title="Repetition: which verdicts are reliable",
        short="Repetition",
        result="; ".join(filter(None, said)),
        intro=("repetition", ()),
        missing=("no_verdicts", ()),
        listings=(
            *_one("Three consecutive runs", columns.CONSECUTIVE, _worst_first(report.consecutive)),
            *(_one("Repeated rows, flaky ones first", columns.REPEATED, report.repeated) if report.repeated else ()),
            *(_one("Checks in quarantine", columns.QUARANTINE, report.quarantine) if report.quarantine else ()),
        ),
    )


def _by_status(anchor: str, title: str, short: str, shown: Columns, rows: Sequence[Any], *, noun: str) -> Section:
    return Section(
        anchor=anchor,
        title=title,
        short=short,
        result=f"{_number(rows, noun)}: {_statuses(rows)}" if rows else "",
        intro=(anchor, ()),
        paper=Paper.OPEN,
        missing=(f"no_{anchor}", ()),
        listings=_one(title, shown, _worst_first(rows)),
    )


def _breaks(report: Report) -> Section:
    rows = sorted(report.trail_proofs, key=lambda proof: proof.exact)
    exact = sum(proof.exact for proof in rows)
    return Section(
        anchor="breaks",
        title="Breaks of the audit trail itself",
        short="Breaks",
        result=f"{exact} of {_number(rows, 'break')} turned exactly the checks that cover them" if rows else "",
        intro=("breaks", ()),
        missing=("no_breaks", ()),
        listings=_one("Breaks, the inexact ones first", check_columns.BREAKS, rows),
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


# --- words and order -------------------------------------------------------------------------------------


def _one(caption: str, shown: Columns, rows: Sequence[Any], *, on_paper: bool = False) -> tuple[Listing, ...]:
    """Return one table. A long one is folded, unless it belongs on paper."""
    is_long = len(rows) > _LONG
    return (
        Listing(
            caption=caption,
            columns=shown,
            groups=(("", tuple(rows)),),
            summary=_rows(rows),
            folded=is_long and not on_paper,
            tall=is_long,
        ),
    )


def _rows(rows: Sequence[Any]) -> str:
    return _number(rows, "row")


def _worst_first(rows: Iterable[Any]) -> list[Any]:
    return sorted(rows, key=lambda row: _WORST_FIRST.index(row.status))


def _statuses(rows: Iterable[Any]) -> str:
    found = Counter(row.status for row in rows)
    return ", ".join(f"{found[status]} {status}" for status in _COUNTED if found[status])


def _counts(values: Iterable[str], label: Callable[[str], str] = str) -> str:
    """Return how often each value occurs: `4 P0, 9 P1`."""
    return ", ".join(f"{number} {label(value)}" for value, number in Counter(values).items())


def _number(rows: Sequence[Any] | set[Any], noun: str, plural: str = "") -> str:
    return f"{len(rows)} {noun}" if len(rows) == 1 else f"{len(rows)} {plural or noun + 's'}"
