"""A proxy between a client and a server, for controls: it withholds some of the server's messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from harness.wire.link import Link
from harness.wire.readers import PlainReader
from harness.wire.sockets import ServerAddress

if TYPE_CHECKING:
    from types import TracebackType


class Withholder(PlainReader):
    """Reads the messages of one connection, and withholds some of the server's."""

    def __init__(self, withheld: bytes, *, at_login: bool) -> None:
        super().__init__()
        self._withheld = withheld
        self._withholds_now = at_login

    def passes(self, message: bytes) -> bool:
        """Withhold messages of some types; the answer to the login ends with ReadyForQuery."""
        passes = not self._withholds_now or message[0] not in self._withheld
        self._withholds_now = self._withholds_now or message.startswith(b"Z")
        return passes


class Relay:
    """Accepts connections on loopback, and forwards them to a server until it is closed."""

    def __init__(self, server: ServerAddress, withheld: bytes, *, at_login: bool = True) -> None:
        """Start to listen.

        :param withheld: the types of the server's messages that clients do not get, such as `b"S"`.
        :param at_login: whether the answer to the login also lacks them.
        """
        self._link = Link(lambda: (server.host, server.port), reader=lambda: Withholder(withheld, at_login=at_login))
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
