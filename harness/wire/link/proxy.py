"""The proxy itself: a listening socket, a thread, and the control connections of its owner."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections import deque
from typing import TYPE_CHECKING

from .connections import CHUNK_BYTES, Connections, Reader, Watched
from .control import ANSWER_S, MAGIC, Counts, answered, command_for

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_LINE = 256


class Link:
    """A proxy on one listening socket. One thread runs :meth:`run`; the other methods may be called from any thread."""

    def __init__(
        self,
        upstream: Callable[[], tuple[str, int]],
        listen: tuple[str, int] = ("127.0.0.1", 0),
        *,
        token: str = "",
        reader: Callable[[], Reader] | None = None,
    ) -> None:
        """Listen, but accept nothing yet.

        :param upstream: returns the address of the server; it is called for each connection.
        :param token: connections that begin with it control the link; none does when it is empty.
        :param reader: makes the reader of each connection; bytes pass unread without one.
        """
        self._token = MAGIC + token.encode() if token else b""
        self._watched = Watched()
        self._connections = Connections(upstream, reader, self._watched)
        self._listener = socket.create_server(listen, backlog=256)
        self._listener.setblocking(False)
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._asked: deque[tuple[str, list[Counts | Exception], threading.Event]] = deque()
        self._closed = threading.Event()
        self._watched.watch(self._listener, selectors.EVENT_READ, self._accept)
        self._watched.watch(self._woken, selectors.EVENT_READ, self._answer_asked)
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        """The address that clients connect to."""
        host, port = self._listener.getsockname()[:2]
        return host, port

    def start(self) -> None:
        """Run in a thread of its own until :meth:`close`."""
        self._thread = threading.Thread(target=self.run, name="link", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all connections, and stop listening; a second call does nothing."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._wake.send(b"\0")
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(ANSWER_S)

    def change(self, state: str, *, bytes_per_s: float = 0.0, delay_s: float = 0.0) -> Counts:
        """Change the state, and return it once it has taken effect on every connection.

        :param bytes_per_s: of a slow link; 0 for unbounded.
        :param delay_s: of a slow link, in each direction.
        :raises OSError: when the link is closed.
        """
        return self._ask(command_for(state, bytes_per_s=bytes_per_s, delay_s=delay_s))

    def counts(self) -> Counts:
        """Return the state and the counters. :raises OSError: when the link is closed."""
        return self._ask("state")

    def _ask(self, command: str) -> Counts:
        answer: list[Counts | Exception] = []
        done = threading.Event()
        if self._closed.is_set():
            raise OSError("the link is closed")
        self._asked.append((command, answer, done))
        with contextlib.suppress(OSError):
            self._wake.send(b"\0")
        if not done.wait(ANSWER_S):
            raise TimeoutError("the link does not answer")
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]

    # --- the loop: everything below runs in one thread -----------------------------------------------------------

    def run(self) -> None:
        """Forward until :meth:`close` is called."""
        try:
            while not self._closed.is_set():
                self._watched.wait(self._connections.push_due())
        finally:
            self._connections.close()
            self._watched.close()
            self._wake.close()
            self._answer_all(OSError("the link is closed"))

    def _answer_asked(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(CHUNK_BYTES)
        self._answer_all()

    def _answer_all(self, refusal: Exception | None = None) -> None:
        while self._asked:
            command, answer, done = self._asked.popleft()
            try:
                answer.append(refusal or self._connections.obey(command))
            except ValueError as error:
                answer.append(error)
            done.set()

    def _accept(self, _: int) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._token:
                    self._greet(client)
                else:
                    self._connections.admit(client, b"")

    def _greet(self, client: socket.socket) -> None:
        """Find out by its first bytes whether a new connection controls the link."""
        first = bytearray()

        def read(_: int) -> None:
            try:
                got = client.recv(_LONGEST_LINE)
            except BlockingIOError:
                return
            except OSError:
                got = b""
            first.extend(got)
            known = bytes(first[: len(self._token)])
            if got and MAGIC.startswith(known[: len(MAGIC)]) and len(first) <= _LONGEST_LINE:
                if len(known) < len(self._token) or not first.endswith(b"\n"):
                    return
                if known == self._token:
                    self._watched.forget(client)
                    self._control(client, bytes(first[len(known) :]).decode("ascii", "replace"))
                    return
            self._watched.forget(client)
            if first and got:
                self._connections.admit(client, bytes(first))
            else:
                client.close()

        self._watched.watch(client, selectors.EVENT_READ, read)

    def _control(self, client: socket.socket, command: str) -> None:
        try:
            answer = answered(self._connections.obey(command))
        except (ValueError, IndexError) as error:
            answer = f"error={error!r}"
        with contextlib.suppress(OSError):
            client.send(answer.encode() + b"\n")
        client.close()
