"""A proxy between a client and a server, for controls: it withholds some of the server's messages."""

from __future__ import annotations

import contextlib
import socket
import struct
from threading import Thread
from typing import TYPE_CHECKING, Self

from harness.wire.sockets import Deadline, ServerAddress, open_socket

if TYPE_CHECKING:
    from types import TracebackType

_HOST = "127.0.0.1"
_CHUNK_BYTES = 65536
_HEADER_BYTES = 5
_CONNECT_S = 5.0
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


class Relay:
    """Accepts connections on loopback, and forwards them to a server until it is closed."""

    def __init__(self, server: ServerAddress, withheld: bytes, *, at_login: bool = True) -> None:
        """Start to listen.

        :param withheld: the types of the server's messages that clients do not get, such as `b"S"`.
        :param at_login: whether the answer to the login also lacks them.
        """
        self._server = server
        self._withheld = frozenset(withheld)
        self._at_login = at_login
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server((_HOST, 0))
        self.address = ServerAddress(host=_HOST, port=self._listener.getsockname()[1])
        Thread(target=self._accept, daemon=True).start()

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
        for opened in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            request = client.recv(_CHUNK_BYTES)
            while request in _ENCRYPTION:
                client.sendall(b"N")
                request = client.recv(_CHUNK_BYTES)
        try:
            server = open_socket(self._server, Deadline(_CONNECT_S))
        except Exception:  # noqa: BLE001 -- without the server, the client's connection ends
            client.close()
            return
        server.settimeout(None)
        self._sockets.append(server)
        Thread(target=self._answers, args=(server, client), daemon=True).start()
        _pump(client, server, request)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        buffer = bytearray()
        withheld = self._withheld if self._at_login else frozenset()
        with contextlib.suppress(OSError):
            while got := server.recv(_CHUNK_BYTES):
                buffer += got
                answer = passed(buffer, withheld)
                client.sendall(answer)
                if answer[-len(_READY) - 1 : -1] == _READY:
                    withheld = self._withheld
            client.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, sink: socket.socket, first: bytes) -> None:
    with contextlib.suppress(OSError):
        got = first
        while got:
            sink.sendall(got)
            got = source.recv(_CHUNK_BYTES)
        sink.shutdown(socket.SHUT_RDWR)
