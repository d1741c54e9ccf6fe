"""Made-up histories of writers under faults, and a judge of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from harness.checks.judges import Judge, compared
from harness.model.history import Answered, Closing, FaultStep, History, Invoked, Opening, Record
from harness.store.histories import HISTORIES, history_name, state_path

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from harness.model import Expectation
    from harness.model.history import Outcome, Step

LOST = "acknowledged writes that are missing"


class Present(msgspec.Struct, frozen=True):
    """The final state: the number of each operation that is there, by client."""

    present: tuple[tuple[int, int], ...]


def _judged(history: History, state: Present) -> tuple[Expectation, ...]:
    acknowledged = {(one.client, one.seq) for one in history.operations if one.outcome == "ok"}
    failed = {(one.client, one.seq) for one in history.operations if one.outcome == "fail"}
    present = set(state.present)
    return (
        compared(LOST, sorted(acknowledged - present), []),
        compared("failed writes that are there", sorted(failed & present), []),
    )


JUDGE = Judge(name="made-up", state=Present, judge=_judged)


def operations(
    count: int, *, clients: int = 2, every_s: float = 0.05, outcomes: dict[int, Outcome] | None = None
) -> list[Record]:
    """Return operations of several clients in turn, each acknowledged after 10 ms unless `outcomes` says otherwise.

    :param outcomes: by the number of the operation from 0 on; "unknown" ones have no answer.
    """
    found: list[Record] = []
    for number in range(count):
        client, seq, at = number % clients, number // clients + 1, round(number * every_s, 6)
        outcome: Outcome = (outcomes or {}).get(number, "ok")
        found.append(Invoked(seconds=at, client=client, seq=seq, operation="insert", value=str(number), actor="ada"))
        if outcome != "unknown":
            error = "" if outcome == "ok" else "57P01 terminating connection"
            found.append(Answered(seconds=at + 0.01, client=client, seq=seq, outcome=outcome, error=error))
    return found


def fault(
    number: int, name: str, begin: float, end: float, recovered: float | None = None, *, healed: bool = True
) -> list[Record]:
    """Return the steps of a fault that lasts from `begin` to `end`."""
    steps: list[tuple[float, Step]] = [(begin, "inject"), (begin + 0.01, "injected")]
    if healed:
        steps += [(end - 0.01, "heal"), (end, "healed")]
    if recovered is not None:
        steps.append((recovered, "recovered"))
    return [FaultStep(seconds=at, number=number, fault=name, step=step) for at, step in steps]


def write_history(
    run: Path,
    topology: str,
    check: str,
    records: Iterable[Record],
    state: msgspec.Struct | None = None,
    *,
    control: str = "",
    judge: str = JUDGE.name,
    facts: dict[str, str] | None = None,
    attempt: int = 1,
    number: int = 1,
    complete: bool = True,
) -> Path:
    """Write a history into a run folder, in the order of its seconds."""
    opening = Opening(
        topology=topology,
        check=check,
        judge=judge,
        started_at="2026-01-01T00:00:01.000Z",
        control=control,
        attempt=attempt,
        facts=facts or {},
    )
    name = history_name(check, control=control, attempt=attempt)
    path = run / HISTORIES / topology / f"{name}{f'.{number}' if number > 1 else ''}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = sorted(records, key=lambda record: getattr(record, "seconds", 0.0))
    written: list[Record] = [opening, *ordered]
    if complete:
        written.append(Closing(seconds=getattr(written[-1], "seconds", 0.0), records=len(written)))
    path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in written))
    if state is not None:
        state_path(path).write_bytes(msgspec.json.encode(state))
    return path


def everything(count: int, clients: int = 2) -> Present:
    """Return the state in which all of so many operations are there."""
    return Present(tuple((number % clients, number // clients + 1) for number in range(count)))
