"""Evidence in any amount: copies of a real run's folder, written by the store itself under other names.

Nothing in it is made up: each row, record and log is one that a run wrote, so the sizes are those of real evidence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.store import RunStore, StoredRun

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.model import Result, RunRecord


def copy_runs(run: StoredRun, reports: Path, copies: int) -> None:
    """Write copies that differ in the run's id only: the same topologies, verified again and again."""
    for number in range(copies):
        _write(run, reports, run_id=_numbered(run, number), named=str)


def copy_topologies(run: StoredRun, reports: Path, topologies: int) -> None:
    """Write a run folder for each of so many topologies, as the jobs of a CI matrix leave them.

    The topologies of the run are taken in turn; beyond their number they get names of their own.
    """
    known = list(run.record.topologies)
    for number in range(topologies):
        original = known[number % len(known)]
        name = original if number < len(known) else f"{original}-{number // len(known) + 1}"
        _write(_only(run, original), reports, run_id=_numbered(run, number), named=_renaming(original, name))


def _numbered(run: StoredRun, number: int) -> str:
    return f"{run.record.run_id.partition('-')[0]}-{number:08x}"


def _renaming(original: str, name: str) -> Callable[[str], str]:
    """Return how a topology's name becomes another, also where it is a part of a command."""

    def rename(text: str) -> str:
        return name if text == original else text.replace(f" {original} ", f" {name} ")

    return rename


def _only(run: StoredRun, topology: str) -> StoredRun:
    record = replace(
        run.record,
        plan=tuple(row for row in run.record.plan if row.target == topology),
        topologies={topology: run.record.topologies[topology]},
    )
    return replace(
        run,
        record=record,
        results=tuple(row for row in run.results if row.target == topology),
        proofs=tuple(row for row in run.proofs if row.topology == topology),
        trail_proofs=tuple(row for row in run.trail_proofs if row.topology == topology),
    )


def _write(run: StoredRun, reports: Path, *, run_id: str, named: Callable[[str], str]) -> None:
    record = run.record
    store = RunStore(reports, _renamed(record, named, run_id), _as_it_is)
    try:
        for result in run.results:
            store.append(_row(result, named))
        for proof in run.proofs:
            store.append_proof(replace(proof, topology=named(proof.topology)))
        for broken in run.trail_proofs:
            store.append_trail_proof(replace(broken, topology=named(broken.topology)))
    finally:
        store.close()


def _renamed(record: RunRecord, named: Callable[[str], str], run_id: str) -> RunRecord:
    return replace(
        record,
        run_id=run_id,
        plan=tuple(replace(row, target=named(row.target), reproduce=named(row.reproduce)) for row in record.plan),
        topologies={
            named(name): replace(stood, declared=replace(stood.declared, name=named(name)))
            for name, stood in record.topologies.items()
        },
    )


def _row(result: Result, named: Callable[[str], str]) -> Result:
    return replace(result, target=named(result.target), reproduce=named(result.reproduce))


def _as_it_is(text: str) -> str:
    """Redact nothing: what is copied was redacted when it was written."""
    return text
