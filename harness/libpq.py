"""Single messages of PostgreSQL's protocol, as drivers send them: what libpq's ordinary calls hide.

Every function returns what a driver would get to see: the first value of the answer as text, or an :class:`Answer`
that carries the SQLSTATE. None of them raises for what the server says; all of them end at a deadline.
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
#: in the place of an SQLSTATE, where the connection ended without one
CLOSED = "closed"


class Reply(Struct, frozen=True, kw_only=True):
    """What a client was told."""

    #: the first column of the first row, as text; None when there was no row or it was NULL
    value: str | None = None
    #: of an error
    sqlstate: str = ""
    message: str = ""
    #: the connection is gone
    closed: bool = False

    @property
    def is_error(self) -> bool:
        return bool(self.sqlstate)

    def __str__(self) -> str:
        return self.sqlstate or str(self.value)


def parse(client: Client, name: str, statement: str) -> Reply:
    """Parse a statement under a name, the unnamed one when empty, then Sync."""
    return _answer(client, lambda: client.pgconn.send_prepare(name.encode(), statement.encode()))


def execute(client: Client, name: str, parameters: Sequence[str] = ()) -> Reply:
    """Bind and Execute a statement that was parsed before, then Sync."""
    values = [each.encode() for each in parameters]
    return _answer(client, lambda: client.pgconn.send_query_prepared(name.encode(), values))


def extended(client: Client, statement: str) -> Reply:
    """Run a statement by the extended protocol: Parse, Bind and Execute in one go."""
    return _answer(client, lambda: client.pgconn.send_query_params(statement.encode(), None))


def simple(client: Client, statement: str) -> Reply:
    """Run statements by the simple protocol, in one message; the first error counts, else the last result."""
    return _answer(client, lambda: start(client, statement))


def start(client: Client, statement: str) -> None:
    """Send a statement by the simple protocol, and do not wait for the answer."""
    client.pgconn.send_query(statement.encode())
    _flush(client, time.monotonic() + _DEADLINE_S)


def finish(client: Client, deadline_s: float = _DEADLINE_S) -> Reply:
    """Wait for the answer to what was started; the first error counts, else the last result.

    A connection that ends after an error is `closed`, and the error keeps its own SQLSTATE: libpq's PQexec would
    only tell of the end.

    :raises TimedOutError: when there is no answer within so many seconds.
    """
    last, end = Reply(), time.monotonic() + deadline_s
    try:
        while (result := _next_result(client, end)) is not None:
            if not last.is_error:
                last = _read(result)
    except SqlError as error:
        return Reply(sqlstate=error.sqlstate or CLOSED, message=str(error).strip(), closed=True)
    return replace(last, closed=client.pgconn.status != pq.ConnStatus.OK)


def _next_result(client: Client, end: float) -> PGresult | None:
    # PQgetResult would block with Python's lock held, and with it every other thread
    while client.pgconn.is_busy():
        _wait(client, select.POLLIN, end)
        try:
            client.pgconn.consume_input()
        except SqlError:  # the end of the connection; what was said before it is still to be read
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
        return Reply(sqlstate=error.sqlstate or CLOSED, message=str(error).strip(), closed=True)
    return finish(client)


def _read(result: PGresult) -> Reply:
    if result.status in {pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE}:
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or CLOSED.encode()).decode()
        message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
        return Reply(sqlstate=state, message=message.decode(errors="replace").strip())
    value = result.get_value(0, 0) if result.ntuples and result.nfields else None
    return Reply(value=value.decode(errors="replace") if value is not None else None)
