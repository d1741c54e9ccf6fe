"""A link: a TCP proxy whose connections can be cut, held back and slowed down. It never looks into TLS.

It runs inside the process of the harness, or as a program of its own between two services:
`python3 link.py TOKEN-FILE HOST PORT UPSTREAM-HOST UPSTREAM-PORT`. So this file imports only what Debian's package
python3-minimal contains, and nothing of the harness.

What is held back is kept and delivered after the healing, as TCP repeats what a network lost: a connection that lasts
longer than the fault goes on, and no byte is missing or changed.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

#: forward everything
PASS = "pass"  # noqa: S105 -- a state
#: reset all connections, and every new one
CUT = "cut"
#: keep all connections open, accept new ones, and forward nothing
BLACK_HOLE = "black-hole"
#: forward what clients send, and hold back every answer
HALF_OPEN = "half-open"
#: forward with a delay, and at most so many bytes a second, in each direction
SLOW = "slow"
STATES = (PASS, CUT, BLACK_HOLE, HALF_OPEN, SLOW)

#: a control connection begins with this and the token; a client of PostgreSQL begins with a zero byte, TLS with 0x16
_MAGIC = b"pooler-harness-link "
_CHUNK_BYTES = 65536
#: what is held of each direction of a connection; then its sender has to wait
_HELD_BYTES = 1 << 20
#: the length of one piece at a bounded rate
_PIECE_S = 0.02
_ANSWER_S = 5.0
_LONGEST_LINE = 256
_RESET = struct.pack("ii", 1, 0)


class Counts(NamedTuple):
    """The state of a link, and what has passed since it started."""

    state: str
    #: connections of clients
    accepted: int = 0
    #: connections of clients that are open now
    open: int = 0
    #: new connections that were reset while the link was cut
    refused: int = 0
    #: open connections that the link reset
    resets: int = 0
    #: connections that ended because nothing answered at the other end
    unreachable: int = 0
    #: bytes
    to_server: int = 0
    to_client: int = 0
    #: bytes that are held back now
    held_to_server: int = 0
    held_to_client: int = 0


class ResetConnection(Exception):  # noqa: N818 -- not an error: a reader's decision
    """Raised by a reader: both ends of the connection are reset."""


class Reader(Protocol):
    """Reads the messages of one connection, and decides what passes."""

    def requests(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what goes on to the server, and what goes back to the client at once."""
        ...

    def answers(self, data: bytes) -> bytes:
        """Return what goes on to the client."""
        ...


class _Flow:
    """One direction of a connection."""

    def __init__(self, source: socket.socket | None, sink: socket.socket | None) -> None:
        self.source, self.sink = source, sink
        #: when each piece may go on; an empty one is the end, and None a reset
        self.queue: deque[tuple[float, bytes | None]] = deque()
        self.held = 0
        self.ended = self.delivered_end = self.blocked = False
        #: at a bounded rate
        self.free_at = 0.0

    def add(self, data: bytes | None, due: float = 0.0) -> None:
        self.queue.append((due, data))
        self.held += len(data or b"")
        self.ended = self.ended or not data


class _Pair:
    """A client's connection and its continuation to the server."""

    def __init__(self, client: socket.socket, reader: Reader | None) -> None:
        self.client, self.reader = client, reader
        self.server: socket.socket | None = None
        self.dialing = False
        self.requests, self.answers = _Flow(client, None), _Flow(None, client)

    def flows(self) -> tuple[_Flow, _Flow]:
        return self.requests, self.answers


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
        self._upstream, self._reader = upstream, reader
        self._token = _MAGIC + token.encode() if token else b""
        self._state, self._rate, self._delay_s = PASS, 0.0, 0.0
        self._pairs: set[_Pair] = set()
        self._counted = Counts(PASS)
        self._selector = selectors.DefaultSelector()
        self._masks: dict[socket.socket, int] = {}
        self._listener = socket.create_server(listen, backlog=256)
        self._listener.setblocking(False)
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._asked: deque[tuple[str, list[Counts | Exception], threading.Event]] = deque()
        self._closed = threading.Event()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._woken, selectors.EVENT_READ, self._answer_asked)
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
            self._thread.join(_ANSWER_S)

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
        answered = threading.Event()
        if self._closed.is_set():
            raise OSError("the link is closed")
        self._asked.append((command, answer, answered))
        with contextlib.suppress(OSError):
            self._wake.send(b"\0")
        if not answered.wait(_ANSWER_S):
            raise TimeoutError("the link does not answer")
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]

    # --- the loop: everything below runs in one thread -----------------------------------------------------------

    def run(self) -> None:
        """Forward until :meth:`close` is called."""
        try:
            while not self._closed.is_set():
                for key, events in self._selector.select(self._push_all_due()):
                    key.data(events)
        finally:
            for pair in tuple(self._pairs):
                self._drop(pair)
            for opened in tuple(self._masks):
                self._forget(opened)
                opened.close()
            self._selector.close()
            for opened in (self._listener, self._woken, self._wake):
                opened.close()
            self._answer_all(OSError("the link is closed"))

    def _answer_asked(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(_CHUNK_BYTES)
        self._answer_all()

    def _answer_all(self, refusal: Exception | None = None) -> None:
        while self._asked:
            command, answer, answered = self._asked.popleft()
            try:
                answer.append(refusal or self._obey(command))
            except ValueError as error:
                answer.append(error)
            answered.set()

    def _obey(self, command: str) -> Counts:
        name, *numbers = command.split()
        if name != "state":
            if name not in STATES:
                raise ValueError(f"unknown state {name!r}")
            self._rate, self._delay_s = (float(numbers[0]), float(numbers[1])) if name == SLOW else (0.0, 0.0)
            self._state = name
            self._counted = self._counted._replace(state=name)
            for pair in tuple(self._pairs):
                if name == CUT:
                    self._reset(pair, own=True)
                else:
                    self._serve(pair)
        return self._counted._replace(
            open=len(self._pairs),
            held_to_server=sum(pair.requests.held for pair in self._pairs),
            held_to_client=sum(pair.answers.held for pair in self._pairs),
        )

    def _count(self, name: str, more: int = 1) -> None:
        self._counted = self._counted._replace(**{name: getattr(self._counted, name) + more})

    def _watch(self, opened: socket.socket, mask: int, callback: Callable[[int], None]) -> None:
        before = self._masks.get(opened, 0)
        if mask == before:
            return
        if not mask:
            self._forget(opened)
            return
        (self._selector.modify if before else self._selector.register)(opened, mask, callback)
        self._masks[opened] = mask

    def _forget(self, opened: socket.socket) -> None:
        if self._masks.pop(opened, 0):
            self._selector.unregister(opened)

    def _accept(self, _: int) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._token:
                    self._greet(client)
                else:
                    self._admit(client, b"")

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
            if got and _MAGIC.startswith(known[: len(_MAGIC)]) and len(first) <= _LONGEST_LINE:
                if len(known) < len(self._token) or not first.endswith(b"\n"):
                    return
                if known == self._token:
                    self._forget(client)
                    self._control(client, bytes(first[len(known) :]).decode("ascii", "replace"))
                    return
            self._forget(client)
            if first and got:
                self._admit(client, bytes(first))
            else:
                client.close()

        self._watch(client, selectors.EVENT_READ, read)

    def _control(self, client: socket.socket, command: str) -> None:
        try:
            counts = self._obey(command)
            answer = " ".join(f"{name}={value}" for name, value in counts._asdict().items())
        except (ValueError, IndexError) as error:
            answer = f"error={error!r}"
        with contextlib.suppress(OSError):
            client.send(answer.encode() + b"\n")
        client.close()

    def _admit(self, client: socket.socket, first: bytes) -> None:
        if self._state == CUT:
            self._count("refused")
            _reset_socket(client)
            return
        self._count("accepted")
        pair = _Pair(client, self._reader() if self._reader else None)
        self._pairs.add(pair)
        if first:
            self._take(pair, pair.requests, first)
        self._serve(pair)

    def _dial(self, pair: _Pair) -> None:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(*self._upstream(), type=socket.SOCK_STREAM)[0]
            server = socket.socket(family, kind, protocol)
        except Exception:  # noqa: BLE001 -- without a server, the client's connection ends
            self._count("unreachable")
            self._reset(pair)
            return
        server.setblocking(False)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair.server = pair.requests.sink = pair.answers.source = server
        pair.dialing = True
        if server.connect_ex(address) not in {0, errno.EINPROGRESS}:
            self._count("unreachable")
            self._reset(pair)

    def _holds(self, pair: _Pair, flow: _Flow) -> bool:
        return self._state == BLACK_HOLE or (self._state == HALF_OPEN and flow is pair.answers)

    def _serve(self, pair: _Pair) -> None:
        """Forward what may go on, then watch the sockets for what comes next."""
        if pair.server is None and not self._holds(pair, pair.requests):
            self._dial(pair)
        for flow in pair.flows():
            self._push(pair, flow)
        if pair not in self._pairs:
            return
        masks: dict[socket.socket, int] = {}
        for flow in pair.flows():
            if flow.source:
                reads = not flow.ended and flow.held < _HELD_BYTES and not (pair.dialing and flow is pair.answers)
                masks[flow.source] = masks.get(flow.source, 0) | (selectors.EVENT_READ if reads else 0)
            if flow.sink:
                writes = flow.blocked or (pair.dialing and flow is pair.requests)
                masks[flow.sink] = masks.get(flow.sink, 0) | (selectors.EVENT_WRITE if writes else 0)
        for opened, mask in masks.items():
            self._watch(opened, mask, lambda events, at=opened: self._ready(pair, at, events))  # type: ignore[misc]

    def _ready(self, pair: _Pair, opened: socket.socket, events: int) -> None:
        if pair not in self._pairs:  # an event of the same round has ended it
            return
        if events & selectors.EVENT_WRITE:
            if pair.dialing and opened is pair.server:
                if opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    self._count("unreachable")
                    self._reset(pair)
                    return
                pair.dialing = False
            for flow in pair.flows():
                flow.blocked = flow.blocked and flow.sink is not opened
        if events & selectors.EVENT_READ:
            self._read(pair, pair.requests if opened is pair.client else pair.answers)
        if pair in self._pairs:
            self._serve(pair)

    def _read(self, pair: _Pair, flow: _Flow) -> None:
        if flow.source is None or flow.ended:
            return
        try:
            data = flow.source.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            flow.add(None)
            return
        if data:
            self._take(pair, flow, data)
        else:
            flow.add(b"")

    def _take(self, pair: _Pair, flow: _Flow, data: bytes) -> None:
        due, back = time.monotonic() + self._delay_s, b""
        if pair.reader:
            try:
                if flow is pair.requests:
                    data, back = pair.reader.requests(data)
                else:
                    data = pair.reader.answers(data)
            except ResetConnection:
                self._reset(pair, own=True)
                return
        if data:
            flow.add(data, due)
        if back:
            pair.answers.add(back, due)

    def _push(self, pair: _Pair, flow: _Flow) -> float | None:
        """Forward what may go on now, and return when the next piece may; None when it waits for something else."""
        while flow.queue and pair in self._pairs and not self._holds(pair, flow):
            due, data = flow.queue[0]
            now = time.monotonic()
            if (later := max(due, flow.free_at)) > now and self._state == SLOW:
                return later
            if flow.sink is None or flow.blocked or (pair.dialing and flow is pair.requests):
                return None
            if data is None:
                self._reset(pair)
                return None
            if not data:
                flow.queue.popleft()
                self._end(pair, flow)
                continue
            piece = data[: max(1, int(self._rate * _PIECE_S))] if self._rate else data
            try:
                sent = flow.sink.send(piece)
            except BlockingIOError:
                flow.blocked = True
                return None
            except OSError:
                self._reset(pair)
                return None
            self._count("to_server" if flow is pair.requests else "to_client", sent)
            flow.held -= sent
            if sent == len(data):
                flow.queue.popleft()
            else:
                flow.queue[0] = due, data[sent:]
            flow.free_at = max(now, flow.free_at) + sent / self._rate if self._rate else 0.0
        return None

    def _push_all_due(self) -> float | None:
        """On a slow link, forward what is due, and return the seconds until more is."""
        if self._state != SLOW:
            return None
        due = []
        for pair in tuple(self._pairs):
            if any(flow.queue for flow in pair.flows()):
                due += [at for flow in pair.flows() if (at := self._push(pair, flow)) is not None]
                if pair in self._pairs:
                    self._serve(pair)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _end(self, pair: _Pair, flow: _Flow) -> None:
        flow.delivered_end = True
        if flow.sink:
            with contextlib.suppress(OSError):
                flow.sink.shutdown(socket.SHUT_WR)
        if all(direction.delivered_end for direction in pair.flows()):
            self._drop(pair)

    def _drop(self, pair: _Pair) -> None:
        self._pairs.discard(pair)
        for opened in (pair.client, pair.server):
            if opened:
                self._forget(opened)
                opened.close()

    def _reset(self, pair: _Pair, *, own: bool = False) -> None:
        if pair not in self._pairs:
            return
        if own:
            self._count("resets")
        for opened in (pair.client, pair.server):
            if opened:
                with contextlib.suppress(OSError):
                    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._drop(pair)


def _reset_socket(opened: socket.socket) -> None:
    with contextlib.suppress(OSError):
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    opened.close()


def command_for(state: str, *, bytes_per_s: float = 0.0, delay_s: float = 0.0) -> str:
    """Return the command that changes the state of a link."""
    return f"{SLOW} {bytes_per_s:g} {delay_s:g}" if state == SLOW else state


def ask(address: tuple[str, int], token: str, command: str, timeout_s: float = _ANSWER_S) -> Counts:
    """Send a command to a link that runs as a program, and return its state and counters.

    :param command: `state`, or one of :func:`command_for`.
    :raises OSError: when the link does not answer.
    :raises ValueError: when it refuses the command.
    """
    with socket.create_connection(address, timeout_s) as control:
        control.sendall(_MAGIC + f"{token} {command}\n".encode())
        answer = b""
        while not answer.endswith(b"\n") and (got := control.recv(_CHUNK_BYTES)):
            answer += got
    pairs = dict(word.split("=", 1) for word in answer.decode("ascii", "replace").split() if "=" in word)
    if set(pairs) != set(Counts._fields):
        raise ValueError(f"the link answered {answer.decode('ascii', 'replace').strip()!r}")
    return Counts(pairs.pop("state"), **{name: int(value) for name, value in pairs.items()})


def main(arguments: list[str]) -> None:
    """Run a link until a signal ends it."""
    token_file, host, port, upstream_host, upstream_port = arguments
    with open(token_file, encoding="ascii") as file:  # noqa: PTH123 -- python3-minimal
        token = file.read().strip()
    # the first process of a container ignores signals without a handler
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    link = Link(lambda: (upstream_host, int(upstream_port)), (host, int(port)), token=token)
    sys.stderr.write(f"link: {host}:{port} to {upstream_host}:{upstream_port}\n")
    link.run()


if __name__ == "__main__":
    main(sys.argv[1:])
