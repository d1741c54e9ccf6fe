"""The raw protocol: any input yields a message, a wait, or a clear error."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError, TimedOutError
from harness.lab.credentials import scram_verifier
from harness.wire import (
    ClosedError,
    Deadline,
    LoginError,
    Message,
    NotPostgresError,
    ServerAddress,
    ServerError,
    Wire,
    authentication_name,
)
from harness.wire.link import ResetConnection
from harness.wire.messages import columns_of, error_of, packed, rows_of, take_message
from harness.wire.relay import Withholder
from harness.wire.scram import Scram, ScramError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READY = packed([(b"Z", b"I")])
TRUSTED = packed([(b"R", struct.pack("!i", 0))])


@contextlib.contextmanager
def serving(handle: Callable[[socket.socket], None]) -> Iterator[ServerAddress]:
    """Run a server on loopback; each client is handled in its own thread, and disconnected at the end."""
    clients: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def one(client: socket.socket) -> None:
            with contextlib.suppress(OSError, struct.error, LookupError), client:
                handle(client)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    clients.append(client)
                    threading.Thread(target=one, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield ServerAddress(host="127.0.0.1", port=listening.getsockname()[1])
        finally:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            for client in clients:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
                client.close()


def exactly(client: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        more = client.recv(size - len(received))
        if not more:
            raise ConnectionResetError
        received += more
    return received


def startup(client: socket.socket) -> dict[str, str]:
    """Read a StartupMessage, and refuse an SSLRequest before it."""
    while True:
        length, code = struct.unpack("!ii", exactly(client, 8))
        body = exactly(client, length - 8)
        if code >> 16 == 3:
            words = [word.decode() for word in body.split(b"\0")]
            return dict(zip(words[::2], words[1::2], strict=False))
        client.sendall(b"N")


def frontend(client: socket.socket) -> tuple[bytes, bytes]:
    kind = exactly(client, 1)
    (length,) = struct.unpack("!i", exactly(client, 4))
    return kind, exactly(client, length - 4)


def silent(client: socket.socket) -> None:
    while client.recv(1024):
        pass


def http(client: socket.socket) -> None:
    client.recv(1024)
    client.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def closes(client: socket.socket) -> None:
    pass


def garbage(client: socket.socket) -> None:
    client.recv(1024)
    client.sendall(bytes(range(200, 256)) * 50)


def refuses(client: socket.socket) -> None:
    startup(client)
    client.sendall(packed([(b"E", b"SFATAL\0C53300\0Mtoo many\nclients\0\0")]))


@contextlib.contextmanager
def logged_in(address: ServerAddress, deadline_s: float = 2.0) -> Iterator[Wire]:
    wire = Wire.open(address, Deadline(deadline_s))
    with contextlib.closing(wire):
        wire.log_in(wire.start_login({"user": "app"}), "app", "secret of the test")
        yield wire


@pytest.mark.parametrize(
    ("handle", "expected", "text"),
    [
        (http, NotPostgresError, "not PostgreSQL"),
        (garbage, NotPostgresError, "not PostgreSQL"),
        (closes, ClosedError, "clos|broke"),
        (silent, TimedOutError, "no answer"),
        (refuses, ServerError, "53300 too many clients"),
    ],
)
def test_a_server_that_is_not_postgresql_gives_a_clear_error(
    handle: Callable[[socket.socket], None], expected: type[HarnessError], text: str
) -> None:
    began = time.monotonic()
    with serving(handle) as address, pytest.raises(expected, match=text), logged_in(address, 0.3):
        pass
    assert time.monotonic() - began < 5


def test_a_closed_port_gives_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ClosedError, match="no connection"):
        Wire.open(ServerAddress(host="127.0.0.1", port=port), Deadline(1))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_yield_messages_a_wait_or_an_error(data: bytes) -> None:
    buffer = bytearray(data)
    try:
        while (message := take_message(buffer)) is not None:
            for read in (error_of, authentication_name, lambda one: rows_of([one]), lambda one: columns_of([one])):
                with contextlib.suppress(NotPostgresError, ServerError):
                    read(message)
    except NotPostgresError:
        return
    assert len(buffer) <= len(data)


#: the fields of an error without NUL bytes, which end a field
_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(sqlstate=_TEXTS, text=_TEXTS)
def test_an_error_is_read_with_and_without_the_byte_that_ends_it(sqlstate: str, text: str) -> None:
    fields = b"C" + sqlstate.encode() + b"\0M" + text.encode() + b"\0"
    for body in (fields + b"\0", fields):
        error = error_of(Message("E", body))
        assert (error.sqlstate, error.message) == (sqlstate, " ".join(text.split()))


def test_an_error_whose_last_field_has_no_end_is_not_postgresql() -> None:
    with pytest.raises(NotPostgresError, match="shorter than its content"):
        error_of(Message("E", b"C53300\0Mconnection refus"))


@given(st.lists(st.tuples(st.sampled_from([bytes([code]) for code in b"RESKZTDCNAtnI123sv"]), st.binary(max_size=40))))
def test_packed_messages_are_read_unchanged(messages: list[tuple[bytes, bytes]]) -> None:
    buffer = bytearray(packed(messages))
    assert [take_message(buffer) for _ in messages] == [Message(kind.decode(), body) for kind, body in messages]
    assert take_message(buffer) is None


@given(data=st.lists(st.binary(max_size=60), max_size=4))
def test_a_login_never_hangs_whatever_the_server_sends(data: list[bytes]) -> None:
    near, far = socket.socketpair()
    with near, far:
        for piece in data:
            far.sendall(piece)
        far.shutdown(socket.SHUT_WR)
        wire = Wire(near, ServerAddress(host="127.0.0.1", port=1), Deadline(1))
        with contextlib.suppress(HarnessError):
            wire.log_in(wire.start_login({"user": "app"}), "app", "secret of the test")
            wire.query("SELECT 1")


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).hexdigest().encode()


def answering(password: str, method: str) -> Callable[[socket.socket], None]:
    """Return a handler for a server that verifies the password and answers queries."""

    def request(client: socket.socket, code: int, body: bytes = b"") -> None:
        client.sendall(packed([(b"R", struct.pack("!i", code) + body)]))

    def is_right(client: socket.socket) -> bool:
        if method == "cleartext":
            request(client, 3)
            return frontend(client)[1] == password.encode() + b"\0"
        if method == "md5":
            request(client, 5, b"salt")
            return frontend(client)[1] == b"md5" + _md5(_md5(f"{password}app".encode()) + b"salt") + b"\0"
        request(client, 10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
        first = frontend(client)[1].split(b"\0", 1)[1][4:].decode()
        bare = first.removeprefix("n,,")
        _, middle, keys = scram_verifier(password, b"pepper").split("$")
        iterations, salt = middle.split(":")
        nonce = bare.split("r=")[1] + "more"
        server_first = f"r={nonce},s={salt},i={iterations}"
        request(client, 11, server_first.encode())
        final = frontend(client)[1].decode()
        without_proof, proof = final.rsplit(",p=", 1)
        signed = f"{bare},{server_first},{without_proof}".encode()
        stored, server_key = (base64.b64decode(key) for key in keys.split(":"))
        signature = hmac.digest(stored, signed, "sha256")
        key = bytes(left ^ right for left, right in zip(base64.b64decode(proof), signature, strict=True))
        if hashlib.sha256(key).digest() != stored:
            return False
        request(client, 12, b"v=" + base64.b64encode(hmac.digest(server_key, signed, "sha256")))
        return True

    def handle(client: socket.socket) -> None:
        assert startup(client)["user"] == "app"
        if not is_right(client):
            client.sendall(packed([(b"E", b"SFATAL\0C28P01\0Mwrong\0\0")]))
            return
        key = (b"K", struct.pack("!ii", 4711, 0))
        client.sendall(TRUSTED + packed([(b"S", b"TimeZone\0UTC\0"), key, (b"N", b"Mnotice\0\0")]) + READY)
        while frontend(client)[0] != b"X":
            row = struct.pack("!hi", 2, 1) + b"1" + struct.pack("!i", -1)
            client.sendall(packed([(b"T", b"\0\0"), (b"D", row), (b"C", b"SELECT 1\0")]) + READY)

    return handle


@pytest.mark.parametrize("method", ["cleartext", "md5", "scram-sha-256"])
def test_a_login_is_completed_and_a_query_is_answered(method: str) -> None:
    with serving(answering("secret of the test", method)) as address, logged_in(address) as wire:
        assert (wire.announced_pid, wire.parameters, wire.status) == (4711, {"TimeZone": "UTC"}, "I")
        assert wire.query("SELECT 1, NULL") == [("1", None)]
    with serving(answering("another one", method)) as address, pytest.raises(ServerError) as caught, logged_in(address):
        pass
    assert caught.value.sqlstate == "28P01"
    assert "secret of the test" not in str(caught.value)


def test_a_first_authentication_message_names_the_method() -> None:
    with (
        serving(answering("x", "scram-sha-256")) as address,
        contextlib.closing(Wire.open(address, Deadline(1))) as wire,
    ):
        assert wire.offers_tls() is False
        assert authentication_name(wire.start_login({"user": "app"})) == "scram-sha-256"


def test_a_wait_continues_after_a_timeout() -> None:
    go = threading.Event()

    def slow(client: socket.socket) -> None:
        startup(client)
        client.sendall(TRUSTED + READY)
        frontend(client)
        client.sendall(packed([(b"D", struct.pack("!hi", 1, 1) + b"7")]))
        go.wait(5)
        client.sendall(packed([(b"C", b"SELECT 1\0")]) + READY)

    with serving(slow) as address, logged_in(address) as wire:
        usual, wire.deadline = wire.deadline, Deadline(0.05)
        with pytest.raises(TimedOutError):
            wire.query("SELECT 7")
        wire.deadline = usual
        go.set()
        assert wire.rows() == [("7",)]


def test_the_error_before_a_disconnection_is_raised() -> None:
    def refuses_and_closes(client: socket.socket) -> None:
        startup(client)
        client.sendall(TRUSTED + READY)
        frontend(client)
        client.sendall(packed([(b"E", b"SFATAL\0C08P01\0Mtransaction blocks not allowed\0\0")]))

    with (
        serving(refuses_and_closes) as address,
        logged_in(address) as wire,
        pytest.raises(ServerError, match="08P01 transaction blocks"),
    ):
        wire.query("BEGIN")


@pytest.mark.parametrize(
    "message", [b"", b"r=somebody-else,s=c2FsdA==,i=1", b"r=noncemore,s=!,i=1", b"r=noncemore,s=c2FsdA==,i=2000000000"]
)
def test_a_malformed_scram_exchange_ends_at_once(message: bytes) -> None:
    with pytest.raises(ScramError):
        Scram("secret", nonce="nonce").answer(message)


def test_a_server_without_proof_of_the_password_is_refused() -> None:
    scram = Scram("secret", nonce="nonce")
    scram.answer(b"r=noncemore,s=c2FsdA==,i=1")
    with pytest.raises(ScramError, match="did not prove"):
        scram.verify(b"v=AAAA")


def test_an_unsupported_login_method_is_named_in_the_error() -> None:
    def gss(client: socket.socket) -> None:
        startup(client)
        client.sendall(packed([(b"R", struct.pack("!i", 7))]))
        silent(client)

    with serving(gss) as address, pytest.raises(LoginError, match="asks for gss"), logged_in(address):
        pass


@given(st.lists(st.tuples(st.sampled_from(b"SDZCT"), st.binary(max_size=20)), max_size=8), st.data())
def test_a_relay_withholds_messages_of_some_types_wherever_the_stream_is_cut(
    messages: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    spelled = [bytes([kind]) + (len(body) + 4).to_bytes(4, "big") + body for kind, body in messages]
    stream = b"".join(spelled)
    cut = data.draw(st.integers(min_value=0, max_value=len(stream)))
    withholder = Withholder(b"S", at_login=True)
    out = b"".join(withholder.answers(part) for part in (stream[:cut], stream[cut:]))
    assert out == b"".join(message for message in spelled if not message.startswith(b"S"))


@pytest.mark.parametrize("answer", [b"C\xff\xff\xff\xff", b"C\0\0\0\3"])
def test_a_relay_cuts_off_a_server_whose_messages_are_invalid(answer: bytes) -> None:
    with pytest.raises(ResetConnection):
        Withholder(b"S", at_login=True).answers(answer)
