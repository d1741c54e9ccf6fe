"""Writers on real servers: what they record is what the servers have, and a server that refuses them proves nothing."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.audit.target_file import Recorded
from harness.audit.target_loading import reference_target
from harness.checks.collection import Catalogue
from harness.checks.execution import run_check
from harness.checks.judges.acknowledged import ACKNOWLEDGED, LOST, MISATTRIBUTED, MIXED, FinalState, tally
from harness.checks.judges.recovery import recoveries
from harness.checks.registry import breaks
from harness.checks.run_settings import RunSettings
from harness.checks.scheduler import Run
from harness.checks.workspace import Workspace
from harness.engine.owner import Owner
from harness.errors import ServiceFailedError
from harness.lab.lab import Lab, stand_up_for_faults
from harness.lab.topologies import load_topologies
from harness.model import Result, Status
from harness.redaction import Redactor
from harness.store import RunStore, new_run_id, read_history, read_run, read_state
from harness.suites.catalogue import catalogue
from harness.suites.resilience import rounds
from harness.suites.resilience.tables import prepare_tables
from harness.suites.resilience.writes import CHECKS
from tests.unit.made_up import planned, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.checks.context import CheckContext
    from harness.checks.registry import Check, Control
    from harness.database import Endpoint
    from harness.engine.protocol import Engine
    from harness.model.history import History

pytestmark = pytest.mark.engine

TERMINATED, ANSWER_LOST = (
    next(check for check in CHECKS if check.id == f"resilience.{fault}")
    for fault in ("connections-terminated", "commit-answer-lost")
)


class Stage:
    """A lab without a pooler, and a run that keeps histories."""

    def __init__(self, engine: Engine, lab: Lab, reports: Path) -> None:
        self.engine = engine
        self.lab = lab
        self.store = RunStore(reports, record(new_run_id()), lambda text: text)
        self.workspace = Workspace(lab, reference_target(), catalogue().fixtures, store=self.store)

    def run(self, check: Check, control: Control | None = None) -> tuple[Result, History, FinalState | None]:
        """Run a check, and return its result, its history, and the final state if it was read."""
        row = planned("direct", check.id)
        result = run_check(check, row, self.lab.topology, self.workspace, control=control)
        path = max((self.store.folder / "histories" / "direct").glob("*.jsonl"), key=lambda one: one.stat().st_mtime_ns)
        kept = path.with_name(path.name.replace(".jsonl", ".state.json")).exists()
        return result, read_history(path), read_state(path, FinalState) if kept else None


@pytest.fixture(scope="module")
def stage(some_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    topology = load_topologies()["direct"]
    lab = stand_up_for_faults(some_engine, topology, Owner.me(new_run_id()), Redactor())
    try:
        stage = Stage(some_engine, lab, tmp_path_factory.mktemp("reports"))
        yield stage
        stage.workspace.close()
        stage.store.close()
    finally:
        lab.close()


def test_terminated_connections_lose_nothing_and_all_writers_succeed_again(stage: Stage) -> None:
    result, history, state = stage.run(TERMINATED)
    assert result.status is Status.OK, result.reason
    assert state is not None
    assert history.opening.judge == ACKNOWLEDGED.name
    assert ACKNOWLEDGED.judge(history, state) == result.expectations
    counts = tally(history, state)
    assert counts.ok > 0
    assert {one.operation for one in history.operations if one.outcome == "ok"} == {"insert", "update", "delete"}
    [fault] = history.faults
    assert fault.recovered_s is not None
    assert recoveries(history)[1].last_s > 0


def test_a_trail_that_records_no_actors_and_transactions_is_not_judged_by_them(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    omits = frozenset({Recorded.ACTOR, Recorded.TRANSACTION_ID})
    monkeypatch.setattr(stage.workspace, "target", replace(stage.workspace.target, omits=omits))
    result, _, state = stage.run(TERMINATED)
    assert result.status is Status.OK, result.reason
    assert state is not None
    assert not state.names_actors
    assert {change.transaction for change in state.write_changes} == {0}
    assert not {MISATTRIBUTED, MIXED} & {expectation.name for expectation in result.expectations}


def test_a_commit_whose_answer_is_lost_is_unknown_and_there(stage: Stage) -> None:
    result, history, state = stage.run(ANSWER_LOST)
    assert result.status is Status.OK, result.reason
    assert state is not None
    counts = tally(history, state)
    assert counts.unknown == counts.unknown_there > 0


def test_writers_that_the_server_refuses_are_not_run(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    @breaks(TERMINATED, at="nothing")
    def no_rights(ctx: CheckContext) -> None:
        prepare_tables(ctx)
        ctx.sabotage("REVOKE INSERT ON public.operations FROM harness_app")

    monkeypatch.setattr(rounds, "_FIRST_S", 1.0)
    result, history, _ = stage.run(TERMINATED, no_rights)
    assert result.status is Status.NOT_RUN, result.reason
    assert "8 of 8 writers had no unit of work acknowledged before the first fault within 1 s" in result.reason
    assert "42501 permission denied for table operations" in result.reason
    assert history.operations
    assert {one.outcome for one in history.operations} == {"fail"}
    assert not any(expectation.broken for expectation in result.expectations)


def test_a_service_without_an_address_fails_what_was_not_sent(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, calls = stage.lab.chain, count(1)

    def sometimes(dbname: str = "postgres") -> Endpoint:
        if next(calls) <= 3:
            raise ServiceFailedError("the container has no address")
        return chain(dbname)

    monkeypatch.setattr(stage.lab, "chain", sometimes)
    result, history, _ = stage.run(TERMINATED)
    assert result.status is Status.OK, result.reason
    failures = [one for one in history.operations if one.error == "the container has no address"]
    assert [one.outcome for one in failures] == ["fail"] * 3


def test_a_table_that_is_lost_has_lost_every_acknowledged_write(stage: Stage) -> None:
    @breaks(TERMINATED, at="nothing")
    def table_is_dropped(ctx: CheckContext) -> None:
        forget = ctx.forget_connections

        def drop() -> None:  # before the final state is read
            forget()
            ctx.owner.run("DROP TABLE IF EXISTS public.writes")

        ctx.forget_connections = drop  # type: ignore[method-assign]

    result, _, state = stage.run(TERMINATED, table_is_dropped)
    assert result.status is Status.ISSUE
    assert state is not None
    assert state.writes == ()
    assert LOST in {expectation.name for expectation in result.expectations if expectation.broken}


def test_the_logs_of_a_lab_for_faults_replace_no_other_logs(stage: Stage) -> None:
    """A topology has a lab for its other checks, and one with and one without a link for its faults."""
    owner, topology = Owner.me(new_run_id()), stage.lab.topology
    linked = stand_up_for_faults(stage.engine, topology, owner, Redactor(), linked=True)
    try:
        assert len({stage.lab.log_suffix, linked.log_suffix, ""}) == 3
    finally:
        linked.close()


def test_checks_after_a_fault_that_leaves_no_server_run_on_new_servers(any_engine: Engine, tmp_path: Path) -> None:
    def leave_no_server(ctx: CheckContext) -> None:
        ctx.lab.postgres.kill()
        ctx.expect("anything", 1, equals=1)

    def use_server(ctx: CheckContext) -> None:
        ctx.expect("an answer", ctx.client().value("SELECT 1"), equals=1)

    topology = load_topologies()["direct"]
    checks = tuple(
        replace(TERMINATED, id=f"resilience.{run.__name__}", run=run) for run in (leave_no_server, use_server)
    )
    plan = tuple(planned("direct", check.id) for check in checks)
    settings = RunSettings(
        topologies=(topology,),
        plan=plan,
        catalogue=Catalogue(checks, (), catalogue().fixtures),
        target=reference_target(),
        jobs=1,
        at_a_time=1,
    )
    store = RunStore(tmp_path, replace(record(new_run_id(), state="running"), plan=plan), lambda text: text)
    Run(settings, any_engine, Owner.me(store.record.run_id), store, Redactor(), lambda _: None).execute()
    store.close()
    run = read_run(store.folder)
    assert {result.check: result.status for result in run.results} == {check.id: Status.OK for check in checks}
    assert {path.name for path in (store.folder / "logs/direct").iterdir()} == {
        f"postgres{lab}.log" for lab in ("", ".faults", ".faults-2")
    }
