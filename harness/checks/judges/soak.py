"""The judge of a load: every row that it wrote, by what SQL found in table and trail at its end.

A load of hours writes millions of rows, and each acknowledged one has no record of its own in the history. The history
holds the samples, and the operations that failed or are unknown. The final state holds the result of the comparison
of all acknowledged writes with the table and the trail, which the server makes.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.judges import Judge, compared
from harness.errors import StoreError

if TYPE_CHECKING:
    from harness.model import Expectation
    from harness.model.history import History

NONE = "none"

MISSING_ROWS = "acknowledged writes missing in the table"
MISSING_CHANGES = "acknowledged writes missing in the trail"
REPEATED_ROWS = "writes that are in the table twice"
REPEATED_CHANGES = "writes that are in the trail twice"
FAILED_ROWS = "failed writes that are there"
STRAYS = "rows or changes that nobody wrote"
DISAGREEING = "unknown writes on which table and trail disagree"
IMAGES = "changes that differ from their row"
ACTORS = "changes with another actor"
ORDER = "changes of a client out of order"
SHARED = "changes of several writes in one transaction"
BLOCKED = "writes that never end, because another session holds a lock"
SESSIONS = "sessions and locks that are left"
PREPARED = "prepared transactions that are left"
IDLE = "idle clients that no longer work"
UNPLANNED = "errors that were not planned"

#: what SQL looks for, in the order of the evidence
FINDINGS = (
    MISSING_ROWS,
    MISSING_CHANGES,
    REPEATED_ROWS,
    REPEATED_CHANGES,
    FAILED_ROWS,
    STRAYS,
    DISAGREEING,
    IMAGES,
    ACTORS,
    ORDER,
    SHARED,
    BLOCKED,
    SESSIONS,
    PREPARED,
    IDLE,
)
#: what a load or a trail may lack: idle clients, a transaction's identity, actors, or an order
OPTIONAL = frozenset({SHARED, IDLE, ACTORS, ORDER})

#: operations that have to fail, with the SQLSTATE that they have to fail with
PLANNED = {
    "conflict": "40001",
    "lock": "55P03",
    "cancellation": "57014",
    "violation": "23514",
    "interrupted": "",
}
#: the same request once more: it changes nothing, and nothing is wrong
REPLAY = "replay"


class Found(Struct, frozen=True, kw_only=True):
    """The findings of one kind."""

    count: int = 0
    #: the first few, such as `client 3, write 17`
    first: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.count}: {'; '.join(self.first)}" if self.count else NONE


class SoakState(Struct, frozen=True, kw_only=True):
    """The final state of a load."""

    #: operations that write a row, by outcome
    acknowledged: int
    failed: int
    unknown: int
    #: what was wrong, by the names of `FINDINGS`; a name of `OPTIONAL` may be missing
    found: dict[str, Found]


def judge(history: History, state: SoakState) -> tuple[Expectation, ...]:
    """Compare what was found with nothing at all: a sound trail loses, repeats and mixes up none of the writes.

    :raises StoreError: when the history and the final state contradict each other.
    """
    if unnamed := [name for name in FINDINGS if name not in state.found and name not in OPTIONAL]:
        raise StoreError(f"the final state of the load does not say: {', '.join(unnamed)}")
    unknown = sum(operation.outcome == "unknown" for operation in history.operations)
    if unknown > state.unknown:
        raise StoreError(f"the history has {unknown} unknown operations, and the final state {state.unknown}")
    expectations = [compared(name, str(state.found[name]), NONE) for name in FINDINGS if name in state.found]
    return (*expectations, compared(UNPLANNED, _unplanned(history), NONE))


def _unplanned(history: History) -> str:
    """Return the errors that no operation planned, with counts: the most frequent first."""
    seen = Counter(
        f"{operation.operation}: {operation.error}"
        for operation in history.operations
        if operation.error and not _is_planned(operation.operation, operation.error)
    )
    return "; ".join(f"{count} x {error}" for error, count in seen.most_common(5)) or NONE


def _is_planned(operation: str, error: str) -> bool:
    return operation in PLANNED and error.startswith(PLANNED[operation])


def compares(history: History, state: SoakState) -> str:
    """Return how many writes the server compared, and whether the errors of the load were planned."""
    planned = "not all of them planned" if _unplanned(history) != NONE else "all errors planned"
    return (
        f"{state.acknowledged} acknowledged writes compared with table and trail by SQL; {state.failed} failed, "
        f"{state.unknown} unknown, {planned}"
    )


SOAK_JUDGE = Judge(name="soak", state=SoakState, judge=judge, compares=compares)
