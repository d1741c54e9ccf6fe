"""The connections of a link: each is a pair of sockets with one flow in each direction. One thread uses them."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import struct
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from .control import BLACK_HOLE, CUT, HALF_OPEN, PASS, SLOW, STATES, Counts

if TYPE_CHECKING:
    from collections.abc import Callable

#: bytes that are read at once
CHUNK_BYTES = 65536
#: what is held of each direction of a connection; then its sender has to wait
_HELD_BYTES = 1 << 20
#: the length of one piece at a bounded rate
_PIECE_S = 0.02
_RESET = struct.pack("ii", 1, 0)


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


class Watched:
    """Sockets, each with the events that are awaited on it and the function that they call."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._masks: dict[socket.socket, int] = {}

    def watch(self, opened: socket.socket, mask: int, callback: Callable[[int], None]) -> None:
        """Await other events on a socket; a mask of 0 awaits none."""
        before = self._masks.get(opened, 0)
        if mask == before:
            return
        if not mask:
            self.forget(opened)
            return
        (self._selector.modify if before else self._selector.register)(opened, mask, callback)
        self._masks[opened] = mask

    def forget(self, opened: socket.socket) -> None:
        """Await no event on a socket."""
        if self._masks.pop(opened, 0):
            self._selector.unregister(opened)

    def wait(self, timeout_s: float | None) -> None:
        """Wait for events, and call their functions."""
        for key, events in self._selector.select(timeout_s):
            key.data(events)

    def close(self) -> None:
        """Close all sockets."""
        for opened in tuple(self._masks):
            self.forget(opened)
            opened.close()
        self._selector.close()


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


class Connections:
    """All connections of a link, and the state that decides what of them passes."""

    def __init__(
        self, upstream: Callable[[], tuple[str, int]], reader: Callable[[], Reader] | None, watched: Watched
    ) -> None:
        """Begin without connections.

        :param upstream: returns the address of the server; it is called for each connection.
        :param reader: makes the reader of each connection; bytes pass unread without one.
        :param watched: awaits the events of their sockets.
        """
        self._upstream, self._reader, self._watched = upstream, reader, watched
        self._state, self._rate, self._delay_s = PASS, 0.0, 0.0
        self._pairs: set[_Pair] = set()
        self._counted = Counts(PASS)

    def obey(self, command: str) -> Counts:
        """Change the state for a command, unless it only asks, and return the state and the counters.

        :raises ValueError: for an unknown state.
        """
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

    def admit(self, client: socket.socket, first: bytes) -> None:
        """Take a client's connection; a link that is cut resets it.

        :param first: bytes of the client that were read already.
        """
        if self._state == CUT:
            self._count("refused")
            _reset_at_close(client)
            client.close()
            return
        self._count("accepted")
        pair = _Pair(client, self._reader() if self._reader else None)
        self._pairs.add(pair)
        if first:
            self._take(pair, pair.requests, first)
        self._serve(pair)

    def push_due(self) -> float | None:
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

    def close(self) -> None:
        """End all connections."""
        for pair in tuple(self._pairs):
            self._drop(pair)

    def _count(self, name: str, more: int = 1) -> None:
        self._counted = self._counted._replace(**{name: getattr(self._counted, name) + more})

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
            self._watched.watch(opened, mask, lambda events, at=opened: self._ready(pair, at, events))  # type: ignore[misc]

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
            data = flow.source.recv(CHUNK_BYTES)
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
                self._watched.forget(opened)
                opened.close()

    def _reset(self, pair: _Pair, *, own: bool = False) -> None:
        if pair not in self._pairs:
            return
        if own:
            self._count("resets")
        for opened in (pair.client, pair.server):
            if opened:
                _reset_at_close(opened)
        self._drop(pair)


def _reset_at_close(opened: socket.socket) -> None:
    with contextlib.suppress(OSError):
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
