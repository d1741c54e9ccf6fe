"""Mutations are tried with the checks that can notice them, until the first one turns to Issue."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from msgspec.structs import replace

from harness.audit.target_loading import load_target, reference_target
from harness.checks import observing
from harness.checks.observing import TRAIL_SUITES, Observer, observed_in
from harness.cli import planning
from harness.events import MutationFinished
from harness.lab.topologies import load_topologies
from harness.model import EndedBy, Expectation, MutationState, Status
from harness.mutants.observed_mutation import Mutation, mutation
from harness.places import TOPOLOGIES
from harness.suites.catalogue import catalogue
from tests.unit.made_up import planned, result

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.checks.workspace import Workspace
    from harness.events import Event as Notification
    from harness.model import ObservedProof, PlannedCheck, Result
    from harness.mutants.observed_rows import Row

ROWS: list[Row] = [{"id": number, "op": "insert", "actor": {"id": "ada"}} for number in range(3)]
DIRECT = load_topologies(TOPOLOGIES)["direct"]
NO_ACTOR = mutation("actor.null", "records no actor", lambda rows: [{**row, "actor": None} for row in rows])
FEWER = mutation("row.last-dropped", "loses a change", lambda rows: rows[:-1])
UPPER = mutation("op.upper-cased", "writes loudly", lambda rows: [{**row, "op": "INSERT"} for row in rows])
ABSENT = mutation(
    "row.truncates-dropped", "loses a TRUNCATE", lambda rows: [row for row in rows if row["op"] != "truncate"]
)
SOUND = replace(FEWER, name="row.sound", sound="any trail may do it")


class Checks:
    """Checks that read `ROWS` once, by their id."""

    def __init__(self, judges: dict[str, tuple[set[str], Callable[[list[Row]], bool]]]) -> None:
        self.judges = judges
        self.ran: list[tuple[str, str]] = []
        self.written: list[ObservedProof] = []
        self.notified: list[Notification] = []
        self.stop = Event()
        #: checks that are Issues without a mutation
        self.issues: set[str] = set()
        #: which service ended
        self.server_ended = ""

    def run(self, check: Any, row: PlannedCheck, *_: object, control: Any, **__: object) -> Result:
        ctx = SimpleNamespace(target=reference_target())
        control.apply(ctx)
        self.ran.append((row.check, control.name))
        held = self.judges[row.check][1](ctx.target.observed([dict(found) for found in ROWS]))
        expectation = Expectation(name="rows", expected="3", observed="?", held=held)
        assert check.id == row.check
        status = Status.OK if held else Status.ISSUE
        return replace(result("direct", row.check, status), expectations=(expectation,))

    def try_all(self, *mutations: Mutation) -> dict[str, ObservedProof]:
        store = SimpleNamespace(append_observed_proof=self.written.append)
        observer = Observer(catalogue(), cast("Any", store), self.notified.append, self.stop)
        for name, (seen, _) in self.judges.items():
            row = planned("direct", name)
            ctx = SimpleNamespace(target=reference_target())
            watch = observer.watch(row)
            assert watch
            watch(cast("Any", ctx))
            ctx.target.observed(ROWS)
            ctx.target.reading.seen.update(seen)
            observer.keep(row, result("direct", name, Status.ISSUE if name in self.issues else Status.OK))
        workspace = cast(
            "Workspace", SimpleNamespace(target=reference_target(), why_nothing_runs=lambda: self.server_ended)
        )
        with ThreadPoolExecutor(1) as pool:
            observer.try_mutations(pool, mutations, DIRECT, workspace)
        return {proof.name: proof for proof in self.written}


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Checks:
    found = Checks(
        {
            "capture.insert": ({"op"}, lambda rows: len(rows) == len(ROWS)),
            "actor.unset": ({"actor"}, lambda rows: all(row["actor"] for row in rows)),
        }
    )
    monkeypatch.setattr(observing, "run_check", found.run)
    return found


def test_the_first_check_that_turns_ends_a_mutation(checks: Checks) -> None:
    proofs = checks.try_all(NO_ACTOR, FEWER)
    assert (proofs["actor.null"].state, proofs["actor.null"].check) == (MutationState.NOTICED, "actor.unset")
    assert (proofs["actor.null"].at, proofs["actor.null"].tried) == ("rows", 1)
    assert proofs["row.last-dropped"].check == "capture.insert"


def test_only_checks_that_look_at_the_change_are_tried(checks: Checks) -> None:
    proofs = checks.try_all(NO_ACTOR, UPPER)
    assert checks.ran == [("actor.unset", "actor.null"), ("capture.insert", "op.upper-cased")]
    assert proofs["op.upper-cased"].state is MutationState.SURVIVED
    assert proofs["op.upper-cased"].reason == "none of 1 checks turned to Issue"


def test_a_mutation_that_changes_nothing_is_not_met_and_a_sound_one_is_left_out(checks: Checks) -> None:
    proofs = checks.try_all(ABSENT, SOUND)
    assert checks.ran == []
    assert proofs["row.truncates-dropped"].state is MutationState.NEVER_MET
    assert (proofs["row.sound"].state, proofs["row.sound"].reason) == (MutationState.LEFT_OUT, "any trail may do it")
    assert [(event.done, event.of) for event in checks.notified if isinstance(event, MutationFinished)] == [
        (1, 2),
        (2, 2),
    ]


def test_of_a_mutation_whose_checks_are_issues_already_nothing_is_known(checks: Checks) -> None:
    checks.issues = {"actor.unset"}
    proofs = checks.try_all(NO_ACTOR, UPPER)
    assert checks.ran == [("capture.insert", "op.upper-cased")]
    assert proofs["actor.null"].state is MutationState.NEVER_MET
    assert proofs["actor.null"].reason == "the checks that look at what it changes are Issues already: actor.unset"
    assert proofs["op.upper-cased"].reason == "none of 1 checks turned to Issue"


def test_a_survivor_names_the_checks_that_are_issues_already(checks: Checks) -> None:
    checks.judges["actor.unset"] = ({"op"}, lambda _: True)
    checks.issues = {"actor.unset"}
    proof = checks.try_all(UPPER)["op.upper-cased"]
    assert (proof.state, proof.tried) == (MutationState.SURVIVED, 1)
    assert proof.reason.endswith("; further checks that look at it are Issues already: actor.unset")


def test_a_check_that_breaks_has_not_noticed(checks: Checks, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_check: object, row: PlannedCheck, *_: object, **__: object) -> Result:
        reason = "the check itself broke: IndexError"
        return replace(result("direct", row.check, Status.ISSUE, reason), expectations=())

    monkeypatch.setattr(observing, "run_check", broken)
    proof = checks.try_all(FEWER)["row.last-dropped"]
    assert proof.state is MutationState.SURVIVED
    assert "the check itself broke: IndexError" in proof.reason


def test_without_a_server_nothing_is_tried_and_nothing_survives(
    checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(_check: object, row: PlannedCheck, *_: object, **__: object) -> Result:
        return replace(result("direct", row.check, Status.NOT_RUN, "it ended"), ended_by=EndedBy.INFRASTRUCTURE)

    monkeypatch.setattr(observing, "run_check", ended)
    proof = checks.try_all(FEWER)["row.last-dropped"]
    assert (proof.state, proof.reason) == (MutationState.NEVER_MET, "not tried: it ended")
    checks.server_ended = "the service postgres is not running"
    proof = checks.try_all(FEWER)["row.last-dropped"]
    assert (proof.state, proof.reason) == (MutationState.NEVER_MET, "not tried: the service postgres is not running")


def test_nothing_is_recorded_after_the_end_of_the_run(checks: Checks) -> None:
    checks.stop.set()
    assert checks.try_all(NO_ACTOR) == {}


def test_rows_of_checks_that_did_not_run_or_are_not_about_the_trail_are_not_kept() -> None:
    observer = Observer(catalogue(), cast("Any", None), cast("Any", None), Event())
    assert observer.watch(planned("direct", "pooling.cancel")) is None
    row = planned("direct", "capture.insert")
    ctx = SimpleNamespace(target=reference_target())
    watch = observer.watch(row)
    assert watch
    watch(cast("Any", ctx))
    ctx.target.observed(ROWS)
    observer.keep(row, result("direct", row.check, Status.NOT_RUN, "x"))
    written: list[ObservedProof] = []
    store = SimpleNamespace(append_observed_proof=written.append)
    observer._store, observer._notify = cast("Any", store), lambda _event: None
    with ThreadPoolExecutor(1) as pool:
        observer.try_mutations(pool, [FEWER], DIRECT, cast("Any", SimpleNamespace(target=reference_target(), why_nothing_runs=str)))
    assert [proof.state for proof in written] == [MutationState.NEVER_MET]


def test_mutations_need_all_checks_of_the_trail_and_transactions() -> None:
    found, topologies = catalogue(), load_topologies(TOPOLOGIES)
    chosen = [topologies[name] for name in ("direct", "transaction", "statement")]
    of_trail = [check for check in found.checks if check.id.partition(".")[0] in TRAIL_SUITES]
    plan = [planning.planned(topology.name, check, "") for topology in chosen for check in of_trail]
    foreign, reference = load_target("plain-trigger"), reference_target()
    assert observed_in(chosen, plan, found, foreign) == {"direct", "transaction"}
    assert len(observed_in(chosen, plan, found, reference)) == 1
    assert observed_in(chosen, plan[1:], found, foreign) == {"transaction"}
    assert observed_in(chosen, [], found, reference) == frozenset()
