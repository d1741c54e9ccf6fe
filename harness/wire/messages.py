"""Protocol messages as pure functions of bytes: any input yields a message, None for an incomplete one, or an error."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: far more than any answer to the harness's queries; a longer message is invalid
_MOST_BYTES = 1 << 24
_HEADER_BYTES = 5
#: the type bytes of the server's messages, except those for COPY and function calls
_TYPES = frozenset(b"RESKZTDCNAtnI123sv")
#: AuthenticationSASL
_SASL = 10
_METHODS = {0: "nothing", 2: "Kerberos", 3: "cleartext", 5: "md5", 7: "gss", 9: "sspi"}

#: a row as text; None is NULL
Row = tuple[str | None, ...]
#: a message to a server: its type byte and its body
Part = tuple[bytes, bytes]


class NotPostgresError(DatabaseError):
    """The server does not speak PostgreSQL's protocol."""


class ClosedError(DatabaseError):
    """The server closed the connection, or is unreachable."""


class LoginError(DatabaseError):
    """The server asks for an unsupported login method, or does not prove that it knows the password."""


class ServerError(DatabaseError):
    """An ErrorResponse of the server."""

    def __init__(self, sqlstate: str, message: str) -> None:
        """Build an error with the text `SQLSTATE message`."""
        super().__init__(f"{sqlstate} {message}")
        self.sqlstate = sqlstate
        self.message = message


class Message(Struct, frozen=True):
    """One message of a server: its type, which is one letter, and its body, which follows the length."""

    type: str
    body: bytes


class Body:
    """Reads the body of a message from its beginning. Every method raises NotPostgresError if the body is too short."""

    def __init__(self, body: bytes) -> None:
        self.rest = body

    def take(self, size: int) -> bytes:
        if not 0 <= size <= len(self.rest):
            raise NotPostgresError("the server is not PostgreSQL: a message is shorter than its content")
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def int16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def int32(self) -> int:
        return int.from_bytes(self.take(4), "big", signed=True)

    def text(self) -> str:
        """Take a string and its terminating NUL byte."""
        taken = self.take(self.rest.find(b"\0"))
        self.take(1)
        return taken.decode("utf-8", "replace")


def take_message(buffer: bytearray) -> Message | None:
    """Remove the first message from a buffer and return it; None while it is incomplete.

    :raises NotPostgresError: as soon as the bytes cannot be the beginning of a message.
    """
    if buffer and buffer[0] not in _TYPES:
        raise NotPostgresError(f"the server is not PostgreSQL: its answer begins with {bytes(buffer[:16])!r}")
    if len(buffer) < _HEADER_BYTES:
        return None
    length = int.from_bytes(buffer[1:_HEADER_BYTES], "big", signed=True)
    if not _HEADER_BYTES - 1 <= length <= _MOST_BYTES:  # the length includes itself, but not the type byte
        raise NotPostgresError(f"the server is not PostgreSQL: the length of a message is {length} bytes")
    if len(buffer) <= length:
        return None
    message = Message(chr(buffer[0]), bytes(buffer[_HEADER_BYTES : length + 1]))
    del buffer[: length + 1]
    return message


def error_of(message: Message) -> ServerError:
    """Return an ErrorResponse as an error; missing fields are empty.

    Its end is the end of the fields, with or without the NUL byte that the protocol demands: pgagroal sends this byte
    after the message, and libpq reads such an error as any other.
    """
    fields: dict[str, str] = {}
    body = Body(message.body)
    while body.rest and (code := body.take(1)) != b"\0":
        fields[code.decode("latin-1")] = body.text()
    return ServerError(fields.get("C", ""), " ".join(fields.get("M", "").split()))


def rows_of(messages: Iterable[Message]) -> list[Row]:
    """Return the rows of all statements of an answer.

    :raises ServerError: when the answer has an error.
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
    """Return the column names of the last statement with columns in an answer."""
    names: list[str] = []
    for message in messages:
        if message.type == "T":
            body, names = Body(message.body), []
            for _ in range(body.int16()):
                names.append(body.text())
                body.take(18)  # table, column, type, size, modifier, format
    return names


def authentication_name(request: Message) -> str:
    """Return the method of an Authentication message: nothing, cleartext, md5, gss, sspi, or SASL's mechanisms."""
    body = Body(request.body)
    code = body.int32()
    if code == _SASL:
        names = (name.decode("ascii", "replace").lower() for name in body.rest.split(b"\0") if name)
        return "+".join(dict.fromkeys(name.removesuffix("-plus") for name in names)) or "SASL without a mechanism"
    return _METHODS.get(code, f"method {code}")


def encoded(text: str) -> bytes:
    """Return a string in the protocol's encoding, with its terminating NUL byte."""
    return text.encode("utf-8", "surrogateescape") + b"\0"


def packed(parts: Iterable[Part]) -> bytes:
    """Return messages as bytes to send."""
    return b"".join(kind + struct.pack("!i", len(body) + 4) + body for kind, body in parts)


def parse(name: str, statement: str) -> Part:
    """Return a Parse message without parameters; the empty name is the unnamed statement."""
    return b"P", encoded(name) + encoded(statement) + b"\0\0"


def bind_and_execute(name: str) -> tuple[Part, Part]:
    """Return Bind and Execute messages for a prepared statement without parameters; its rows are text."""
    return (b"B", b"\0" + encoded(name) + bytes(6)), (b"E", bytes(5))


def close_statement(name: str) -> Part:
    """Return a Close message for a prepared statement."""
    return b"C", b"S" + encoded(name)
