"""The suite of acknowledged writes: its table of faults and controls, the outcomes of errors, and the writers' work."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checks.judges import acknowledged
from harness.lab.topologies import load_topologies
from harness.places import TOPOLOGIES
from harness.suites.resilience.controls import BROKEN_BY, CONTROLS
from harness.suites.resilience.faults import FAULTS
from harness.suites.resilience.outcomes import outcome_of
from harness.suites.resilience.tables import spelled
from harness.suites.resilience.writers import next_unit
from harness.suites.resilience.writes import CHECKS
from tests.tables import each_row

EXPECTATIONS = {
    acknowledged.LOST,
    acknowledged.UNRECORDED,
    acknowledged.REPEATED,
    acknowledged.FAILED,
    acknowledged.HALF,
    acknowledged.MISATTRIBUTED,
    acknowledged.MIXED,
    acknowledged.FOREIGN,
    acknowledged.PANIC,
}


def test_each_fault_has_a_check_with_a_control() -> None:
    assert [check.id for check in CHECKS] == [f"resilience.{fault.id}" for fault in FAULTS]
    assert {control.check for control in CONTROLS} == {check.id for check in CHECKS}
    assert set(BROKEN_BY) == {fault.id for fault in FAULTS}


def test_each_expectation_of_the_judge_is_broken_by_a_control() -> None:
    assert {control.at for control in CONTROLS} == EXPECTATIONS


def test_a_crash_claims_nothing_about_a_loss_of_power() -> None:
    claims = {fault.id: check.claim for fault, check in zip(FAULTS, CHECKS, strict=True)}
    assert all(("power loss is not tested" in claims[fault.id]) is fault.crashes for fault in FAULTS)


def test_the_main_job_has_twelve_faults_and_the_others_run_on_demand() -> None:
    assert sum(fault.main for fault in FAULTS) == 12
    assert all(check.on_demand is not fault.main for fault, check in zip(FAULTS, CHECKS, strict=True))


def test_the_suite_runs_by_default_on_direct_session_and_transaction() -> None:
    names = {
        topology.name
        for topology in load_topologies(TOPOLOGIES).values()
        if topology.verifies(CHECKS[0].id) and all(need.given(topology) for need in CHECKS[0].needs)
    }
    assert names == {"direct", "session", "transaction"}


def error(sqlstate: str | None) -> psycopg.Error:
    return psycopg.errors.lookup(sqlstate)() if sqlstate else psycopg.OperationalError("connection lost")


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "23505", "23503", "22003", "P0001"])
def test_a_server_that_refuses_a_commit_for_its_data_did_not_commit(sqlstate: str) -> None:
    assert outcome_of(error(sqlstate), commit_sent=True) == "fail"


@each_row("sqlstate", [None, "40003", "08006", "08P01", "53100", "57P01", "57P02", "58030", "XX000"])
def test_any_other_error_at_commit_leaves_the_outcome_unknown(sqlstate: str | None) -> None:
    assert outcome_of(error(sqlstate), commit_sent=True) == "unknown"
    assert outcome_of(error(sqlstate), commit_sent=False) == "fail"


@pytest.mark.parametrize(
    ("actor", "text"),
    [
        ({"type": "user", "id": "writer-1"}, "user:writer-1"),
        (None, "none"),
        ({"type": "anonymous"}, '{"type":"anonymous"}'),
        ({"type": "user", "id": 7}, '{"id":7,"type":"user"}'),
        ("user:writer-1", '"user:writer-1"'),  # a text differs from an actor that is spelled like it
    ],
)
def test_an_actor_is_spelled_so_that_no_other_value_is_spelled_like_it(actor: Any, text: str) -> None:
    assert spelled(actor) == text


@given(st.lists(st.booleans(), min_size=60, max_size=60))
def test_a_writer_touches_a_key_again_only_after_an_acknowledgement(acknowledgements: list[bool]) -> None:
    keys: deque[str] = deque()
    last: dict[str, tuple[str, bool]] = {}
    kinds: Counter[str] = Counter()
    values: set[str] = set()
    for seq, ok in enumerate(acknowledgements, 1):
        unit = next_unit(3, seq, keys)
        kinds[unit.operation] += 1
        if unit.operation == "insert":
            assert unit.key not in last
        else:
            assert last[unit.key] in {("insert", True), ("update", True)}
        assert (unit.operation == "delete") is (unit.value == "")
        assert unit.value not in values
        values |= {unit.value} - {""}
        last[unit.key] = (unit.operation, ok)
        if ok and unit.operation != "delete":
            keys.append(unit.key)
    if all(acknowledgements):
        assert set(kinds) == {"insert", "update", "delete"}
