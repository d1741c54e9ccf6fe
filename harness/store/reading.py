"""Reading runs: what the rules refuse is named and left out, and a damaged run never hides the others."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct

from harness.errors import StoreError, UsageError
from harness.model import SCHEMA_VERSION, Proof, Result, RunRecord, Status, TrailProof
from harness.store.chain import (
    CHAINED_SINCE,
    PROOFS,
    RECORD,
    RESULTS,
    TRAIL,
    End,
    Seal,
    digest_of_record,
    digests,
    first_link,
    head_of,
    link_of,
    sha256,
)
from harness.store.files import regular_file
from harness.store.integrity import MOST_SENTENCES, Integrity, Verdict
from harness.store.rules import RowRules, contradictions_in_record, key_of, seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T", Result, Proof, TrailProof)

_LARGEST_RECORD = 64 << 20
_LARGEST_ROWS = 1 << 30
_LONGEST_LINE = 16 << 20
#: what decoding raises for bytes that somebody else wrote: digits without end, deep nesting, invalid UTF-8
_UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError, OverflowError)


class StoredRun(Struct, frozen=True):
    """One run, as read from disk, without the rows that were refused."""

    folder: Path
    record: RunRecord
    results: tuple[Result, ...]
    proofs: tuple[Proof, ...]
    trail_proofs: tuple[TrailProof, ...]
    #: the number of incomplete last lines, as a killed run leaves them
    torn: int
    integrity: Integrity = Integrity(verdict=Verdict.WHOLE)

    def answers(self) -> tuple[Result, ...]:
        """Return one result per planned row, in the order of the plan; a row without a result is Not run."""
        stored = {(result.target, result.check): result for result in self.results}
        reason = {
            "running": "the run has no result of this check (it was killed, or is still running)",
            "interrupted": "the run was interrupted before this check finished",
            "failed": f"the run failed before this check finished: {self.record.failure}",
            "finished": "the run ended without a result of this check",
        }[self.record.state]
        return tuple(
            stored.get((row.target, row.check))
            or Result(target=row.target, check=row.check, status=Status.NOT_RUN, reason=reason, reproduce=row.reproduce)
            for row in self.record.plan
        )


def read_run(folder: Path) -> StoredRun:
    """Read one run folder.

    :raises StoreError: when it is not a run folder, its record is damaged, or it has a newer schema version.
    """
    record, raw = _read_record(folder / RECORD)
    chained = record.schema_version >= CHAINED_SINCE
    breaks: list[str] = []
    seal = Seal()
    if chained:
        seal, sentences = _read_seal(raw)
        breaks += [f"{RECORD}: {sentence}" for sentence in (*sentences, *contradictions_in_record(record))]
    elif "seal" in raw:
        breaks.append(f"{RECORD}: schema version {record.schema_version} has no seal")
    reader = _RowReader(folder, record, seal, head_of(raw) if chained else "")
    results = reader.read(RESULTS, Result, lambda row: reader.rules.of_result(row, record))
    proofs = reader.read(PROOFS, Proof, reader.rules.of_proof)
    trail_proofs = reader.read(TRAIL, TrailProof, reader.rules.of_trail_proof)
    breaks += reader.breaks
    if seal.closed:
        breaks += _differences(seal.files, digests(folder))
    verdict = (
        Verdict.EDITED
        if breaks or reader.refusals
        else Verdict.NOT_CHAINED
        if not chained
        else Verdict.WHOLE
        if seal.closed
        else Verdict.UNFINISHED
    )
    integrity = Integrity(
        verdict=verdict,
        breaks=tuple(breaks[:MOST_SENTENCES]),
        refused=tuple(reader.refused),
        refusals=reader.refusals,
    )
    return StoredRun(folder, record, results, proofs, trail_proofs, reader.torn, integrity)


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
    for path in sorted((reports / "runs").glob(f"*/{RECORD}")):
        if path.parent.is_symlink():
            continue
        try:
            # rows are read only for matching runs: a folder may hold hundreds of old ones
            if fingerprint is None or _may_have(path, fingerprint):
                runs.append(read_run(path.parent))
        except StoreError as error:
            damaged.append(_unreadable(path.parent, error))
    if fingerprint is not None:
        runs = [run for run in runs if run.record.provenance.fingerprint == fingerprint]
    return _by_age(runs), tuple(damaged)


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
    found = sorted(path.parent for path in folder.rglob(RECORD))
    if not found:
        raise StoreError(
            f"no run folder here: no {RECORD} at any depth", where=str(folder), hint="harness verify makes one"
        )
    return found


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


def _read_record(path: Path) -> tuple[RunRecord, dict[str, Any]]:
    data = _read(path)
    try:
        version = msgspec.json.decode(data, type=_Versioned).schema_version
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"this run has schema version {version}, expected at most {SCHEMA_VERSION}",
                where=str(path.parent),
                hint="use the newer tool that wrote it, or leave out this folder",
            )
        record = msgspec.json.decode(data, type=RunRecord)
        raw = msgspec.json.decode(data, type=dict[str, Any])
        head_of(raw)
    except _UNDECODABLE as error:
        raise StoreError(f"{RECORD} cannot be read: {_short(error)}", where=str(path.parent)) from None
    for name, time in (("started_at", record.started_at), ("ended_at", record.ended_at)):
        if seconds_of(time) is None and (time or name == "started_at"):
            raise StoreError(
                f"{RECORD} cannot be read: {name} is {time[:40]!r}, expected a time such as 2026-01-31T12:00:00.000Z",
                where=str(path.parent),
            )
    return record, raw


def _read_seal(raw: dict[str, Any]) -> tuple[Seal, list[str]]:
    """Return the seal of a chained run, and what breaks it."""
    try:
        seal = msgspec.convert(raw, _Sealed).seal
        digest = digest_of_record(raw, seal)
    except _UNDECODABLE:
        return Seal(), ["the seal is missing or damaged"]
    if digest != seal.record:
        return seal, ["it does not have the digest of its seal"]
    return seal, []


# --- rows --------------------------------------------------------------------------------------------------------


class _RowReader:
    """Reads the files of rows of one run, follows the chain of each, and applies the rules."""

    def __init__(self, folder: Path, record: RunRecord, seal: Seal, head: str) -> None:
        """Start with the first file.

        :param head: of the run's identity as it is on disk; "" for a run without a chain.
        """
        self.rules = RowRules(record, chained=bool(head))
        self.breaks: list[str] = []
        self.refused: list[str] = []
        self.refusals = 0
        self.torn = 0
        self._folder = folder
        self._seal = seal
        self._head = head

    def read(self, name: str, kind: type[T], contradiction: Callable[[T], str]) -> tuple[T, ...]:
        """Return the rows of one file that are not refused.

        :param contradiction: returns what contradicts the rules in a row.
        """
        rows: dict[tuple[str, ...], tuple[int, T] | None] = {}
        decoder = msgspec.json.Decoder(kind)
        for number, line in self._lines(name):
            try:
                row = decoder.decode(line)
            except _UNDECODABLE as error:
                self._refuse(name, number, f"not a row: {_short(error)}")
                continue
            key = key_of(row)
            if sentence := contradiction(row):
                self._refuse(name, number, sentence)
                if first := rows.get(key):  # neither of two rows counts
                    self._refuse(name, first[0], sentence)
                    rows[key] = None
            else:
                self.rules.accept(row)
                rows[key] = (number, row)
        return tuple(kept[1] for kept in rows.values() if kept)

    def _refuse(self, name: str, number: int, sentence: str) -> None:
        self.refusals += 1
        if len(self.refused) < MOST_SENTENCES:
            self.refused.append(f"{name}:{number}: {sentence}")

    def _lines(self, name: str) -> Iterator[tuple[int, bytes]]:
        """Yield number and bytes of each complete line, and compare the chain."""
        path = self._folder / name
        link, number = first_link(self._head, name), 0
        broken = False
        try:
            with regular_file(path, _LARGEST_ROWS) as file:
                for number, line in enumerate(self._complete(file), 1):
                    if self._head and not broken and link_of(line) != link:
                        broken = True
                        before = f"line {number - 1}" if number > 1 else "the plan and identity in run.json"
                        self.breaks.append(
                            f"{name}:{number}: it does not follow from {before}: "
                            "a line was changed, removed, added or moved"
                        )
                    link = sha256(line)
                    yield number, line
        except FileNotFoundError:
            if self._seal.closed:
                self.breaks.append(f"{name}: it is missing")
            return
        except (OSError, StoreError) as error:
            self.breaks.append(f"{name}: it cannot be read: {getattr(error, 'what', error)}")
            return
        if self._seal.closed and not broken:
            self._compare_end(name, End(lines=number, last=link))

    def _complete(self, file: IO[bytes]) -> Iterator[bytes]:
        while line := file.readline(_LONGEST_LINE):
            if line.endswith(b"\n"):
                yield line[:-1]
            elif len(line) == _LONGEST_LINE or self._seal.closed:
                yield line
            else:
                self.torn += 1

    def _compare_end(self, name: str, found: End) -> None:
        expected = self._seal.rows.get(name)
        if expected is None:
            self.breaks.append(f"{RECORD}: the seal does not cover {name}")
        elif found.lines != expected.lines:
            self.breaks.append(f"{name}:{found.lines}: it has {found.lines} lines, expected {expected.lines}")
        elif found.last != expected.last:
            self.breaks.append(f"{name}:{found.lines}: the last line was changed")


def _differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """Return one sentence for each file that was changed, removed or added."""
    return [
        f"{name}: it was {'added' if name not in expected else 'removed' if name not in found else 'changed'}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:200]
