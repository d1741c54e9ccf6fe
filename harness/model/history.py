"""Histories: the journal of operations that a check performed under load or faults, and what follows from it.

A history is a file of JSON lines, appended as it happens: `histories/<topology>/<check>.jsonl` in the run folder. Its
first line is the opening, and its last one the closing. Each operation has a line before it is sent, and one after its
end; the steps of a fault, and samples of a load, are between them. Seconds count from the opening.

An operation without an answer is unknown: it may have happened or not. An unknown operation is neither lost nor failed.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

HISTORY_VERSION = 1

#: `ok`: acknowledged. `fail`: it certainly did not happen. `unknown`: it may have happened
Outcome = Literal["ok", "fail", "unknown"]
#: the harness begins to inject; it has; it begins to heal; it has; every client has succeeded again
Step = Literal["inject", "injected", "heal", "healed", "recovered"]


class Opening(Struct, frozen=True, kw_only=True, tag="opening", tag_field="record"):
    """The first line of a history."""

    topology: str
    check: str
    #: the name of the judge that decides about it
    judge: str
    #: UTC; seconds of all other records count from it
    started_at: str
    version: int = HISTORY_VERSION
    #: the control that the check ran under; "" for none
    control: str = ""
    #: the number of the attempt, from 1, of a row that is tried several times
    attempt: int = 1
    #: what a reader has to know about the load, such as the number of clients
    facts: dict[str, str] = {}


class Invoked(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="invoke", tag_field="record"):
    """An operation that is about to be sent."""

    seconds: float
    client: int
    #: the number of the operation, unique for its client, from 1 on
    seq: int
    #: what it does, such as `insert`
    operation: str
    #: what it does it to
    key: str = ""
    #: the value that it writes, unique in the history; "" for a deletion
    value: str = ""
    actor: str = ""


class Answered(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="answer", tag_field="record"):
    """The end of an operation."""

    seconds: float
    client: int
    seq: int
    outcome: Outcome
    #: the SQLSTATE and the message of the error; "" for an acknowledgement
    error: str = ""


class FaultStep(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="fault", tag_field="record"):
    """One step of a fault. A healed fault is recovered once every client has succeeded again."""

    seconds: float
    #: from 1 on in each history
    number: int
    #: its name, such as `server-killed`
    fault: str
    step: Step
    detail: str = ""


class Sample(Struct, frozen=True, kw_only=True, tag="sample", tag_field="record"):
    """What was measured in one interval of a load, by name, such as `transactions per second`."""

    seconds: float
    values: dict[str, float]


class Closing(Struct, frozen=True, kw_only=True, tag="closing", tag_field="record"):
    """The last line of a history: without it, the end is missing, and nobody knows what it held."""

    seconds: float
    #: the number of records before it
    records: int


Record = Opening | Invoked | Answered | FaultStep | Sample | Closing


class Operation(Struct, frozen=True, kw_only=True):
    """One operation with its answer."""

    client: int
    seq: int
    operation: str
    key: str
    value: str
    actor: str
    invoked_s: float
    outcome: Outcome
    #: None when no answer was recorded; the outcome is then `unknown`
    answered_s: float | None = None
    error: str = ""


class Fault(Struct, frozen=True, kw_only=True):
    """One fault; a step that did not happen is None."""

    number: int
    name: str
    inject_s: float
    injected_s: float | None = None
    heal_s: float | None = None
    healed_s: float | None = None
    #: every client has succeeded again
    recovered_s: float | None = None
    detail: str = ""


class History(Struct, frozen=True, kw_only=True):
    """A history as it is read back from disk."""

    opening: Opening
    #: in the order in which they were invoked
    operations: tuple[Operation, ...] = ()
    faults: tuple[Fault, ...] = ()
    samples: tuple[Sample, ...] = ()
    #: whether the last line is incomplete, as a killed process leaves it
    torn: bool = False
    #: whether its closing is there: a judge may decide about it only then
    complete: bool = False
