"""The STG-01 rows of environments that an operator named: recognised, and compared with what production is."""

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

_SANDBOX = "no SQL sandbox: what the harness wrote was committed; a test sandbox never stands for production"
_NOBODY = "nobody has verified this environment with this code"


def environment_row(
    evidence: Evidence, name: str, reports: Path, compared: Mapping[str, str]
) -> tuple[TopologyRow, Comparison | None]:
    """Return the row of an environment, and what comparing it with production came to.

    :param compared: environments to the one each is compared with.
    """
    found, record = evidence.environments.get(name), evidence.records.get(name)
    command = f"python -m harness verify --environment {name}"
    if found is None or record is None or not found.reached:
        why = f"not reached: {found.reason}" if found else _NOBODY
        nothing = TopologyRow(
            environment=name,
            evidence_class=EvidenceClass.HOST,
            chain=f"Not run: {why}",
            pooler_product="Not run",
            pool_mode="Not run",
            pools="Not run",
            prepare_policy="Not run",
            sandbox_note=_SANDBOX,
            matches_prod="no",
            rationale=f"Nothing is shown about this environment: {why}.",
            command=command,
            run_id="",
            run_link="",
            engine="",
            origins=(),
            ready_ms=0.0,
        )
        return nothing, None
    comparison = _compared(evidence, found, compared)
    pooler = _value(found, "pooler", "unknown")
    no_pooler = pooler == "no"
    product = f"{_value(found, 'product', 'unknown')} {_value(found, 'version', '')}".strip()
    row = TopologyRow(
        environment=name,
        evidence_class=EvidenceClass.HOST,
        chain=_chain(found),
        pooler_product="none" if no_pooler else product,
        pool_mode="none: no pooler" if no_pooler else _value(found, "pool_mode", "unknown"),
        pools=found.pools or "not stated by the operator",
        prepare_policy=str(found.prepare) if found.prepare else "not stated by the operator",
        sandbox_note=_SANDBOX,
        matches_prod=comparison.matches,
        rationale=comparison.paragraph,
        command=command,
        run_id=record.run_id,
        run_link=os.path.relpath(evidence.folders[record.run_id] / "run.json", reports),
        engine="attached: the operator's own servers",
        origins=(),
        ready_ms=0.0,
        findings=found.findings,
        contradictions=found.contradictions,
    )
    return row, comparison


def _compared(evidence: Evidence, found: EnvironmentEvidence, compared: Mapping[str, str]) -> Comparison:
    other = compared.get(found.name, "")
    production = dict(found.production)
    declared_by = found.declared_by
    if other:
        there = evidence.environments.get(other)
        production = facts_of(there) if there and there.reached else {}
        declared_by = f"the environment {other}, looked at in the same way"
        if there and there.database and there.database == found.database:
            return _itself(compare(facts_of(found), {}, evidence_class=EvidenceClass.HOST), found.name, other)
    return compare(
        facts_of(found),
        production,
        # servers of the harness's own are nobody's staging, whatever they are called
        evidence_class=EvidenceClass.CI if found.is_a_lab else EvidenceClass.HOST,
        names=(found.name, other or "production"),
        declared_by=declared_by,
    )


def _itself(comparison: Comparison, name: str, other: str) -> Comparison:
    paragraph = (
        f"{name} and {other} are the same database of the same server, so comparing them says nothing about production."
    )
    return replace(comparison, paragraph=paragraph)


def facts_of(found: EnvironmentEvidence) -> dict[str, str]:
    """Return what is certain of an environment, by the names of facts and settings."""
    facts = {each.fact: each.value for each in found.findings if each.confidence is Confidence.CERTAIN}
    if found.prepare:
        facts["prepare"] = str(found.prepare)
    return {**found.settings, **facts}


def _value(found: EnvironmentEvidence, fact: str, otherwise: str) -> str:
    finding = found.found(fact)
    return finding.value if finding else otherwise


def _chain(found: EnvironmentEvidence) -> str:
    application = found.application or "the application"
    server = f"PostgreSQL {_value(found, 'server_version', 'of an unknown version')}"
    if _value(found, "pooler", "") == "no":
        return f"{application} to {server}"
    product, version = _value(found, "product", "an unknown pooler"), _value(found, "version", "")
    return f"{application} to {f'{product} {version}'.strip()} to {server}"


def environment_questions(row: TopologyRow, comparison: Comparison | None) -> tuple[Question, ...]:
    """Return the fields that were compared, one question each."""
    if comparison is None:
        return ()
    said = {"same": "yes", "differs": "no", "unknown": "partial"}
    return tuple(
        Question(
            question=f"Is {each.field} that of production?",
            answer=f"{row.environment}: {each.here or 'unknown'}; production: {each.there or 'not declared'}",
            matches_prod=said[each.verdict],
        )
        for each in comparison.fields
    )
