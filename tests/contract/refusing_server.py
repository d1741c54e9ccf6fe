"""A server that refuses every login, and repeats in its error whatever it was sent."""

from __future__ import annotations

import contextlib
import socketserver
import struct
import threading
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

#: requests for encryption before the startup message (https://www.postgresql.org/docs/current/protocol-message-formats.html)
_SSL, _GSS = 80877103, 80877104


class RefusingServer(socketserver.ThreadingTCPServer):
    """Asks for the password in clear text."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Login)
        #: what clients sent, so that a test knows that a password was there to be repeated
        self.received: set[str] = set()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Login(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError, struct.error):
            startup = self._startup()
            self.wfile.write(struct.pack("!cii", b"R", 8, 3))  # AuthenticationCleartextPassword
            self.rfile.read(1)
            (length,) = struct.unpack("!i", self.rfile.read(4))
            password = self.rfile.read(length - 4).rstrip(b"\0")
            cast("RefusingServer", self.server).received.add(password.decode(errors="replace"))
            fields = {b"S": b"FATAL", b"V": b"FATAL", b"C": b"28P01", b"H": b"not " + password}
            fields[b"M"] = b"the password " + password + b" is wrong, for " + startup.replace(b"\0", b" ")
            body = b"".join(name + value.replace(b"\0", b" ") + b"\0" for name, value in fields.items()) + b"\0"
            self.wfile.write(b"E" + struct.pack("!i", len(body) + 4) + body)

    def _startup(self) -> bytes:
        while True:
            length, code = struct.unpack("!ii", self.rfile.read(8))
            rest = self.rfile.read(length - 8)
            if code not in {_SSL, _GSS}:
                return rest
            self.wfile.write(b"N")


@contextlib.contextmanager
def refusing_server() -> Iterator[RefusingServer]:
    with RefusingServer() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
