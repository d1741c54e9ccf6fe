"""The judge of a load, and what is read of pgbench."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.audit.actor_convention import ActorConvention
from harness.checks.judges.soak import FINDINGS, OPTIONAL, PLANNED, SOAK_JUDGE, UNPLANNED, Found, SoakState
from harness.errors import StoreError
from harness.model.history import History, Opening, Operation, Outcome
from harness.store.histories import Journal, read_history, read_state
from harness.suites.soak.clients import CYCLE, KINDS, OPERATIONS
from harness.suites.soak.programs import AUDITED, PLAIN, aborted_clients, scripts
from tests.tables import each_row

if TYPE_CHECKING:
    from pathlib import Path

    from harness.model import Expectation
    from harness.model.history import Outcome

OPENING = Opening(topology="direct", check="soak.mix", judge="soak", started_at="2026-01-01T00:00:00.000Z")
CLEAN = dict.fromkeys(FINDINGS, Found())


def state_of(found: dict[str, Found] = CLEAN, *, unknown: int = 0) -> SoakState:
    return SoakState(acknowledged=10, failed=3, unknown=unknown, found=found)


def operation(name: str, error: str, outcome: Outcome = "fail", seq: int = 1) -> Operation:
    return Operation(
        client=1, seq=seq, operation=name, key="", value="", actor="soak-1", invoked_s=1.0, outcome=outcome, error=error
    )


def judged(*operations: Operation, state: SoakState | None = None) -> dict[str, Expectation]:
    found = SOAK_JUDGE.judge(History(opening=OPENING, operations=operations), state or state_of())
    return {expectation.name: expectation for expectation in found}


def broken(*operations: Operation, state: SoakState | None = None) -> list[str]:
    return [name for name, expectation in judged(*operations, state=state).items() if expectation.broken]


def test_a_sound_load_breaks_nothing() -> None:
    planned = [
        operation(name, f"{state} as planned", seq=number) for number, (name, state) in enumerate(PLANNED.items())
    ]
    assert broken(*planned, operation("replay", "", seq=99)) == []
    assert set(judged()) == {*FINDINGS, UNPLANNED}


@pytest.mark.parametrize(("error", "said"), [("40001 x", "all errors planned"), ("XX000 x", "not all of them planned")])
def test_a_load_says_how_many_writes_were_compared(error: str, said: str) -> None:
    history = History(opening=OPENING, operations=(operation("conflict", error),))
    assert SOAK_JUDGE.compares(history, state_of()) == (
        f"10 acknowledged writes compared with table and trail by SQL; 3 failed, 0 unknown, {said}"
    )


@each_row("name", FINDINGS)
def test_each_finding_breaks_its_own_expectation(name: str) -> None:
    found = Found(count=7, first=("client 3, write 17",))
    assert broken(state=state_of(CLEAN | {name: found})) == [name]
    assert judged(state=state_of(CLEAN | {name: found}))[name].observed == "7: client 3, write 17"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("insert", "XX000 internal error"),
        ("conflict", "23505 duplicate key value"),
        ("cancellation", "57P01 terminating connection due to administrator command"),
        ("retry", "40001 could not serialize access"),
        ("replay", "XX000 internal error"),
    ],
)
def test_an_error_that_no_operation_planned_is_named(name: str, error: str) -> None:
    assert broken(operation(name, error)) == [UNPLANNED]
    assert judged(operation(name, error))[UNPLANNED].observed == f"1 x {name}: {error}"


def test_an_unknown_operation_is_no_error() -> None:
    assert broken(operation("insert", "", "unknown"), state=state_of(unknown=1)) == []


@each_row("name", FINDINGS)
def test_a_finding_that_nobody_looked_for_is_not_taken_for_sound(name: str) -> None:
    state = state_of({other: found for other, found in CLEAN.items() if other != name})
    if name in OPTIONAL:
        assert name not in judged(state=state)
    else:
        with pytest.raises(StoreError, match=name):
            judged(state=state)


def test_a_history_with_more_unknown_operations_than_the_state_contradicts_it() -> None:
    with pytest.raises(StoreError, match="1 unknown operations, and the final state 0"):
        judged(operation("insert", "", "unknown"))


@given(
    st.dictionaries(
        st.sampled_from(FINDINGS), st.builds(Found, count=st.integers(1, 10**9), first=st.tuples(st.text(max_size=40)))
    ),
    st.lists(st.tuples(st.sampled_from([*PLANNED, "insert"]), st.text(max_size=30)), max_size=4),
)
def test_a_stored_load_is_judged_like_the_one_in_memory(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, Found], errors: list[tuple[str, str]]
) -> None:
    folder: Path = tmp_path_factory.mktemp("histories")
    state = state_of(CLEAN | found)
    with contextlib.closing(Journal(folder / "soak.mix.jsonl", OPENING, str)) as journal:
        for seq, (name, error) in enumerate(errors, 1):
            journal.invoke(1, seq, name, actor="soak-1")
            journal.answer(1, seq, "fail", error)
        journal.sample({"transactions per second": 3.0}, at_s=1.5)
        journal.keep_state(state)
    read = read_history(journal.path)
    in_memory = [operation(name, error, seq=seq) for seq, (name, error) in enumerate(errors, 1)]
    assert [sample.seconds for sample in read.samples] == [1.5]
    assert SOAK_JUDGE.judge(read, read_state(journal.path, SoakState)) == tuple(
        judged(*in_memory, state=state).values()
    )
    assert {name for name in broken(*in_memory, state=state) if name != UNPLANNED} == set(found)


def test_the_mix_has_every_kind_in_each_cycle_of_a_client() -> None:
    assert len(CYCLE) == sum(kind.times for kind in KINDS)
    assert {id(kind) for kind in CYCLE} == {id(kind) for kind in KINDS}
    assert set(PLANNED) - {"interrupted"} <= set(OPERATIONS)


@pytest.mark.parametrize(
    ("convention", "statement"),
    [
        (
            ActorConvention(setting="threadline.actor_ref"),
            """BEGIN \\; SELECT set_config('threadline.actor_ref', '{"type":"user","id":"soak-:client"}', true) \\; INSERT""",
        ),
        (
            ActorConvention(setting="app.user_id", value="id", scope="session"),
            "SELECT set_config('app.user_id', 'soak-:client', false);\nBEGIN \\; INSERT",
        ),
    ],
)
def test_a_script_declares_the_actor_as_the_target_asks_for_it(convention: ActorConvention, statement: str) -> None:
    written = scripts(convention)
    assert statement in written[AUDITED]
    assert "set_config" not in written[PLAIN]
    assert all(script.count("COMMIT") == 1 for script in written.values())


@pytest.mark.parametrize(
    ("output", "aborted"),
    [
        ("tps = 112.4 (without initial connection time)\n", []),
        (
            "pgbench: error: client 3 script 0 aborted in command 4 query 0: ERROR:  permission denied\n",
            [(3, "ERROR: permission denied")],
        ),
        (
            "pgbench: error: client 0 aborted in command 2 (SQL) of script 0; perhaps the backend died while processing\n",
            [(0, "client 0 aborted in command 2 (SQL) of script 0; perhaps the backend died while processing")],
        ),
    ],
)
def test_the_clients_that_pgbench_reports_as_aborted_are_found(output: str, aborted: list[tuple[int, str]]) -> None:
    assert [(found.client, found.error) for found in aborted_clients(output)] == aborted
