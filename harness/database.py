"""Connections to PostgreSQL through psycopg: statements, files of named SQL, cloned databases."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn, cast

import psycopg
from msgspec import Struct
from psycopg import pq, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row

from harness.errors import ConfigError, DatabaseError
from harness.passwords import passwords_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

#: any error of a server, or of the connection to it; `sqlstate` is None for an error of the connection
SqlError = psycopg.Error

_NAME = re.compile(r"^-- name: (?P<name>[a-z][a-z0-9_]*)\s*$", re.MULTILINE)


_INVALID = "invalid connection string: libpq cannot parse it"


class Endpoint(Struct, frozen=True, kw_only=True):
    """A server's address, a database and a login. Its `repr` never shows the password."""

    host: str
    port: int
    user: str
    password: str
    dbname: str

    def __repr__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}/{self.dbname}"


class Side(StrEnum):
    """The side whose work a connection does."""

    #: the application's work
    APPLICATION = "application"
    #: the statements of the audit target
    TARGET = "audit target"
    #: provisioning, observation and cleanup
    HARNESS = "harness"


class Origin(Struct, frozen=True):
    """The origin of an SQL error."""

    side: Side
    #: whether the connection had ended when the error was raised
    closed: bool = False


def origin_of(error: SqlError) -> Origin | None:
    """Return the origin of an SQL error; None when it was raised on a connection of another library."""
    return vars(error).get(_ORIGIN)


@contextlib.contextmanager
def raised_for(side: Side) -> Iterator[None]:
    """Set the side of the SQL errors in the block, except for lost connections: a connection keeps its own side."""
    try:
        yield
    except SqlError as error:
        origin = origin_of(error)
        if not is_lost(error):
            vars(error)[_ORIGIN] = Origin(side, origin is not None and origin.closed)
        raise


#: beginnings of the SQLSTATEs of a connection that ended, or could not be made; 08P01 is any mistake in the protocol
#: (https://www.postgresql.org/docs/current/errcodes-appendix.html)
_LOST = ("080", "57P01", "57P02", "57P03", "57P05")


def is_lost(error: SqlError) -> bool:
    """Return whether an error says that a connection ended, or could not be made."""
    if error.sqlstate:
        return error.sqlstate.startswith(_LOST)
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


_ORIGIN = "harness_origin"


class Client(psycopg.Connection[tuple[Any, ...]]):
    """A connection in autocommit mode: every transaction is an explicit block."""

    #: the side of every error that is raised on the connection
    side = Side.HARNESS

    def wait(self, *arguments: Any, **options: Any) -> Any:
        """Wait for the server, as psycopg does for every statement; errors get their origin."""
        with self._originating():
            return super().wait(*arguments, **options)

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """Return a cursor, as psycopg does; the error of a closed connection gets its origin."""
        with self._originating():
            return super().cursor(*arguments, **options)

    @contextlib.contextmanager
    def _originating(self) -> Iterator[None]:
        try:
            yield
        except SqlError as error:
            vars(error).setdefault(_ORIGIN, Origin(self.side, self.pgconn.status != pq.ConnStatus.OK))
            raise

    def run(self, statement: str | sql.Composable, parameters: Sequence[object] | None = None) -> int:
        """Execute a statement, and return the number of affected rows.

        Without parameters psycopg uses the simple protocol, which allows several statements in one text.
        """
        return self.execute(_query(statement), parameters).rowcount

    def rows(
        self, statement: str | sql.Composable, parameters: Sequence[object] | None = None
    ) -> list[tuple[Any, ...]]:
        """Execute a query, and return all its rows."""
        return self.execute(_query(statement), parameters).fetchall()

    def value(self, statement: str | sql.Composable, parameters: Sequence[object] | None = None) -> Any:
        """Execute a query, and return the first column of its first row; None without rows."""
        row = self.execute(_query(statement), parameters).fetchone()
        return row[0] if row else None

    def copy_in(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Run a COPY ... FROM STDIN statement with these rows."""
        with self.cursor() as cursor, cursor.copy(_query(statement)) as copy:
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


def _query(statement: str | sql.Composable) -> Any:
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
    """
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
        vars(error)[_ORIGIN] = Origin(side, closed=True)
        raise
    client.side = side
    return client


#: any synchronous connection of psycopg 3, with any row factory
AnyConnection = psycopg.Connection[Any]


def fetch(
    connection: AnyConnection, statement: str, parameters: Sequence[object] | Mapping[str, object] | None = None
) -> list[tuple[Any, ...]]:
    """Execute a statement on any connection, and return its rows as tuples; none for a statement without rows."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(_query(statement), parameters)
        return cursor.fetchall() if cursor.description else []


def quote_literal(text: str) -> str:
    """Return a text as an SQL literal."""
    return sql.Literal(text).as_string(None)


def is_idle(connection: AnyConnection) -> bool:
    """Return whether no transaction is open on a connection."""
    return connection.info.transaction_status == pq.TransactionStatus.IDLE


def is_open(connection: AnyConnection) -> bool:
    """Return whether a transaction is open on a connection and has not failed."""
    return connection.info.transaction_status == pq.TransactionStatus.INTRANS


def roll_back() -> NoReturn:
    """Roll back the innermost `with connection.transaction()` block, and leave it without an error."""
    raise psycopg.Rollback


def connect_to(dsn: str, *, connect_timeout_s: int = 10) -> Client:
    """Connect in autocommit mode with a connection string.

    :param connect_timeout_s: seconds.
    :raises SqlError: as psycopg does.
    :raises ConfigError: for an invalid connection string. The message does not repeat it: it may hold a password.
    """
    try:
        if any("@" in (host or "") for host in str(conninfo_to_dict(dsn).get("host", "")).split(",")):
            raise ConfigError(
                "the host of the connection string contains an @, so libpq reads only a part of the password",
                hint="in a password write %40 for @, %2F for / and %3A for a colon",
            )
        return Client.connect(dsn, autocommit=True, connect_timeout=connect_timeout_s, prepare_threshold=None)
    except psycopg.ProgrammingError:
        raise ConfigError(_INVALID) from None


_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def confidential(dsn: str) -> tuple[str, ...]:
    """Return the parts of a connection string that evidence must not show: passwords, and the addresses of servers.

    :raises ConfigError: for an invalid connection string.
    """
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        raise ConfigError(_INVALID) from None
    found = [*passwords_of(dsn)]
    for name in ("host", "hostaddr"):
        for host in str(parts.get(name) or "").split(","):
            if host not in ("", *_LOOPBACK) and not host.startswith("/"):
                found += [host, *_addresses(host)]
    return tuple(dict.fromkeys(found))


def address_of(dsn: str) -> tuple[str, ...]:
    """Return the server and the database that a connection string names, without the login; "" for a default."""
    parts = conninfo_to_dict(dsn)
    return tuple(str(parts.get(name) or "") for name in ("service", "host", "hostaddr", "port", "dbname"))


def _addresses(name: str) -> list[str]:
    """Return the addresses of a host: libpq's messages show them next to its name."""
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except OSError:
        return []


def quote_name(name: str) -> str:
    """Return a name as an SQL identifier; a schema before a dot becomes one of its own."""
    return sql.SQL(".").join(sql.Identifier(part) for part in name.split(".")).as_string(None)


def describe(error: BaseException) -> str:
    """Return an error as the evidence spells it: the SQLSTATE, else the class, then the first line of the message."""
    text = str(error).strip().splitlines()
    message = text[0] if text else ""
    state = getattr(error, "sqlstate", None)
    return f"{state} {message}" if state else f"{type(error).__name__}: {message}"


#: libpq does not keep PgBouncer's SQLSTATE while it connects, so refused logins are recognised by their text
_REFUSED = re.compile(
    r"authentication failed|no such user|wrong password type|cannot do SCRAM|login failed|not allowed to connect"
    # a database that matches `*` and is still unknown: PgBouncer rejects the options of the entry
    r"|no such database"
    r"|no pg_hba.conf entry|role \"[^\"]*\" does not exist|role \"[^\"]*\" is not permitted",
    re.IGNORECASE,
)


def refusal(error: SqlError) -> str | None:
    """Return the reason when a server refused the login; None when the server may not be up yet."""
    text = str(error)
    return " ".join(text.split()) if _REFUSED.search(text) else None


def load_queries(path: Path) -> dict[str, str]:
    """Return the statements of an SQL file by name: each block begins with `-- name: the_name`.

    :raises ConfigError: for a duplicate name, or a file without names.
    """
    text = path.read_text(encoding="utf-8")
    marks = list(_NAME.finditer(text))
    found: dict[str, str] = {}
    for mark, after in zip(marks, [*marks[1:], None], strict=True):
        if mark["name"] in found:
            raise ConfigError(f"duplicate statement name {mark['name']}", where=str(path))
        found[mark["name"]] = text[mark.end() : after.start() if after else None].strip()
    if not found:
        raise ConfigError("no statement found, expected blocks that begin with '-- name: the_name'", where=str(path))
    return found


def run_files(connection: AnyConnection, paths: Sequence[Path]) -> None:
    """Run SQL files in one transaction: all of them or none.

    :raises DatabaseError: with file, line and SQLSTATE.
    """
    with connection.transaction():
        for path in paths:
            text = _read_sql(path)
            try:
                with connection.transaction():
                    connection.execute(_query(text))
            except SqlError as error:
                at = error.diag.statement_position
                line = text.count("\n", 0, int(at) - 1) + 1 if at else _failing_line(connection, text, error)
                raise DatabaseError(
                    f"this SQL failed: {describe(error)}",
                    where=f"{path}:{line}" if line else str(path),
                    hint=error.diag.message_hint or "",
                    detail="\n".join(filter(None, (error.diag.message_detail, error.diag.context))),
                ) from None


def _read_sql(path: Path) -> str:
    """Return the text of an SQL file that can run as one message, in a transaction.

    :raises DatabaseError: with the line of a command that only psql understands, or that ends the transaction.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatabaseError(f"this SQL cannot be read: {error}", where=str(path)) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DatabaseError("found a NUL byte: the server would ignore the text after it", where=f"{path}:{line}")
    for start, end in _statements(text):
        if found := _NOT_HERE.match(text, start, end):
            raise DatabaseError(
                f"{found[0].split()[0]} cannot run here: the files run in one transaction, and without psql",
                where=f"{path}:{text.count(chr(10), 0, start) + 1}",
                hint="leave out BEGIN and COMMIT, COPY from or to the client, and psql's commands with a backslash",
            )
    return text


#: tokens that may contain a semicolon (comments, texts, names, dollar-quoted bodies), and the semicolon itself
_TOKEN = re.compile(
    r"""--[^\n]*|/\*.*?\*/|\b[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|(?P<end>;)""",
    re.DOTALL,
)


_SPACE_AND_COMMENTS = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)*", re.DOTALL)
_NOT_HERE = re.compile(
    r"(?:BEGIN|COMMIT|ROLLBACK|START\s+TRANSACTION)\b(?!\s+ATOMIC)|\\\S*|COPY\b[^;]*?\b(?:STDIN|STDOUT)\b",
    re.IGNORECASE,
)


def _statements(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each statement, without the blanks and comments before it."""
    ends = [token.end() for token in _TOKEN.finditer(text) if token["end"]]
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        lead = _SPACE_AND_COMMENTS.match(text, start, end)
        yield (lead.end() if lead else start), end


def _failing_line(connection: AnyConnection, text: str, error: SqlError) -> int | None:
    """Return the line of the statement that raised an error without a position.

    It runs the statements one at a time, and rolls them back.
    """
    with connection.transaction(force_rollback=True):
        for start, end in _statements(text):
            try:
                connection.execute(_query(text[start:end]))
            except SqlError as again:
                return text.count("\n", 0, start) + 1 if again.sqlstate == error.sqlstate else None
    return None


#: CREATE DATABASE has STRATEGY from PostgreSQL 15 on (https://www.postgresql.org/docs/15/sql-createdatabase.html)
_HAS_STRATEGY = 150_000


def create_database(admin: Client, name: str, *, owner: str, template: str | None = None) -> None:
    """Create a database.

    :param owner: the role that owns it.
    :param template: the database to clone, which must have no connections; an empty database by default.
    """
    statement = sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(owner))
    if template:
        statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        if admin.info.server_version >= _HAS_STRATEGY:  # copying the files of a small template is faster than WAL
            statement += sql.SQL(" STRATEGY file_copy")
    admin.run(statement)


def drop_database(admin: Client, name: str) -> None:
    """Drop a database and end all connections to it, also the idle server connections of a pooler."""
    admin.run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def leave_database(admin: Client, name: str) -> int:
    """End all connections to a database that stays until its server is removed, and return its size in bytes."""
    admin.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
    size: int = admin.value("SELECT pg_database_size(%s::name)", [name])
    return size


def console(endpoint: Endpoint, command: str) -> list[dict[str, str]]:
    """Run one command of PgBouncer's admin console, and return its rows: texts by column name.

    The console supports only the simple protocol and no transactions, so the connection uses autocommit and the
    command has no parameters (https://www.pgbouncer.org/usage.html#admin-console).
    """
    with Client.connect(
        host=endpoint.host,
        port=endpoint.port,
        user=endpoint.user,
        password=endpoint.password,
        dbname="pgbouncer",
        autocommit=True,
        connect_timeout=10,
        prepare_threshold=None,
    ) as client:
        cursor = client.execute(_query(command))
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, map(str, row), strict=True)) for row in cursor] if names else []
