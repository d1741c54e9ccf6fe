"""Reading runs: what the rules refuse is named and left out, and a damaged run never hides the others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from harness.errors import StoreError, UsageError
from harness.model import INTERRUPTED, SCHEMA_VERSION, ObservedProof, Proof, Repetition, Result, RunRecord, TrailProof
from harness.store.attempts import answer, counted
from harness.store.chain import (
    CHAINED_SINCE,
    OBSERVED,
    PROOFS,
    RECORD,
    RESULTS,
    TRAIL,
    Seal,
    canonical,
    digest_of_record,
    digests,
    head_of,
)
from harness.store.files import regular_file
from harness.store.integrity import Integrity, Verdict, more_of
from harness.store.rows import UNDECODABLE, RowReader, short
from harness.store.rules import contradictions_in_record, seconds_of

if TYPE_CHECKING:
    from collections.abc import Iterable

_LARGEST_RECORD = 64 << 20


class StoredRun(Struct, frozen=True):
    """One run, as read from disk, without the rows that were refused."""

    folder: Path
    record: RunRecord
    #: one for each attempt of a planned row
    results: tuple[Result, ...]
    proofs: tuple[Proof, ...]
    trail_proofs: tuple[TrailProof, ...]
    #: the number of incomplete last lines, as a killed run leaves them
    torn: int
    integrity: Integrity = Integrity(verdict=Verdict.WHOLE)
    #: of the mutations of the rows that checks read
    observed_proofs: tuple[ObservedProof, ...] = ()

    def answers(self) -> tuple[Result, ...]:
        """Return one result per planned row, in the order of the plan; a row without a result is Not run."""
        return tuple(result for result, _ in self.tried())

    def tried(self) -> tuple[tuple[Result, Repetition], ...]:
        """Return the result of each planned row, with how many of its attempts had each status."""
        found: dict[tuple[str, str], list[Result]] = {}
        for result in self.results:
            found.setdefault((result.target, result.check), []).append(result)
        reason = {
            "running": "the run has no result of this check (it was killed, or is still running)",
            "interrupted": INTERRUPTED,
            "failed": f"the run failed before this check finished: {self.record.failure}",
            "finished": "the run ended without a result of this check",
        }[self.record.state]
        rows = ((row, found.get((row.target, row.check), ())) for row in self.record.plan)
        return tuple((answer(row, attempts, reason), counted(row, attempts)) for row, attempts in rows)


def read_run(folder: Path) -> StoredRun:
    """Read one run folder.

    :raises StoreError: when it is not a run folder, its record is damaged, or it has a newer schema version.
    """
    record, raw, head = _read_record(folder / RECORD)
    chained = record.schema_version >= CHAINED_SINCE
    breaks: list[str] = []
    seal = Seal()
    if chained:
        seal, sentences = _read_seal(raw)
        breaks += [f"{RECORD}: {sentence}" for sentence in (*sentences, *contradictions_in_record(record))]
    elif "seal" in raw:
        breaks.append(f"{RECORD}: schema version {record.schema_version} has no seal")
    reader = RowReader(folder, record, seal, head if chained else "")
    results = reader.read(RESULTS, Result, lambda row: reader.rules.of_result(row, record))
    proofs = reader.read(PROOFS, Proof, reader.rules.of_proof)
    trail_proofs = reader.read(TRAIL, TrailProof, reader.rules.of_trail_proof)
    observed_proofs = reader.read(OBSERVED, ObservedProof, reader.rules.of_observed_proof)
    breaks += reader.breaks
    if seal.closed:
        breaks += _differences(seal.files, digests(folder))
    verdict = (
        Verdict.EDITED
        if breaks or reader.refused
        else Verdict.NOT_CHAINED
        if not chained
        else Verdict.WHOLE
        if seal.closed
        else Verdict.UNFINISHED
    )
    integrity = Integrity(
        verdict=verdict,
        breaks=tuple(breaks),
        refused=reader.refused,
        refusals=reader.refusals,
    )
    return StoredRun(folder, record, results, proofs, trail_proofs, reader.torn, integrity, observed_proofs)


def read_runs(folders: Iterable[Path]) -> tuple[tuple[StoredRun, ...], tuple[str, ...]]:
    """Read run folders, oldest first; a run that is found twice is read once.

    :param folders: run folders, or folders with run folders at any depth below.
    :return: the runs, and a sentence for each run folder that cannot be read.
    :raises UsageError: for a folder that does not exist.
    :raises StoreError: for a folder without a run folder.
    """
    found: dict[Path, StoredRun] = {}
    damaged: dict[Path, str] = {}
    for folder in folders:
        for run_folder in _run_folders(folder):
            path = run_folder.resolve()
            if path in found or path in damaged:
                continue
            try:
                found[path] = read_run(run_folder)
            except StoreError as error:
                damaged[path] = _unreadable(run_folder, error)
    return _by_age(found.values()), tuple(damaged.values())


def kept_runs(reports: Path, fingerprint: str | None = None) -> tuple[tuple[StoredRun, ...], tuple[str, ...]]:
    """Read the runs of a reports folder.

    :param fingerprint: only runs with this fingerprint; all runs by default.
    :return: the runs, oldest first, and a sentence for each folder that cannot be read.
    """
    runs, damaged = [], []
    for folder in run_folders_in(reports):
        try:
            # rows are read only for matching runs: a folder may hold hundreds of old ones
            if fingerprint is None or _may_have(folder / RECORD, fingerprint):
                runs.append(read_run(folder))
        except StoreError as error:
            damaged.append(_unreadable(folder, error))
    if fingerprint is not None:
        runs = [run for run in runs if run.record.provenance.fingerprint == fingerprint]
    return _by_age(runs), tuple(damaged)


def run_folders_in(reports: Path) -> list[Path]:
    """Return the run folders of a reports folder; one that lost its record is one of them."""
    runs = reports / "runs"
    folders = {path.parent for name in (RECORD, RESULTS) for path in runs.glob(f"*/{name}")}
    return sorted(folder for folder in folders if not folder.is_symlink())


def _by_age(runs: Iterable[StoredRun]) -> tuple[StoredRun, ...]:
    return tuple(sorted(runs, key=lambda run: (run.record.started_at, run.record.run_id)))


def _unreadable(folder: Path, error: StoreError) -> str:
    return f"run {folder.name} cannot be read: {error.what}"


def _run_folders(folder: Path) -> list[Path]:
    try:
        exists, is_folder = folder.exists(), folder.is_dir()
    except (OSError, ValueError) as error:  # such as a name that is too long
        raise UsageError(f"the folder cannot be read: {error}", where=str(folder)[:200]) from None
    if not is_folder:
        raise UsageError("not a folder" if exists else "no such folder", where=str(folder)[:200])
    if (folder / RECORD).is_file():
        return [folder]
    found = {path.parent for path in folder.rglob(RECORD)}
    # a run that lost its record; an artifact of a run may have the same name
    found |= {path.parent for path in folder.rglob(RESULTS) if found.isdisjoint(path.parents)}
    if not found:
        raise StoreError(
            f"no run folder here: no {RECORD} at any depth", where=str(folder), hint="harness verify makes one"
        )
    return sorted(found)


# --- the record --------------------------------------------------------------------------------------------------


class _Versioned(Struct):
    schema_version: int


class _Sealed(Struct):
    seal: Seal


def _read(path: Path) -> bytes:
    try:
        with regular_file(path, _LARGEST_RECORD) as file:
            return file.read(_LARGEST_RECORD)
    except FileNotFoundError:
        raise StoreError(f"not a run folder: {RECORD} is missing", where=str(path.parent)) from None
    except StoreError as error:
        raise StoreError(f"{RECORD} cannot be read: {error.what}", where=str(path.parent)) from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{RECORD} cannot be read: {error}", where=str(path.parent)) from None


def _may_have(path: Path, fingerprint: str) -> bool:
    """Return whether a record may have a fingerprint; true for a damaged one, which is then reported."""
    raw = _read(path)
    return fingerprint.encode() in raw or not (raw.rstrip().endswith(b"}") and b'"fingerprint"' in raw)


def _read_record(path: Path) -> tuple[RunRecord, dict[str, Any], str]:
    """Return the record, its fields as they are on disk, and the hash of its identity."""
    data = _read(path)
    try:
        raw = msgspec.json.decode(data, type=dict[str, Any])
        version = msgspec.convert(raw, _Versioned).schema_version
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"this run has schema version {version}, expected at most {SCHEMA_VERSION}",
                where=str(path.parent),
                hint="use the newer tool that wrote it, or leave out this folder",
            )
        record = msgspec.convert(raw, RunRecord)
        if "plan" in raw:
            raw["plan"] = msgspec.Raw(canonical(raw["plan"]))  # encoded once, because two hashes cover it
        head = head_of(raw)
    except UNDECODABLE as error:
        raise StoreError(f"{RECORD} cannot be read: {short(error)}", where=str(path.parent)) from None
    for name, time in (("started_at", record.started_at), ("ended_at", record.ended_at)):
        if seconds_of(time) is None and (time or name == "started_at"):
            raise StoreError(
                f"{RECORD} cannot be read: {name} is {time[:40]!r}, expected a time such as 2026-01-31T12:00:00.000Z",
                where=str(path.parent),
            )
    return record, raw, head


def _read_seal(raw: dict[str, Any]) -> tuple[Seal, list[str]]:
    """Return the seal of a chained run, and what breaks it."""
    try:
        seal = msgspec.convert(raw, _Sealed).seal
        digest = digest_of_record(raw, seal)
    except UNDECODABLE:
        return Seal(), ["the seal is missing or damaged"]
    if digest != seal.record:
        return seal, ["it does not have the digest of its seal"]
    return seal, []


def _differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """Return one sentence for files that were changed, one for removed and one for added files."""
    kinds: dict[str, list[str]] = {}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            kind = "added" if name not in expected else "removed" if name not in found else "changed"
            kinds.setdefault(kind, []).append(name)
    return [f"{names[0]}: it was {kind}{more_of(len(names) - 1, 'file')}" for kind, names in kinds.items()]
