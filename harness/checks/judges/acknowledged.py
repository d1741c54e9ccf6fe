"""The judge of acknowledged writes: every one is there exactly once, in its table and in the trail, with its actor.

An operation is one audited transaction of one client. It writes the table `writes` by an insert, an update or a delete,
and it inserts its client and number into the table `operations`, which has no unique constraint over them, so that a
repeated operation is seen. Both tables are captured.

The judge identifies an operation by what only it writes: an insert or update by its value, a delete by its key. A key
belongs to one client. Its first operation is its only insert, a delete is its last one, and after an operation that was
not acknowledged the key is not touched again: otherwise nobody could say which row has to be there.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.judges import Judge, compared
from harness.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.model import Expectation
    from harness.model.history import History, Operation

#: the names of the expectations; controls name them, and stored runs hold them
LOST = "acknowledged writes missing in the table"
UNRECORDED = "acknowledged writes missing in the trail"
REPEATED = "writes in the table or the trail more than once"
FAILED = "failed writes that are there"
HALF = "unknown writes on which table and trail disagree"
MISATTRIBUTED = "changes with the actor of another"
MIXED = "transactions that are not those of one operation"
FOREIGN = "rows and changes that nobody wrote"
PANIC = "PANIC lines in the log of the server"

_NONE = "none"
_KINDS = ("insert", "update", "delete")
#: after these the row of a key is certainly there
_LEAVE_A_ROW = {("ok", "insert"), ("ok", "update")}
#: how many offenders an expectation names
_FIRST = 6

Id = tuple[int, int]


class WriteRow(Struct, frozen=True, array_like=True):
    """A row of the table `writes`."""

    key: str
    client: int
    value: str


class OperationRow(Struct, frozen=True, array_like=True):
    """A row of the table `operations`."""

    client: int
    seq: int


class WriteChange(Struct, frozen=True, array_like=True):
    """A change of the table `writes`, as the trail has it."""

    operation: str
    key: str
    #: of the row after the change; "" for a deletion
    value: str
    actor: str
    #: transactions are numbered in the order of the trail, from 1 on; 0 where the trail names none
    transaction: int


class OperationChange(Struct, frozen=True, array_like=True):
    """A change of the table `operations`, as the trail has it."""

    operation: str
    client: int
    seq: int
    actor: str
    transaction: int


class FinalState(Struct, frozen=True, kw_only=True):
    """What is there after the last operation, once no transaction of the writers is open."""

    writes: tuple[WriteRow, ...]
    operations: tuple[OperationRow, ...]
    write_changes: tuple[WriteChange, ...]
    operation_changes: tuple[OperationChange, ...]
    #: lines of the server's log since the check began; None when its log could not be read
    panics: tuple[str, ...] | None
    #: whether the trail records actors
    names_actors: bool = True


class Tally(Struct, frozen=True, kw_only=True):
    """How many operations ended how."""

    ok: int
    failed: int
    unknown: int
    #: of the unknown ones: those that happened
    unknown_there: int


class _Found(Struct, kw_only=True, gc=False):
    """What is there of one operation."""

    rows: int = 0
    changes: int = 0
    write_changes: int = 0
    #: of all its changes; -1 before the first one
    transaction: int = -1
    #: whether its effect on `writes` is there; None when a later operation replaced it
    effect: bool | None = None

    @property
    def anything(self) -> bool:
        return bool(self.rows or self.changes or self.write_changes or self.effect)

    @property
    def everything(self) -> bool:
        return bool(self.rows and self.changes and self.write_changes and self.effect is not False)


class _Judgement:
    """Compares a history with a final state. Each broken rule collects its offenders."""

    def __init__(self, history: History, state: FinalState) -> None:
        self.operations: dict[Id, Operation] = {(one.client, one.seq): one for one in history.operations}
        self.found: dict[Id, _Found] = {at: _Found() for at in self.operations}
        self.offenders: dict[str, set[Id]] = defaultdict(set)
        self.foreign: list[str] = []
        self._keys = _by_key(history.operations)
        self._by_value = {one.value: one for one in history.operations if one.operation != "delete"}
        self._deletes = {one.key: one for one in history.operations if one.operation == "delete"}
        self._read_changes(state)
        self._read_rows(state)
        self._judge_outcomes()

    def _read_rows(self, state: FinalState) -> None:
        for row in state.operations:
            if found := self.found.get((row.client, row.seq)):
                found.rows += 1
            else:
                self.foreign.append(f"row of operations: client {row.client}, {row.seq}")
        rows: dict[str, list[WriteRow]] = defaultdict(list)
        for write in state.writes:
            writer = self._by_value.get(write.value)
            if writer is None or (writer.key, writer.client) != (write.key, write.client):
                self.foreign.append(f"row of writes: {write.key} = {write.value}")
            rows[write.key].append(write)
        for key, operations in self._keys.items():
            self._judge_key(operations, rows.get(key, []))

    def _judge_key(self, operations: list[Operation], rows: list[WriteRow]) -> None:
        """Compare the rows of a key with its last operation, and with the last acknowledged one."""
        last = operations[-1]
        value = rows[0].value if rows else ""
        if len(rows) > 1:
            self.offenders[REPEATED].add(_id(last))
        there = value == last.value
        before = operations[-2] if len(operations) > 1 else None
        found = self.found[_id(last)]
        if last.outcome == "ok":
            if not there:
                self.offenders[LOST].add(_id(last))
        elif before and value != before.value and not (there and (value or found.anything)):
            # a missing row without any other sign of its deletion is a lost one
            self.offenders[LOST].add(_id(before))
            there = False
        found.effect = there

    def _read_changes(self, state: FinalState) -> None:
        owners: dict[int, Id] = {}

        def attribute(found: _Found, one: Operation, actor: str, transaction: int) -> None:
            at = _id(one)
            if actor != one.actor:
                self.offenders[MISATTRIBUTED].add(at)
            if found.transaction == -1:
                found.transaction = transaction
            owner = owners.setdefault(transaction, at)
            if found.transaction != transaction or owner != at:
                self.offenders[MIXED] |= {at, owner}

        for change in state.operation_changes:
            at = (change.client, change.seq)
            if (found := self.found.get(at)) and change.operation == "insert":
                found.changes += 1
                attribute(found, self.operations[at], change.actor, change.transaction)
            else:
                self.foreign.append(f"change of operations: {change.operation} of client {change.client}, {change.seq}")
        for write in state.write_changes:
            deletes = write.operation == "delete"
            writer = self._deletes.get(write.key) if deletes else self._by_value.get(write.value)
            if writer and (writer.operation, writer.key) == (write.operation, write.key):
                found = self.found[_id(writer)]
                found.write_changes += 1
                attribute(found, writer, write.actor, write.transaction)
            else:
                self.foreign.append(f"change of writes: {write.operation} of {write.key} = {write.value}")

    def _judge_outcomes(self) -> None:
        for at, one in self.operations.items():
            found = self.found[at]
            if one.outcome == "ok":
                if not found.rows:
                    self.offenders[LOST].add(at)
                if not found.changes or not found.write_changes:
                    self.offenders[UNRECORDED].add(at)
            elif one.outcome == "fail":
                if found.anything:
                    self.offenders[FAILED].add(at)
            elif found.anything and not found.everything:
                self.offenders[HALF].add(at)
            if max(found.rows, found.changes, found.write_changes) > 1:
                self.offenders[REPEATED].add(at)


def judge(history: History, state: FinalState) -> tuple[Expectation, ...]:
    """Compare a history of acknowledged writes with the final state. The cost is linear.

    :raises StoreError: for a history whose writers did not keep the rules of keys and values.
    """
    judgement = _Judgement(history, state)
    transactions = {
        change.transaction for changes in (state.operation_changes, state.write_changes) for change in changes
    }
    left_out = {MISATTRIBUTED: not state.names_actors, MIXED: transactions == {0}}
    rules = [
        name for name in (LOST, UNRECORDED, REPEATED, FAILED, HALF, MISATTRIBUTED, MIXED) if not left_out.get(name)
    ]
    expectations = [
        compared(name, _listed(f"client {client}, {seq}" for client, seq in sorted(judgement.offenders[name])), _NONE)
        for name in rules
    ]
    expectations.append(compared(FOREIGN, _listed(judgement.foreign), _NONE))
    if state.panics is not None:
        expectations.append(compared(PANIC, _listed(state.panics), _NONE))
    return tuple(expectations)


ACKNOWLEDGED = Judge(name="acknowledged-writes", state=FinalState, judge=judge)


def tally(history: History, state: FinalState) -> Tally:
    """Count the operations of a history by their outcomes, and by what is there of them.

    :raises StoreError: as :func:`judge` does.
    """
    judgement = _Judgement(history, state)
    outcomes = [one.outcome for one in history.operations]
    return Tally(
        ok=outcomes.count("ok"),
        failed=outcomes.count("fail"),
        unknown=outcomes.count("unknown"),
        unknown_there=sum(
            one.outcome == "unknown" and judgement.found[at].anything for at, one in judgement.operations.items()
        ),
    )


def _by_key(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """Return the operations on each key in their order, once they keep the rules.

    :raises StoreError: for one that does not.
    """
    keys: dict[str, list[Operation]] = {}
    values: set[str] = set()
    for one in operations:
        before = keys.setdefault(one.key, [])
        if problem := _problem(one, before[-1] if before else None, values):
            raise StoreError(f"the history contradicts itself: client {one.client}, {one.seq}: {problem}")
        if one.value:
            values.add(one.value)
        before.append(one)
    return keys


def _problem(one: Operation, before: Operation | None, values: set[str]) -> str:
    problem = ""
    if one.operation not in _KINDS:
        problem = f"unknown operation {one.operation!r}, expected {', '.join(_KINDS)}"
    elif (one.operation == "delete") is bool(one.value):
        problem = f"{one.operation} with the value {one.value!r}"
    elif one.value in values:
        problem = f"the value {one.value!r} is written a second time"
    elif (one.operation == "insert") is not (before is None):
        problem = f"{one.operation} as the {'next' if before else 'first'} operation on {one.key}"
    elif before and before.client != one.client:
        problem = f"the key {one.key} belongs to client {before.client}"
    elif before and (before.outcome, before.operation) not in _LEAVE_A_ROW:
        problem = (
            f"the key {one.key} is touched after the {before.operation} {before.seq}, which ended {before.outcome}"
        )
    return problem


def _id(one: Operation) -> Id:
    return one.client, one.seq


def _listed(offenders: Iterable[str]) -> str:
    """Return how many there are, and the first few."""
    found = list(offenders)
    if not found:
        return _NONE
    more = "; …" if len(found) > _FIRST else ""
    return f"{len(found)}: {'; '.join(found[:_FIRST])}{more}"
