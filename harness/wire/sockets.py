"""Reaching a server: a deadline, an address, a socket."""

from __future__ import annotations

import socket
import ssl
import time

from msgspec import Struct

from harness.errors import TimedOutError
from harness.wire.messages import ClosedError


class Deadline:
    """A point on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left_s(self) -> float:
        """Return the seconds that are left, 0 when none are."""
        return max(self._end - time.monotonic(), 0.0)

    def within(self, seconds: float) -> Deadline:
        """Return a deadline that is no later than this one, and at most so many seconds away."""
        return Deadline(min(seconds, self.left_s()))


class ServerAddress(Struct, frozen=True, kw_only=True):
    """Where a server listens: a host name or IP address, or the folder of a Unix socket."""

    host: str
    port: int
    #: what the certificate should name, when the host is only its IP address
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name or self.host}:{self.port}"

    @property
    def is_unix(self) -> bool:
        return self.host.startswith(("/", "@"))


def unverified_tls() -> ssl.SSLContext:
    """Return a context that encrypts and believes any certificate: for looking, not for trusting."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def dial(address: ServerAddress, deadline: Deadline) -> socket.socket:
    """Open a socket.

    :raises ClosedError: when nothing can be reached there. :raises TimedOutError: at the deadline.
    """
    left_s = deadline.left_s()
    if not left_s:
        raise TimedOutError("the deadline passed", where=str(address))
    opened: socket.socket | None = None
    try:
        if not address.is_unix:
            opened = socket.create_connection((address.host, address.port), timeout=left_s)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            opened = socket.socket(socket.AF_UNIX)
            opened.settimeout(left_s)
            path = f"{address.host}/.s.PGSQL.{address.port}"
            # "@" is how libpq spells the abstract sockets of Linux
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
