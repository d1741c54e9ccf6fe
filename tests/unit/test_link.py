"""Links on loopback: bytes pass unchanged, states have their effects and end, counters count."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from harness.engine.protocol import Address, Origin, ServicePlace
from harness.lab.links import link_spec
from harness.waiting import NotYet, poll
from harness.wire.link import BLACK_HOLE, CUT, HALF_OPEN, PASS, SLOW, STATES, Counts, Link, ask, command_for
from harness.wire.link.control import MAGIC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_SOON_S = 10.0


class Echo:
    """A server that returns what it receives, and ends with its client."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self.accepted: list[socket.socket] = []
        Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.accepted.append(client)
                Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            while got := client.recv(65536):
                client.sendall(got)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def link(echo: Echo) -> Iterator[Link]:
    made = Link(lambda: echo.address)
    made.start()
    yield made
    made.close()


def client_of(link: Link) -> socket.socket:
    client = socket.create_connection(link.address, _SOON_S)
    client.settimeout(_SOON_S)
    return client


def connect_and_wait(link: Link) -> None:
    with client_of(link) as client:
        assert client.recv(1) == b""


def received(client: socket.socket, length: int) -> bytes:
    got = b""
    while len(got) < length and (more := client.recv(length - len(got))):
        got += more
    return got


def round_trip(client: socket.socket, data: bytes = b"hello") -> bytes:
    client.sendall(data)
    return received(client, len(data))


def seen(link: Link, holds: Callable[[Counts], bool]) -> Counts:
    def probe() -> Counts:
        if not holds(counts := link.counts()):
            raise NotYet(str(counts))
        return counts

    return poll(probe, what="the counters of the link", deadline_s=_SOON_S)


def is_silent(client: socket.socket) -> bool:
    """Return whether nothing has arrived: not even the end of the connection."""
    return not select.select([client], [], [], 0)[0]


@settings(max_examples=25, deadline=None)
@given(pieces=st.lists(st.binary(min_size=1, max_size=3000), max_size=12))
def test_bytes_pass_unchanged_in_any_pieces(echo: Echo, pieces: list[bytes]) -> None:
    link = Link(lambda: echo.address)
    link.start()
    with contextlib.closing(link), client_of(link) as client:
        for piece in pieces:
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        sent = b"".join(pieces)
        assert received(client, len(sent) + 1) == sent  # and then the end, which the server's close passed on
        counts = seen(link, lambda counts: counts.open == 0)
    assert (counts.to_server, counts.to_client) == (len(sent), len(sent))


def test_more_than_the_link_holds_passes(link: Link) -> None:
    sent = os.urandom(8 << 20)
    with client_of(link) as client:
        Thread(target=client.sendall, args=(sent,), daemon=True).start()
        assert received(client, len(sent)) == sent


@pytest.mark.parametrize("state", [BLACK_HOLE, HALF_OPEN, SLOW])
def test_no_byte_is_lost_when_a_state_changes_in_the_middle(link: Link, state: str) -> None:
    sent = [bytes([number]) * 500 for number in range(40)]
    with client_of(link) as client:
        for number, piece in enumerate(sent):
            if number in {10, 30}:
                link.change(state if number == 10 else PASS, bytes_per_s=100_000, delay_s=0.001)
            client.sendall(piece)
        assert received(client, 500 * 40) == b"".join(sent)


def test_a_cut_resets_open_connections_and_new_ones(link: Link) -> None:
    with client_of(link) as client:
        assert round_trip(client) == b"hello"
        assert link.change(CUT) == Counts(CUT, accepted=1, resets=1, to_server=5, to_client=5)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionResetError):
        connect_and_wait(link)
    assert seen(link, lambda counts: counts.refused > 0).open == 0
    link.change(PASS)
    with client_of(link) as client:
        assert round_trip(client) == b"hello"


def test_a_black_hole_holds_both_directions_and_new_connections(link: Link) -> None:
    with client_of(link) as client:
        assert round_trip(client) == b"hello"
        link.change(BLACK_HOLE)
        client.sendall(b"later")
        with client_of(link) as other:
            other.sendall(b"too")
            counts = seen(link, lambda counts: counts.held_to_server == 8)
            assert (counts.accepted, counts.open, counts.to_server) == (2, 2, 5)
            assert is_silent(client)
            assert is_silent(other)
            link.change(PASS)
            assert (received(client, 5), received(other, 3)) == (b"later", b"too")


def test_a_half_open_link_forwards_requests_and_holds_answers(link: Link) -> None:
    with client_of(link) as client:
        assert round_trip(client) == b"hello"
        link.change(HALF_OPEN)
        client.sendall(b"later")
        counts = seen(link, lambda counts: counts.held_to_client == 5)
        assert (counts.to_server, counts.to_client) == (10, 5)
        assert is_silent(client)
        link.change(PASS)
        assert received(client, 5) == b"later"


def test_the_end_of_a_held_connection_arrives_after_the_healing(link: Link, echo: Echo) -> None:
    with client_of(link) as client:
        assert round_trip(client) == b"hello"
        link.change(BLACK_HOLE)
        echo.accepted[-1].shutdown(socket.SHUT_RDWR)
        assert is_silent(client)
        link.change(PASS)
        assert client.recv(1) == b""


def test_a_reset_is_passed_on(link: Link, echo: Echo) -> None:
    with client_of(link) as client:
        assert round_trip(client) == b"hello"
        server = echo.accepted[-1]
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    counts = seen(link, lambda counts: counts.open == 0)
    assert counts.resets == 0  # not the link's own

    def ended() -> None:
        if server.fileno() != -1:
            raise NotYet("the server's connection is open")

    poll(ended, what="the end of the server's connection", deadline_s=_SOON_S)


def test_without_a_server_the_connection_ends(echo: Echo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = nobody.getsockname()
    for upstream in (lambda: address, lambda: ("no.such.host.invalid", 1)):
        link = Link(upstream)
        link.start()
        with contextlib.closing(link):
            with contextlib.suppress(ConnectionResetError):  # it may arrive before the connection is complete
                connect_and_wait(link)
            assert seen(link, lambda counts: counts.unreachable > 0).open == 0


def test_an_unknown_state_is_refused_and_changes_nothing(link: Link) -> None:
    with pytest.raises(ValueError, match="unknown state 'broken'"):
        link.change("broken")
    assert link.counts().state == PASS


# --- as a program ------------------------------------------------------------------------------------------------


@pytest.fixture
def program(echo: Echo, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Run a link as a service does: without the packages of the harness."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    place = ServicePlace(
        name="link",
        folder=str(tmp_path),
        data="",
        listen="127.0.0.1",
        port=port,
        inside=Address("127.0.0.1", port),
        origin=Origin(product="link", version="", reference=""),
    )
    spec = link_spec(place, Address(*echo.address), "sesame")
    for name, text in spec.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    variables = {"PATH": os.environ["PATH"]}
    with subprocess.Popen(["sh", "-c", spec.script], env=variables, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"link: 127.0.0.1:")
        yield "127.0.0.1", port
        process.send_signal(signal.SIGTERM)
        assert process.wait(_SOON_S) == 0


def test_a_program_is_controlled_through_its_one_port(program: tuple[str, int]) -> None:
    with socket.create_connection(program, _SOON_S) as client:
        assert round_trip(client) == b"hello"
        counts = ask(program, "sesame", command_for(BLACK_HOLE))
        assert (counts.state, counts.accepted, counts.open, counts.to_server) == (BLACK_HOLE, 1, 1, 5)
        client.sendall(b"later")
        assert ask(program, "sesame", command_for(PASS)).state == PASS
        assert received(client, 5) == b"later"
    for state in STATES:
        assert ask(program, "sesame", command_for(state, bytes_per_s=1000, delay_s=0.1)).state == state


def test_a_program_obeys_nobody_without_its_token(program: tuple[str, int]) -> None:
    # what does not control the link is a client's, and the server returns it
    for token, first in (("other!", "unknown token"), ("", "none")):
        with pytest.raises(ValueError, match="pooler-harness-link"):
            ask(program, token, f"{CUT} {first}".strip())
    with pytest.raises(ValueError, match="unknown state"):
        ask(program, "sesame", "explode")
    assert ask(program, "sesame", "state").state == PASS


@given(first=st.binary(min_size=1, max_size=64))
@example(first=MAGIC[:-1])
@settings(max_examples=25, deadline=None)
def test_the_first_bytes_of_a_client_pass_unchanged(echo: Echo, first: bytes) -> None:
    assume(not first.startswith(MAGIC))  # a control connection: no client of PostgreSQL begins so
    link = Link(lambda: echo.address, token="sesame")
    link.start()
    with contextlib.closing(link), client_of(link) as client:
        for at in range(len(first)):  # one byte at a time: also what begins like a control connection
            client.sendall(first[at : at + 1])
        client.sendall(b"\n")
        client.shutdown(socket.SHUT_WR)
        assert received(client, len(first) + 2) == first + b"\n"


def test_a_closed_link_refuses_commands(echo: Echo) -> None:
    link = Link(lambda: echo.address)
    link.start()
    address = link.address
    link.close()
    link.close()
    with pytest.raises(OSError, match="closed"):
        link.change(PASS)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, _SOON_S)
