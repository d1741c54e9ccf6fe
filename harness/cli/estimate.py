"""How much of a run is left: by when the same rows ended in earlier runs, else by the share that is done."""

from __future__ import annotations

from datetime import datetime
from math import ceil
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from harness.errors import StoreError
from harness.store import run_folders_in
from harness.store.chain import PROOFS, RECORD, RESULTS
from harness.store.files import regular_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from harness.model import PlannedCheck

#: the newest runs that are read
_MOST_RUNS = 6
_LARGEST_FILE = 64 << 20
#: a row that ended later has a damaged time
_LONGEST_S = 7 * 86_400
#: how much slower or faster than earlier runs a run may be taken to be
_FASTEST, _SLOWEST = 0.25, 4.0
#: without earlier runs, an estimate needs this share of the rows, and this time
_LEAST_SHARE, _LEAST_S = 0.05, 5.0
_MINUTE_S = 60
_HOUR_S = 3600


class _Record(Struct):
    started_at: str
    state: str


class _Row(Struct):
    topology: str
    check: str
    started_at: str = ""
    duration_ms: float = 0.0
    attempt: int = 1


class _Timed(Struct, frozen=True):
    """A row of an earlier run: its start and its end, in seconds after the start of the run."""

    check: str
    start_s: float
    end_s: float


def earlier_ends(reports: Path, plan: Iterable[PlannedCheck]) -> tuple[float, ...]:
    """Return when the planned rows ended in the newest run that has them, in seconds after its start, ascending.

    A run of more rows took longer than these rows take: its time shrinks to the share of the planned ones. Runs that
    did not finish, and runs of `prove`, are not comparable. A file that cannot be read only costs the estimate.
    """
    wanted: dict[str, set[str]] = {}
    for row in plan:
        wanted.setdefault(row.target, set()).add(row.check)
    ends: list[float] = []
    for folder in run_folders_in(reports)[: -_MOST_RUNS - 1 : -1]:
        if not any(wanted.values()):
            break
        for target, rows in _timed_rows(folder).items():
            found = [row for row in rows if row.check in wanted.get(target, ())]
            ends += _shrunk(found, rows)
            wanted.get(target, set()).difference_update(row.check for row in found)
    return tuple(sorted(ends))


def _timed_rows(folder: Path) -> dict[str, list[_Timed]]:
    """Return the rows of a finished run, by topology."""
    found: dict[str, list[_Timed]] = {}
    try:
        with regular_file(folder / RECORD, _LARGEST_FILE) as file:
            record = msgspec.json.decode(file.read(), type=_Record)
        proofs = folder / PROOFS
        if record.state != "finished" or (proofs.exists() and proofs.stat().st_size):
            return {}
        began = datetime.fromisoformat(record.started_at)
        decoder = msgspec.json.Decoder(_Row)
        with regular_file(folder / RESULTS, _LARGEST_FILE) as file:
            for row in map(decoder.decode, file):
                if row.started_at and row.attempt == 1:
                    start_s = (datetime.fromisoformat(row.started_at) - began).total_seconds()
                    timed = _Timed(row.check, start_s, start_s + row.duration_ms / 1000)
                    if 0 <= timed.start_s <= timed.end_s <= _LONGEST_S:
                        found.setdefault(row.topology, []).append(timed)
    except (OSError, ValueError, TypeError, StoreError, msgspec.MsgspecError):
        return {}
    return found


def _shrunk(rows: Sequence[_Timed], of: Sequence[_Timed]) -> list[float]:
    """Return the ends of some rows of a topology, as if the others had not run."""
    if not rows:
        return []
    ready_s = min(row.start_s for row in of)
    share = _work(rows) / (_work(of) or 1.0)
    return [ready_s + max((row.end_s - ready_s) * share, row.end_s - row.start_s) for row in rows]


def _work(rows: Iterable[_Timed]) -> float:
    return sum(row.end_s - row.start_s for row in rows)


def left_s(earlier: Sequence[float], done: int, planned: int, elapsed_s: float) -> float | None:
    """Return about how many seconds are left; None without a base for an estimate.

    :param earlier: from :func:`earlier_ends`.
    :param done: the rows with a result, of `planned`.
    :param elapsed_s: since the start of the run.
    """
    share = done / planned if planned else 1.0
    if not earlier:
        enough = share >= _LEAST_SHARE and elapsed_s >= _LEAST_S
        return elapsed_s * (1 - share) / share if enough else None
    if not done:  # the servers start
        return earlier[-1] - min(elapsed_s, earlier[0])
    reached = earlier[ceil(min(share, 1.0) * len(earlier)) - 1]
    pace = min(max(elapsed_s / reached, _FASTEST), _SLOWEST) if reached > 0 else 1.0
    # the first rows say little about the pace of the others
    return (earlier[-1] - reached) * (1 + (pace - 1) * min(share, 1.0))


def clock(seconds: float) -> str:
    """Return a duration as `0:07`, `12:30` or `1:02:03`."""
    minutes, second = divmod(int(seconds), _MINUTE_S)
    hours, minute = divmod(minutes, _MINUTE_S)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def about(seconds: float) -> str:
    """Return an estimate in round numbers, such as `about 40 s` and `about 3 min`."""
    if seconds < _MINUTE_S:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    if seconds < _HOUR_S:
        return f"about {round(seconds / _MINUTE_S)} min"
    return f"about {seconds / _HOUR_S:.1f} h"
