"""Sockets to a server: deadline, address, connection, TLS context."""

from __future__ import annotations

import socket
import ssl
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.errors import TimedOutError
from harness.wire.messages import ClosedError

if TYPE_CHECKING:
    from threading import Event


class Deadline:
    """A point on the monotonic clock."""

    def __init__(self, seconds: float, cancelled: Event | None = None) -> None:
        """Begin now.

        :param cancelled: the deadline has passed once it is set.
        """
        self._end = time.monotonic() + seconds
        self._cancelled = cancelled

    def left_s(self) -> float:
        """Return the remaining seconds; 0 after the deadline."""
        if self._cancelled and self._cancelled.is_set():
            return 0.0
        return max(self._end - time.monotonic(), 0.0)

    def within(self, seconds: float) -> Deadline:
        """Return an earlier deadline: in so many seconds, but not after this one."""
        return Deadline(min(seconds, self.left_s()), self._cancelled)


class ServerAddress(Struct, frozen=True, kw_only=True):
    """The address of a server."""

    #: a host name, an IP address, or the folder of a Unix socket
    host: str
    port: int
    #: the host name that the certificate must have, if `host` is an IP address
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name or self.host}:{self.port}"

    @property
    def is_unix(self) -> bool:
        return self.host.startswith(("/", "@"))


def unverified_tls() -> ssl.SSLContext:
    """Return a TLS context that accepts every certificate; a probe encrypts, but does not authenticate the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def open_socket(address: ServerAddress, deadline: Deadline) -> socket.socket:
    """Connect to a server.

    :raises ClosedError: when the server is unreachable. :raises TimedOutError: at the deadline.
    """
    left_s = deadline.left_s()
    if not left_s:
        raise TimedOutError("the deadline has passed", where=str(address))
    opened: socket.socket | None = None
    try:
        if not address.is_unix:
            opened = socket.create_connection((address.host, address.port), timeout=left_s)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            opened = socket.socket(socket.AF_UNIX)
            opened.settimeout(left_s)
            path = f"{address.host}/.s.PGSQL.{address.port}"
            # libpq writes Linux's abstract sockets with "@"
            opened.connect(f"\0{path[1:]}" if path.startswith("@") else path)
    except BaseException as error:
        if opened:
            opened.close()
        if isinstance(error, TimeoutError):
            raise TimedOutError("no connection before the deadline", where=str(address)) from None
        if isinstance(error, OSError):
            raise ClosedError(f"no connection: {error.strerror or error}", where=str(address)) from None
        raise
    return opened
