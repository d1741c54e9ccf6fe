"""What goes over the wire, as pure functions of bytes: arbitrary input gives a message, a wait, or a clear error."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: nothing that the harness asks for has an answer near this size, so a longer message is no message
_MOST_BYTES = 1 << 24
_HEADER_BYTES = 5
#: the type bytes of every message that a server may send to a client that neither copies nor calls functions
_TYPES = frozenset(b"RESKZTDCNAtnI123sv")
#: AuthenticationSASL
_SASL = 10
_METHODS = {0: "nothing", 2: "Kerberos", 3: "cleartext", 5: "md5", 7: "gss", 9: "sspi"}

#: a row as text; None is NULL
Row = tuple[str | None, ...]
#: a message to a server: its type byte and its body
Part = tuple[bytes, bytes]


class NotPostgresError(DatabaseError):
    """What answers does not speak PostgreSQL's protocol."""


class ClosedError(DatabaseError):
    """The other side closed the connection, or could not be reached."""


class LoginError(DatabaseError):
    """The server asks for a login that this client does not know, or does not prove that it knows the password."""


class ServerError(DatabaseError):
    """An ErrorResponse: the server's SQLSTATE and its message, on one line."""

    def __init__(self, sqlstate: str, message: str) -> None:
        """Keep both; the error's text is `SQLSTATE message`."""
        super().__init__(f"{sqlstate} {message}")
        self.sqlstate = sqlstate
        self.message = message


class Message(Struct, frozen=True):
    """One message of a server: its type, one letter, and what follows the length."""

    type: str
    body: bytes


class Body:
    """Reads a message's body from its beginning; whatever is missing makes it no message of PostgreSQL."""

    def __init__(self, body: bytes) -> None:
        self.rest = body

    def take(self, size: int) -> bytes:
        if not 0 <= size <= len(self.rest):
            raise NotPostgresError("what answers is not PostgreSQL: a message ends before its content does")
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def int16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def int32(self) -> int:
        return int.from_bytes(self.take(4), "big", signed=True)

    def text(self) -> str:
        """Take a string and the NUL byte that ends it."""
        taken = self.take(self.rest.find(b"\0"))
        self.take(1)
        return taken.decode("utf-8", "replace")


def split(buffer: bytearray) -> Message | None:
    """Take the first whole message off a buffer; None when it is not whole yet.

    :raises NotPostgresError: as soon as what is there cannot become a message.
    """
    if buffer and buffer[0] not in _TYPES:
        raise NotPostgresError(f"what answers is not PostgreSQL: its answer begins with {bytes(buffer[:16])!r}")
    if len(buffer) < _HEADER_BYTES:
        return None
    length = int.from_bytes(buffer[1:_HEADER_BYTES], "big", signed=True)
    if not _HEADER_BYTES - 1 <= length <= _MOST_BYTES:  # it counts itself, and not the type byte
        raise NotPostgresError(f"what answers is not PostgreSQL: a message says that it is {length} bytes long")
    if len(buffer) <= length:
        return None
    message = Message(chr(buffer[0]), bytes(buffer[_HEADER_BYTES : length + 1]))
    del buffer[: length + 1]
    return message


def error_of(message: Message) -> ServerError:
    """Read an ErrorResponse; a field that is missing is empty."""
    fields: dict[str, str] = {}
    body = Body(message.body)
    while (code := body.take(1)) != b"\0":
        fields[code.decode("latin-1")] = body.text()
    return ServerError(fields.get("C", ""), " ".join(fields.get("M", "").split()))


def rows_of(messages: Iterable[Message]) -> list[Row]:
    """Return the rows of an answer, of all its statements.

    :raises ServerError: when there is an error among the messages.
    """
    found: list[Row] = []
    for message in messages:
        if message.type == "E":
            raise error_of(message)
        if message.type == "D":
            found.append(_row(Body(message.body)))
    return found


def _row(body: Body) -> Row:
    values: list[str | None] = []
    for _ in range(body.int16()):
        size = body.int32()
        values.append(None if size == -1 else body.take(size).decode("utf-8", "replace"))
    return tuple(values)


def columns_of(messages: Iterable[Message]) -> list[str]:
    """Return the names of the columns of an answer's last statement that has any."""
    names: list[str] = []
    for message in messages:
        if message.type == "T":
            body, names = Body(message.body), []
            for _ in range(body.int16()):
                names.append(body.text())
                body.take(18)  # table, column, type, size, modifier, format
    return names


def authentication_name(asked: Message) -> str:
    """Return what an Authentication message asks for: nothing, cleartext, md5, gss, sspi, or SASL's mechanisms."""
    body = Body(asked.body)
    code = body.int32()
    if code == _SASL:
        names = (name.decode("ascii", "replace").lower() for name in body.rest.split(b"\0") if name)
        return "+".join(dict.fromkeys(name.removesuffix("-plus") for name in names)) or "SASL without a mechanism"
    return _METHODS.get(code, f"method {code}")


def encoded(text: str) -> bytes:
    """Return a string as the protocol spells it, with the NUL byte that ends it."""
    return text.encode("utf-8", "surrogateescape") + b"\0"


def packed(parts: Iterable[Part]) -> bytes:
    """Return messages as bytes to be sent."""
    return b"".join(kind + struct.pack("!i", len(body) + 4) + body for kind, body in parts)


def parse(name: str, statement: str) -> Part:
    """Return a Parse message, without parameters; the empty name is the unnamed statement."""
    return b"P", encoded(name) + encoded(statement) + b"\0\0"


def run(name: str) -> tuple[Part, Part]:
    """Return Bind and Execute of a prepared statement without parameters; its rows come as text."""
    return (b"B", b"\0" + encoded(name) + bytes(6)), (b"E", bytes(5))


def forget(name: str) -> Part:
    """Return a Close message of a prepared statement."""
    return b"C", b"S" + encoded(name)
