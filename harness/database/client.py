"""Connections to PostgreSQL, and to PgBouncer's console, through psycopg."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from threading import Event, Thread, Timer
from typing import TYPE_CHECKING, Any, NoReturn, cast

import psycopg
from msgspec import Struct
from psycopg import pq, sql
from psycopg.rows import tuple_row

from harness.database.sql_errors import Origin, Side, SqlError, origin_of, set_origin
from harness.errors import ServiceFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from psycopg import Transaction
    from psycopg.errors import Diagnostic


# it warns of a rollback that fails with its connection: the error that ended the transaction is raised as well, and
# without a handler Python prints the warning
logging.getLogger("psycopg").addHandler(logging.NullHandler())

#: seconds that a request to cancel a statement may take
_CANCEL_S = 5.0
#: after so many requests, a block of statements that goes on loses its connection
_CANCELS = 2


class Endpoint(Struct, frozen=True, kw_only=True):
    """A server's address, a database and a login. Its `repr` never shows the password."""

    host: str
    port: int
    user: str
    password: str
    dbname: str
    #: set once the server is being removed: a connection to its address would then wait for the timeout
    closing: Event | None = None

    def require_open(self) -> None:
        """Return at once while the server is not being removed.

        :raises ServiceFailedError: when it is. A wait that polls with connections ends with this error.
        """
        if self.closing and self.closing.is_set():
            raise ServiceFailedError("the server is being removed", where=f"{self.host}:{self.port}")

    def __repr__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}/{self.dbname}"


class Client(psycopg.Connection[tuple[Any, ...]]):
    """A connection in autocommit mode: every transaction is an explicit block."""

    #: the side of every error that is raised on the connection
    side = Side.HARNESS
    #: SQLSTATE and message of an error that arrived between two statements: libpq can only pass it on as a notice
    unsolicited: tuple[str, str] | None = None
    #: gets the text of each statement, and what opens and ends each transaction; None while nobody collects them
    recorded: Callable[[str], None] | None = None

    def hear_errors(self) -> None:
        """Keep each error that arrives between two statements in :attr:`unsolicited`."""

        def keep(notice: Diagnostic) -> None:
            # PgBouncer sends the localized severity only
            severity = notice.severity_nonlocalized or notice.severity
            if severity in {"ERROR", "FATAL", "PANIC"} and self.unsolicited is None:
                self.unsolicited = (notice.sqlstate or "", notice.message_primary or "")

        self.add_notice_handler(keep)

    def wait(self, *arguments: Any, **options: Any) -> Any:
        """Wait for the server, as psycopg does for every statement; errors get their origin."""
        with self._originating():
            return super().wait(*arguments, **options)

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """Return a cursor, as psycopg does; the error of a closed connection gets its origin."""
        with self._originating():
            return super().cursor(*arguments, **options)

    @contextlib.contextmanager
    def transaction(self, savepoint_name: str | None = None, force_rollback: bool = False) -> Iterator[Transaction]:
        """Open a transaction, or a savepoint within one, as psycopg does."""
        if (recorded := self.recorded) is None:
            with super().transaction(savepoint_name, force_rollback) as opened:
                yield opened
            return
        outer = self.info.transaction_status == pq.TransactionStatus.IDLE
        name = savepoint_name or "block"
        begin, commit, undo = (
            ("BEGIN", "COMMIT", "ROLLBACK")
            if outer
            else (f"SAVEPOINT {name}", f"RELEASE {name}", f"ROLLBACK TO SAVEPOINT {name}")
        )
        with super().transaction(savepoint_name, force_rollback) as opened:
            recorded(begin)
            try:
                yield opened
            except BaseException:
                recorded(undo)
                raise
            recorded(undo if force_rollback else commit)

    @contextlib.contextmanager
    def _originating(self) -> Iterator[None]:
        try:
            yield
        except SqlError as error:
            if origin_of(error) is None:
                set_origin(error, Origin(self.side, self.pgconn.status != pq.ConnStatus.OK))
            raise

    def run(self, statement: str | sql.Composable, parameters: Sequence[object] | None = None) -> int:
        """Execute a statement, and return the number of affected rows.

        Without parameters psycopg uses the simple protocol, which allows several statements in one text.
        """
        return self.execute(query(statement), parameters).rowcount

    def rows(
        self, statement: str | sql.Composable, parameters: Sequence[object] | None = None
    ) -> list[tuple[Any, ...]]:
        """Execute a query, and return all its rows."""
        return self.execute(query(statement), parameters).fetchall()

    def value(self, statement: str | sql.Composable, parameters: Sequence[object] | None = None) -> Any:
        """Execute a query, and return the first column of its first row; None without rows."""
        row = self.execute(query(statement), parameters).fetchone()
        return row[0] if row else None

    def copy_in(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Run a COPY ... FROM STDIN statement with these rows."""
        with self.cursor() as cursor, cursor.copy(query(statement)) as copy:
            for row in rows:
                copy.write_row(row)

    def server_pid(self) -> int:
        """Return the pid of the server process that serves this client now."""
        return cast("int", self.value("SELECT pg_backend_pid()"))


def cut(client: Client) -> None:
    """Break a connection like a failing network, without a message to either side; a waiting thread gets an error."""
    with contextlib.suppress(OSError, SqlError), socket.socket(fileno=os.dup(client.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)


def own_port(client: Client) -> int:
    """Return the local TCP port of a connection; 0 for a Unix socket."""
    with socket.socket(fileno=os.dup(client.fileno())) as wire:
        name = wire.getsockname()
    return int(name[1]) if isinstance(name, tuple) else 0


def query(statement: str | sql.Composable) -> Any:
    """Return a statement as psycopg's types want it: they accept literal strings only."""
    return statement


def connect(
    endpoint: Endpoint,
    *,
    application_name: str = "pooler-harness",
    prepare_threshold: int | None = None,
    options: str = "",
    connect_timeout_s: int = 10,
    channel_binding: str = "prefer",
    side: Side = Side.HARNESS,
) -> Client:
    """Connect in autocommit mode.

    :param prepare_threshold: the number of executions after which psycopg prepares a statement; None for never.
    :param options: command-line options for the server, as libpq sends them in the startup message.
    :param connect_timeout_s: seconds.
    :param channel_binding: libpq's setting: disable, prefer or require.
    :param side: whose work the connection does.
    :raises SqlError: as psycopg does; :func:`refusal` distinguishes a refused login from a server that is not up yet.
    :raises ServiceFailedError: when the server is being removed.
    """
    endpoint.require_open()
    return on_side(
        side,
        lambda: Client.connect(
            host=endpoint.host,
            port=endpoint.port,
            user=endpoint.user,
            password=endpoint.password,
            dbname=endpoint.dbname,
            application_name=application_name,
            connect_timeout=connect_timeout_s,
            autocommit=True,
            prepare_threshold=prepare_threshold,
            options=options or None,
            channel_binding=channel_binding,
        ),
    )


def on_side(side: Side, connect: Callable[[], Client]) -> Client:
    """Connect, and set the side of the connection and of an error on the way."""
    try:
        client = connect()
    except SqlError as error:
        set_origin(error, Origin(side, closed=True))
        raise
    client.side = side
    client.hear_errors()
    return client


def observing(client: Client) -> Client:
    """Return a connection that observes, so that it can read times: its role or database may have another DateStyle."""
    if not (client.pgconn.parameter_status(b"DateStyle") or b"ISO").startswith(b"ISO"):
        client.run("SET DateStyle = 'ISO'")
    return client


def type_name(client: Client, column: psycopg.Column) -> str:
    """Return the server's name of a column's type, with [] for an array; "" for a type of an extension."""
    found = client.adapters.types.get(column.type_code)
    return "" if found is None else f"{found.name}{'[]' if found.array_oid == column.type_code else ''}"


#: any synchronous connection of psycopg 3, with any row factory
AnyConnection = psycopg.Connection[Any]


def fetch(
    connection: AnyConnection, statement: str, parameters: Sequence[object] | Mapping[str, object] | None = None
) -> list[tuple[Any, ...]]:
    """Execute a statement on any connection, and return its rows as tuples; none for a statement without rows."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(query(statement), parameters)
        return cursor.fetchall() if cursor.description else []


def quote_literal(text: str) -> str:
    """Return a text as an SQL literal."""
    return sql.Literal(text).as_string(None)


def quote_identifier(name: str) -> str:
    """Return one name as an SQL identifier; a dot in it is a part of the name."""
    return sql.Identifier(name).as_string(None)


def quote_name(name: str) -> str:
    """Return a name as an SQL identifier; a schema before a dot becomes one of its own."""
    return sql.SQL(".").join(sql.Identifier(part) for part in name.split(".")).as_string(None)


def is_idle(connection: AnyConnection) -> bool:
    """Return whether no transaction is open on a connection."""
    return connection.info.transaction_status == pq.TransactionStatus.IDLE


def is_open(connection: AnyConnection) -> bool:
    """Return whether a transaction is open on a connection and has not failed."""
    return connection.info.transaction_status == pq.TransactionStatus.INTRANS


def roll_back() -> NoReturn:
    """Roll back the innermost `with connection.transaction()` block, and leave it without an error."""
    raise psycopg.Rollback


@contextlib.contextmanager
def bounded(client: Client, longest_s: float) -> Iterator[Client]:
    """Break a connection, as :func:`cut` does, if the block has not ended in time; a waiting thread gets an error."""
    watchdog = Timer(longest_s, cut, [client])
    watchdog.daemon = True
    watchdog.start()
    try:
        yield client
    finally:
        watchdog.cancel()


@contextlib.contextmanager
def cancelled_after(client: Client, longest_s: float) -> Iterator[Event]:
    """Cancel the statement that runs on a connection if the block has not ended in time.

    A block of several statements may go on, and a request between two of them cancels none: after the same time, the
    statement that runs then is cancelled, too. A block that goes on even so loses its connection: a function may catch
    the cancellation.

    :return: an event that is set when a statement is cancelled. Its error has the SQLSTATE 57014, or none with a broken
        connection.
    """
    late, over = Event(), Event()

    def cancel() -> None:
        for _ in range(_CANCELS):
            if over.wait(longest_s):
                return
            late.set()
            with contextlib.suppress(SqlError):
                client.cancel_safe(timeout=_CANCEL_S)
        if not over.wait(min(longest_s, _CANCEL_S)):
            cut(client)

    watchdog = Thread(target=cancel, daemon=True, name="deadline of a statement")
    watchdog.start()
    try:
        yield late
    finally:
        over.set()
        if late.is_set():  # a request that is on its way must not reach a later statement
            watchdog.join(_CANCEL_S)


def console(endpoint: Endpoint, command: str, *, longest_s: float = 60.0) -> list[dict[str, str]]:
    """Run one command of PgBouncer's admin console, and return its rows: texts by column name.

    The console supports only the simple protocol and no transactions, so the connection uses autocommit and the
    command has no parameters (https://www.pgbouncer.org/usage.html#admin-console).

    :param longest_s: seconds after which the connection is broken: the console has no timeout.
    :raises ServiceFailedError: when the pooler is being removed.
    """
    endpoint.require_open()
    with (
        Client.connect(
            host=endpoint.host,
            port=endpoint.port,
            user=endpoint.user,
            password=endpoint.password,
            dbname="pgbouncer",
            autocommit=True,
            connect_timeout=10,
            prepare_threshold=None,
        ) as client,
        bounded(client, longest_s),
    ):
        cursor = client.execute(query(command))
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, map(str, row), strict=True)) for row in cursor] if names else []


def database_on_console(endpoint: Endpoint, chain: Endpoint) -> dict[str, str] | None:
    """Return the row of a database in SHOW DATABASES of PgBouncer's console; None if no client has named it.

    PgBouncer takes a database of the entry `*` off this list while no pool has connections, for example while its first
    clients still log in, and lists it again only when another client names it (janitor.c; seen with 1.18).

    :param endpoint: the console.
    :param chain: the database through the pooler, with a login.
    """

    def listed() -> dict[str, str] | None:
        return next((row for row in console(endpoint, "SHOW DATABASES") if row["name"] == chain.dbname), None)

    if row := listed():
        return row
    with contextlib.suppress(SqlError), connect(chain, connect_timeout_s=2):
        return listed()
    return listed()  # a database that is disabled refuses the login, and is listed for a moment
