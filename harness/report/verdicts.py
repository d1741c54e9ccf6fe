"""The verdict on each topology and environment: one sentence in plain words, with the chain that it is about."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.checks.registry import TRANSACTION_BLOCKS
from harness.model import Behaviour, EvidenceClass, Section, Status
from harness.report.chains import Station, found_stations, pooler_title, stations
from harness.report.evidence import Row
from harness.report.job_engine_rows import about_job_engines, observes_limit
from harness.report.limits import SECURITY_CHECK, LimitKind, limit_kind
from harness.report.outcomes import (
    DRIVERS,
    KNOWN_DEFECT,
    SILENT,
    UNDOCUMENTED,
    is_interrupted,
    is_shown,
    mark_of,
    outcome_of,
)
from harness.report.scope import asked_for
from harness.report.security import missing_from_environment, missing_from_pooler
from harness.report.spans import elapsed_by_run
from harness.report.tried_rows import (
    about_load,
    about_own_systems,
    accepted_in_words,
    except_for,
    not_run_in_words,
    with_number,
)
from harness.report.walkthrough import TITLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.model import EnvironmentEvidence, Outcome, TopologyEvidence
    from harness.report.evidence import Evidence

#: the sections whose checks are about the audit trail
TRAIL_SECTIONS = frozenset({*TITLES, Section.PATHS})
#: the topology that the others are compared with, if it ran in the same versions
_BASELINE = "direct"


class Verdict(Struct, frozen=True, kw_only=True):
    """What the evidence says about one topology or environment."""

    name: str
    evidence_class: EvidenceClass
    #: the parts of the verdict, each a sentence without a full stop; the first one is about the audit trail, unless all
    #: rows are about systems of the project's own
    sentences: tuple[str, ...]
    #: the worst that the verdict says: `holds`, `breaks` (a feature is not as on a direct connection, or a job engine
    #: has a limit, as documented), `known`, `open` (rows are Not run) or `issue`
    tone: str
    chain: tuple[Station, ...]
    #: of the pooler as it ran, such as `PgBouncer` and `1.24.1`; "" without one
    product: str = ""
    version: str = ""
    #: the pool mode; "" without a pooler
    mode: str = ""
    #: in each run, from the start of the first result to the end of the last one
    duration_ms: float = 0.0
    #: the published security fixes that the pooler as it ran lacks, in a sentence without a full stop; "" without one
    security: str = ""
    #: the check that judged them; "" if the report has no row of it
    security_check: str = ""
    #: where it judged them: here, or in another topology with the same version of the pooler
    security_at: str = ""
    #: features that break without an error here, and work on a direct connection or were not tried there
    silent: int = 0
    #: features that break without an error here as on a direct connection
    silent_on_direct: int = 0
    #: what an application must not do with the audit trail, by the number of checks that show it
    practices: int = 0
    #: checks that observe a documented limit of the trail itself
    trail_limits: int = 0

    @property
    def text(self) -> str:
        """The whole verdict in one line."""
        return f"{self.name}: {'. '.join(filter(None, (*self.sentences, self.security)))}."

    @property
    def chain_text(self) -> str:
        """The chain in one line."""
        return " → ".join(map(str, self.chain))


def verdicts(evidence: Evidence, names: Iterable[str]) -> tuple[Verdict, ...]:
    """Return the verdict on each topology and environment.

    :param evidence: with the rows that no run was asked for: a verdict about some checks is not one about all of them.
    :param names: the topologies and environments that the report is about.
    """
    found = [_verdict(evidence, name) for name in names]
    judged = {
        (verdict.product, verdict.version): verdict.name
        for verdict in reversed(found)
        if verdict.product and verdict.security_check
    }
    return tuple(
        verdict
        if verdict.security_check or (verdict.product, verdict.version) not in judged
        else replace(verdict, security_check=SECURITY_CHECK, security_at=judged[verdict.product, verdict.version])
        for verdict in found
    )


def _verdict(evidence: Evidence, name: str) -> Verdict:
    rows = [row for row in evidence.of(name) if is_shown(*row.answer)]
    trail = [row for row in rows if row.planned.section in TRAIL_SECTIONS]
    features = [row for row in rows if row.planned.feature and row.planned.area != DRIVERS]
    topology, environment = evidence.topologies.get(name), evidence.environments.get(name)
    compared = _compared_with_direct(evidence, features)
    is_baseline = topology is not None and topology.declared.pooler is None
    kinds = Counter(limit_kind(*row.answer) for row in trail)
    judges_security = any(row.planned.check == SECURITY_CHECK for row in rows)
    own = [about_job_engines(rows), *about_own_systems(rows)]
    sentences = [
        _about_the_trail(trail) if any(map(asked_for, trail)) or not any(own) else "",
        *about_load(rows),
        *own,
        *_about_features(compared, features, topology),
    ]
    return Verdict(
        name=name,
        evidence_class=evidence.class_of(name),
        sentences=tuple(filter(None, sentences)),
        tone=_tone(rows, breaks=(bool(compared.changed) and not is_baseline) or observes_limit(rows)),
        chain=stations(topology) if topology else found_stations(environment) if environment else (),
        product=pooler_title(topology).rpartition(" ")[0],
        version=pooler_title(topology).rpartition(" ")[2],
        mode=str(topology.declared.pool_mode or "") if topology else "",
        duration_ms=_duration_ms(rows),
        security=_security(topology, environment),
        security_check=SECURITY_CHECK if judges_security else "",
        security_at=name if judges_security else "",
        silent=compared.silent,
        silent_on_direct=sum(map(_is_silent, features)) - compared.silent,
        practices=kinds[LimitKind.PRACTICE],
        trail_limits=kinds[LimitKind.TRAIL],
    )


def _security(topology: TopologyEvidence | None, environment: EnvironmentEvidence | None) -> str:
    if environment is not None:
        return missing_from_environment(environment)
    return missing_from_pooler(*pooler_title(topology).rsplit(" ", 1)) if pooler_title(topology) else ""


def _tone(rows: Sequence[Row], *, breaks: bool) -> str:
    if any(row.result.gates for row in rows):
        return "issue"
    statuses = {row.status for row in rows}
    if Status.NOT_RUN in statuses or statuses <= {Status.ISSUE}:
        return "open"
    if Status.ISSUE in statuses:
        return "known"
    return "breaks" if breaks else "holds"


def _about_the_trail(rows: Sequence[Row]) -> str:
    issues = [row for row in rows if row.result.gates]
    accepted = accepted_in_words(rows)
    missing = [row for row in rows if row.status is Status.NOT_RUN and asked_for(row)]
    unasked = sum(not asked_for(row) for row in rows)
    held = sum(row.status is Status.OK for row in rows)
    checks = with_number(held, "check")
    inapplicable = sum(row.status is Status.NA for row in rows)
    if issues:
        worst = min(row.result.severity or row.planned.severity for row in issues)
        return f"the audit trail does not hold: {with_number(len(issues), 'Issue')}, the worst is {worst}"
    if not held:
        said = f"the audit trail holds in no check: {accepted}" if accepted else "the audit trail was not verified here"
        return said + (not_run_in_words(missing, "check") if any(is_interrupted(row.result) for row in missing) else "")
    # a few checks that hold do not speak for a trail of which most cannot be used
    if inapplicable > held and not missing and not unasked:
        others = f", {accepted}" if accepted else ""
        return f"{_inapplicable(rows)}: {inapplicable} checks of the audit trail are N/A, {held} OK{others}"
    does = "does" if inapplicable == 1 else "do"
    apart = f"; {with_number(inapplicable, 'check')} {does} not apply here" if inapplicable else ""
    if unasked:
        apart += f"; {unasked} more {'was' if unasked == 1 else 'were'} not asked for"
    limits = _limits(rows)
    # checks of the host's paths do not speak for the trail, of which no other check runs in some topologies
    on_paths = all(row.planned.section is Section.PATHS for row in rows)
    holds = "only audited paths of the host ran here, and the trail holds" if on_paths else "the audit trail holds"
    if missing:
        return f"{holds} in {checks}{limits}{except_for(accepted)}{not_run_in_words(missing)}{apart}"
    if accepted:
        return f"{holds} in {checks}{limits}{except_for(accepted)}{apart}"
    return f"{holds} in {checks if held == 1 or unasked else f'all {checks}'}{limits}{apart}"


def _inapplicable(rows: Sequence[Row]) -> str:
    """Return in words why most of the trail does not apply: the most frequent reason."""
    reasons = Counter(row.result.reason for row in rows if row.status is Status.NA)
    [(reason, _)] = reasons.most_common(1)
    what = "no audited transaction can run here" if reason == TRANSACTION_BLOCKS.lacking else "most cannot run here"
    return f"{what}, because {reason}"


def _limits(rows: Sequence[Row]) -> str:
    """Return how many checks show what an application must not do, and how many a documented limit of the trail."""
    kinds = Counter(limit_kind(*row.answer) for row in rows)
    practices, limits = kinds[LimitKind.PRACTICE], kinds[LimitKind.TRAIL]
    shows = "shows" if practices == 1 else "show"
    parts = (
        f"{practices} of them {shows} what an application must not do" if practices else "",
        f"{limits} a documented limit of the trail" if limits else "",
    )
    return f" ({', '.join(filter(None, parts))})" if practices or limits else ""


class _Compared(Struct, frozen=True, kw_only=True):
    """The features of a topology, compared with those on a direct connection."""

    tried: tuple[Row, ...]
    #: those that behave otherwise; of those that were not tried there, those that do not work
    changed: tuple[Row, ...]
    #: whether any of them was tried on a direct connection
    with_direct: bool

    @property
    def silent(self) -> int:
        return sum(map(_is_silent, self.changed))


def _compared_with_direct(evidence: Evidence, rows: Sequence[Row]) -> _Compared:
    """Compare features with a direct connection.

    A feature that only a pooler has was not tried on a direct connection: it is unchanged if it works.
    """
    pairs = [(row, _on_direct(evidence, row)) for row in rows if outcome_of(row.result)]
    return _Compared(
        tried=tuple(row for row, _ in pairs),
        changed=tuple(row for row, direct in pairs if (_observed(row) != direct if direct else not _works(row))),
        with_direct=any(direct for _, direct in pairs),
    )


def _about_features(compared: _Compared, rows: Sequence[Row], topology: TopologyEvidence | None) -> list[str]:
    if not compared.tried:
        return []
    if topology is not None and topology.declared.pooler is None:
        works, tried = sum(map(_works, compared.tried)), len(compared.tried)
        sentences = [f"{works} of {tried} PostgreSQL features work: the others are the baseline of the comparison"]
    else:
        sentences = [_changes(compared)]
    marks = [mark_of(row.result) for row in rows]
    if number := marks.count(KNOWN_DEFECT):
        sentences.append(f"{with_number(number, 'known defect')} of {pooler_title(topology) or 'the pooler'}")
    if number := marks.count(UNDOCUMENTED):
        sentences.append(f"{with_number(number, 'outcome')} that nobody documents")
    return sentences


def _changes(compared: _Compared) -> str:
    """Return how many features behave as on a direct connection; how many work, if none was tried there."""
    tried, changed = len(compared.tried), len(compared.changed)
    alike = " as on a direct connection" if compared.with_direct else ""
    if tried == 1:
        return f"the one PostgreSQL feature that was tried {'does not work' if changed else 'works'}{alike}"
    if changed:
        apart = f", {compared.silent} of them without an error" if compared.silent else ""
        return f"{changed} of {tried} PostgreSQL features do not work{alike}{apart}"
    return f"all {tried} PostgreSQL features work{alike}"


def _on_direct(evidence: Evidence, row: Row) -> Outcome | None:
    """Return the outcome of a feature on a direct connection to the same version of PostgreSQL; None without one."""
    _, *versions = row.planned.target.split("+")
    baseline = "+".join((_BASELINE, *(version for version in versions if version.startswith("postgres-"))))
    direct = evidence.row(baseline, row.planned.check)
    return _observed(direct) if direct else None


def _observed(row: Row) -> Outcome | None:
    outcome = outcome_of(row.result)
    return outcome.observed if outcome else None


def _is_silent(row: Row) -> bool:
    observed = _observed(row)
    return observed is not None and observed.behaviour in SILENT


def _works(row: Row) -> bool:
    observed = _observed(row)
    return observed is not None and observed.behaviour is Behaviour.WORKS


def _duration_ms(rows: Sequence[Row]) -> float:
    return 1000 * sum(elapsed_by_run(rows).values())
