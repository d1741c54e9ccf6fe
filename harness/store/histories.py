"""Histories on disk: the journal that a check appends to, and its reader.

`histories/<topology>/<check>.jsonl` is the history, and `<check>.state.json` next to it is the final state that the
judge compares it with. The second attempt of a row has `<check>.attempt-2.jsonl`, and a second history of one attempt
`<check>.2.jsonl`. All are redacted as they are written.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from threading import Lock
from typing import TYPE_CHECKING, Any

import msgspec

from harness.errors import StoreError
from harness.model.history import (
    HISTORY_VERSION,
    Answered,
    Closing,
    Fault,
    FaultStep,
    History,
    Invoked,
    Opening,
    Operation,
    Outcome,
    Record,
    Sample,
    Step,
)
from harness.store.files import cannot_write, regular_file, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HISTORIES = "histories"
_STATE = ".state.json"
_LARGEST = 4 << 30
#: what may follow the name of a check in the name of its history, in this order
_UNDER = ".under-"
_ATTEMPT = ".attempt-"
_NAME = re.compile(rf"(.+?)(?:{re.escape(_ATTEMPT)}(\d+))?(?:\.(\d+))?\.jsonl")


class Journal:
    """A history that is being written; threads share it. A record is on disk when its method returns."""

    def __init__(self, path: Path, opening: Opening, redact: Callable[[str], str]) -> None:
        """Create the file.

        :raises StoreError: as all methods here do, when the disk is full or the folder is not writable.
        """
        self.path = path
        self._redact = redact
        self.opening = msgspec.convert(self._scrub(msgspec.to_builtins(opening)), Opening)
        self._began = time.monotonic()
        self._lock = Lock()
        self._records = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise cannot_write(path, error) from None
        self._append(self.opening)

    @property
    def seconds(self) -> float:
        """The seconds since the opening."""
        return round(time.monotonic() - self._began, 6)

    def invoke(self, client: int, seq: int, operation: str, *, key: str = "", value: str = "", actor: str = "") -> None:
        """Record an operation, before it is sent. It is redacted like the final state, with which it is compared."""
        self._append(
            Invoked(
                seconds=self.seconds,
                client=client,
                seq=seq,
                operation=self._redact(operation),
                key=self._redact(key),
                value=self._redact(value),
                actor=self._redact(actor),
            )
        )

    def answer(self, client: int, seq: int, outcome: Outcome, error: str = "") -> None:
        """Record the end of an operation.

        :param error: of an operation that failed or is unknown; it may quote secrets, and is redacted.
        """
        self._append(Answered(seconds=self.seconds, client=client, seq=seq, outcome=outcome, error=self._redact(error)))

    def fault(self, number: int, fault: str, step: Step, detail: str = "") -> None:
        """Record one step of a fault."""
        self._append(
            FaultStep(seconds=self.seconds, number=number, fault=fault, step=step, detail=self._redact(detail))
        )

    def sample(self, values: dict[str, float], *, at_s: float | None = None) -> None:
        """Record what was measured in one interval.

        :param at_s: the seconds since the opening, of an interval that another program has measured; now by default.
        """
        self._append(Sample(seconds=self.seconds if at_s is None else at_s, values=values))

    def keep_state(self, state: msgspec.Struct) -> None:
        """Write the final state that the judge needs besides the history."""
        builtins = msgspec.to_builtins(state)
        write_atomically(state_path(self.path), msgspec.json.encode(self._scrub(builtins)).decode())

    def close(self) -> None:
        """Write the closing, and close the file; a second call does nothing.

        A closing that cannot be written is missing: the history is then incomplete, and no judge decides about it.
        """
        if self._file >= 0:
            with contextlib.suppress(StoreError):
                self._append(Closing(seconds=self.seconds, records=self._records))
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _append(self, record: Record) -> None:
        data = msgspec.json.encode(record) + b"\n"
        try:
            with self._lock:
                written = os.write(self._file, data)
                self._records += written == len(data)
        except OSError as error:
            raise cannot_write(self.path, error) from None
        if written != len(data):
            raise StoreError("the history was not written completely; is the disk full?", where=str(self.path))

    def _scrub(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._redact(value)
        if isinstance(value, dict):
            return {key: self._scrub(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._scrub(item) for item in value]
        return value


def state_path(history: Path) -> Path:
    """Return where the final state of a history is."""
    return history.with_name(history.name.removesuffix(".jsonl") + _STATE)


def history_files(run: Path) -> tuple[Path, ...]:
    """Return the histories of a run folder: by topology, check and attempt, and those of one attempt in their order."""
    return tuple(sorted(run.glob(f"{HISTORIES}/*/*.jsonl"), key=lambda path: (path.parent.name, *_parts(path))))


def history_name(check: str, *, control: str = "", attempt: int = 1) -> str:
    """Return the name of the first history of one attempt, without its ending."""
    name = f"{check}{_UNDER}{control}" if control else check
    return f"{name}{_ATTEMPT}{attempt}" if attempt > 1 else name


def attempt_of(path: Path) -> tuple[str, int]:
    """Return the check of a history, with the control it ran under, and the number of its attempt, from its name."""
    check, attempt, _ = _parts(path)
    return check, attempt


def is_under_control(path: Path) -> bool:
    """Return whether a check wrote a history under a control, from the name of the history."""
    return _UNDER in attempt_of(path)[0]


def is_named(path: Path, opening: Opening) -> bool:
    """Return whether a history is where its opening says: in the folder of its topology, named like its check."""
    name = history_name(opening.check, control=opening.control, attempt=opening.attempt)
    rest = path.name.removeprefix(name)
    return path.parent.name == opening.topology and re.fullmatch(r"(\.\d+)?\.jsonl", rest) is not None


def _parts(path: Path) -> tuple[str, int, int]:
    """Return the name of the check, the number of the attempt, and the number of the history within it."""
    found = _NAME.fullmatch(path.name)
    if found is None:
        return path.name, 1, 1
    check, attempt, number = found.groups()
    return check, int(attempt or 1), int(number or 1)


def read_state(history: Path, kind: type[msgspec.Struct]) -> Any:
    """Read the final state of a history.

    :raises StoreError: when it is missing or damaged.
    """
    path = state_path(history)
    try:
        with regular_file(path, _LARGEST) as file:
            return msgspec.json.decode(file.read(), type=kind)
    except FileNotFoundError:
        raise StoreError("the final state is missing: the check ended before it was read", where=str(path)) from None
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(f"the final state cannot be read: {error}", where=str(path)) from None


def read_history(path: Path) -> History:
    """Read a history. An operation without an answer is unknown, and an incomplete last line is dropped.

    :raises StoreError: when it cannot be read, a line is damaged, or its version is newer than this tool.
    """
    opening: Opening | None = None
    invoked: dict[tuple[int, int], Invoked] = {}
    answers: dict[tuple[int, int], Answered] = {}
    faults: dict[int, Fault] = {}
    samples: list[Sample] = []
    torn = complete = False
    for number, record in _records(path):
        if complete:
            raise StoreError("a record after the closing", where=f"{path}:{number}")
        if record is None:
            torn = True
        elif opening is None:
            if not isinstance(record, Opening) or record.version > HISTORY_VERSION:
                raise StoreError(
                    f"not a history that this tool reads: expected an opening of version {HISTORY_VERSION} or older",
                    where=f"{path}:{number}",
                )
            opening = record
        elif isinstance(record, Invoked):
            if (record.client, record.seq) in invoked:
                raise StoreError(f"client {record.client} invokes {record.seq} twice", where=f"{path}:{number}")
            invoked[record.client, record.seq] = record
        elif isinstance(record, Answered):
            if (record.client, record.seq) not in invoked or (record.client, record.seq) in answers:
                raise StoreError(
                    f"an answer without its own operation: client {record.client}, {record.seq}",
                    where=f"{path}:{number}",
                )
            answers[record.client, record.seq] = record
        elif isinstance(record, FaultStep):
            faults[record.number] = _with_step(faults.get(record.number), record)
        elif isinstance(record, Sample):
            samples.append(record)
        elif isinstance(record, Closing):
            if record.records != number - 1:
                raise StoreError(
                    f"the closing counts {record.records} records, found {number - 1}", where=f"{path}:{number}"
                )
            complete = True
        else:
            raise StoreError("a second opening", where=f"{path}:{number}")
    if opening is None:
        raise StoreError("the history is empty", where=str(path))
    operations = tuple(_operation(one, answers.get(at)) for at, one in invoked.items())
    return History(
        opening=opening,
        operations=operations,
        faults=tuple(faults.values()),
        samples=tuple(samples),
        torn=torn,
        complete=complete,
    )


def _operation(invoked: Invoked, answer: Answered | None) -> Operation:
    return Operation(
        client=invoked.client,
        seq=invoked.seq,
        operation=invoked.operation,
        key=invoked.key,
        value=invoked.value,
        actor=invoked.actor,
        invoked_s=invoked.seconds,
        outcome=answer.outcome if answer else "unknown",
        answered_s=answer.seconds if answer else None,
        error=answer.error if answer else "",
    )


def _with_step(fault: Fault | None, step: FaultStep) -> Fault:
    if fault is None:
        return Fault(number=step.number, name=step.fault, inject_s=step.seconds, detail=step.detail)
    changes: dict[str, Any] = {} if step.step == "inject" else {f"{step.step}_s": step.seconds}
    if step.detail:
        changes["detail"] = f"{fault.detail}; {step.detail}" if fault.detail else step.detail
    return msgspec.structs.replace(fault, **changes)


def _records(path: Path) -> Iterator[tuple[int, Record | None]]:
    """Yield the number and the record of each line; None for an incomplete last line."""
    decoder = msgspec.json.Decoder(Record)
    try:
        with regular_file(path, _LARGEST) as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    yield number, None
                    return
                try:
                    yield number, decoder.decode(line)
                except msgspec.MsgspecError as error:
                    raise StoreError(f"a damaged record: {error}", where=f"{path}:{number}") from None
    except OSError as error:
        raise StoreError(f"the history cannot be read: {error.strerror}", where=str(path)) from None
