"""When the rows of a plan ended in earlier runs, for the estimate of how much is left."""

from __future__ import annotations

from datetime import datetime
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


class _Record(Struct):
    started_at: str
    state: str


class _Row(Struct):
    topology: str
    check: str
    started_at: str = ""
    duration_ms: float = 0.0
    attempt: int = 1
    reproduce: str = ""


class _Timed(Struct, frozen=True):
    """A row of an earlier run: its start and its end, in seconds after the start of the run."""

    check: str
    options: str
    start_s: float
    end_s: float


def earlier_ends(reports: Path, plan: Iterable[PlannedCheck]) -> tuple[float, ...]:
    """Return when the planned rows ended in the newest run that has them, in seconds after its start, ascending.

    A run of more rows took longer than these rows take: its time shrinks to the share of the planned ones. Rows with
    other options, such as `--for` and `--rounds`, runs that did not finish, and runs of `prove` are not comparable. A
    file that cannot be read only costs the estimate.
    """
    wanted: dict[str, dict[str, str]] = {}
    for row in plan:
        wanted.setdefault(row.target, {})[row.check] = _options(row.check, row.reproduce)
    ends: list[float] = []
    for folder in run_folders_in(reports)[: -_MOST_RUNS - 1 : -1]:
        if not any(wanted.values()):
            break
        for target, rows in _timed_rows(folder).items():
            planned = wanted.get(target, {})
            found = [row for row in rows if planned.get(row.check) == row.options]
            ends += _shrunk(found, rows)
            for timed in found:
                planned.pop(timed.check, None)
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
                    options = _options(row.check, row.reproduce)
                    timed = _Timed(row.check, options, start_s, start_s + row.duration_ms / 1000)
                    if 0 <= timed.start_s <= timed.end_s <= _LONGEST_S:
                        found.setdefault(row.topology, []).append(timed)
    except (OSError, ValueError, TypeError, StoreError, msgspec.MsgspecError):
        return {}
    return found


def _options(check: str, reproduce: str) -> str:
    """Return the options that decide a result, from the command that reproduces it: a session or `verify`."""
    return reproduce.partition(f" --check {check}")[2]


def _shrunk(rows: Sequence[_Timed], of: Sequence[_Timed]) -> list[float]:
    """Return the ends of some rows of a topology, as if the others had not run."""
    if not rows:
        return []
    ready_s = min(row.start_s for row in of)
    share = _work(rows) / (_work(of) or 1.0)
    return [ready_s + max((row.end_s - ready_s) * share, row.end_s - row.start_s) for row in rows]


def _work(rows: Iterable[_Timed]) -> float:
    return sum(row.end_s - row.start_s for row in rows)
