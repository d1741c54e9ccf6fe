"""Any amount of evidence: copies of a real run's folder, written by the run store under other names.

Nothing is made up: a run wrote every row, record and log, so the sizes are those of real evidence.
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
    """Write copies that differ only in the run id, as if the same topologies were verified repeatedly."""
    for number in range(copies):
        _write(run, reports, run_id=_numbered(run, number), rename=str)


def copy_topologies(run: StoredRun, reports: Path, topologies: int) -> None:
    """Write one run folder per topology, as the jobs of a CI matrix do.

    :param topologies: number of folders. The topologies of the run are reused in turn, under new names.
    """
    known = list(run.record.topologies)
    for number in range(topologies):
        original = known[number % len(known)]
        name = original if number < len(known) else f"{original}-{number // len(known) + 1}"
        _write(_only(run, original), reports, run_id=_numbered(run, number), rename=_renaming(original, name))


def _numbered(run: StoredRun, number: int) -> str:
    return f"{run.record.run_id.partition('-')[0]}-{number:08x}"


def _renaming(original: str, name: str) -> Callable[[str], str]:
    """Return a function that replaces a topology's name, alone or as a word of a command."""

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


def _write(run: StoredRun, reports: Path, *, run_id: str, rename: Callable[[str], str]) -> None:
    record = run.record
    store = RunStore(reports, _renamed(record, rename, run_id), _unredacted)
    try:
        for result in run.results:
            store.append(_row(result, rename))
        for proof in run.proofs:
            store.append_proof(replace(proof, topology=rename(proof.topology)))
        for trail_proof in run.trail_proofs:
            store.append_trail_proof(replace(trail_proof, topology=rename(trail_proof.topology)))
    finally:
        store.close()


def _renamed(record: RunRecord, rename: Callable[[str], str], run_id: str) -> RunRecord:
    return replace(
        record,
        run_id=run_id,
        plan=tuple(replace(row, target=rename(row.target), reproduce=rename(row.reproduce)) for row in record.plan),
        topologies={
            rename(name): replace(evidence, declared=replace(evidence.declared, name=rename(name)))
            for name, evidence in record.topologies.items()
        },
    )


def _row(result: Result, rename: Callable[[str], str]) -> Result:
    return replace(result, target=rename(result.target), reproduce=rename(result.reproduce))


def _unredacted(text: str) -> str:
    """Redact nothing: the run redacted the original when it wrote it."""
    return text
