"""Evidence on disk: one folder per run, appended as it happens, readable after any crash.

    reports/runs/<utc>-<id>/
      run.json        the record: plan, provenance, topologies as they ran; replaced atomically
      results.jsonl   one row per planned check, appended
      proofs.jsonl    one row per control, when the run proved its checks
      trail.jsonl     one row per break of the trail, when the run proved its checks
      logs/<topology>/<service>.log
      artifacts/<topology>/<check>/…    files that a check produced, such as JUnit XML

A killed run leaves complete rows and at most one incomplete line, which the reader drops. A planned row without a
result is then read as Not run.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import msgspec

from harness.errors import StoreError
from harness.model import SCHEMA_VERSION, Proof, Result, RunRecord, Status, TrailProof

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from io import FileIO

T = TypeVar("T")


def utc_now() -> str:
    """Return the time as the evidence spells it: ISO 8601 with milliseconds, UTC as `Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_run_id() -> str:
    """Return `<utc>-<random>`. Ids sort by time, and two runs in one second have different ids."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


class RunStore:
    """The folder of one run, for writing. It redacts every text."""

    def __init__(self, reports: Path, record: RunRecord, redact: Callable[[str], str]) -> None:
        """Create the folder, write the record with the plan, and point `latest` to the folder.

        :param reports: the reports folder; the run is below its `runs`.
        :param redact: returns a text without secrets.
        :raises StoreError: when the reports folder is not writable.
        """
        self._redact = redact
        self._lock = Lock()
        self.record = record
        self.folder = reports / "runs" / record.run_id
        with self._as_store_error():
            (self.folder / "logs").mkdir(parents=True)
            self._results = (self.folder / "results.jsonl").open("ab", buffering=0)
            self._proofs = (self.folder / "proofs.jsonl").open("ab", buffering=0)
            self._trail = (self.folder / "trail.jsonl").open("ab", buffering=0)
            self._write_record()
            self._point_latest()

    def update(self, **changes: object) -> None:
        """Replace fields of the record, also on disk.

        :raises StoreError: as all methods here do, when the disk is full or the folder is not writable.
        """
        with self._lock, self._as_store_error():
            self.record = msgspec.structs.replace(self.record, **changes)
            self._write_record()

    def append(self, result: Result) -> None:
        """Add the result of one planned row."""
        self._append(self._results, result)

    def append_proof(self, proof: Proof) -> None:
        """Add the proof of one control."""
        self._append(self._proofs, proof)

    def append_trail_proof(self, proof: TrailProof) -> None:
        """Add the proof of one break of the trail."""
        self._append(self._trail, proof)

    def write_log(self, topology: str, service: str, text: str) -> None:
        """Write the log of one service, or replace it."""
        with self._as_store_error():
            folder = self.folder / "logs" / topology
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{service}.log").write_text(self._redact(text), encoding="utf-8")

    def write_artifact(self, topology: str, check: str, name: str, text: str) -> None:
        """Write a file that a check produced, such as the JUnit XML of a test suite, or replace it."""
        with self._as_store_error():
            folder = self.folder / "artifacts" / topology / check
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(self._redact(text), encoding="utf-8")

    def close(self) -> None:
        self._results.close()
        self._proofs.close()
        self._trail.close()

    def _append(self, file: FileIO, row: Result | Proof | TrailProof) -> None:
        data = msgspec.json.encode(self._scrubbed(row)) + b"\n"
        with self._lock, self._as_store_error():
            # one write call per row: a crash leaves at most one incomplete line
            written = file.write(data)
            if written != len(data):
                raise OSError(f"only {written} of {len(data)} bytes of a row were written; is the disk full?")

    def _write_record(self) -> None:
        text = msgspec.json.format(msgspec.json.encode(self._scrubbed(self.record)), indent=1).decode()
        write_atomically(self.folder / "run.json", text + "\n")

    def _scrubbed(self, row: msgspec.Struct) -> object:
        """Redact every text separately: redacting encoded JSON could remove its quotes."""

        def scrub(value: object) -> object:
            if isinstance(value, str):
                return self._redact(value)
            if isinstance(value, dict):
                return {self._redact(key): scrub(item) for key, item in value.items()}
            if isinstance(value, list | tuple):
                return [scrub(item) for item in value]
            return value

        return scrub(msgspec.to_builtins(row))

    def _point_latest(self) -> None:
        temporary = self.folder.parent / f".latest-{self.record.run_id}"
        temporary.symlink_to(self.folder.name)
        temporary.replace(self.folder.parent / "latest")

    @contextlib.contextmanager
    def _as_store_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _cannot_write(self.folder, error) from None


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees either the old text or the new one, and never a part.

    :raises StoreError: when the folder is not writable, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _cannot_write(path, error) from None


def write_together(folder: Path, files: Iterable[tuple[str, Iterable[str]]]) -> list[Path]:
    """Write files into a folder, and replace the old ones once all new ones are complete.

    :param files: the name of each file, and its text in pieces, so that no whole text has to be in memory.
    :return: the paths of the files.
    :raises StoreError: when the folder is not writable, or the disk is full; all old files are unchanged then.
    """
    suffix = f"{os.getpid()}.{secrets.token_hex(3)}"
    written: dict[Path, Path] = {}
    path = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, pieces in files:
            path = folder / name
            written[path] = folder / f".{name}.{suffix}"
            with written[path].open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(pieces)
        for path, temporary in written.items():
            temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from None
    finally:
        for temporary in written.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    return list(written)


def require_writable(reports: Path) -> None:
    """Check that evidence can be written, before any server starts.

    :raises StoreError: when the folder is not writable, or the disk is full.
    """
    probe = reports / "runs" / f".probe-{secrets.token_hex(4)}"
    try:
        probe.mkdir(parents=True)
        (probe / "byte").write_bytes(b"x" * 65536)
    except OSError as error:
        raise _cannot_write(reports, error) from None
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def _cannot_write(path: Path, error: OSError) -> StoreError:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return StoreError(
        f"the evidence cannot be written: {error.strerror or error}",
        where=str(path),
        hint=f"{'free some space, or ' if full else ''}name another folder with --reports DIR",
    )


class StoredRun(msgspec.Struct, frozen=True):
    """One run, as read from disk."""

    folder: Path
    record: RunRecord
    results: tuple[Result, ...]
    proofs: tuple[Proof, ...]
    trail_proofs: tuple[TrailProof, ...]
    #: the number of lines that are not complete rows, such as the last one of a killed run
    torn: int

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

    :raises StoreError: when it is not a run folder, is damaged, or has a newer schema version.
    """
    try:
        raw = (folder / "run.json").read_bytes()
        version = msgspec.json.decode(raw, type=_Versioned).schema_version
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"this run has schema version {version}, expected at most {SCHEMA_VERSION}",
                where=str(folder),
                hint="use the newer tool that wrote it, or leave out this folder",
            )
        record = msgspec.json.decode(raw, type=RunRecord)
    except FileNotFoundError:
        raise StoreError("not a run folder: run.json is missing", where=str(folder)) from None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(f"run.json cannot be read: {error}", where=str(folder)) from None
    results, torn = _rows(folder / "results.jsonl", Result)
    proofs, torn_proofs = _rows(folder / "proofs.jsonl", Proof)
    trail_proofs, torn_trail = _rows(folder / "trail.jsonl", TrailProof)
    return StoredRun(folder, record, results, proofs, trail_proofs, torn + torn_proofs + torn_trail)


def read_runs(folders: Iterable[Path]) -> tuple[StoredRun, ...]:
    """Read run folders, oldest first; a run that is found twice is read once.

    :param folders: run folders, or folders with run folders at any depth below.
    :raises StoreError: for a folder that does not exist, or has no run folder.
    """
    found: dict[Path, StoredRun] = {}
    for folder in folders:
        if not folder.is_dir():
            raise StoreError("not a folder" if folder.exists() else "no such folder", where=str(folder))
        here = (
            [folder]
            if (folder / "run.json").is_file()
            else sorted(path.parent for path in folder.rglob("run.json") if path.is_file())
        )
        if not here:
            raise StoreError(
                "no run folder here: no run.json at any depth", where=str(folder), hint="harness verify makes one"
            )
        for run_folder in here:
            found.setdefault(run_folder.resolve(), read_run(run_folder))
    return tuple(sorted(found.values(), key=lambda run: (run.record.started_at, run.record.run_id)))


def kept_runs(reports: Path, fingerprint: str | None = None) -> tuple[tuple[StoredRun, ...], tuple[str, ...]]:
    """Read the runs of a reports folder.

    :param fingerprint: only runs with this fingerprint; all runs by default.
    :return: the runs, oldest first, and a sentence for each folder that cannot be read.
    """
    runs, damaged = [], []
    for path in sorted((reports / "runs").glob("*/run.json")):
        if path.parent.is_symlink() or not path.is_file():
            continue
        try:
            # rows are read only for matching runs: a folder may hold hundreds of old ones
            raw = path.read_bytes()
            whole = raw.rstrip().endswith(b"}") and b'"fingerprint"' in raw
            if fingerprint is None or fingerprint.encode() in raw or not whole:
                runs.append(read_run(path.parent))
        except (StoreError, OSError) as error:
            damaged.append(f"run {path.parent.name} cannot be read: {getattr(error, 'what', error)}")
    if fingerprint is not None:
        runs = [run for run in runs if run.record.provenance.fingerprint == fingerprint]
    return tuple(sorted(runs, key=lambda run: (run.record.started_at, run.record.run_id))), tuple(damaged)


class _Versioned(msgspec.Struct):
    schema_version: int


def _rows(path: Path, kind: type[T]) -> tuple[tuple[T, ...], int]:
    try:
        data = path.read_bytes()
    except OSError:
        return (), 0
    decoder = msgspec.json.Decoder(kind)
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
        if data.endswith(b"\n") and b"\n\n" not in data:  # complete lines: decoded at once
            return tuple(decoder.decode_lines(data)), 0
    rows, torn = [], 0
    for line in data.splitlines():
        try:
            rows.append(decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            torn += 1
    return tuple(rows), torn
