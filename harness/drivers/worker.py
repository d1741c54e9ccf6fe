"""The processes that run the workload of drivers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from threading import Lock
from typing import IO, TYPE_CHECKING, Self

import msgspec

from harness import places
from harness.drivers.workload import NO_ANSWER, READY, RESULT, Job, Share
from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_COMMAND = (sys.executable, "-m", "harness.drivers.workload")
_TAIL_LINES = 12


class WorkerFailedError(HarnessError):
    """The process of a driver ended without a result."""


class Worker:
    """A process that loads drivers and forks the processes of their clients. It serves one job after another."""

    def __init__(self) -> None:
        """Start the process."""
        self._where = ""
        self._redact: Callable[[str], str] = str
        # files, because a pipe that is not read would fill up and block the process
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 -- closed in end()
        #: the sizes of both files when the job was assigned: what is before them is about earlier jobs
        self._out_begins = self._err_begins = 0
        #: whether the last job is done, and left nothing behind that could affect another one
        self.is_idle = False
        self._process = subprocess.Popen(  # noqa: S603 -- this interpreter, with fixed arguments
            _COMMAND,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=self._out,
            stderr=self._err,
            # the folder of this package, so that a package of the same name in the user's folder is not loaded
            cwd=places.PACKAGE.parent,
            # Ctrl-C reaches the harness only, which then ends its workers
            start_new_session=True,
        )

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def end(self) -> None:
        """End the process and those that it forked."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for file in (self._process.stdin, self._out, self._err):
            if file:
                file.close()

    def assign(self, job: Job, where: str, redact: Callable[[str], str]) -> None:
        """Send a job, whose driver the process then loads.

        :param where: the name of the driver in error messages.
        :param redact: removes secrets from the output.
        """
        self._where, self._redact = where, redact
        self._out_begins, self._err_begins = _size(self._out), _size(self._err)
        self.is_idle = False
        self._send(msgspec.json.encode(job))

    def begin(self, limit_s: float) -> None:
        """Start the clients.

        :param limit_s: the time limit in seconds.
        """
        self._send(f"{max(limit_s, 0):.3f}".encode())

    def _send(self, line: bytes) -> None:
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):  # the process has ended, which its missing result shows
                self._process.stdin.write(line + b"\n")

    def is_ready(self) -> bool:
        """Return whether the driver is loaded.

        :raises WorkerFailedError: when the process has ended.
        """
        return self._has_written(READY, "before it was ready")

    def has_result(self) -> bool:
        """Return whether the clients have ended.

        :raises WorkerFailedError: when the process has ended without their result.
        """
        return self._has_written(RESULT, "without a result")

    def _has_written(self, word: str, otherwise: str) -> bool:
        status = self._process.poll()  # before the output is read, because the awaited line may be the last one
        written = self._line(word) is not None
        if status is not None and not written:
            how = f"by signal {-status}" if status < 0 else f"with status {status}"
            raise self._failed(f"the process ended {how} {otherwise}")
        return written

    def shares(self) -> list[Share]:
        """Return the results of the processes of the clients.

        :raises WorkerFailedError: when they are missing or something else.
        """
        try:
            shares = msgspec.json.decode(self._line(RESULT) or "", type=list[Share])
        except msgspec.MsgspecError as error:
            raise self._failed(f"the process wrote an invalid result: {error}") from None
        self.is_idle = not any(NO_ANSWER in share.errors for share in shares)
        return shares

    def tail(self) -> str:
        """Return the end of what the job wrote to stderr, without secrets."""
        return self._last_lines(_text(self._err, self._err_begins))

    def _line(self, word: str) -> str | None:
        """Return the line of the job's output that begins with a word, without it; None if it is not complete yet."""
        complete = _text(self._out, self._out_begins).split("\n")[:-1]
        return next((line.removeprefix(word) for line in complete if line.startswith(word)), None)

    def _last_lines(self, text: str) -> str:
        return self._redact("\n".join(text.splitlines()[-_TAIL_LINES:]))

    def _failed(self, what: str) -> WorkerFailedError:
        output = self.tail() or self._last_lines(_text(self._out, self._out_begins))
        return WorkerFailedError(what, where=self._where, detail=output)


class Workers:
    """The workers of a run. One that has done its job serves the next one, so that drivers are loaded once.

    Any worker serves any driver: what it has already imported has no effect on another driver. A worker has one job at
    a time, so there are as many as measurements run at the same time. Threads share this object. Leaving the context
    ends the workers.
    """

    def __init__(self) -> None:
        """Start none yet."""
        self._idle: list[Worker] = []
        self._closed = False
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.end()

    @contextlib.contextmanager
    def taken(self) -> Iterator[Worker]:
        """Lend a worker for one job. One that failed, or whose clients hang, is ended and never lent again."""
        worker = self._take()
        try:
            yield worker
        finally:
            with self._lock:
                keep = worker.is_idle and not self._closed
                if keep:
                    self._idle.append(worker)
            if not keep:
                worker.end()

    def _take(self) -> Worker:
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None:
                return Worker()
            if worker.is_running:
                return worker
            worker.end()


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _text(file: IO[bytes], begins: int) -> str:
    # pread, because the process shares the position of the file and may still write
    return os.pread(file.fileno(), _size(file) - begins, begins).decode(errors="replace")
