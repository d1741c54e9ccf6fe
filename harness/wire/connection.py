"""One raw connection to a server: login, queries, pipelines. Every wait ends at the connection's deadline."""

from __future__ import annotations

import contextlib
import hashlib
import struct
from typing import TYPE_CHECKING

from harness.errors import TimedOutError
from harness.wire.messages import (
    Body,
    ClosedError,
    LoginError,
    Message,
    NotPostgresError,
    Part,
    Row,
    authentication_name,
    columns_of,
    encoded,
    error_of,
    packed,
    rows_of,
    take_message,
)
from harness.wire.scram import Scram, ScramError
from harness.wire.sockets import Deadline, ServerAddress, open_socket

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Mapping

PROTOCOL_3_0 = (3, 0)
PROTOCOL_3_2 = (3, 2)

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
#: the code of a CancelRequest, in place of a protocol version
_CANCEL_REQUEST = 80877102
_CHUNK_BYTES = 65536
_GOODBYE_S = 0.05


class Wire:
    """One raw connection. It is not thread-safe."""

    def __init__(self, opened: socket.socket, address: ServerAddress, deadline: Deadline) -> None:
        self._socket = opened
        self._address = address
        #: ends every wait; callers may replace it, and after a timeout :meth:`rows` continues the wait
        self.deadline = deadline
        self._buffer = bytearray()
        #: the messages of an answer that is incomplete
        self._answer: list[Message] = []
        #: the ParameterStatus messages of the server: server_version, TimeZone, ...
        self.parameters: dict[str, str] = {}
        #: the same messages in the order of their arrival; a chain of poolers may send a name several times
        self.statuses: list[tuple[str, str]] = []
        #: the texts of the server's notices
        self.notices: list[str] = []
        #: the pid that BackendKeyData announced at login; a pooler may announce one of its own
        self.announced_pid: int | None = None
        #: pid and secret of BackendKeyData, as a cancel request repeats them; empty before the login
        self.cancel_key = b""
        #: the protocol version that the server offered instead of the requested one
        self.negotiated: tuple[int, int] | None = None
        #: I idle, T in a transaction, E in a failed transaction; "" before the login and while an answer is awaited
        self.status = ""
        #: whether a pipeline is open: an implicit transaction, which only a Sync ends
        self.in_pipeline = False

    @classmethod
    def open(cls, address: ServerAddress, deadline: Deadline) -> Wire:
        """Connect without sending anything. :raises ClosedError: :raises TimedOutError:"""
        return cls(open_socket(address, deadline), address, deadline)

    @property
    def own_port(self) -> int | None:
        """Return the local TCP port; None for a Unix socket."""
        name = self._socket.getsockname()
        return int(name[1]) if isinstance(name, tuple) else None

    # --- bytes and messages ---------------------------------------------------------------------------

    def _io(self, action: Callable[[], bytes | None]) -> bytes | None:
        left_s = self.deadline.left_s()
        if not left_s:
            raise TimedOutError("no answer before the deadline", where=str(self._address))
        try:
            self._socket.settimeout(left_s)
            return action()
        except TimeoutError:
            raise TimedOutError("no answer before the deadline", where=str(self._address)) from None
        except OSError as error:  # also errors of TLS
            raise ClosedError(f"the connection broke: {error.strerror or error}", where=str(self._address)) from None

    def _send(self, *parts: Part) -> None:
        self._io(lambda: self._socket.sendall(packed(parts)))

    def _receive(self, size: int = _CHUNK_BYTES) -> bytes:
        got = self._io(lambda: self._socket.recv(size))
        if not got:
            raise ClosedError("the server closed the connection", where=str(self._address))
        return got

    def _message(self) -> Message:
        """Return the next message. Parameters, keys, versions and notices are stored."""
        while True:
            try:
                found = take_message(self._buffer)
            except NotPostgresError as error:
                error.where = str(self._address)
                raise
            if found is None:
                self._buffer += self._receive()
                continue
            body = Body(found.body)
            if found.type == "S":
                name = body.text()
                self.statuses.append((name, body.text()))
                self.parameters.update(self.statuses[-1:])
            elif found.type == "K":
                self.announced_pid = body.int32()
                self.cancel_key = found.body
            elif found.type == "v":
                version = body.int32()
                # some servers send the minor version alone
                self.negotiated = (version >> 16 or PROTOCOL_3_0[0], version & 0xFFFF)
            elif found.type == "N":
                self.notices.append(error_of(found).message)
            elif found.type != "A":
                return found

    # --- login ----------------------------------------------------------------------------------------

    def offers_tls(self) -> bool:
        """Send an SSLRequest and return whether the server accepts; if so, call :meth:`encrypt` next.

        :raises NotPostgresError: when the answer is neither S nor N nor an error message.
        """
        self._io(lambda: self._socket.sendall(_SSL_REQUEST))
        answer = self._receive(1)
        if answer in {b"S", b"N"}:
            return answer == b"S"
        self._buffer += answer
        message = self._message()
        if message.type == "E":  # a server without free connections sends the error at once
            raise error_of(message)
        raise NotPostgresError(
            f"the server is not PostgreSQL: it answers an SSLRequest with a message {message.type!r}",
            where=str(self._address),
        )

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Start TLS on the connection. :raises ClosedError: :raises TimedOutError:"""
        name = None if self._address.is_unix else self._address.name or self._address.host

        def wrap() -> None:
            self._socket = context.wrap_socket(self._socket, server_hostname=name)

        self._io(wrap)

    def start_login(self, parameters: Mapping[str, str], version: tuple[int, int] = PROTOCOL_3_0) -> Message:
        """Send a StartupMessage and return the first Authentication message.

        :param parameters: the startup parameters, with `user` and usually `database`.
        :param version: the protocol version to request: major, minor.
        :raises ServerError: when the server refuses.
        """
        pairs = b"".join(encoded(name) + encoded(value) for name, value in parameters.items()) + b"\0"
        data = struct.pack("!iHH", len(pairs) + 8, *version) + pairs
        self._io(lambda: self._socket.sendall(data))
        return self._authentication()

    def _authentication(self) -> Message:
        message = self._message()
        if message.type == "E":
            raise error_of(message)
        if message.type != "R":
            raise NotPostgresError(
                f"the server is not PostgreSQL: it answers a login with a message {message.type!r}",
                where=str(self._address),
            )
        return message

    def log_in(self, request: Message, user: str, password: str) -> None:
        """Answer Authentication messages until the server is ready for a query.

        :param request: the first Authentication message, from :meth:`start_login`.
        :raises LoginError: for another method than trust, cleartext, md5 and SCRAM-SHA-256.
        :raises ServerError: when the server refuses.
        """
        scram: Scram | None = None
        while True:
            body = Body(request.body)
            match body.int32():
                case 0 if not scram or scram.verified:
                    break
                case 3:
                    self._send((b"p", encoded(password)))
                case 5:
                    self._send((b"p", _md5(user, password, body.take(4))))
                case 10 if b"SCRAM-SHA-256" in body.rest.split(b"\0"):
                    scram = Scram(password)
                    first = scram.first()
                    self._send((b"p", encoded("SCRAM-SHA-256") + struct.pack("!i", len(first)) + first))
                case 11 | 12 as step if scram:
                    try:
                        if step == 12:  # noqa: PLR2004 -- AuthenticationSASLFinal
                            scram.verify(body.rest)
                        else:
                            self._send((b"p", scram.answer(body.rest)))
                    except ScramError as error:
                        raise LoginError(str(error), where=str(self._address)) from None
                case _:
                    raise LoginError(
                        f"the login asks for {authentication_name(request)}, which only libpq supports",
                        where=str(self._address),
                    )
            request = self._authentication()
        self.rows()

    # --- queries --------------------------------------------------------------------------------------

    def send_query(self, statement: str) -> None:
        """Send a simple query without waiting for its answer."""
        self._send((b"Q", encoded(statement)))
        self.status = ""

    def query(self, statement: str) -> list[Row]:
        """Run a simple query and return the rows of all its statements.

        :raises ServerError: when a statement fails; the connection stays usable, unless the server closes it.
        """
        self.send_query(statement)
        return self.rows()

    def rows(self) -> list[Row]:
        """Wait for the answer to the last query, and return its rows."""
        return rows_of(self._complete_answer())

    def table(self, statement: str) -> list[dict[str, str]]:
        """Run a simple query and return each row as column name to value; NULL becomes ""."""
        self.send_query(statement)
        answer = self._complete_answer()
        names = columns_of(answer)
        return [dict(zip(names, (value or "" for value in row), strict=False)) for row in rows_of(answer)]

    def _complete_answer(self) -> list[Message]:
        """Read until the server is ready for a query. After a timeout, the next call continues."""
        while not self._answer or self._answer[-1].type != "Z":
            try:
                message = self._message()
            except ClosedError:
                for received in self._answer:
                    if received.type == "E":  # the reason why the server closed the connection
                        raise error_of(received) from None
                raise
            if message.type == "Z":
                self.status = Body(message.body).take(1).decode("latin-1")
            self._answer.append(message)
        answer, self._answer = self._answer, []
        return answer

    def pipeline(self, *parts: Part, until: str) -> list[Row]:
        """Send messages of the extended protocol without a Sync, and return the rows of their answers.

        Without a Sync the server stays in a transaction. A pooler therefore keeps the server connection assigned to
        this client, even if BEGIN is not allowed. :meth:`sync` ends the pipeline.

        :param until: the types of the completions to await, in order: 1 Parse, 2 Bind, C Execute, 3 Close.
        :raises ServerError: for the first message that fails; only :meth:`sync` is allowed next.
        """
        self.in_pipeline, self.status = True, ""
        self._send(*parts, (b"H", b""))
        read: list[Message] = []
        for completion in until:
            while not read or read[-1].type != completion:
                read.append(self._message())
                if read[-1].type == "E":
                    raise error_of(read[-1])
            read.append(Message("", b""))  # a separator, so that two completions of one type count twice
        return rows_of(read)

    def sync(self) -> None:
        """End a pipeline."""
        self.in_pipeline = False
        self._send((b"S", b""))
        self.rows()

    def cancel(self, deadline: Deadline) -> None:
        """Send a cancel request for the running statement, and wait until the server closes the request's connection.

        The request is not encrypted, as libpq's PQcancel sends it. PQcancel itself has no deadline, and psycopg holds
        Python's lock while it runs: a pooler that does not answer would stop the whole harness.

        :raises ClosedError: when the server is unreachable.
        :raises TimedOutError: when it leaves the connection open.
        """
        with contextlib.closing(Wire.open(self._address, deadline)) as request:
            request.request_cancel(self.cancel_key)

    def request_cancel(self, key: bytes) -> None:
        """Send a cancel request on a connection without a login, and wait until the server closes it.

        :param key: the :attr:`cancel_key` of the connection whose statement is to end.
        """
        self._io(lambda: self._socket.sendall(struct.pack("!ii", len(key) + 8, _CANCEL_REQUEST) + key))
        with contextlib.suppress(ClosedError):
            while True:
                self._receive()

    def close(self) -> None:
        """Send Terminate and close the socket; never raises."""
        with contextlib.suppress(OSError, ValueError):
            self._socket.settimeout(_GOODBYE_S)
            self._socket.sendall(packed([(b"X", b"")]))
        self._socket.close()


def _md5(user: str, password: str, salt: bytes) -> bytes:
    inner = hashlib.md5((password + user).encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()
    return encoded("md5" + hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest())
