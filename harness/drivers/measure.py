"""Which settings of which driver are safe behind a pooler: the same application, run with each of them.

The clients are spread over processes because asyncpg numbers its statements for a whole process: two
connections of one process never make up the same name, and none is ever given another's answer. What is
wrong without an error, which is the worst of it, shows between processes only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib import metadata
from typing import IO, TYPE_CHECKING, Self

import msgspec
from msgspec import Struct

from harness import places
from harness.drivers.workload import READY, Job, Share
from harness.errors import HarnessError, TimedOutError, UsageError
from harness.redaction import Redactor
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from threading import Event

    from harness.database import Endpoint

_COMMAND = (sys.executable, "-m", "harness.drivers.workload")
#: what of the deadline the clients may use up, so that their processes can still tell what they saw
_FOR_CLIENTS = 0.9
_FEWEST_PROCESSES = 2
_TAIL_LINES = 12


class Driver(Struct, frozen=True, kw_only=True):
    """A driver in certain settings."""

    name: str
    title: str
    #: what has to be installed, by the name that module and distribution have in common
    requires: tuple[str, ...]
    #: the settings in words, and what follows from them
    settings: str


DRIVERS: tuple[Driver, ...] = (
    Driver(
        name="psycopg",
        title="psycopg",
        requires=("psycopg",),
        settings="default settings: a statement is prepared under a name when it is run for the sixth time",
    ),
    Driver(
        name="psycopg-unprepared",
        title="psycopg, prepare_threshold=None",
        requires=("psycopg",),
        settings="prepare_threshold=None: nothing is ever prepared under a name",
    ),
    Driver(
        name="asyncpg",
        title="asyncpg",
        requires=("asyncpg",),
        settings="default settings: every statement is prepared under a name at once, and kept",
    ),
    Driver(
        name="asyncpg-uncached",
        title="asyncpg, statement_cache_size=0",
        requires=("asyncpg",),
        settings="statement_cache_size=0: every statement is prepared without a name, each time anew",
    ),
    Driver(
        name="sqlalchemy-psycopg",
        title="SQLAlchemy on psycopg",
        requires=("sqlalchemy", "greenlet", "psycopg"),
        settings="default settings of both: every query is in a transaction, and psycopg prepares as it does alone",
    ),
    Driver(
        name="sqlalchemy-asyncpg",
        title="SQLAlchemy on asyncpg",
        requires=("sqlalchemy", "greenlet", "asyncpg"),
        settings="default settings of both: every query is in a transaction, and SQLAlchemy keeps asyncpg's statements",
    ),
)


class Measured(Struct, frozen=True, kw_only=True):
    """What the clients of one driver saw on one endpoint."""

    driver: str
    versions: str
    #: asked, whatever came of them
    queries: int
    #: by SQLSTATE, or by the exception's class where there is none; the most frequent first
    errors: dict[str, int]
    #: answers that were somebody else's, and raised no error
    wrong: int
    #: the first of each kind of error, and the first wrong result
    examples: tuple[str, ...]
    #: how many server processes answered
    server_pids: int
    duration_s: float

    @property
    def clean(self) -> bool:
        """Say whether something was asked, and every answer was right."""
        return self.queries > 0 and not self.errors and not self.wrong


class NotInstalledError(HarnessError):
    """A driver is not installed."""


class WorkerFailedError(HarnessError):
    """A process that was to run a driver ended without a result."""


def installed(driver: Driver) -> str:
    """Return the versions of what a driver requires, such as `asyncpg 0.30.0`; "" when something is missing."""
    versions = {name: _version(name) for name in driver.requires}
    return ", ".join(f"{name} {version}" for name, version in versions.items()) if all(versions.values()) else ""


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def measure(
    driver: Driver,
    endpoint: Endpoint,
    *,
    clients: int = 24,
    queries: int = 60,
    processes: int = 4,
    deadline_s: float = 60.0,
    cancelled: Event | None = None,
) -> Measured:
    """Run the application with one driver and say what its clients saw.

    :param clients: connections, all at once.
    :param queries: what each client asks; four texts in turn, so that below some thirty psycopg prepares little.
    :param processes: what the clients are spread over, at least two.
    :param deadline_s: seconds for everything; clients that hang are counted as errors a little earlier.
    :param cancelled: ends it early when set.
    :raises NotInstalledError: when the driver is missing.
    :raises WorkerFailedError: when a process ended without a result; the end of what it wrote is in the detail.
    :raises TimedOutError: when the processes did not end in time, or were cancelled. None is left behind.
    """
    if not (clients >= processes >= _FEWEST_PROCESSES and queries >= 1):
        raise UsageError(
            f"found {clients} clients, {processes} processes and {queries} queries; needed are at least "
            f"{_FEWEST_PROCESSES} processes, a client for each of them, and a query for each client"
        )
    if missing := [name for name in driver.requires if not _version(name)]:
        raise NotInstalledError(
            f"{driver.title}: not installed: {', '.join(missing)}", hint="pip install 'pooler-harness[drivers]'"
        )
    redact = Redactor()
    redact.learn(endpoint.password)
    end = time.monotonic() + deadline_s
    job = Job(
        driver=driver.name,
        endpoint=endpoint,
        shares=tuple(tuple(range(first, clients, processes)) for first in range(processes)),
        queries=queries,
    )
    with _Worker(job, driver.title, redact) as worker:

        def wait(reached: Callable[[], bool], for_what: str) -> None:
            left_s = round(max(end - time.monotonic(), 0), 1)

            def probe() -> None:
                if not reached():
                    raise NotYet("it runs")

            try:
                poll(
                    probe,
                    what=f"{driver.title} at {endpoint!r} to {for_what}",
                    deadline_s=left_s,
                    interval_s=0.005,
                    cancelled=cancelled,
                )
            except TimedOutError as error:
                raise TimedOutError(error.what, detail=worker.tail()) from None

        # loading is not measured
        wait(worker.is_ready, "be loaded")
        worker.begin((end - time.monotonic()) * _FOR_CLIENTS)
        wait(worker.has_ended, "end")
        return merge(driver, worker.shares(), redact)


def merge(driver: Driver, shares: Sequence[Share], redact: Callable[[str], str]) -> Measured:
    """Return what all processes saw together."""
    errors: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for share in shares:
        errors.update(share.errors)
        examples = share.examples | examples
    return Measured(
        driver=driver.name,
        versions=installed(driver),
        queries=sum(share.queries for share in shares),
        errors=dict(sorted(errors.items(), key=lambda each: (-each[1], each[0]))),
        wrong=sum(share.wrong for share in shares),
        examples=tuple(redact(f"{kind}: {text}") for kind, text in sorted(examples.items())),
        server_pids=len({pid for share in shares for pid in share.server_pids}),
        duration_s=max((share.duration_s for share in shares), default=0.0),
    )


class _Worker:
    """The process that loads a driver, and those it forks; leaving its context ends them all."""

    def __init__(self, job: Job, where: str, redact: Callable[[str], str]) -> None:
        self._where = where
        self._redact = redact
        # Files, because nobody reads while the process runs, and a full pipe would stop it.
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 -- closed in __exit__
        self._process = subprocess.Popen(  # noqa: S603 -- this very interpreter, with fixed arguments
            _COMMAND,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=self._out,
            stderr=self._err,
            # where this package was loaded from, and not what lies in the user's folder under the same name
            cwd=places.PACKAGE.parent,
            # Ctrl-C is for the harness, which ends its workers itself
            start_new_session=True,
        )
        self._tell(msgspec.json.encode(job))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for each in (self._process.stdin, self._out, self._err):
            if each:
                each.close()

    def begin(self, limit_s: float) -> None:
        self._tell(f"{max(limit_s, 0):.3f}".encode())

    def _tell(self, line: bytes) -> None:
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):  # who ended is asked for its result, and has none
                self._process.stdin.write(line + b"\n")

    def is_ready(self) -> bool:
        """Say whether it has loaded the driver.

        :raises WorkerFailedError: when it has ended instead.
        """
        ended = self._process.poll() is not None  # before it is read what was said, because that may be the last
        ready = READY in self._lines()
        if ended and not ready:
            raise self._failed("before it was ready")
        return ready

    def has_ended(self) -> bool:
        """Say whether it has ended well.

        :raises WorkerFailedError: when it has not.
        """
        status = self._process.poll()
        if status:
            raise self._failed("while it was working")
        return status is not None

    def shares(self) -> list[Share]:
        """Return what its processes saw: its last line.

        :raises WorkerFailedError: when that is something else.
        """
        try:
            return msgspec.json.decode((self._lines() or [""])[-1], type=list[Share])
        except msgspec.MsgspecError as error:
            raise self._failed(f"without a result ({error})") from None

    def tail(self) -> str:
        """Return the end of what it wrote to stderr, without secrets."""
        return self._redact("\n".join(_text(self._err).splitlines()[-_TAIL_LINES:]))

    def _lines(self) -> list[str]:
        return _text(self._out).splitlines()

    def _failed(self, when: str) -> WorkerFailedError:
        status = self._process.poll()
        how = f"by signal {-status}" if status and status < 0 else f"with status {status}"
        said = self.tail() or self._redact("\n".join(self._lines()[-_TAIL_LINES:]))
        return WorkerFailedError(f"the process ended {how} {when}", where=self._where, detail=said)


def _text(file: IO[bytes]) -> str:
    # pread, because the process shares the file's position and is still writing
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")
