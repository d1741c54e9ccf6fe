"""The folder of one run, for writing."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from datetime import UTC, datetime, timedelta
from itertools import chain, count
from threading import Lock
from typing import TYPE_CHECKING, Any

import msgspec

from harness.errors import StoreError
from harness.model import Result, Status
from harness.model.history import Opening
from harness.store.chain import (
    IDENTITY,
    OBSERVED,
    PROOFS,
    RECORD,
    RESULTS,
    ROW_FILES,
    TRAIL,
    End,
    Seal,
    digest_of_record,
    digests,
    first_link,
    head_of,
    linked,
    sha256,
)
from harness.store.files import cannot_write, write_atomically
from harness.store.histories import HISTORIES, Journal, history_name
from harness.store.rules import ContradictionError, Row, RowRules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO
    from pathlib import Path

    from harness.model import ObservedProof, Proof, RunRecord, TrailProof

#: goes on while the machine sleeps, where the system has such a clock
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_BEGAN, _BEGAN_S = datetime.now(UTC), time.clock_gettime(_CLOCK)


def utc_now() -> str:
    """Return the time as the evidence spells it: ISO 8601 with milliseconds, UTC as `Z`.

    It never goes backwards in one process, also when somebody sets the clock of the machine.
    """
    now = _BEGAN + timedelta(seconds=time.clock_gettime(_CLOCK) - _BEGAN_S)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_run_id() -> str:
    """Return `<utc>-<random>`. Ids sort by time, and two runs in one second have different ids."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


class _RowFile:
    """One file of rows, and the end of its chain."""

    def __init__(self, path: Path, head: str) -> None:
        self._file: FileIO = path.open("ab", buffering=0)
        self._size = 0
        self.end = End(lines=0, last=first_link(head, path.name))

    def append(self, row: bytes) -> None:
        """Add a line. A line that was not written completely is removed again, so that the next one is readable.

        :raises OSError: when it was not written completely.
        """
        line = linked(row, self.end.last)
        data = line + b"\n"
        written = 0
        try:
            # one write call per row: a crash leaves at most one incomplete line
            written = self._file.write(data)
        finally:
            if written != len(data):
                with contextlib.suppress(OSError):
                    self._file.truncate(self._size)
        if written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes of a row were written; is the disk full?")
        self._size += len(data)
        self.end = End(lines=self.end.lines + 1, last=sha256(line))

    def close(self) -> None:
        self._file.close()


class RunStore:
    """The folder of one run, for writing. It redacts every text, and chains the rows of each file in their order."""

    def __init__(self, reports: Path, record: RunRecord, redact: Callable[[str], str]) -> None:
        """Create the folder, write the record with the plan, and point `latest` to the folder.

        :param reports: the reports folder; the run is below its `runs`.
        :param redact: returns a text without secrets.
        :raises StoreError: when the reports folder is not writable.
        """
        self._redact = redact
        self._lock = Lock()
        self._rules = RowRules(record)
        self.record = record
        self.folder = reports / "runs" / record.run_id
        # the chain begins with the identity, so its text stays as it was first written
        identity = self._scrub(msgspec.to_builtins(record))
        self._identity = {name: identity[name] for name in IDENTITY}
        self._head = head_of(self._identity)
        with self._as_store_error():
            (self.folder / "logs").mkdir(parents=True)
        self._files: dict[str, _RowFile] = {}
        try:
            with self._as_store_error():
                self._files |= {name: _RowFile(self.folder / name, self._head) for name in ROW_FILES}
                self._write_record()
                self._point_latest()
        except StoreError:  # a folder without a record is not a run
            for file in self._files.values():
                file.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def update(self, **changes: object) -> None:
        """Replace fields of the record, also on disk.

        :raises StoreError: as all methods here do, when the disk is full or the folder is not writable.
        """
        if fixed := changes.keys() & set(IDENTITY):
            raise ContradictionError(f"the identity of a run never changes: {', '.join(sorted(fixed))}")
        with self._lock, self._as_store_error():
            self.record = msgspec.structs.replace(self.record, **changes)
            self._write_record()

    def append(self, result: Result) -> None:
        """Add the result of one attempt of a planned row.

        :raises ContradictionError: for a result that breaks the rules; it is not written.
        """
        self._append(RESULTS, result, lambda: self._rules.of_result(result, self.record))

    def append_or_refuse(self, result: Result) -> Result:
        """Add the result of one attempt of a planned row, and return the row that was added.

        A result that breaks the rules is a mistake in the harness, and says nothing about the system under test. Its
        row is then Not run, and the other rows of the run stay.
        """
        try:
            self.append(result)
        except ContradictionError as error:
            result = Result(
                target=result.target,
                check=result.check,
                status=Status.NOT_RUN,
                reason=f"the harness made a result that contradicts itself: {error}",
                started_at=result.started_at,
                reproduce=result.reproduce,
                attempt=result.attempt,
            )
            self.append(result)
        return result

    def append_proof(self, proof: Proof) -> None:
        """Add the proof of one control."""
        self._append(PROOFS, proof, lambda: self._rules.of_proof(proof))

    def append_trail_proof(self, proof: TrailProof) -> None:
        """Add the proof of one break of the trail."""
        self._append(TRAIL, proof, lambda: self._rules.of_trail_proof(proof))

    def append_observed_proof(self, proof: ObservedProof) -> None:
        """Add the outcome of one mutation of the rows that checks read."""
        self._append(OBSERVED, proof, lambda: self._rules.of_observed_proof(proof))

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

    def open_journal(
        self,
        topology: str,
        check: str,
        judge: str,
        *,
        control: str = "",
        attempt: int = 1,
        facts: dict[str, str] | None = None,
    ) -> Journal:
        """Begin the history of a check. A second one of the same attempt gets a number.

        :param judge: the name of the judge that decides about it.
        :param control: the control that the check runs under; such a history has its name.
        :param attempt: the number of the attempt; the history of a later one than the first has it in its name.
        :param facts: what a reader has to know about the load.
        """
        opening = Opening(
            topology=topology,
            check=check,
            judge=judge,
            started_at=utc_now(),
            control=control,
            attempt=attempt,
            facts=facts or {},
        )
        folder = self.folder / HISTORIES / topology
        name = history_name(check, control=control, attempt=attempt)
        with self._lock:
            numbers = chain(("",), (f".{number}" for number in count(2)))
            path = next(path for number in numbers if not (path := folder / f"{name}{number}.jsonl").exists())
            return Journal(path, opening, self._redact)

    def close(self) -> None:
        """Close the files, and the chain if the run has ended. Nothing is written to the folder afterwards."""
        for file in self._files.values():
            file.close()
        if self.record.state != "running":
            with self._lock, self._as_store_error():
                self._write_record(closed=True)

    def _append(self, name: str, row: Row, contradiction: Callable[[], str]) -> None:
        data = msgspec.json.encode(self._scrub(msgspec.to_builtins(row)))
        with self._lock, self._as_store_error():
            if sentence := contradiction():
                error = ContradictionError(sentence)
                error.add_note(f"{name}: {row}")
                raise error
            self._files[name].append(data)
            self._rules.accept(row)

    def _write_record(self, *, closed: bool = False) -> None:
        changing = {
            name: value for name, value in msgspec.to_builtins(self.record).items() if name not in self._identity
        }
        fields = {**self._identity, **self._scrub(changing)}
        seal = Seal(head=self._head)
        if closed:
            rows = {name: file.end for name, file in self._files.items()}
            seal = Seal(head=self._head, closed=True, rows=rows, files=digests(self.folder))
        seal = msgspec.structs.replace(seal, record=digest_of_record(fields, seal))
        text = msgspec.json.format(msgspec.json.encode({**fields, "seal": seal}), indent=1).decode()
        write_atomically(self.folder / RECORD, text + "\n")

    def _scrub(self, value: Any) -> Any:
        """Redact every text separately: redacting encoded JSON could remove its quotes."""
        if isinstance(value, str):
            return self._redact(value)
        if isinstance(value, dict):
            return {self._redact(key): self._scrub(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._scrub(item) for item in value]
        return value

    def _point_latest(self) -> None:
        temporary = self.folder.parent / f".latest-{self.record.run_id}"
        temporary.symlink_to(self.folder.name)
        temporary.replace(self.folder.parent / "latest")

    @contextlib.contextmanager
    def _as_store_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self.folder, error) from None
