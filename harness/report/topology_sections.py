"""The sections about the environments: their chains (STG-01) and their audited paths (STG-02)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.model import Confidence, EvidenceClass
from harness.report import columns
from harness.report.listings import Listing, Part, Section
from harness.report.section_words import counts_in_words, numbered, one_table, statuses_in_words, worst_first
from harness.report.spreads import readable

if TYPE_CHECKING:
    from harness.report.tables import Report
    from harness.report.topology_rows import TopologyRow


def topology(report: Report) -> Section:
    rows = report.topologies
    ready = [row.ready_ms for row in rows if row.ready_ms]
    took = f"ready after {readable(min(ready))} to {readable(max(ready))}" if ready else "Not run"
    what_ran = Listing(
        caption="Engine, servers and data",
        columns=columns.WHAT_RAN,
        groups=(("", rows),),
        summary=f"{counts_in_words(row.engine or 'Not run' for row in rows)}; {took}",
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
            summary=numbered(answered, "answer"),
            folded=True,
            empty=("no_questions", (name in report.hosts,)),
        )
        for name, answered in report.questions.items()
    )
    matches = counts_in_words(row.matches_prod for row in rows)
    return Section(
        anchor="topology",
        title="STG host topology template (STG-01)",
        short="STG-01",
        result=f"{numbered(rows, 'environment')}; matches production: {matches}" if rows else "",
        missing=("no_verdicts", ()),
        listings=one_table("STG-01: the chain of each environment", columns.TOPOLOGY, rows, on_paper=True),
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
    counted = f"{numbered(row.findings, 'fact')}, {certain} of them certain"
    return "; ".join((counted, *(f"contradicted: {sentence}" for sentence in row.contradictions)))


def paths(report: Report) -> Section:
    return Section(
        anchor="paths",
        title="STG audited write paths (STG-02)",
        short="STG-02",
        result=f"{numbered(report.paths, 'path')}: {statuses_in_words(report.paths)}" if report.paths else "",
        missing=("no_verdicts", ()),
        listings=one_table(
            "STG-02: audited paths of each environment", columns.PATHS, worst_first(report.paths), on_paper=True
        ),
    )
