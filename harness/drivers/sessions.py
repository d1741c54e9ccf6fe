"""One client's connection, in each of the drivers.

Drivers are imported by name, so that a process loads only the driver that it runs. The others need not be installed.
"""

from __future__ import annotations

import contextlib
import importlib
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from harness.database import Endpoint
    from harness.drivers.queries import Query


class Session(Protocol):
    """One client's connection."""

    async def open(self) -> None: ...

    def usable(self) -> bool:
        """Return whether the connection is open, and not in a transaction that an error left behind."""

    def single(self) -> AbstractAsyncContextManager[object]:
        """Return the context for a query outside an explicit transaction."""

    def transaction(self) -> AbstractAsyncContextManager[object]: ...

    async def fetch(self, query: Query) -> Sequence[Any] | None:
        """Run a query and return the row of its answer."""

    async def close(self) -> None: ...


class PsycopgSession:
    """A connection of psycopg 3 in autocommit mode. Its asyncio API prepares statements like its synchronous API."""

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

    def single(self) -> AbstractAsyncContextManager[object]:
        return contextlib.nullcontext()

    def transaction(self) -> AbstractAsyncContextManager[object]:
        block: AbstractAsyncContextManager[object] = self._connection.transaction()
        return block

    async def fetch(self, query: Query) -> Sequence[Any] | None:
        cursor = await self._connection.execute(query.sql("%s"), (query.number,))
        row: Sequence[Any] | None = await cursor.fetchone()
        return row

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


class AsyncpgSession:
    """A connection of asyncpg."""

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

    def single(self) -> AbstractAsyncContextManager[object]:
        return contextlib.nullcontext()

    def transaction(self) -> AbstractAsyncContextManager[object]:
        block: AbstractAsyncContextManager[object] = self._connection.transaction()
        return block

    async def fetch(self, query: Query) -> Sequence[Any] | None:
        row: Sequence[Any] | None = await self._connection.fetchrow(query.sql("$1"), query.number)
        return row

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


class SqlalchemySession:
    """A SQLAlchemy engine with default settings; each client has its own, and therefore its own connection.

    SQLAlchemy runs every query in a transaction by default. The engine replaces a closed connection on its own.
    """

    def __init__(self, endpoint: Endpoint, dialect: str) -> None:
        url = importlib.import_module("sqlalchemy").URL
        create = importlib.import_module("sqlalchemy.ext.asyncio").create_async_engine
        self._engine: Any = create(
            url.create(
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

    def single(self) -> AbstractAsyncContextManager[object]:
        return self.transaction()

    @contextlib.asynccontextmanager
    async def transaction(self) -> Any:
        async with self._engine.begin() as self._connection:
            yield

    async def fetch(self, query: Query) -> Sequence[Any] | None:
        result = await self._connection.execute(_statement(query.sql(":number")), {"number": query.number})
        row: Sequence[Any] | None = result.first()
        return row

    async def close(self) -> None:
        await self._engine.dispose()


@cache
def _statement(sql: str) -> Any:
    """Return the statement that all clients of a process run: SQLAlchemy parses a text and finds its key once."""
    return importlib.import_module("sqlalchemy").text(sql)


#: the session of each driver, by the name of :class:`harness.drivers.measure.Driver`
SESSIONS: dict[str, Callable[[Endpoint], Session]] = {
    "psycopg": PsycopgSession,
    "psycopg-unprepared": partial(PsycopgSession, prepare_threshold=None),
    "asyncpg": AsyncpgSession,
    "asyncpg-uncached": partial(AsyncpgSession, statement_cache_size=0),
    "sqlalchemy-psycopg": partial(SqlalchemySession, dialect="psycopg"),
    "sqlalchemy-asyncpg": partial(SqlalchemySession, dialect="asyncpg"),
}
