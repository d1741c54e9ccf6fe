"""One connection, from the first byte to the last; every wait ends at its deadline."""

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
    split,
)
from harness.wire.scram import Scram, ScramError
from harness.wire.sockets import Deadline, ServerAddress, dial

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Mapping

PROTOCOL_3_0 = (3, 0)
PROTOCOL_3_2 = (3, 2)

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_CHUNK_BYTES = 65536
_GOODBYE_S = 0.05


class Wire:
    """One connection. Not safe to share between threads."""

    def __init__(self, opened: socket.socket, address: ServerAddress, deadline: Deadline) -> None:
        self._socket = opened
        self._address = address
        #: where every wait ends; it may be set, and after a timeout :meth:`rows` takes the wait up again
        self.deadline = deadline
        self._buffer = bytearray()
        #: what came of an answer that is not whole yet, or that nobody read
        self._answer: list[Message] = []
        #: what the server reported about itself: server_version, TimeZone, ...
        self.parameters: dict[str, str] = {}
        #: the pid of BackendKeyData, once logged in
        self.told_pid: int | None = None
        #: the protocol version that the server offered instead, if it did
        self.negotiated: tuple[int, int] | None = None
        #: I idle, T in a transaction, E in a failed one; "" while an answer is awaited, or not logged in
        self.status = ""
        #: whether a pipeline is open, that is a transaction without a name that only a Sync ends
        self.piping = False

    @classmethod
    def open(cls, address: ServerAddress, deadline: Deadline) -> Wire:
        """Connect, and say nothing yet. :raises ClosedError: :raises TimedOutError:"""
        return cls(dial(address, deadline), address, deadline)

    @property
    def own_port(self) -> int | None:
        """Return the local TCP port, None for a Unix socket."""
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
        except OSError as error:  # errors of TLS are of this kind as well
            raise ClosedError(f"the connection broke: {error.strerror or error}", where=str(self._address)) from None

    def _send(self, *parts: Part) -> None:
        self._io(lambda: self._socket.sendall(packed(parts)))

    def _receive(self, size: int = _CHUNK_BYTES) -> bytes:
        got = self._io(lambda: self._socket.recv(size))
        if not got:
            raise ClosedError("the server closed the connection", where=str(self._address))
        return got

    def _message(self) -> Message:
        """Return the next message; parameters, keys and notices are kept or dropped on the way."""
        while True:
            try:
                found = split(self._buffer)
            except NotPostgresError as error:
                error.where = str(self._address)
                raise
            if found is None:
                self._buffer += self._receive()
                continue
            body = Body(found.body)
            if found.type == "S":
                name = body.text()
                self.parameters[name] = body.text()
            elif found.type == "K":
                self.told_pid = body.int32()
            elif found.type == "v":
                version = body.int32()
                # some servers put the minor version alone here
                self.negotiated = (version >> 16 or PROTOCOL_3_0[0], version & 0xFFFF)
            elif found.type not in "NA":
                return found

    # --- login ----------------------------------------------------------------------------------------

    def offers_tls(self) -> bool:
        """Ask for TLS; after True the next thing must be :meth:`encrypt`.

        :raises NotPostgresError: when the answer is no answer to that.
        """
        self._io(lambda: self._socket.sendall(_SSL_REQUEST))
        answer = self._receive(1)
        if answer in {b"S", b"N"}:
            return answer == b"S"
        self._buffer += answer
        message = self._message()
        if message.type == "E":  # a server that is full says so at once
            raise error_of(message)
        raise NotPostgresError("what answers is not PostgreSQL: it does not know TLS", where=str(self._address))

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Wrap the connection in TLS. :raises ClosedError: :raises TimedOutError:"""
        name = None if self._address.is_unix else self._address.name or self._address.host

        def wrap() -> None:
            self._socket = context.wrap_socket(self._socket, server_hostname=name)

        self._io(wrap)

    def greet(self, parameters: Mapping[str, str], version: tuple[int, int] = PROTOCOL_3_0) -> Message:
        """Send a StartupMessage and return the first Authentication message.

        :raises ServerError: when the server refuses instead.
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
                f"what answers is not PostgreSQL: a login is answered by a message {message.type!r}",
                where=str(self._address),
            )
        return message

    def log_in(self, asked: Message, user: str, password: str) -> None:
        """Answer Authentication messages until the server is ready for a query.

        :raises LoginError: for a method that is none of trust, cleartext, md5 and SCRAM-SHA-256.
        :raises ServerError: when the server refuses.
        """
        scram: Scram | None = None
        while True:
            body = Body(asked.body)
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
                        f"the login asks for {authentication_name(asked)}, which only libpq knows",
                        where=str(self._address),
                    )
            asked = self._authentication()
        self.rows()

    # --- queries --------------------------------------------------------------------------------------

    def ask(self, statement: str) -> None:
        """Send a simple query and do not wait for its answer."""
        self._send((b"Q", encoded(statement)))
        self.status = ""

    def query(self, statement: str) -> list[Row]:
        """Run a simple query and return the rows of all its statements.

        :raises ServerError: when one of them failed; the connection can be used on, unless the server closed it.
        """
        self.ask(statement)
        return self.rows()

    def rows(self) -> list[Row]:
        """Wait for the answer to what was asked, and return its rows."""
        return rows_of(self._whole_answer())

    def table(self, statement: str) -> list[dict[str, str]]:
        """Run a simple query and return its rows by column; NULL is empty."""
        self.ask(statement)
        answer = self._whole_answer()
        names = columns_of(answer)
        return [dict(zip(names, (each or "" for each in row), strict=False)) for row in rows_of(answer)]

    def _whole_answer(self) -> list[Message]:
        """Read until the server is ready for a query; what came before a timeout is kept."""
        while not self._answer or self._answer[-1].type != "Z":
            try:
                message = self._message()
            except ClosedError:
                for each in self._answer:
                    if each.type == "E":  # why it was closed tells more than that it was
                        raise error_of(each) from None
                raise
            if message.type == "Z":
                self.status = Body(message.body).take(1).decode("latin-1")
            self._answer.append(message)
        answer, self._answer = self._answer, []
        return answer

    def pipe(self, *parts: Part, until: str) -> list[Row]:
        """Send messages of the extended protocol without a Sync, and return the rows of their answers.

        Without it the server stays in a transaction, and a pooler leaves it with this client, also where
        BEGIN is not allowed. :meth:`sync` ends it.

        :param until: the types of the completions to await, in their order: 1 Parse, 2 Bind, C Execute, 3 Close.
        :raises ServerError: for the first that fails; only :meth:`sync` can follow.
        """
        self.piping, self.status = True, ""
        self._send(*parts, (b"H", b""))
        read: list[Message] = []
        for wanted in until:
            while not read or read[-1].type != wanted:
                read.append(self._message())
                if read[-1].type == "E":
                    raise error_of(read[-1])
            read.append(Message("", b""))  # so that two completions of one kind are two
        return rows_of(read)

    def sync(self) -> None:
        """End a pipeline."""
        self.piping = False
        self._send((b"S", b""))
        self.rows()

    def close(self) -> None:
        """Say goodbye and close; never raises."""
        with contextlib.suppress(OSError, ValueError):
            self._socket.settimeout(_GOODBYE_S)
            self._socket.sendall(packed([(b"X", b"")]))
        self._socket.close()


def _md5(user: str, password: str, salt: bytes) -> bytes:
    inner = hashlib.md5((password + user).encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()
    return encoded("md5" + hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest())
