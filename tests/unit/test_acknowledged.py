"""The judge of acknowledged writes: a consistent world is OK, and each fault in it breaks exactly its own expectation."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from harness.checks.judges.acknowledged import (
    ACKNOWLEDGED,
    FAILED,
    FOREIGN,
    HALF,
    LOST,
    MISATTRIBUTED,
    MIXED,
    PANIC,
    REPEATED,
    UNRECORDED,
    FinalState,
    OperationChange,
    OperationRow,
    Tally,
    WriteChange,
    WriteRow,
    judge,
    tally,
)
from harness.checks.judges.recovery import Recovery, recoveries
from harness.errors import StoreError
from harness.model.history import Fault, History, Opening, Operation, Outcome
from harness.store.histories import Journal, read_history, read_state
from tests.tables import each_row

if TYPE_CHECKING:
    from collections.abc import Callable

OPENING = Opening(topology="direct", check="resilience.made-up", judge=ACKNOWLEDGED.name, started_at="2026-01-01")
EXPECTATIONS = (LOST, UNRECORDED, REPEATED, FAILED, HALF, MISATTRIBUTED, MIXED, FOREIGN, PANIC)


#: one of everything: client, operation, outcome
PROLOGUE = (
    *((client, "insert", "ok") for client in (1, 1, 1, 2, 2, 2, 3, 3, 3)),
    (1, "update", "ok"),
    (1, "delete", "ok"),
    *((2, operation, "fail") for operation in ("insert", "update", "delete")),
    *((3, operation, "unknown there") for operation in ("insert", "update", "delete")),
    *((client, "update", "unknown") for client in (1, 3)),
    *((client, "insert", "ok") for client in (1, 2, 3)),
)


class World(Struct, kw_only=True):
    """Operations, and for each of them whether it happened."""

    operations: list[Operation]
    happened: set[tuple[int, int]]

    @property
    def history(self) -> History:
        return History(opening=OPENING, operations=tuple(self.operations))

    def state(self) -> FinalState:
        rows: dict[str, WriteRow] = {}
        there = [one for one in self.operations if (one.client, one.seq) in self.happened]
        for one in there:
            if one.operation == "delete":
                del rows[one.key]
            else:
                rows[one.key] = WriteRow(one.key, one.client, one.value)
        return FinalState(
            writes=tuple(rows.values()),
            operations=tuple(OperationRow(one.client, one.seq) for one in there),
            write_changes=tuple(
                WriteChange(one.operation, one.key, one.value, one.actor, number) for number, one in enumerate(there, 1)
            ),
            operation_changes=tuple(
                OperationChange("insert", one.client, one.seq, one.actor, number) for number, one in enumerate(there, 1)
            ),
            panics=(),
        )

    def those(self, outcome: Outcome, *, there: bool | None = None) -> list[Operation]:
        return [
            one
            for one in self.operations
            if one.outcome == outcome and there in {None, (one.client, one.seq) in self.happened}
        ]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Return what three clients did, each with keys of its own."""
    world = World(operations=[], happened=set())
    open_keys: dict[int, list[str]] = {1: [], 2: [], 3: []}
    seqs = dict.fromkeys(open_keys, 0)
    steps = st.tuples(
        st.sampled_from(sorted(open_keys)),
        st.sampled_from(["insert", "update", "delete"]),
        st.sampled_from(["ok", "ok", "ok", "fail", "unknown there", "unknown"]),
    )
    for client, wanted, outcome in (*PROLOGUE, *draw(st.lists(steps, max_size=30))):
        seqs[client] += 1
        seq, keys = seqs[client], open_keys[client]
        operation = wanted if keys else "insert"
        key = f"c{client}-{seq}" if operation == "insert" else keys[draw(st.integers(0, len(keys) - 1))]
        if operation != "insert":
            keys.remove(key)
        if outcome == "ok" and operation != "delete":
            keys.append(key)
        if outcome in {"ok", "unknown there"}:
            world.happened.add((client, seq))
        world.operations.append(
            Operation(
                client=client,
                seq=seq,
                operation=operation,
                key=key,
                value="" if operation == "delete" else f"v{client}-{seq}",
                actor=f"user:writer-{client}",
                invoked_s=float(len(world.operations)),
                answered_s=float(len(world.operations)) if outcome != "unknown" else None,
                outcome="unknown" if outcome == "unknown there" else outcome,  # type: ignore[arg-type]
            )
        )
    return world


def broken(world: World, state: FinalState) -> set[str]:
    found = judge(world.history, state)
    assert tuple(expectation.name for expectation in found) == EXPECTATIONS
    return {expectation.name for expectation in found if expectation.broken}


def without(items: tuple[Any, ...], unwanted: Callable[[Any], bool]) -> tuple[Any, ...]:
    return tuple(item for item in items if not unwanted(item))


def is_row_of(one: Operation) -> Callable[[Any], bool]:
    return lambda row: (row.client, row.seq) == (one.client, one.seq)


def is_change_of(one: Operation) -> Callable[[Any], bool]:
    if one.operation == "delete":
        return lambda change: change.operation == "delete" and change.key == one.key
    return lambda change: change.value == one.value


def chosen(data: st.DataObject, operations: list[Operation]) -> Operation:
    assume(operations)
    return data.draw(st.sampled_from(operations))


def last_on_their_keys(operations: list[Operation], world: World) -> list[Operation]:
    last = {one.key: one for one in world.operations}
    return [one for one in operations if last[one.key] is one]


@given(worlds())
def test_a_consistent_world_holds_whether_unknown_operations_happened_or_not(world: World) -> None:
    assert broken(world, world.state()) == set()
    outcomes = [one.outcome for one in world.operations]
    assert tally(world.history, world.state()) == Tally(
        ok=outcomes.count("ok"),
        failed=outcomes.count("fail"),
        unknown=outcomes.count("unknown"),
        unknown_there=len(world.happened) - outcomes.count("ok"),
    )


@given(worlds(), st.data())
def test_an_acknowledged_write_without_its_rows_is_lost(world: World, data: st.DataObject) -> None:
    state = world.state()
    one = chosen(data, world.those("ok"))
    if data.draw(st.booleans()):
        state = replace(state, operations=without(state.operations, is_row_of(one)))
    else:
        one = chosen(data, last_on_their_keys(world.those("ok"), world))
        rows = without(state.writes, lambda row: row.key == one.key)
        before = [earlier for earlier in world.operations if earlier.key == one.key][:-1]
        if before and (one.operation == "delete" or data.draw(st.booleans())):
            # the row as it was before the last write
            rows = (*rows, WriteRow(one.key, one.client, before[-1].value))
        state = replace(state, writes=rows)
    assert broken(world, state) == {LOST}
    found = next(expectation for expectation in judge(world.history, state) if expectation.name == LOST)
    assert found.observed == f"1: client {one.client}, {one.seq}"


@given(worlds(), st.data())
def test_an_acknowledged_write_before_an_uncertain_one_is_lost_too(world: World, data: st.DataObject) -> None:
    """The key is not touched again after an operation that was not acknowledged, so the row before it has to be there."""
    uncertain = [*world.those("fail"), *world.those("unknown", there=False)]
    one = chosen(data, [one for one in uncertain if one.operation != "insert"])
    state = world.state()
    state = replace(state, writes=without(state.writes, lambda row: row.key == one.key))
    assert broken(world, state) == {LOST}


@given(worlds(), st.data())
def test_an_acknowledged_write_without_its_changes_is_missing_in_the_trail(world: World, data: st.DataObject) -> None:
    one, state = chosen(data, world.those("ok")), world.state()
    if data.draw(st.booleans()):
        state = replace(state, operation_changes=without(state.operation_changes, is_row_of(one)))
    else:
        state = replace(state, write_changes=without(state.write_changes, is_change_of(one)))
    assert broken(world, state) == {UNRECORDED}


@given(worlds(), st.data(), st.sampled_from(["operations", "operation_changes", "write_changes", "writes"]))
def test_what_is_there_twice_is_repeated(world: World, data: st.DataObject, where: str) -> None:
    state = world.state()
    items = getattr(state, where)
    assume(items)
    state = replace(state, **{where: (*items, data.draw(st.sampled_from(items)))})
    assert broken(world, state) == {REPEATED}


@given(worlds(), st.data(), st.sampled_from(["row", "change", "write change", "effect"]))
def test_anything_of_a_failed_write_is_too_much(world: World, data: st.DataObject, what: str) -> None:
    one, state = chosen(data, world.those("fail")), world.state()
    assert broken(world, with_piece(state, one, what)) == {LOST if is_missing_row(one, what) else FAILED}


def is_missing_row(one: Operation, what: str) -> bool:
    """Return whether the piece of an operation that did not happen is a missing row: then an earlier write is lost."""
    return what == "effect" and one.operation == "delete"


@given(worlds(), st.data(), st.sampled_from(["row", "change", "write change", "effect"]))
def test_an_unknown_write_is_there_completely_or_not_at_all(world: World, data: st.DataObject, what: str) -> None:
    one, state = chosen(data, world.those("unknown")), world.state()
    if (one.client, one.seq) not in world.happened:
        state = with_piece(state, one, what)
        if is_missing_row(one, what):
            assert broken(world, state) == {LOST}
            return
    elif what == "row":
        state = replace(state, operations=without(state.operations, is_row_of(one)))
    elif what == "change":
        state = replace(state, operation_changes=without(state.operation_changes, is_row_of(one)))
    elif what == "write change":
        state = replace(state, write_changes=without(state.write_changes, is_change_of(one)))
    else:
        before = [earlier for earlier in world.operations if earlier.key == one.key][:-1]
        rows = without(state.writes, lambda row: row.key == one.key)
        state = replace(state, writes=(*rows, *(WriteRow(one.key, one.client, last.value) for last in before[-1:])))
    assert broken(world, state) == {HALF}


def with_piece(state: FinalState, one: Operation, what: str) -> FinalState:
    """Return a state in which one piece of an operation is there that did not happen."""
    if what == "row":
        return replace(state, operations=(*state.operations, OperationRow(one.client, one.seq)))
    if what == "change":
        change = OperationChange("insert", one.client, one.seq, one.actor, 1000)
        return replace(state, operation_changes=(*state.operation_changes, change))
    if what == "write change":
        write = WriteChange(one.operation, one.key, one.value, one.actor, 1000)
        return replace(state, write_changes=(*state.write_changes, write))
    rows = without(state.writes, lambda row: row.key == one.key)
    return replace(
        state, writes=rows if one.operation == "delete" else (*rows, WriteRow(one.key, one.client, one.value))
    )


@given(worlds(), st.data(), st.sampled_from(["operation_changes", "write_changes"]))
def test_an_actor_that_is_not_the_writers_is_anothers(world: World, data: st.DataObject, where: str) -> None:
    """It is judged of unknown writes that are there, too."""
    state = world.state()
    items = list(getattr(state, where))
    assume(items)
    at = data.draw(st.integers(0, len(items) - 1))
    items[at] = replace(items[at], actor=data.draw(st.sampled_from(["user:writer-9", "none"])))
    assert broken(world, replace(state, **{where: tuple(items)})) == {MISATTRIBUTED}


@given(worlds(), st.data(), st.booleans())
def test_a_transaction_holds_one_operation(world: World, data: st.DataObject, splits: bool) -> None:
    state = world.state()
    changes = list(state.write_changes)
    assume(len(changes) > (0 if splits else 1))
    at = data.draw(st.integers(0, len(changes) - 1))
    if splits:
        changes[at] = replace(changes[at], transaction=1000)
        assert broken(world, replace(state, write_changes=tuple(changes))) == {MIXED}
        return
    merged, into = changes[at].transaction, changes[at - 1].transaction
    state = replace(
        state,
        write_changes=tuple(replace(one, transaction=into) if one.transaction == merged else one for one in changes),
        operation_changes=tuple(
            replace(one, transaction=into) if one.transaction == merged else one for one in state.operation_changes
        ),
    )
    assert broken(world, state) == {MIXED}


@given(
    worlds(), st.sampled_from(["writes", "operations", "operation_changes", "write_changes", "deletion", "truncate"])
)
def test_what_nobody_wrote_is_foreign(world: World, what: str) -> None:
    state = world.state()
    more: dict[str, tuple[str, Any]] = {
        "writes": ("writes", WriteRow("c1-x", 1, "v1-x")),
        "operations": ("operations", OperationRow(1, 900)),
        "operation_changes": ("operation_changes", OperationChange("insert", 7, 1, "user:writer-1", 1000)),
        "write_changes": ("write_changes", WriteChange("update", "c1-1", "v1-x", "user:writer-1", 1000)),
        "deletion": ("write_changes", WriteChange("delete", "c1-x", "", "user:writer-1", 1000)),
        "truncate": ("write_changes", WriteChange("truncate", "", "", "user:writer-1", 1000)),
    }
    where, extra = more[what]
    assert broken(world, replace(state, **{where: (*getattr(state, where), extra)})) == {FOREIGN}


@given(worlds())
def test_a_panic_is_an_issue_and_an_unreadable_log_is_not_judged(world: World) -> None:
    line = "PANIC:  could not write to log file"
    assert broken(world, replace(world.state(), panics=(line,))) == {PANIC}
    names = [expectation.name for expectation in judge(world.history, replace(world.state(), panics=None))]
    assert PANIC not in names


@given(worlds())
def test_a_trail_that_records_no_actors_is_not_judged_by_them(world: World) -> None:
    state = world.state()
    state = replace(
        state,
        write_changes=tuple(replace(change, actor="none") for change in state.write_changes),
        operation_changes=tuple(replace(change, actor="none") for change in state.operation_changes),
    )
    names = [expectation.name for expectation in judge(world.history, replace(state, names_actors=False))]
    assert names == [name for name in EXPECTATIONS if name != MISATTRIBUTED]
    # one that records them, and has none here, has lost them
    assert broken(world, state) == ({MISATTRIBUTED} if state.operation_changes else set())


def test_a_trail_that_names_no_transactions_is_not_judged_by_them() -> None:
    world = World(operations=[operation(1), operation(2)], happened={(1, 1), (1, 2)})
    state = world.state()
    state = replace(
        state,
        write_changes=tuple(replace(change, transaction=0) for change in state.write_changes),
        operation_changes=tuple(replace(change, transaction=0) for change in state.operation_changes),
    )
    found = judge(world.history, state)
    assert MIXED not in [expectation.name for expectation in found]
    assert not any(expectation.broken for expectation in found)


@given(worlds(), st.booleans())
def test_a_stored_history_is_judged_as_it_was_in_memory(world: World, loses: bool) -> None:
    state = world.state()
    if loses:
        state = replace(state, operations=state.operations[1:])
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "made-up.jsonl", OPENING, lambda text: text)
        for one in world.operations:
            journal.invoke(one.client, one.seq, one.operation, key=one.key, value=one.value, actor=one.actor)
            if one.answered_s is not None:
                journal.answer(one.client, one.seq, one.outcome)
        journal.keep_state(state)
        journal.close()
        stored, kept = read_history(journal.path), read_state(journal.path, FinalState)
    assert kept == state
    assert judge(stored, kept) == judge(world.history, state)


def test_a_secret_that_is_spelled_like_an_actor_names_no_other_actor(tmp_path: Path) -> None:
    """The password is "writer": it is masked in the history and in the state."""
    world = World(operations=[operation(1)], happened={(1, 1)})
    journal = Journal(tmp_path / "made-up.jsonl", OPENING, lambda text: text.replace("writer", "***"))
    for one in world.operations:
        journal.invoke(one.client, one.seq, one.operation, key=one.key, value=one.value, actor=one.actor)
        journal.answer(one.client, one.seq, one.outcome)
    journal.keep_state(world.state())
    journal.close()
    stored, kept = read_history(journal.path), read_state(journal.path, FinalState)
    assert stored.operations[0].actor == "user:***-1"
    assert not any(expectation.broken for expectation in judge(stored, kept))


def operation(seq: int, **changes: Any) -> Operation:
    one = Operation(
        client=1,
        seq=seq,
        operation="insert",
        key=f"c1-{seq}",
        value=f"v1-{seq}",
        actor="user:writer-1",
        invoked_s=float(seq),
        answered_s=seq + 0.5,
        outcome="ok",
    )
    return replace(one, **changes)


@each_row(
    ("second", "problem"),
    [
        ({"key": "c1-1"}, "insert as the next operation on c1-1"),
        ({"operation": "update", "key": "c1-9"}, "update as the first operation on c1-9"),
        ({"value": "v1-1"}, "the value 'v1-1' is written a second time"),
        ({"operation": "update", "key": "c1-1", "client": 2}, "the key c1-1 belongs to client 1"),
        ({"operation": "upsert"}, "unknown operation 'upsert'"),
        ({"operation": "update", "key": "c1-1", "value": "v1-2", "client": 2}, "belongs to client 1"),
        ({"operation": "delete", "key": "c1-1"}, "delete with the value 'v1-2'"),
        ({"value": ""}, "insert with the value ''"),
    ],
)
def test_a_history_that_contradicts_itself_is_refused(second: dict[str, Any], problem: str) -> None:
    history = History(opening=OPENING, operations=(operation(1), operation(2, **second)))
    with pytest.raises(StoreError, match=problem):
        judge(history, World(operations=[], happened=set()).state())


@pytest.mark.parametrize("outcome", ["fail", "unknown"])
def test_a_key_is_not_touched_after_an_operation_without_acknowledgement(outcome: Outcome) -> None:
    first = operation(1, outcome=outcome)
    history = History(opening=OPENING, operations=(first, operation(2, operation="update", key="c1-1")))
    with pytest.raises(StoreError, match=f"touched after the insert 1, which ended {outcome}"):
        judge(history, World(operations=[], happened=set()).state())


def test_a_key_is_not_touched_after_its_deletion() -> None:
    deletion = operation(2, operation="delete", key="c1-1", value="")
    history = History(
        opening=OPENING, operations=(operation(1), deletion, operation(3, operation="update", key="c1-1"))
    )
    with pytest.raises(StoreError, match="the key c1-1 is touched after the delete 2, which ended ok"):
        judge(history, World(operations=[], happened=set()).state())


def test_only_the_first_offenders_are_named() -> None:
    world = World(operations=[operation(seq) for seq in range(1, 10)], happened=set())
    lost = judge(world.history, world.state())[0]
    assert lost.observed == "9: " + "; ".join(f"client 1, {seq}" for seq in range(1, 7)) + "; …"


def test_recovery_is_measured_from_the_healing_to_the_first_new_success_of_each_client() -> None:
    fault = Fault(number=1, name="made-up", inject_s=1.0, injected_s=1.1, heal_s=2.0, healed_s=2.5)
    operations = (
        operation(1, invoked_s=1.2, answered_s=2.6),  # it began before the healing
        operation(2, invoked_s=2.7, answered_s=2.75),
        operation(1, client=2, invoked_s=2.6, answered_s=3.0, outcome="fail"),
        operation(2, client=2, invoked_s=3.5, answered_s=4.0),
        operation(3, invoked_s=5.2, answered_s=5.5),
    )
    second = replace(fault, number=2, inject_s=5.0, healed_s=5.1)
    never = replace(fault, number=3, inject_s=6.0, healed_s=None)
    history = History(opening=OPENING, operations=operations, faults=(fault, second, never))
    assert recoveries(history) == {
        1: Recovery(first_s=0.25, median_s=0.875, last_s=1.5),
        2: Recovery(first_s=0.4, median_s=0.4, last_s=0.4),
    }


def test_a_history_without_a_fault_has_no_recovery() -> None:
    assert recoveries(History(opening=OPENING, operations=(operation(1),))) == {}
