"""Single messages of PostgreSQL's protocol, as drivers send them and libpq's ordinary calls do not.

Every function returns the server's answer as a :class:`Reply`: the first value as text, or the SQLSTATE of an error.
None of them raises for an error of the server. All of them end at a deadline.
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace
from psycopg import pq

from harness.database import SqlError
from harness.errors import TimedOutError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg.pq.abc import PGresult

    from harness.database import Client


_DEADLINE_S = 30.0
#: in place of an SQLSTATE, when the connection ended without one
CLOSED = "closed"


class Reply(Struct, frozen=True, kw_only=True):
    """The server's answer to one statement."""

    #: the first column of the first row, as text; None for NULL, or without rows
    value: str | None = None
    #: of an error; "" without one
    sqlstate: str = ""
    message: str = ""
    #: whether the connection has ended
    closed: bool = False

    @property
    def is_error(self) -> bool:
        return bool(self.sqlstate)

    def __str__(self) -> str:
        return self.sqlstate or str(self.value)


def parse(client: Client, name: str, statement: str) -> Reply:
    """Send Parse for a statement, then Sync.

    :param name: the name of the prepared statement; "" for the unnamed one.
    """
    return _answer(client, lambda: client.pgconn.send_prepare(name.encode(), statement.encode()))


def execute(client: Client, name: str, parameters: Sequence[str] = ()) -> Reply:
    """Send Bind and Execute for a statement that was parsed before, then Sync."""
    values = [parameter.encode() for parameter in parameters]
    return _answer(client, lambda: client.pgconn.send_query_prepared(name.encode(), values))


def extended(client: Client, statement: str) -> Reply:
    """Run a statement by the extended protocol: Parse, Bind, Execute and Sync together."""
    return _answer(client, lambda: client.pgconn.send_query_params(statement.encode(), None))


def simple(client: Client, statement: str) -> Reply:
    """Run statements by the simple protocol, in one message. The first error counts, else the last result."""
    return _answer(client, lambda: start(client, statement))


def start(client: Client, statement: str) -> None:
    """Send a statement by the simple protocol, without waiting for the answer; :func:`finish` waits for it."""
    client.pgconn.send_query(statement.encode())
    _flush(client, time.monotonic() + _DEADLINE_S)


def finish(client: Client, deadline_s: float = _DEADLINE_S) -> Reply:
    """Wait for the answer to a started statement. The first error counts, else the last result.

    When the connection ends after an error, the reply is `closed` and keeps the SQLSTATE of the error: libpq's PQexec
    would only report the end of the connection.

    :param deadline_s: seconds.
    :raises TimedOutError: when the deadline passed.
    """
    last, end = Reply(), time.monotonic() + deadline_s
    try:
        while (result := _next_result(client, end)) is not None:
            if not last.is_error:
                last = _read(result)
    except SqlError as error:
        return _with_unsolicited(client, _ended(error))
    return _with_unsolicited(client, replace(last, closed=client.pgconn.status != pq.ConnStatus.OK))


def _next_result(client: Client, end: float) -> PGresult | None:
    # PQgetResult would hold Python's lock while it blocks, and so block every other thread
    while client.pgconn.is_busy():
        _wait(client, select.POLLIN, end)
        try:
            client.pgconn.consume_input()
        except SqlError:  # the connection has ended, but libpq may still hold results from before that
            break
    return client.pgconn.get_result()


def _flush(client: Client, end: float) -> None:
    while client.pgconn.flush():
        _wait(client, select.POLLIN | select.POLLOUT, end)
        client.pgconn.consume_input()


def _wait(client: Client, events: int, end: float) -> None:
    left_s = end - time.monotonic()
    poll = select.poll()
    poll.register(client.fileno(), events)
    if left_s <= 0 or not poll.poll(left_s * 1000):
        raise TimedOutError("timed out waiting for the answer to a statement")


def _answer(client: Client, send: Callable[[], None]) -> Reply:
    try:
        send()
        _flush(client, time.monotonic() + _DEADLINE_S)
    except SqlError as error:
        return _with_unsolicited(client, _ended(error))
    return finish(client)


def _ended(error: SqlError) -> Reply:
    return Reply(sqlstate=error.sqlstate or CLOSED, message=str(error).strip(), closed=True)


def _with_unsolicited(client: Client, reply: Reply) -> Reply:
    """Return the error that arrived before the end of a connection, in place of a reply that only reports the end."""
    if client.unsolicited is None or reply.sqlstate != CLOSED:
        return reply
    sqlstate, message = client.unsolicited
    return Reply(sqlstate=sqlstate or CLOSED, message=message, closed=True)


def _read(result: PGresult) -> Reply:
    if result.status in {pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE}:
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or CLOSED.encode()).decode()
        message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
        return Reply(sqlstate=state, message=message.decode(errors="replace").strip())
    value = result.get_value(0, 0) if result.ntuples and result.nfields else None
    return Reply(value=value.decode(errors="replace") if value is not None else None)
