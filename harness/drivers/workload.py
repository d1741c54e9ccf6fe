"""The application that the drivers are compared with, and the processes that its clients are spread over.

Executed as `python -m harness.drivers.workload`: a job as one line of JSON on stdin, then `ready` on
stdout, then the seconds it may take on stdin, then a list of :class:`Share` as one line of JSON on stdout.
The password is on stdin only. Loading a driver takes longer than running it, so it is loaded once, and a process is
forked for each share of the clients. All of them end when stdin does, so that they outlive nobody.

Clients send one of four texts and one number; the answer names both. The texts take and return the same
types, so that the text of somebody else, run under a name that two drivers both made up, raises no error
anywhere: only the answer tells. Each client begins with another text, or goes the other way round, so that
the first name that a driver makes up stands for something else in every process.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import sys
import threading
import time
import traceback
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec import Struct

from harness.database import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

READY = "ready"
#: the key of an example of an answer that was not the client's own
WRONG = "wrong result"

#: Few, because psycopg prepares late and forgets everything when a transaction is undone: of sixty queries
#: enough have to be left for what is prepared.
TOPICS = ("order", "invoice", "customer", "shipment")
#: Above the range of smallint: psycopg declares a number as the smallest type that holds it, and a type
#: that differs between two numbers would make two statements of one.
_FIRST_NUMBER = 100_000
#: every tenth query begins a transaction of two
_TRANSACTION_EVERY = 10
#: a client that is not let in this often in a row stays out, if nobody is: no server is to lock the role for it
_REFUSALS = 5
#: no refusals: SQLAlchemy asks the server about itself when it connects, and is in when this goes wrong
_COLLISIONS = ("26000", "42P05")


class Job(Struct, frozen=True, kw_only=True):
    """The work of one driver."""

    driver: str
    endpoint: Endpoint
    #: the clients of each process, by their number among those of all processes
    shares: tuple[tuple[int, ...], ...]
    #: how many queries each client asks
    queries: int


class Share(Struct, frozen=True, kw_only=True):
    """What the clients of one worker process saw."""

    queries: int
    #: by SQLSTATE, or by the exception's class where there is none
    errors: dict[str, int]
    wrong: int
    #: the first of each kind
    examples: dict[str, str]
    server_pids: tuple[int, ...]
    duration_s: float


class Query(Struct, frozen=True):
    """One of the texts, and its number."""

    topic: str
    number: int

    def sql(self, placeholder: str) -> str:
        # CAST and not `::`, which SQLAlchemy's text() would take for the end of the placeholder
        return f"SELECT '{self.topic} ' || CAST({placeholder} AS integer), pg_backend_pid()"

    def answer(self) -> str:
        return f"{self.topic} {self.number}"


def questions(client: int, count: int) -> list[Query]:
    """Return what a client asks, in order."""
    first, way = client % len(TOPICS), 1 if client // len(TOPICS) % 2 == 0 else -1
    return [
        Query(TOPICS[(first + way * each) % len(TOPICS)], _FIRST_NUMBER + client * count + each)
        for each in range(count)
    ]


# --- the drivers ----------------------------------------------------------------------------------


class Session(Protocol):
    """One client's connection, as one driver makes it."""

    async def open(self) -> None: ...

    def usable(self) -> bool:
        """Say whether it is open, and in no transaction that a failure left behind."""

    def alone(self) -> AbstractAsyncContextManager[object]:
        """Return what a query without company is asked in."""

    def transaction(self) -> AbstractAsyncContextManager[object]: ...

    async def ask(self, query: Query) -> Sequence[Any] | None:
        """Return the row of the answer."""

    async def close(self) -> None: ...


# The drivers are loaded by name: a process loads the one that it runs, and nothing here needs the others
# to be installed.


class PsycopgSession:
    """psycopg 3, in autocommit mode; the asyncio side, which prepares as the other one does."""

    def __init__(self, endpoint: Endpoint, **settings: object) -> None:
        self._psycopg = importlib.import_module("psycopg")
        self._endpoint = endpoint
        self._settings = settings
        self._connection: Any = None

    async def open(self) -> None:
        to = self._endpoint
        self._connection = await self._psycopg.AsyncConnection.connect(
            host=to.host,
            port=to.port,
            user=to.user,
            password=to.password,
            dbname=to.dbname,
            autocommit=True,
            **self._settings,
        )

    def usable(self) -> bool:
        connection, idle = self._connection, self._psycopg.pq.TransactionStatus.IDLE
        return connection is not None and not connection.closed and connection.info.transaction_status == idle

    def alone(self) -> AbstractAsyncContextManager[object]:
        return contextlib.nullcontext()

    def transaction(self) -> AbstractAsyncContextManager[object]:
        block: AbstractAsyncContextManager[object] = self._connection.transaction()
        return block

    async def ask(self, query: Query) -> Sequence[Any] | None:
        cursor = await self._connection.execute(query.sql("%s"), (query.number,))
        row: Sequence[Any] | None = await cursor.fetchone()
        return row

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


class AsyncpgSession:
    """A plain asyncpg connection."""

    def __init__(self, endpoint: Endpoint, **settings: object) -> None:
        self._asyncpg = importlib.import_module("asyncpg")
        self._endpoint = endpoint
        self._settings = settings
        self._connection: Any = None

    async def open(self) -> None:
        to = self._endpoint
        self._connection = await self._asyncpg.connect(
            host=to.host, port=to.port, user=to.user, password=to.password, database=to.dbname, **self._settings
        )

    def usable(self) -> bool:
        connection = self._connection
        return connection is not None and not connection.is_closed() and not connection.is_in_transaction()

    def alone(self) -> AbstractAsyncContextManager[object]:
        return contextlib.nullcontext()

    def transaction(self) -> AbstractAsyncContextManager[object]:
        block: AbstractAsyncContextManager[object] = self._connection.transaction()
        return block

    async def ask(self, query: Query) -> Sequence[Any] | None:
        row: Sequence[Any] | None = await self._connection.fetchrow(query.sql("$1"), query.number)
        return row

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


class SqlalchemySession:
    """An engine of SQLAlchemy in its default settings, one for each client so that each has a connection.

    SQLAlchemy knows no query outside a transaction unless it is told to, so none is here either. The engine
    itself replaces a connection that was closed.
    """

    def __init__(self, endpoint: Endpoint, dialect: str) -> None:
        self._sqlalchemy = importlib.import_module("sqlalchemy")
        create = importlib.import_module("sqlalchemy.ext.asyncio").create_async_engine
        self._engine: Any = create(
            self._sqlalchemy.URL.create(
                f"postgresql+{dialect}",
                host=endpoint.host,
                port=endpoint.port,
                username=endpoint.user,
                password=endpoint.password,
                database=endpoint.dbname,
            )
        )
        self._connection: Any = None
        self._opened = False

    async def open(self) -> None:
        async with self._engine.connect():
            self._opened = True

    def usable(self) -> bool:
        return self._opened

    def alone(self) -> AbstractAsyncContextManager[object]:
        return self.transaction()

    @contextlib.asynccontextmanager
    async def transaction(self) -> Any:
        async with self._engine.begin() as self._connection:
            yield

    async def ask(self, query: Query) -> Sequence[Any] | None:
        text = self._sqlalchemy.text(query.sql(":number"))
        result = await self._connection.execute(text, {"number": query.number})
        row: Sequence[Any] | None = result.first()
        return row

    async def close(self) -> None:
        await self._engine.dispose()


SESSIONS: dict[str, Callable[[Endpoint], Session]] = {
    "psycopg": PsycopgSession,
    "psycopg-unprepared": partial(PsycopgSession, prepare_threshold=None),
    "asyncpg": AsyncpgSession,
    "asyncpg-uncached": partial(AsyncpgSession, statement_cache_size=0),
    "sqlalchemy-psycopg": partial(SqlalchemySession, dialect="psycopg"),
    "sqlalchemy-asyncpg": partial(SqlalchemySession, dialect="asyncpg"),
}


# --- the application ------------------------------------------------------------------------------


class Tally:
    """What the clients of this process have seen so far."""

    def __init__(self) -> None:
        self.queries = 0
        self.errors: Counter[str] = Counter()
        self.wrong = 0
        self.examples: dict[str, str] = {}
        self.server_pids: set[int] = set()

    def failed(self, error: BaseException) -> str:
        """Count an error and return its kind."""
        # SQLAlchemy wraps what the driver raised
        cause = getattr(error, "orig", None) or error
        kind: str = getattr(cause, "sqlstate", None) or type(cause).__name__
        self.count(kind, str(cause))
        return kind

    def count(self, kind: str, message: str) -> None:
        self.errors[kind] += 1
        self.examples.setdefault(kind, next(iter(message.strip().splitlines()), ""))

    def answered(self, query: Query, row: Sequence[Any] | None) -> None:
        match tuple(row or ()):
            case (str(answer), int(pid)):
                self.server_pids.add(pid)
                right = answer == query.answer()
            case _:
                right = False
        if not right:
            self.wrong += 1
            self.examples.setdefault(WRONG, f"asked for {query.answer()!r}, got {row and row[0]!r}")

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
    """Ask one client's queries. An error is counted, and the next query is asked all the same."""
    try:
        done = refused = 0
        while done < len(queries) and (refused < _REFUSALS or tally.server_pids):
            if session.usable() or not (kind := await _reopen(session, tally)):
                refused = 0
                size = 2 if done % _TRANSACTION_EVERY == _TRANSACTION_EVERY - 2 else 1
                asked = await _together(session, queries[done : done + size], tally)
            else:
                refused = 0 if kind in _COLLISIONS else refused + 1
                asked = 1
            tally.queries += asked
            done += asked
    finally:
        await _closed(session)


async def _reopen(session: Session, tally: Tally) -> str:
    """Return the kind of error that kept a client out, "" when it is in."""
    await _closed(session)
    try:
        await session.open()
    except Exception as error:  # noqa: BLE001 -- whatever a driver raises is what is measured
        return tally.failed(error)
    return ""


async def _closed(session: Session) -> None:
    with contextlib.suppress(Exception):  # what broke it has been counted
        await session.close()


async def _together(session: Session, queries: Sequence[Query], tally: Tally) -> int:
    """Ask one query, or several in one transaction, up to the first error.

    :returns: how many were asked, counting one that could not be because no transaction began.
    """
    asked, failed = 0, False
    try:
        async with session.transaction() if len(queries) > 1 else session.alone():
            for query in queries:
                asked += 1
                try:
                    row = await session.ask(query)
                except Exception as error:
                    failed = True
                    tally.failed(error)
                    raise
                tally.answered(query, row)
    except Exception as error:  # noqa: BLE001 -- whatever a driver raises is what is measured
        # what undoing a transaction raises after its first error is a consequence, and not one more
        if not failed:
            tally.failed(error)
    return max(asked, 1)


async def run(job: Job, clients: Sequence[int], limit_s: float, report: Callable[[Share], None]) -> None:
    """Let the clients of this process ask at once; a client without an answer at the limit counts as an error.

    :param report: called with the result before anything is cancelled: a driver that hangs may hang in being
        cancelled, too.
    """
    tally, began = Tally(), time.monotonic()
    tasks = [
        asyncio.create_task(work(SESSIONS[job.driver](job.endpoint), questions(client, job.queries), tally))
        for client in clients
    ]
    done, pending = await asyncio.wait(tasks, timeout=limit_s)
    for task in done:
        task.result()  # a mistake in this file ends the process
    for _ in pending:
        tally.count("TimeoutError", f"a client had no answer {limit_s:.0f} s after the start")
    report(tally.share(round(time.monotonic() - began, 3)))


def _forked(job: Job, clients: Sequence[int], limit_s: float) -> tuple[int, int]:
    """Start a process for some clients; return its pid, and where its share can be read."""
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
    except BaseException:  # noqa: BLE001 -- a forked process must not go on as its parent
        traceback.print_exc()
    finally:
        os._exit(1)


def _shares(job: Job, limit_s: float) -> list[Share]:
    """Run all clients and return the share of each process.

    :raises SystemExit: with the status of a process that failed; it has written why to stderr.
    """
    started = [_forked(job, clients, limit_s) for clients in job.shares]
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    shares = []
    for pid, pipe in started:
        with os.fdopen(pipe, "rb") as reader:
            written = reader.read()
        if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise SystemExit(f"a process ended with status {status}")
        shares.append(msgspec.json.decode(written, type=Share))
    return shares


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _end_with_stdin() -> None:
    # not sys.stdin, whose lock a thread must not hold while the interpreter ends
    while os.read(0, 1024):
        pass
    os._exit(1)


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    SESSIONS[job.driver](job.endpoint)  # loads the driver
    _say(READY)
    if limit_s := sys.stdin.buffer.readline():
        _say(msgspec.json.encode(_shares(job, float(limit_s))).decode())


if __name__ == "__main__":
    main()
