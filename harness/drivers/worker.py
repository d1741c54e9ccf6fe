"""The process that runs the workload of one driver."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from typing import IO, TYPE_CHECKING, Self

import msgspec

from harness import places
from harness.drivers.workload import READY, Job, Share
from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Callable

_COMMAND = (sys.executable, "-m", "harness.drivers.workload")
_TAIL_LINES = 12


class WorkerFailedError(HarnessError):
    """The process of a driver ended without a result."""


class Worker:
    """The process that loads a driver, and the processes that it forks; leaving the context ends all of them."""

    def __init__(self, job: Job, where: str, redact: Callable[[str], str]) -> None:
        """Start the process and send the job.

        :param where: the name of the driver in error messages.
        :param redact: removes secrets from the output.
        """
        self._where = where
        self._redact = redact
        # files, because a pipe that is not read would fill up and block the process
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 -- closed in __exit__
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
        self._send(msgspec.json.encode(job))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for file in (self._process.stdin, self._out, self._err):
            if file:
                file.close()

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
        ended = self._process.poll() is not None  # before the output is read, because the last line may be READY
        ready = READY in self._lines()
        if ended and not ready:
            raise self._failed("before it was ready")
        return ready

    def has_ended(self) -> bool:
        """Return whether the process has ended with status 0.

        :raises WorkerFailedError: when it has ended with another status.
        """
        status = self._process.poll()
        if status:
            raise self._failed("while it was working")
        return status is not None

    def shares(self) -> list[Share]:
        """Return the results of the processes, from the last line of the output.

        :raises WorkerFailedError: when that line is missing or something else.
        """
        try:
            return msgspec.json.decode((self._lines() or [""])[-1], type=list[Share])
        except msgspec.MsgspecError as error:
            raise self._failed(f"without a result ({error})") from None

    def tail(self) -> str:
        """Return the end of stderr, without secrets."""
        return self._redact("\n".join(_text(self._err).splitlines()[-_TAIL_LINES:]))

    def _lines(self) -> list[str]:
        return _text(self._out).splitlines()

    def _failed(self, when: str) -> WorkerFailedError:
        status = self._process.poll()
        how = f"by signal {-status}" if status and status < 0 else f"with status {status}"
        output = self.tail() or self._redact("\n".join(self._lines()[-_TAIL_LINES:]))
        return WorkerFailedError(f"the process ended {how} {when}", where=self._where, detail=output)


def _text(file: IO[bytes]) -> str:
    # pread, because the process shares the position of the file and may still write
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")
