"""From run folders to one answer a row: merged, completed, counted. Asks no server."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.model import (
    EnvironmentEvidence,
    PlannedCheck,
    Proof,
    Result,
    RunRecord,
    Status,
    Topology,
    TopologyEvidence,
    TrailProof,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from harness.store import StoredRun

#: worst first; used wherever several answers become one
_WORST = (Status.ISSUE, Status.NOT_RUN, Status.OK, Status.NA)

#: the services that decide every result; the reference host is there only where paths are taken
_STACK = ("postgres", "pooler")

NOBODY_RAN_IT = "no run of this code has exercised it"


class Row(Struct, frozen=True, kw_only=True):
    """One planned check in one topology, with the newest answer that the evidence has."""

    planned: PlannedCheck
    result: Result
    #: the run folder's name; empty when nobody ran it
    run_id: str
    proofs: tuple[Proof, ...] = ()

    @property
    def status(self) -> Status:
        return self.result.status


class Evidence(Struct, frozen=True, kw_only=True, dict=True):
    """What a report is made from."""

    rows: tuple[Row, ...]
    #: how each topology stood, in the run that its rows come from
    topologies: dict[str, TopologyEvidence]
    #: the run that each topology's evidence comes from
    records: dict[str, RunRecord]
    folders: dict[str, Path]
    #: why run folders were left out, one sentence each
    left_out: tuple[str, ...] = ()
    #: what breaking the audit trail itself turned, by the break's name
    trail_proofs: dict[str, TrailProof] = {}
    #: what environments of operators were found to be, in the newest run that verified each
    environments: dict[str, EnvironmentEvidence] = {}

    @cached_property
    def _by_topology(self) -> dict[str, tuple[Row, ...]]:
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.planned.target, []).append(row)
        return {name: tuple(rows) for name, rows in found.items()}

    def of(self, topology: str) -> tuple[Row, ...]:
        return self._by_topology.get(topology, ())

    def names(self) -> list[str]:
        return list(self._by_topology)

    def missing(self, engine: str = "auto") -> list[str]:
        """Return the topologies that still lack an answer to a row, or have theirs from another engine."""
        elsewhere = {name for name, record in self.records.items() if engine not in {"auto", record.engine}}
        return [
            name
            for name in self.names()
            if name in elsewhere or any(row.status is Status.NOT_RUN for row in self.of(name))
        ]


def merge(
    runs: Sequence[StoredRun],
    expected: Iterable[PlannedCheck],
    *,
    declared: Mapping[str, Topology] | None = None,
    fingerprint: str | None = None,
    target: str | None = None,
    left_out: Iterable[str] = (),
    environments: Mapping[str, str] | None = None,
) -> Evidence:
    """Merge runs into one answer a row.

    Only what belongs together is merged: runs of the same code, and within a topology only runs that stood up the
    same declaration on the same engine from the same images or binaries as its newest one. Whatever is left out
    is named. The newest answer wins. Of a topology an answer is never replaced by Not run, because the same code stood
    the same servers up; an environment changes by itself, so that what could not be exercised there any more is Not
    run, unless the run was interrupted. Rows nobody ran are Not run.

    :param runs: oldest first.
    :param expected: rows that the report owes an answer to, beside those that the runs planned.
    :param declared: the topologies as they are declared now; runs of another declaration are left out.
    :param fingerprint: of the code; that of the newest run when none is given.
    :param environments: the operator's environments, each with a digest of what is declared of it now.
    :param target: the audit target that the report is about; that of the newest run when none is given. Proofs are
        taken from whatever target they were made with: they are about the checks.
    """
    chosen = fingerprint or (runs[-1].record.provenance.fingerprint if runs else "")
    out = list(left_out)
    rows: dict[tuple[str, str], Row] = {}
    for planned in expected:
        nothing = Result(
            target=planned.target,
            check=planned.check,
            status=Status.NOT_RUN,
            reason=NOBODY_RAN_IT,
            reproduce=planned.reproduce,
        )
        rows[planned.target, planned.check] = Row(planned=planned, result=nothing, run_id="")
    taken = []
    for run in runs:
        if run.record.provenance.fingerprint == chosen:
            taken.append(run)
        else:
            out.append(f"run {run.record.run_id} is left out: it is of other code")
        if run.torn:
            out.append(f"run {run.record.run_id} has {run.torn} damaged rows; they count as Not run")
    newest = _newest_stacks([run for run in taken if target in {None, run.record.audit_target}], declared or {})
    newest_chains = {
        name: chain_of(found) for run in taken for name, found in run.record.environments.items() if found.reached
    }
    declared_now = dict(environments or {})
    proofs: dict[tuple[str, str], dict[str, Proof]] = {}
    topologies: dict[str, TopologyEvidence] = {}
    records: dict[str, RunRecord] = {}
    found_environments: dict[str, EnvironmentEvidence] = {}
    about = target or (taken[-1].record.audit_target if taken else "")
    name_of = about.partition(" ")[0]
    trail_proofs: dict[str, TrailProof] = {}
    for run in taken:
        trail_proofs |= {
            each.name: each for each in run.trail_proofs if _stood_the_same(run.record, each.topology, newest)
        }
        if run.record.audit_target != about:
            if run.record.audit_target.partition(" ")[0] == name_of:
                out.append(f"run {run.record.run_id} is left out: the audit target {name_of} was another")
            for proof in run.proofs:
                if _stood_the_same(run.record, proof.topology, newest):
                    proofs.setdefault((proof.topology, proof.check), {})[proof.control] = proof
            continue
        plan = {(each.target, each.check): each for each in run.record.plan}
        other = _other_stacks(run.record, newest, declared or {}) | _other_chains(
            run.record, newest_chains, declared_now
        )
        for name, why in other.items():
            issues = sum(each.target == name and each.status is Status.ISSUE for each in run.results)
            out.append(
                f"run {run.record.run_id} is left out for {name}"
                + (f", with its rows that are Issue ({issues})" if issues else "")
                + f": {why}"
            )
        for result in run.answers():
            key = (result.target, result.check)
            before = rows.get(key)
            if result.target in other or key not in plan:
                continue
            if before is not None and before.planned.declared_as != plan[key].declared_as:
                out.append(f"run {run.record.run_id} is left out for {result.check}: harness.toml said otherwise of it")
                continue
            if before is None or _replaces(result, before, run.record):
                rows[key] = Row(planned=plan[key], result=result, run_id=run.record.run_id)
        out += _not_reached(run.record, found_environments)
        for name, found in run.record.environments.items():
            if name not in other and (found.reached or name not in found_environments):
                found_environments[name], records[name] = found, run.record
        for name, stood in run.record.topologies.items():
            if name not in other and (stood.stood or not topologies.get(name, stood).stood):
                topologies[name], records[name] = stood, run.record
        for proof in run.proofs:
            if proof.topology not in other:
                proofs.setdefault((proof.topology, proof.check), {})[proof.control] = proof
    return Evidence(
        rows=tuple(replace(row, proofs=tuple(proofs.get(key, {}).values())) for key, row in rows.items()),
        topologies=topologies,
        records=records,
        folders={run.record.run_id: run.folder for run in taken},
        left_out=tuple(dict.fromkeys(out)),
        trail_proofs=trail_proofs,
        environments=found_environments,
    )


def stack_of(record: RunRecord, name: str) -> str:
    """Return what a topology stood on, in one line; empty when it did not stand."""
    stood = record.topologies.get(name)
    if stood is None or not stood.stood:
        return ""
    return f"{record.engine}: " + ", ".join(
        f"{each.product} {each.version} from {each.origin}" for each in stood.services if each.name in _STACK
    )


def _newest_stacks(runs: Sequence[StoredRun], declared: Mapping[str, Topology]) -> dict[str, str]:
    newest = {}
    for run in runs:
        for name, stood in run.record.topologies.items():
            if stood.stood and declared.get(name, stood.declared) == stood.declared:
                newest[name] = stack_of(run.record, name)
    return newest


def _stood_the_same(record: RunRecord, name: str, newest: Mapping[str, str]) -> bool:
    return name not in newest or stack_of(record, name) == newest[name]


def _other_stacks(record: RunRecord, newest: Mapping[str, str], declared: Mapping[str, Topology]) -> dict[str, str]:
    """Return the topologies of a run that do not go together with the newest evidence, and why."""
    other = {}
    for name, stood in record.topologies.items():
        if declared.get(name, stood.declared) != stood.declared:
            other[name] = "its topology file was another"
        elif stood.stood and stack_of(record, name) != newest.get(name, ""):
            other[name] = f"a newer run stood on other servers; this one on {stack_of(record, name)}"
    return other


def _replaces(result: Result, before: Row, record: RunRecord) -> bool:
    """Say whether a newer answer takes the place of an older one."""
    # what was shown to be wrong stands until it is shown to be right
    tried_again = (
        result.target in record.environments and record.state == "finished" and before.status is not Status.ISSUE
    )
    return tried_again or result.status is not Status.NOT_RUN or before.status is Status.NOT_RUN


def _not_reached(record: RunRecord, before: Mapping[str, EnvironmentEvidence]) -> list[str]:
    """Say of which environments a run learned nothing, so that what the report says they are is older."""
    return [
        f"run {record.run_id} did not reach {name}: {found.reason}; what it was found to be is older"
        for name, found in record.environments.items()
        if not found.reached and name in before
    ]


#: what an environment is told by: with another of these its evidence is another's
_CHAIN = ("pooler", "product", "pool_mode", "server_version")


def chain_of(found: EnvironmentEvidence) -> dict[str, str]:
    """Return what an environment's chain was found to be, as far as it was found, and which versions ran there."""
    chain = {fact: seen.value for fact in _CHAIN if (seen := found.found(fact))}
    return chain | {f"the version of {name}": version for name, version in found.versions.items()}


def _other_chains(
    record: RunRecord, newest: Mapping[str, dict[str, str]], declared: Mapping[str, str]
) -> dict[str, str]:
    """Return the environments of a run that were another than in the newest, or declared otherwise, and why."""
    other = {}
    for name, found in record.environments.items():
        chain, now = chain_of(found), newest.get(name, {})
        changed = [fact for fact in chain if fact in now and chain[fact] != now[fact]]
        if found.reached and changed:
            other[name] = f"the environment has changed since: {', '.join(changed)}"
        elif declared.get(name, found.declared_as) != found.declared_as:
            other[name] = "harness.toml said otherwise of it"
    return other


def worst(statuses: Iterable[Status]) -> Status:
    """Merge answers into one: the worst wins, and nothing at all is Not run."""
    found = set(statuses)
    return next((each for each in _WORST if each in found), Status.NOT_RUN)


def elapsed_s(results: Iterable[Result]) -> float:
    """Return seconds from the first start to the last end; checks run side by side, so this is no sum."""
    ran = [
        (datetime.fromisoformat(each.started_at).timestamp(), each.duration_ms) for each in results if each.started_at
    ]
    if not ran:
        return 0.0
    return max(start + took / 1000 for start, took in ran) - min(start for start, _ in ran)


class Count(Struct, frozen=True, kw_only=True):
    """How the rows of one topology ended."""

    ok: int
    issue: int
    known: int
    na: int
    not_run: int


def count(results: Iterable[Result]) -> Count:
    results = tuple(results)
    by_status = Counter(result.status for result in results)
    return Count(
        ok=by_status[Status.OK],
        issue=by_status[Status.ISSUE],
        known=sum(result.known is not None for result in results),
        na=by_status[Status.NA],
        not_run=by_status[Status.NOT_RUN],
    )
