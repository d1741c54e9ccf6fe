"""A proxy between a client and a server, for controls: it withholds some of the server's messages."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Self

from harness.wire.link import Link
from harness.wire.sockets import ServerAddress

if TYPE_CHECKING:
    from types import TracebackType

_HEADER_BYTES = 5
#: ReadyForQuery without its last byte, the status of the transaction; the server's answer to a login ends with it
_READY = b"Z\0\0\0\5"
#: SSLRequest and GSSENCRequest; the proxy refuses both, so that it can read the messages
_ENCRYPTION = {struct.pack("!ii", 8, 80877103), struct.pack("!ii", 8, 80877104)}


def passed(buffer: bytearray, withheld: frozenset[int]) -> bytes:
    """Remove the complete messages of a server from a buffer, and return those that are not withheld.

    :param withheld: type bytes.
    """
    out = bytearray()
    while len(buffer) >= _HEADER_BYTES:
        length = int.from_bytes(buffer[1:_HEADER_BYTES], "big") + 1
        if len(buffer) < length:
            break
        if buffer[0] not in withheld:
            out += buffer[:length]
        del buffer[:length]
    return bytes(out)


class Withholder:
    """Reads the messages of one connection, and withholds some of the server's."""

    def __init__(self, withheld: frozenset[int], *, at_login: bool) -> None:
        self._withheld = withheld
        self._withholds_now = at_login
        self._logs_in = False
        self._answers = bytearray()

    def requests(self, data: bytes) -> tuple[bytes, bytes]:
        """Refuse encryption, and forward everything else."""
        if not self._logs_in and data in _ENCRYPTION:
            return b"", b"N"
        self._logs_in = True
        return data, b""

    def answers(self, data: bytes) -> bytes:
        """Return the complete messages that are not withheld."""
        self._answers += data
        answer = passed(self._answers, self._withheld if self._withholds_now else frozenset())
        if answer[-len(_READY) - 1 : -1] == _READY:
            self._withholds_now = True
        return answer


class Relay:
    """Accepts connections on loopback, and forwards them to a server until it is closed."""

    def __init__(self, server: ServerAddress, withheld: bytes, *, at_login: bool = True) -> None:
        """Start to listen.

        :param withheld: the types of the server's messages that clients do not get, such as `b"S"`.
        :param at_login: whether the answer to the login also lacks them.
        """
        self._link = Link(
            lambda: (server.host, server.port), reader=lambda: Withholder(frozenset(withheld), at_login=at_login)
        )
        host, port = self._link.address
        self.address = ServerAddress(host=host, port=port)
        self._link.start()

    def __enter__(self) -> Self:
        """Return the proxy itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the proxy."""
        self.close()

    def close(self) -> None:
        """End all connections, and stop listening."""
        self._link.close()
