"""Evidence on disk: one folder a run, appended to as it happens, readable after any crash.

    reports/runs/<utc>-<id>/
      run.json        the record: plan, provenance, topologies as they stood; replaced atomically
      results.jsonl   one row per planned check, appended
      proofs.jsonl    one row per control, when the run proved its checks
      trail.jsonl     one row per break of the trail, likewise
      logs/<topology>/<service>.log

A run that was killed leaves whole rows and at most one torn line, which the reader drops; every
planned row without a result is then read as Not run.
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
    """Return the time as the evidence spells it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_run_id() -> str:
    """Return `<utc>-<random>`; sorts by time, and two runs of one second differ."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


class RunStore:
    """The folder of one run, for writing. Every text passes the redactor first."""

    def __init__(self, reports: Path, record: RunRecord, redact: Callable[[str], str]) -> None:
        """Create the folder and write the plan.

        :raises StoreError: when the reports folder cannot be written to.
        """
        self._redact = redact
        self._lock = Lock()
        self.record = record
        self.folder = reports / "runs" / record.run_id
        with self._explained():
            (self.folder / "logs").mkdir(parents=True)
            self._results = (self.folder / "results.jsonl").open("ab", buffering=0)
            self._proofs = (self.folder / "proofs.jsonl").open("ab", buffering=0)
            self._trail = (self.folder / "trail.jsonl").open("ab", buffering=0)
            self._write_record()
            self._point_latest()

    def update(self, **changes: object) -> None:
        """Replace fields of the record, on disk too."""
        with self._lock, self._explained():
            self.record = msgspec.structs.replace(self.record, **changes)
            self._write_record()

    def append(self, result: Result) -> None:
        self._append(self._results, result)

    def append_proof(self, proof: Proof) -> None:
        self._append(self._proofs, proof)

    def append_trail_proof(self, proof: TrailProof) -> None:
        self._append(self._trail, proof)

    def write_log(self, topology: str, service: str, text: str) -> None:
        with self._explained():
            folder = self.folder / "logs" / topology
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{service}.log").write_text(self._redact(text), encoding="utf-8")

    def close(self) -> None:
        self._results.close()
        self._proofs.close()
        self._trail.close()

    def _append(self, file: FileIO, row: Result | Proof | TrailProof) -> None:
        data = msgspec.json.encode(self._scrubbed(row)) + b"\n"
        with self._lock, self._explained():
            # one write call a row: a crash tears at most the last line
            written = file.write(data)
            if written != len(data):
                raise OSError("the row was written only in part; is the disk full?")

    def _write_record(self) -> None:
        text = msgspec.json.format(msgspec.json.encode(self._scrubbed(self.record)), indent=1).decode()
        write_atomically(self.folder / "run.json", text + "\n")

    def _scrubbed(self, row: msgspec.Struct) -> object:
        """Redact every text on its own: redacting encoded JSON could eat its quotes."""

        def scrub(value: object) -> object:
            if isinstance(value, str):
                return self._redact(value)
            if isinstance(value, dict):
                return {self._redact(key): scrub(each) for key, each in value.items()}
            if isinstance(value, list | tuple):
                return [scrub(each) for each in value]
            return value

        return scrub(msgspec.to_builtins(row))

    def _point_latest(self) -> None:
        temporary = self.folder.parent / f".latest-{self.record.run_id}"
        temporary.symlink_to(self.folder.name)
        temporary.replace(self.folder.parent / "latest")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _cannot_write(self.folder, error) from None


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never a part.

    :raises StoreError: when the folder cannot be written to, or the disk is full.
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
    """Write files into a folder, and put them in place once all of them are whole.

    :param files: the name and the text of each, in pieces, so that no text has to lie in memory as a whole.
    :raises StoreError: when the folder cannot be written to, or the disk is full; then the old files are all there.
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
    """Fail before any server is started when the evidence could not be kept."""
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
        hint="free some space, or name another folder with --reports DIR"
        if full
        else "name another folder with --reports DIR",
    )


class StoredRun(msgspec.Struct, frozen=True):
    """One run as it lies on disk."""

    folder: Path
    record: RunRecord
    results: tuple[Result, ...]
    proofs: tuple[Proof, ...]
    trail_proofs: tuple[TrailProof, ...]
    #: lines that were not whole rows, such as the last one of a killed run
    torn: int

    def answers(self) -> tuple[Result, ...]:
        """Return one result per planned row: what was not exercised is Not run, never dropped."""
        seen = {(result.target, result.check): result for result in self.results}
        how = {
            "running": "the run ended before this check did (it was killed, or is still going)",
            "interrupted": "the run was interrupted before this check finished",
            "failed": f"the run failed before this check finished: {self.record.failure}",
            "finished": "the run ended without an answer from this check",
        }[self.record.state]
        return tuple(
            seen.get((row.target, row.check))
            or Result(
                target=row.target, check=row.check, status=Status.NOT_RUN, reason=how, reproduce=row.reproduce
            )
            for row in self.record.plan
        )


def read_run(folder: Path) -> StoredRun:
    """Read one run folder.

    :raises StoreError: when it is not one, or was written by a newer schema.
    """
    try:
        raw = (folder / "run.json").read_bytes()
        version = msgspec.json.decode(raw, type=_Versioned).schema_version
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"this run was written with schema version {version}; this tool reads up to {SCHEMA_VERSION}",
                where=str(folder),
                hint="use the newer tool, or leave this folder out",
            )
        record = msgspec.json.decode(raw, type=RunRecord)
    except FileNotFoundError:
        raise StoreError("this is no run folder: it has no run.json", where=str(folder)) from None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(f"run.json cannot be read: {error}", where=str(folder)) from None
    results, torn = _rows(folder / "results.jsonl", Result)
    proofs, torn_proofs = _rows(folder / "proofs.jsonl", Proof)
    trail_proofs, torn_trail = _rows(folder / "trail.jsonl", TrailProof)
    return StoredRun(folder, record, results, proofs, trail_proofs, torn + torn_proofs + torn_trail)


def read_runs(folders: Iterable[Path]) -> tuple[StoredRun, ...]:
    """Read run folders, or folders that hold them, oldest first; every run once."""
    found: dict[Path, StoredRun] = {}
    for folder in folders:
        if not folder.is_dir():
            raise StoreError("this is no folder" if folder.exists() else "there is no such folder", where=str(folder))
        here = (
            [folder]
            if (folder / "run.json").is_file()
            else sorted(path.parent for path in folder.rglob("run.json") if path.is_file())
        )
        if not here:
            raise StoreError(
                "no run folder lies here: none has a run.json", where=str(folder), hint="harness verify makes one"
            )
        for each in here:
            found.setdefault(each.resolve(), read_run(each))
    return tuple(sorted(found.values(), key=lambda run: (run.record.started_at, run.record.run_id)))


def kept_runs(reports: Path, fingerprint: str | None = None) -> tuple[tuple[StoredRun, ...], tuple[str, ...]]:
    """Read the runs below a reports folder.

    :param fingerprint: only runs of this code; those of other code are not read further than that.
    :return: the runs, oldest first, and a sentence for each folder that cannot be read.
    """
    runs, damaged = [], []
    for path in sorted((reports / "runs").glob("*/run.json")):
        if path.parent.is_symlink() or not path.is_file():
            continue
        try:
            # the rows of a run are read only when they count: a folder may hold hundreds of old runs
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
        if data.endswith(b"\n") and b"\n\n" not in data:  # whole lines: read at once
            return tuple(decoder.decode_lines(data)), 0
    rows, torn = [], 0
    for line in data.splitlines():
        try:
            rows.append(decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            torn += 1
    return tuple(rows), torn
