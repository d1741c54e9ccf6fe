"""Mutations of the rows that checks read from the audit trail: each has to turn at least one check to Issue.

A check that ran undisturbed shows which rows it reads and which columns it looks at. A mutation is then tried with the
checks that can notice it, the quickest and most likely ones first, until one turns.
"""

from __future__ import annotations

import time
from collections import Counter
from threading import Lock
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.checks.execution import run_check
from harness.checks.registry import TRANSACTION_BLOCKS, Control
from harness.events import MutationFinished
from harness.model import EndedBy, MutationState, ObservedProof, PlannedCheck, Status
from harness.mutants.observed_reading import Reading, mutated, watched

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from concurrent.futures import ThreadPoolExecutor
    from threading import Event

    from harness.audit.target import AuditTarget
    from harness.checks.collection import Catalogue
    from harness.checks.context import CheckContext
    from harness.checks.registry import CheckFunction
    from harness.checks.workspace import Workspace
    from harness.events import Listener
    from harness.model import Result, Topology
    from harness.mutants.observed_mutation import Mutation
    from harness.store import RunStore

#: begins the reason of a mutation that nothing could be tried with, such as without a server
NOT_TRIED = "not tried: "
#: suites about what the trail holds; a mutation is judged by all of their checks that apply
TRAIL_SUITES = ("capture", "actor", "redaction", "retention", "export", "continuity", "trail")
#: checks that a reason names
_MOST_NAMED = 5


def observed_in(
    topologies: Iterable[Topology], plan: Iterable[PlannedCheck], catalogue: Catalogue, target: AuditTarget
) -> frozenset[str]:
    """Return the topologies in which mutations are tried: none unless all checks of the trail's suites are planned.

    Another trail than the reference is tried wherever transactions are allowed. The reference is tried once, where most
    of these checks apply: its checks have controls in every topology.
    """
    of_trail = {check.id: check for check in catalogue.checks if check.id.partition(".")[0] in TRAIL_SUITES}
    planned: dict[str, set[str]] = {}
    for row in plan:
        if row.check in of_trail:
            planned.setdefault(row.target, set()).add(row.check)
    able = {
        topology.name: sum(of_trail[name].lacking(topology, target) is None for name in planned[topology.name])
        for topology in topologies
        if TRANSACTION_BLOCKS.given(topology) and planned.get(topology.name) == of_trail.keys()
    }
    if not target.is_reference or not able:
        return frozenset(able)
    return frozenset({max(able, key=lambda name: able[name])})


class Watched(Struct, frozen=True, kw_only=True):
    """A check that was OK or an Issue, and what it read."""

    row: PlannedCheck
    reading: Reading
    duration_ms: float


class Observer:
    """Watches checks, then tries mutations with them. Threads share it."""

    def __init__(self, catalogue: Catalogue, store: RunStore, listener: Listener, stop: Event) -> None:
        self._checks = {check.id: check for check in catalogue.checks}
        self._store = store
        self._notify = listener
        self._stop = stop
        self._lock = Lock()
        #: by topology and check
        self._readings: dict[tuple[str, str], Reading] = {}
        self._watched: dict[str, list[Watched]] = {}
        #: checks that are Issues without a mutation, by topology: nothing can turn them
        self._issues: dict[str, list[Watched]] = {}
        #: how often a check was tried with a mutation of a column, and how often it turned
        self._tries: Counter[tuple[str, str]] = Counter()
        self._turns: Counter[tuple[str, str]] = Counter()
        #: how many mutations have their outcome, by topology
        self._done: Counter[str] = Counter()

    def watch(self, row: PlannedCheck) -> CheckFunction | None:
        """Return what has to run before a check so that its reads are kept; None for a check of another suite."""
        if row.check.partition(".")[0] not in TRAIL_SUITES:
            return None
        reading = Reading()
        with self._lock:
            self._readings[row.target, row.check] = reading

        def prepare(ctx: CheckContext) -> None:
            ctx.target = watched(ctx.target, reading)

        return prepare

    def keep(self, row: PlannedCheck, result: Result) -> None:
        """Keep the reads of a check that was OK or an Issue, and read changes."""
        with self._lock:
            reading = self._readings.pop((row.target, row.check), None)
            kept = {Status.OK: self._watched, Status.ISSUE: self._issues}.get(result.status)
            if reading and (reading.reads or reading.is_cut) and kept is not None:
                check = Watched(row=row, reading=reading, duration_ms=result.duration_ms)
                kept.setdefault(row.target, []).append(check)

    def try_mutations(
        self, pool: ThreadPoolExecutor, mutations: Sequence[Mutation], topology: Topology, workspace: Workspace
    ) -> None:
        """Try each mutation with the checks that can notice it.

        :param pool: runs mutations side by side; the checks of one mutation run one after another.
        """
        with self._lock:
            checks = tuple(self._watched.get(topology.name, ()))
            issues = tuple(self._issues.get(topology.name, ()))

        def one(mutation: Mutation) -> None:
            if self._stop.is_set():
                return
            proof = self._tried(mutation, checks, issues, topology, workspace)
            if self._stop.is_set():
                return
            self._store.append_observed_proof(proof)
            with self._lock:
                self._done[topology.name] += 1
                done = self._done[topology.name]
            self._notify(MutationFinished(proof, done, len(mutations)))

        for _ in pool.map(one, mutations):
            pass

    def _tried(
        self,
        mutation: Mutation,
        checks: Sequence[Watched],
        issues: Sequence[Watched],
        topology: Topology,
        workspace: Workspace,
    ) -> ObservedProof:
        proof = ObservedProof(
            topology=topology.name, name=mutation.name, what=mutation.what, state=MutationState.LEFT_OUT
        )
        if reason := mutation.left_out(workspace.target):
            return replace(proof, reason=reason)
        if reason := workspace.why_nothing_runs():
            return replace(proof, state=MutationState.NEVER_MET, reason=f"{NOT_TRIED}{reason}")
        began, tried, broke = time.monotonic(), 0, ""
        left = list(checks)
        while left and not self._stop.is_set():
            # whether a check looks at the change is asked last of those with many rows: they are the slow ones
            check = min(left, key=lambda check: self._expected_ms(check, mutation.column))
            left.remove(check)
            if not check.reading.may_notice(mutation):
                continue
            result = self._result(check, mutation, topology, workspace)
            tried += 1
            broken = next((expectation.name for expectation in result.expectations if expectation.broken), "")
            turned = result.status is Status.ISSUE and bool(broken)
            self._learn(check, mutation.column, turned=turned)
            if turned:
                return replace(
                    proof,
                    state=MutationState.NOTICED,
                    tried=tried,
                    check=check.row.check,
                    at=broken,
                    duration_ms=_since(began),
                )
            if result.status is Status.NOT_RUN and result.ended_by is EndedBy.INFRASTRUCTURE:
                return replace(proof, state=MutationState.NEVER_MET, reason=f"{NOT_TRIED}{result.reason}")
            if result.status in {Status.ISSUE, Status.NOT_RUN}:
                broke = f"; {check.row.check} is {result.status}: {result.reason}"
        already = sorted(check.row.check for check in issues if check.reading.may_notice(mutation))
        unknown = ""
        if not tried and already:
            unknown = f"the checks that look at what it changes are Issues already: {_named(already)}"
        elif not tried and not any(check.reading.is_cut or check.reading.meets(mutation) for check in checks):
            unknown = "no check read a row that it changes"
        if unknown:
            return replace(proof, state=MutationState.NEVER_MET, reason=unknown)
        unseen = f"none of {tried} checks turned to Issue" if tried else "no check that is OK looks at what it changes"
        others = f"; further checks that look at it are Issues already: {_named(already)}" if already else ""
        return replace(
            proof, state=MutationState.SURVIVED, tried=tried, reason=unseen + others + broke, duration_ms=_since(began)
        )

    def _result(self, check: Watched, mutation: Mutation, topology: Topology, workspace: Workspace) -> Result:
        def apply(ctx: CheckContext) -> None:
            ctx.target = mutated(ctx.target, mutation)

        row = check.row
        control = Control(name=mutation.name, check=row.check, at="", needs=(), apply=apply)
        return run_check(self._checks[row.check], row, topology, workspace, control=control, interrupted=self._stop)

    def _expected_ms(self, check: Watched, column: str) -> float:
        """Return about how long it takes until the check turns: its time, over how often it turned so far."""
        key = check.row.check, column
        with self._lock:
            return check.duration_ms * (self._tries[key] + 2) / (self._turns[key] + 1)

    def _learn(self, check: Watched, column: str, *, turned: bool) -> None:
        with self._lock:
            self._tries[check.row.check, column] += 1
            self._turns[check.row.check, column] += turned


def _named(checks: Sequence[str]) -> str:
    more = f" and {len(checks) - _MOST_NAMED} more" if len(checks) > _MOST_NAMED else ""
    return f"{', '.join(checks[:_MOST_NAMED])}{more}"


def _since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)
