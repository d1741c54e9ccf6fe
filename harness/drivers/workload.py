"""The application that runs with each driver, and the processes of its clients.

`python -m harness.drivers.workload` speaks lines: it reads a job as JSON from stdin and writes `ready` to stdout. It
then reads its time limit in seconds, and writes `result` and a list of :class:`Share` as JSON. The next job follows.
The password is on stdin only.

Loading a driver takes longer than running it. Drivers are therefore loaded once, and a process is forked for each share
of the clients. It begins with what was loaded and without connections, whatever ran before: only forked processes
connect. All processes end when stdin is closed, so that they do not outlive the harness.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import sys
import threading
import time
import traceback
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from harness.database import Endpoint
from harness.drivers.queries import Query, queries_of
from harness.drivers.sessions import SESSIONS, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: the beginnings of the lines on stdout
READY, RESULT = "ready", "result"
_STDIN = 0
#: the key of clients that hang, as of the exception of this name
NO_ANSWER = "TimeoutError"
#: the key of the example of a wrong answer
WRONG = "wrong result"

#: every tenth query begins a transaction of two
_TRANSACTION_EVERY = 10
#: a client stops after this many refused logins in a row, if no client was let in: a server might lock the role
_REFUSALS = 5
#: these errors of a login are not refusals: SQLAlchemy sends queries when it connects, and their statements collide
_COLLISIONS = ("26000", "42P05")


class Job(Struct, frozen=True, kw_only=True):
    """The work for one driver."""

    driver: str
    endpoint: Endpoint
    #: the clients of each process, by their number among the clients of all processes
    shares: tuple[tuple[int, ...], ...]
    #: of each client
    queries: int


class Share(Struct, frozen=True, kw_only=True):
    """The results of the clients of one process."""

    queries: int
    #: counts by SQLSTATE, or by the exception's class without one
    errors: dict[str, int]
    wrong: int
    #: the first message of each kind of error, and of wrong answers
    examples: dict[str, str]
    server_pids: tuple[int, ...]
    duration_s: float


class Tally:
    """Counts the results of the clients of this process."""

    def __init__(self) -> None:
        self.queries = 0
        self.errors: Counter[str] = Counter()
        self.wrong = 0
        self.examples: dict[str, str] = {}
        self.server_pids: set[int] = set()

    def add_error(self, error: BaseException) -> str:
        """Count an exception of a driver and return its kind."""
        # SQLAlchemy wraps the exceptions of the driver
        cause = getattr(error, "orig", None) or error
        kind: str = getattr(cause, "sqlstate", None) or type(cause).__name__
        self.count(kind, str(cause))
        return kind

    def count(self, kind: str, message: str) -> None:
        self.errors[kind] += 1
        self.examples.setdefault(kind, next(iter(message.strip().splitlines()), ""))

    def add_answer(self, query: Query, row: Sequence[Any] | None) -> None:
        """Compare an answer with the query."""
        match tuple(row or ()):
            case (str(answer), int(pid)):
                self.server_pids.add(pid)
                correct = answer == query.answer()
            case _:
                correct = False
        if not correct:
            self.wrong += 1
            self.examples.setdefault(WRONG, f"expected {query.answer()!r}, got {row and row[0]!r}")

    def share(self, duration_s: float) -> Share:
        return Share(
            queries=self.queries,
            errors=dict(self.errors),
            wrong=self.wrong,
            examples=self.examples,
            server_pids=tuple(sorted(self.server_pids)),
            duration_s=duration_s,
        )


async def work(session: Session, queries: Sequence[Query], tally: Tally) -> None:
    """Send the queries of one client. An error is counted, and the next query is still sent."""
    try:
        done = refused = 0
        while done < len(queries) and (refused < _REFUSALS or tally.server_pids):
            if session.usable() or not (kind := await _reopen(session, tally)):
                refused = 0
                size = 2 if done % _TRANSACTION_EVERY == _TRANSACTION_EVERY - 2 else 1
                sent = await _send(session, queries[done : done + size], tally)
            else:
                refused = 0 if kind in _COLLISIONS else refused + 1
                sent = 1
            tally.queries += sent
            done += sent
    finally:
        await _close(session)


async def _reopen(session: Session, tally: Tally) -> str:
    """Replace the connection; return the kind of error that prevented it, "" on success."""
    await _close(session)
    try:
        await session.open()
    except Exception as error:  # noqa: BLE001 -- every exception of a driver is a result
        return tally.add_error(error)
    return ""


async def _close(session: Session) -> None:
    with contextlib.suppress(Exception):  # the error that broke the connection is already counted
        await session.close()


async def _send(session: Session, queries: Sequence[Query], tally: Tally) -> int:
    """Send one query, or several in one transaction, until the first error.

    :returns: the number of queries sent; at least one, which counts even if its transaction could not begin.
    """
    sent, failed = 0, False
    try:
        async with session.transaction() if len(queries) > 1 else session.single():
            for query in queries:
                sent += 1
                try:
                    row = await session.fetch(query)
                except Exception as error:
                    failed = True
                    tally.add_error(error)
                    raise
                tally.add_answer(query, row)
    except Exception as error:  # noqa: BLE001 -- every exception of a driver is a result
        # after an error, an exception of the rollback is a consequence, and is not counted
        if not failed:
            tally.add_error(error)
    return max(sent, 1)


async def run(job: Job, clients: Sequence[int], limit_s: float, report: Callable[[Share], None]) -> None:
    """Run the clients of this process concurrently. A client without an answer at the limit counts as an error.

    :param limit_s: seconds.
    :param report: called with the result before clients are cancelled, because a hanging driver may also hang when
        it is cancelled.
    """
    tally, began = Tally(), time.monotonic()
    tasks = [
        asyncio.create_task(work(SESSIONS[job.driver](job.endpoint), queries_of(client, job.queries), tally))
        for client in clients
    ]
    done, pending = await asyncio.wait(tasks, timeout=limit_s)
    for task in done:
        task.result()  # raises a mistake in this file, which ends the process
    for _ in pending:
        tally.count(NO_ANSWER, f"a client had no answer {limit_s:.0f} s after the start")
    report(tally.share(round(time.monotonic() - began, 3)))


def _forked(job: Job, clients: Sequence[int], limit_s: float) -> tuple[int, int]:
    """Fork a process for some clients; return its pid, and the file descriptor for reading its share."""
    read, write = os.pipe()
    if pid := os.fork():
        os.close(write)
        return pid, read

    def report(share: Share) -> None:
        with os.fdopen(write, "wb") as pipe:
            pipe.write(msgspec.json.encode(share))
        os._exit(0)

    try:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
        asyncio.run(run(job, clients, limit_s, report))
    except BaseException:  # noqa: BLE001 -- the forked process must never continue as its parent
        traceback.print_exc()
    finally:
        os._exit(1)


def _shares(job: Job, limit_s: float) -> list[Share]:
    """Run all clients and return the share of each process.

    :raises SystemExit: with the status of a failed process, which has written the reason to stderr.
    """
    started = [_forked(job, clients, limit_s) for clients in job.shares]
    written = _read([pipe for _, pipe in started])
    for pid, _ in started:
        if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise SystemExit(f"a process ended with status {status}")
    return [msgspec.json.decode(written[pipe], type=Share) for _, pipe in started]


def _read(pipes: Sequence[int]) -> dict[int, bytes]:
    """Return what was written to each pipe, and close them. A closed stdin ends this process.

    A thread could wait for stdin, but it would still run when processes are forked for the next job.
    """
    written = dict.fromkeys(pipes, b"")
    with selectors.DefaultSelector() as selector:
        for source in (_STDIN, *pipes):
            selector.register(source, selectors.EVENT_READ)
        while len(selector.get_map()) > 1:
            for key, _ in selector.select():
                if key.fd == _STDIN:
                    os._exit(1)
                if part := os.read(key.fd, 65536):
                    written[key.fd] += part
                else:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    return written


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _end_with_stdin() -> None:
    # os.read, because a thread must not hold the lock of sys.stdin while the interpreter ends
    while os.read(_STDIN, 1024):
        pass
    os._exit(1)


def main() -> None:
    while line := sys.stdin.buffer.readline():
        job = msgspec.json.decode(line, type=Job)
        SESSIONS[job.driver](job.endpoint)  # loads the driver
        _write(READY)
        if limit_s := sys.stdin.buffer.readline():
            _write(RESULT + msgspec.json.encode(_shares(job, float(limit_s))).decode())


if __name__ == "__main__":
    main()
