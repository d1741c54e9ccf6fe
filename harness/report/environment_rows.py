"""The STG-01 rows of an operator's environments: recognised, and compared with what production is declared to be."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.model import Confidence, EnvironmentEvidence, EvidenceClass
from harness.report.comparison import Comparison, compare
from harness.report.topology_rows import Question, TopologyRow

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.report.evidence import Evidence

_SANDBOX = "no SQL sandbox: the harness commits what it writes; a test sandbox is not evidence about production"
_A_LAB, _THEIRS = "servers that the harness started", "the operator's own servers"
_NOT_VERIFIED = "no run of this code verified this environment"


def environment_row(
    evidence: Evidence, name: str, reports: Path, compared: Mapping[str, str]
) -> tuple[TopologyRow, Comparison | None]:
    """Return the row of an environment and its comparison with production; None if no run reached it.

    :param reports: the folder of the report; the link to the run is relative to it.
    :param compared: for each environment, the environment that it is compared with; "" for what is declared of
        production.
    """
    found, record = evidence.environments.get(name), evidence.records.get(name)
    if found is None or record is None or not found.reached:
        return _not_run(name, f"not reached: {found.reason}" if found else _NOT_VERIFIED), None
    comparison = _compared(evidence, found, compared.get(name, ""))
    has_pooler = _value(found, "pooler", "unknown") != "no"
    product = f"{_value(found, 'product', 'unknown')} {_value(found, 'version', '')}".strip()
    row = TopologyRow(
        environment=name,
        evidence_class=evidence.class_of(name),
        chain=_chain(found),
        pooler_product=product if has_pooler else "none",
        pool_mode=_value(found, "pool_mode", "unknown") if has_pooler else "none: no pooler",
        pools=found.pools or "not stated by the operator",
        prepare_policy=str(found.prepare) if found.prepare else "not stated by the operator",
        sandbox_note=_SANDBOX,
        matches_prod=comparison.matches,
        rationale=comparison.paragraph,
        command=_command(name),
        run_id=record.run_id,
        run_link=os.path.relpath(evidence.folders[record.run_id] / "run.json", reports),
        engine=f"attached: {_A_LAB if found.is_a_lab else _THEIRS}",
        findings=found.findings,
        contradictions=found.contradictions,
    )
    return row, comparison


def _not_run(name: str, reason: str) -> TopologyRow:
    return TopologyRow(
        environment=name,
        evidence_class=EvidenceClass.HOST,
        chain=f"Not run: {reason}",
        sandbox_note=_SANDBOX,
        rationale=f"There is no evidence about this environment: {reason}.",
        command=_command(name),
    )


def _command(name: str) -> str:
    return f"python -m harness verify --environment {name}"


def _compared(evidence: Evidence, found: EnvironmentEvidence, other: str) -> Comparison:
    """Compare an environment with another one, or with what is declared of production if `other` is ""."""
    if not other:
        return compare(
            facts_of(found),
            found.production,
            evidence_class=evidence.class_of(found.name),
            names=(found.name, "production"),
            declared_by=found.declared_by,
            likely=_likely(found),
        )
    there = evidence.environments.get(other)
    if there and there.database and there.database == found.database:
        return _with_itself(found, other)
    return compare(
        facts_of(found),
        facts_of(there) if there and there.reached else {},
        evidence_class=evidence.class_of(found.name),
        names=(found.name, other),
        declared_by=f"a verification of {other} by the same checks",
        likely=_likely(found),
    )


def _with_itself(found: EnvironmentEvidence, other: str) -> Comparison:
    """Return the comparison of two names for one database, which leaves everything about production unknown."""
    paragraph = (
        f"{found.name} and {other} are the same database on the same server, so comparing them does not show anything "
        "about production."
    )
    return replace(compare(facts_of(found), {}, evidence_class=EvidenceClass.HOST), paragraph=paragraph)


def facts_of(found: EnvironmentEvidence) -> dict[str, str]:
    """Return the certain findings and the settings of an environment, by the names of facts and settings."""
    facts = {finding.fact: finding.value for finding in found.findings if finding.confidence is Confidence.CERTAIN}
    if found.prepare:
        facts["prepare"] = str(found.prepare)
    return {**found.settings, **facts}


def _likely(found: EnvironmentEvidence) -> dict[str, str]:
    return {finding.fact: finding.value for finding in found.findings if finding.confidence is Confidence.LIKELY}


def _value(found: EnvironmentEvidence, fact: str, default: str) -> str:
    finding = found.found(fact)
    return finding.value if finding else default


def _chain(found: EnvironmentEvidence) -> str:
    application = found.application or "the application"
    server = f"PostgreSQL {_value(found, 'server_version', 'of an unknown version')}"
    if _value(found, "pooler", "") == "no":
        return f"{application} to {server}"
    product, version = _value(found, "product", "an unknown pooler"), _value(found, "version", "")
    return f"{application} to {f'{product} {version}'.strip()} to {server}"


def environment_questions(row: TopologyRow, comparison: Comparison | None) -> tuple[Question, ...]:
    """Return one question for each field that was compared; none if no run reached the environment."""
    if comparison is None:
        return ()
    matches = {"same": "yes", "differs": "no", "unknown": "partial"}
    return tuple(
        Question(
            question=f"Is {compared.field} the same as in production?",
            answer=f"{row.environment}: {compared.found}; production: {compared.there or 'not declared'}",
            matches_prod=matches[compared.verdict],
        )
        for compared in comparison.fields
    )
