"""The only door to psycopg: connections, statements, named SQL files, cloned databases."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from typing import TYPE_CHECKING, Any, NoReturn, cast

import psycopg
from msgspec import Struct
from psycopg import pq, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row

from harness.errors import ConfigError, DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

#: any error of a server, or of the connection to it; `sqlstate` is None for the latter
SqlError = psycopg.Error

_NAME = re.compile(r"^-- name: (?P<name>[a-z][a-z0-9_]*)\s*$", re.MULTILINE)


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where to connect, and as whom. Its text never shows the password."""

    host: str
    port: int
    user: str
    password: str
    dbname: str

    def __repr__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}/{self.dbname}"


class Client(psycopg.Connection[tuple[Any, ...]]):
    """A connection in autocommit mode: a transaction is a block that somebody opened on purpose."""

    def run(self, statement: str | sql.Composable, parameters: Sequence[object] | None = None) -> int:
        """Execute and return the number of rows affected.

        Without parameters the simple protocol is used, so several statements may be given at once.
        """
        return self.execute(_query(statement), parameters).rowcount

    def rows(
        self, statement: str | sql.Composable, parameters: Sequence[object] | None = None
    ) -> list[tuple[Any, ...]]:
        return self.execute(_query(statement), parameters).fetchall()

    def value(self, statement: str | sql.Composable, parameters: Sequence[object] | None = None) -> Any:
        """Return the first column of the first row, or None when there is no row."""
        row = self.execute(_query(statement), parameters).fetchone()
        return row[0] if row else None

    def copy_in(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """COPY rows into a table."""
        with self.cursor() as cursor, cursor.copy(_query(statement)) as copy:
            for row in rows:
                copy.write_row(row)

    def server_pid(self) -> int:
        """Return the pid of the server connection that serves this client now."""
        return cast("int", self.value("SELECT pg_backend_pid()"))


def cut(client: Client) -> None:
    """End a connection as a broken network does: without a word to either side, and under whoever waits on it."""
    with contextlib.suppress(OSError, SqlError), socket.socket(fileno=os.dup(client.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)


def _query(statement: str | sql.Composable) -> Any:
    return statement


def connect(
    endpoint: Endpoint,
    *,
    application_name: str = "pooler-harness",
    prepare_threshold: int | None = None,
    options: str = "",
    connect_timeout_s: int = 10,
) -> Client:
    """Connect in autocommit mode.

    :param prepare_threshold: None never prepares on the server.
    :raises SqlError: as psycopg does; see :func:`refusal` for what it means.
    """
    return Client.connect(
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
    )


#: a connection of anybody's: psycopg 3, synchronous, whatever its row factory
AnyConnection = psycopg.Connection[Any]


def fetch(
    connection: AnyConnection, statement: str, parameters: Sequence[object] | Mapping[str, object] | None = None
) -> list[tuple[Any, ...]]:
    """Execute on a connection of anybody's and return the rows as tuples; none for what returns nothing."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(_query(statement), parameters)
        return cursor.fetchall() if cursor.description else []


def quote_literal(text: str) -> str:
    """Return a text as an SQL literal."""
    return sql.Literal(text).as_string(None)


def is_idle(connection: AnyConnection) -> bool:
    """Say whether no transaction is open on a connection."""
    return connection.info.transaction_status == pq.TransactionStatus.IDLE


def is_open(connection: AnyConnection) -> bool:
    """Say whether a transaction is open on a connection, and has not failed."""
    return connection.info.transaction_status == pq.TransactionStatus.INTRANS


def roll_back() -> NoReturn:
    """Leave the innermost `with connection.transaction()` block, undone, without an error."""
    raise psycopg.Rollback


def connect_to(dsn: str, *, connect_timeout_s: int = 10) -> Client:
    """Connect in autocommit mode to what a connection string says.

    :raises SqlError: as psycopg does.
    :raises ConfigError: for what is no connection string; it is not repeated, because it may hold a password.
    """
    try:
        if any("@" in (host or "") for host in str(conninfo_to_dict(dsn).get("host", "")).split(",")):
            raise ConfigError(
                "the host of the connection string holds an @: the password before it is cut short",
                hint="in a password write %40 for @, %2F for / and %3A for a colon",
            )
        return Client.connect(dsn, autocommit=True, connect_timeout=connect_timeout_s, prepare_threshold=None)
    except psycopg.ProgrammingError:
        raise ConfigError("this is no connection string that libpq understands") from None


_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def confidential(dsn: str) -> tuple[str, ...]:
    """Return what a connection string holds that no evidence may show: the password, and where the servers are.

    :raises ConfigError: for what is no connection string.
    """
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        raise ConfigError("this is no connection string that libpq understands") from None
    found = [str(parts[name]) for name in ("password", "sslpassword") if parts.get(name)]
    for name in ("host", "hostaddr"):
        for each in str(parts.get(name) or "").split(","):
            if each not in ("", *_LOOPBACK) and not each.startswith("/"):
                found += [each, *_addresses(each)]
    return tuple(dict.fromkeys(found))


def _addresses(name: str) -> list[str]:
    """Return the addresses of a host: libpq's messages give them beside its name."""
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except OSError:
        return []


def quote_name(name: str) -> str:
    """Return a name, or one with its schema before it, as SQL identifiers."""
    return sql.SQL(".").join(sql.Identifier(part) for part in name.split(".")).as_string(None)


def describe(error: BaseException) -> str:
    """Return an error as the evidence spells it: SQLSTATE first, then the message's first line."""
    text = str(error).strip().splitlines()
    message = text[0] if text else ""
    state = getattr(error, "sqlstate", None)
    return f"{state} {message}" if state else f"{type(error).__name__}: {message}"


#: PgBouncer gives no SQLSTATE that libpq would keep while connecting, so its refusals are known by text.
_REFUSED = re.compile(
    r"authentication failed|no such user|wrong password type|cannot do SCRAM|login failed|not allowed to connect"
    r"|no pg_hba.conf entry|role \"[^\"]*\" does not exist|role \"[^\"]*\" is not permitted",
    re.IGNORECASE,
)


def refusal(error: SqlError) -> str | None:
    """Return why a server refused the login for good; None when it may just not be up yet."""
    text = str(error)
    return " ".join(text.split()) if _REFUSED.search(text) else None


def load_queries(path: Path) -> dict[str, str]:
    """Return the named statements of an SQL file: each block begins with `-- name: the_name`.

    :raises ConfigError: on a name that is there twice, or a file without names.
    """
    text = path.read_text(encoding="utf-8")
    marks = list(_NAME.finditer(text))
    found: dict[str, str] = {}
    for mark, after in zip(marks, [*marks[1:], None], strict=True):
        if mark["name"] in found:
            raise ConfigError(f"there are two statements named {mark['name']}", where=str(path))
        found[mark["name"]] = text[mark.end() : after.start() if after else None].strip()
    if not found:
        raise ConfigError("there is no statement in it: each begins with '-- name: the_name'", where=str(path))
    return found


def run_files(connection: AnyConnection, paths: Sequence[Path]) -> None:
    """Run SQL files in one transaction: all of them or nothing.

    :raises DatabaseError: naming file, line and SQLSTATE.
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
                    f"this SQL does not run: {describe(error)}",
                    where=f"{path}:{line}" if line else str(path),
                    hint=error.diag.message_hint or "",
                    detail="\n".join(filter(None, (error.diag.message_detail, error.diag.context))),
                ) from None


def _read_sql(path: Path) -> str:
    """Return the text of an SQL file that can be run as one message, in a transaction.

    :raises DatabaseError: for what only psql understands, or what ends the transaction, with its line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatabaseError(f"this SQL cannot be read: {error}", where=str(path)) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DatabaseError("there is a NUL byte, and no server reads beyond it", where=f"{path}:{line}")
    for start, end in _statements(text):
        if found := _NOT_HERE.match(text, start, end):
            raise DatabaseError(
                f"{found[0].split()[0]} cannot be run here: the files are run in one transaction, and not by psql",
                where=f"{path}:{text.count(chr(10), 0, start) + 1}",
                hint="leave out BEGIN and COMMIT, COPY from or to the client, and what begins with a backslash",
            )
    return text


#: what a semicolon may hide in: comments, texts, names, dollar-quoted bodies
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
    """Yield where the statements of a text begin and end, without the blanks and comments before them."""
    ends = [each.end() for each in _TOKEN.finditer(text) if each["end"]]
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        lead = _SPACE_AND_COMMENTS.match(text, start, end)
        yield (lead.end() if lead else start), end


def _failing_line(connection: AnyConnection, text: str, error: SqlError) -> int | None:
    """Find the statement that raised an error without a position, by running them one at a time, undone afterwards."""
    with connection.transaction(force_rollback=True):
        for start, end in _statements(text):
            try:
                connection.execute(_query(text[start:end]))
            except SqlError as again:
                return text.count("\n", 0, start) + 1 if again.sqlstate == error.sqlstate else None
    return None


_HAS_STRATEGY = 150_000


def create_database(admin: Client, name: str, *, owner: str, template: str | None = None) -> None:
    """Create a database, from a template that nobody is connected to."""
    statement = sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(owner))
    if template:
        statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        if admin.info.server_version >= _HAS_STRATEGY:  # a small template is copied faster than it is logged
            statement += sql.SQL(" STRATEGY file_copy")
    admin.run(statement)


def drop_database(admin: Client, name: str) -> None:
    """Drop a database and end whoever is connected to it, a pooler's idle server connections included."""
    admin.run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def leave_database(admin: Client, name: str) -> int:
    """End whoever is connected to a database that nobody needs any more, and return its size in bytes."""
    admin.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
    size: int = admin.value("SELECT pg_database_size(%s::name)", [name])
    return size


def console(endpoint: Endpoint, command: str) -> list[dict[str, str]]:
    """Run one command of PgBouncer's admin console and return its rows as text.

    The console speaks the simple protocol only and knows no transactions, hence autocommit and no
    parameters (https://www.pgbouncer.org/usage.html#admin-console).
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
