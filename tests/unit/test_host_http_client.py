"""Requests to a host that stalls, floods, redirects, lies about lengths or speaks another protocol."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
import time
import tracemalloc
from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.audit.target_loading import load_target
from harness.errors import ConfigError
from harness.host.declarations import Caller, Step
from harness.host.http_client import HttpClient
from harness.host.http_response import HttpResponse
from harness.host.site import Site, Values
from harness.model import INTERRUPTED, EvidenceClass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.database import Client

DEADLINE_S = 0.3
#: scheduling delay on a busy machine
SLACK_S = 5.0
#: stands for personal data in a response; no message may repeat it
PERSONAL = "the-diary-of-somebody-else"
JSON = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"


def _read_request(connection: socket.socket) -> bytes:
    """Read a request completely, so that closing the connection does not reset it. A large body is left unread."""
    received = b""
    while b"\r\n\r\n" not in received:
        if not (part := connection.recv(65536)):
            return received
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    declared = re.search(rb"(?i)content-length: (\d+)", head)
    length = int(declared[1]) if declared else 0
    while len(body) < length < 65536 and (part := connection.recv(65536)):
        body += part
    return head + b"\r\n\r\n" + body


class Server:
    """Accepts connections on loopback and hands each one to a function of the test."""

    def __init__(self, serve: Callable[[socket.socket, Event], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.stopped = Event()
        self.accepted: list[socket.socket] = []
        #: the first request of each connection
        self.requests: list[bytes] = []
        self._threads = [Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.accepted.append(connection)
                self._threads.append(Thread(target=self._answer, args=(connection,), daemon=True))
                self._threads[-1].start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self.requests.append(_read_request(connection))
            self._serve(connection, self.stopped)

    def close(self) -> None:
        self.stopped.set()
        for connection in (self._listener, *self.accepted):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join(5)


@pytest.fixture
def server() -> Iterator[Callable[[Callable[[socket.socket, Event], None]], Server]]:
    servers: list[Server] = []

    def start(serve: Callable[[socket.socket, Event], None]) -> Server:
        servers.append(Server(serve))
        return servers[-1]

    yield start
    for started in servers:
        started.close()


def sends(response: bytes) -> Callable[[socket.socket, Event], None]:
    return lambda connection, _stopped: connection.sendall(response)


def answers(data: object) -> Callable[[socket.socket, Event], None]:
    body = json.dumps(data).encode()
    return sends(JSON % (len(body), body))


def trickles(first: bytes, then: bytes, every_s: float = 0.02) -> Callable[[socket.socket, Event], None]:
    """Send a few bytes from time to time, so that no single read times out."""

    def serve(connection: socket.socket, stopped: Event) -> None:
        connection.sendall(first)
        while not stopped.wait(every_s):
            connection.sendall(then)

    return serve


def stays_silent(_connection: socket.socket, stopped: Event) -> None:
    stopped.wait(20)


@contextlib.contextmanager
def full_backlog() -> Iterator[tuple[str, int]]:
    """Yield an address that neither accepts nor refuses connections."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        host, port = listener.getsockname()
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
        yield host, port


def _no_database() -> Client:
    raise AssertionError("an HTTP client connects to no database")


def site(base_url: str, callers: tuple[Caller, ...] = ()) -> Site:
    return Site(
        name="staging",
        evidence_class=EvidenceClass.HOST,
        base_url=base_url,
        callers=callers,
        target=load_target("reference"),
        trail=_no_database,
        application=_no_database,
        trust_env=False,
    )


def send(base_url: str, step: Step | None = None, *, deadline_s: float = DEADLINE_S) -> HttpResponse:
    """Send a request; require that it ends in time and that no message repeats a body."""
    began = time.monotonic()
    with HttpClient(site(base_url)) as client:
        response = client.send(step or Step(path="/posts", json={"slug": "{unique}"}), Values(None), deadline_s)
    assert time.monotonic() - began < deadline_s + SLACK_S
    assert PERSONAL not in str(response) + response.failure + response.why_not_exercised
    return response


# --- what the response means ----------------------------------------------------------------------------------


def test_a_refused_connection_is_reported_without_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    response = send(f"http://127.0.0.1:{port}")
    assert response == HttpResponse(status=0, failure="the host is unreachable: connection refused", arrived=False)
    assert response.why_not_exercised == response.failure
    assert str(port) not in str(response)


def test_an_unknown_host_name_is_reported_without_the_name() -> None:
    response = send("http://host.invalid", deadline_s=5.0)
    assert not response.arrived
    assert "host.invalid" not in str(response)


@pytest.mark.parametrize("base_url", ["ftp://127.0.0.1", "http://127.0.0.1:99999"])
def test_an_invalid_address_counts_as_unreachable(base_url: str) -> None:
    response = send(base_url)
    assert (response.status, response.arrived) == (0, False)
    assert response.failure.startswith("the host is unreachable: ")


def test_a_complete_response_is_decoded(server: Callable[..., Server]) -> None:
    response = send(server(answers({"id": 7})).base_url)
    assert response == HttpResponse(status=201, data={"id": 7}, headers=response.headers)
    assert response.headers["content-type"] == "application/json"
    assert response.succeeded
    assert str(response) == "201"


def test_a_redirect_is_not_followed_and_its_target_is_not_reported(server: Callable[..., Server]) -> None:
    redirect = f"HTTP/1.1 302 Found\r\nlocation: https://{PERSONAL}.example/login\r\ncontent-length: 0\r\n\r\n"
    running = server(sends(redirect.encode()))
    response = send(running.base_url)
    assert response.why_not_exercised == (
        "the host answered 302, a redirect, which is not followed; does it require a login or another base URL?"
    )
    assert len(running.accepted) == 1


@pytest.mark.parametrize("status", [401, 403, 407])
def test_a_rejected_caller_has_exercised_nothing(server: Callable[..., Server], status: int) -> None:
    body = json.dumps({"error": PERSONAL})
    rejection = f"HTTP/1.1 {status} No\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    response = send(server(sends(rejection.encode())).base_url)
    assert response.why_not_exercised == (
        f"the host answered {status}: it rejects the caller; check the caller's headers"
    )
    assert not response.succeeded


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_an_overloaded_host_or_a_gateway_without_one_judges_nothing(server: Callable[..., Server], status: int) -> None:
    response = send(server(sends(f"HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n".encode())).base_url)
    assert f"the host answered {status}" in response.why_not_exercised


@pytest.mark.parametrize("status", [404, 422, 500])
def test_any_other_status_is_a_response_of_the_path(server: Callable[..., Server], status: int) -> None:
    other = f"HTTP/1.1 {status} No\r\ncontent-length: {len(PERSONAL)}\r\n\r\n{PERSONAL}"
    response = send(server(sends(other.encode())).base_url)
    assert (str(response), response.why_not_exercised, response.succeeded) == (str(status), "", False)


# --- deadline and size ----------------------------------------------------------------------------------------

ENDLESS = {
    "body-without-length": trickles(b"HTTP/1.1 201 Created\r\n\r\n{", b" "),
    "body-in-chunks": trickles(b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n", b"1\r\n \r\n"),
    "body-of-a-declared-length": trickles(b"HTTP/1.1 201 Created\r\ncontent-length: 900000\r\n\r\n{", b" "),
    "headers": trickles(b"HTTP/1.1 201 Created\r\n", b"x-more: " + PERSONAL.encode() + b"\r\n"),
    "part-of-a-header": trickles(b"HTTP/1.1 201 Created\r\nx-more: ", b"y"),
    "interim-responses": trickles(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "silence": stays_silent,
}


@pytest.mark.parametrize("serve", ENDLESS.values(), ids=ENDLESS.keys())
def test_the_deadline_ends_an_endless_response(
    server: Callable[..., Server], serve: Callable[[socket.socket, Event], None]
) -> None:
    response = send(server(serve).base_url)
    assert response.failure == "no complete response within 0.3 s"
    assert (response.data, response.succeeded, response.arrived) == (None, False, True)


def test_the_deadline_covers_sending(server: Callable[..., Server]) -> None:
    """The request is larger than the socket buffers, so sending it blocks."""
    response = send(server(stays_silent).base_url, Step(path="/posts", json={"text": "x" * 30_000_000}))
    assert response.failure.startswith("no complete response")


def test_a_connection_that_is_never_accepted_counts_as_unreachable() -> None:
    with full_backlog() as (host, port):
        response = send(f"http://{host}:{port}")
    assert response == HttpResponse(
        status=0, failure="the host is unreachable: the connection timed out", arrived=False
    )


def test_a_response_over_the_size_limit_is_not_read_completely(server: Callable[..., Server]) -> None:
    response = send(server(answers(PERSONAL * 100_000)).base_url, deadline_s=5.0)
    assert response == HttpResponse(status=201, failure="the response is larger than 1 MiB")
    assert not response.succeeded


def test_the_size_limit_holds_for_the_inflated_body_and_for_memory(server: Callable[..., Server]) -> None:
    body = gzip.compress(b" " * 50_000_000)
    response = b"HTTP/1.1 201 Created\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    running = server(sends(response))
    tracemalloc.start()
    try:
        assert send(running.base_url, deadline_s=5.0).failure == "the response is larger than 1 MiB"
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 16 * 1024 * 1024


# --- broken responses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>" + PERSONAL.encode() + b"</html>", b'{"slug": "half', b"\xff\xfe{}", b"[" * 100_000],
    ids=["nothing", "html", "half", "not-text", "deep"],
)
def test_a_body_that_is_not_json_gives_no_data(server: Callable[..., Server], body: bytes) -> None:
    response = send(server(sends(JSON % (len(body), body))).base_url, deadline_s=5.0)
    assert response == HttpResponse(status=201, headers=response.headers)
    assert response.succeeded


CUT = {
    "in-the-headers": b"HTTP/1.1 201 Created\r\nx-more: " + PERSONAL.encode(),
    "in-the-body": b"HTTP/1.1 201 Created\r\ncontent-length: 900\r\n\r\n" + PERSONAL.encode(),
    "in-a-chunk": b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\nff\r\n" + PERSONAL.encode(),
    "before-it-began": b"",
    "of-another-protocol": PERSONAL.encode() + b"\r\n\r\n",
}


@pytest.mark.parametrize("part", CUT.values(), ids=CUT.keys())
def test_a_truncated_response_is_a_failure(server: Callable[..., Server], part: bytes) -> None:
    response = send(server(sends(part)).base_url, deadline_s=5.0)
    assert response == HttpResponse(status=0, failure="no complete response: RemoteProtocolError")


def test_a_body_that_cannot_be_inflated_is_a_failure(server: Callable[..., Server]) -> None:
    body = gzip.compress(PERSONAL.encode() * 100)[:-20]
    response = b"HTTP/1.1 201 Created\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%s" % (
        len(body),
        b"no gzip" + body[7:],
    )
    assert send(server(sends(response)).base_url).failure == "no complete response: DecodingError"


def test_a_truncated_response_without_a_length_looks_complete(server: Callable[..., Server]) -> None:
    """Its body is not JSON, so no value of it is used."""
    assert send(server(sends(b'HTTP/1.1 201 Created\r\n\r\n{"slug": "ha')).base_url).data is None


# --- what is sent ---------------------------------------------------------------------------------------------


def test_a_request_is_filled_in_and_carries_the_callers_headers(server: Callable[..., Server]) -> None:
    running = server(answers({}))
    ada = Caller(actor={"type": "user", "id": "ada"}, headers={"authorization": "Bearer of-ada", "x-of": "{actor.id}"})
    values = Values(ada)
    values.keep("post_id", 7)
    step = Step(
        method="PATCH",
        path="/posts/{post_id}?by={actor.id}",
        headers={"x-correlation-id": "{correlation}"},
        json={"id": "{post_id}", "slug": "{unique}"},
    )
    with HttpClient(site(f"{running.base_url}/api/", (ada,))) as client:
        assert client.send(step, values, 5.0).succeeded
    head, _, body = running.requests[0].decode().partition("\r\n\r\n")
    lines = head.split("\r\n")
    assert lines[0] == "PATCH /api/posts/7?by=ada HTTP/1.1"
    assert {"authorization: Bearer of-ada", "x-of: ada", f"x-correlation-id: {values.correlation}"} <= {*lines}
    assert json.loads(body) == {"id": 7, "slug": values.unique}


def test_a_placeholder_without_a_value_is_an_error_of_the_declaration(server: Callable[..., Server]) -> None:
    with pytest.raises(ConfigError, match=r"unknown placeholder \{post_id\}"):
        send(server(answers({})).base_url, Step(path="/posts/{post_id}"))


@pytest.mark.parametrize(
    "header", [f"{PERSONAL}\n", f"{PERSONAL}\x00", f"{PERSONAL} für Ada"], ids=["line", "nul", "umlaut"]
)
def test_a_header_that_cannot_be_sent_has_exercised_nothing(server: Callable[..., Server], header: str) -> None:
    """The request never leaves this machine: that is a mistake in the variable, not a finding about the host."""
    running = server(answers({}))
    response = send(running.base_url, Step(path="/posts", headers={"x-token": header}))
    assert not response.arrived
    assert response.why_not_exercised


def test_the_deadline_holds_for_a_second_request(server: Callable[..., Server]) -> None:
    """Also when the server keeps the first connection open for it."""
    trickle = trickles(b"HTTP/1.1 201 Created\r\n", b"x-more: y\r\n")
    first = Event()

    def serve(connection: socket.socket, stopped: Event) -> None:
        if not first.is_set():
            first.set()
            connection.sendall(JSON % (2, b"{}"))
            if not _read_request(connection):
                return
        trickle(connection, stopped)

    running = server(serve)
    with HttpClient(site(running.base_url)) as client:
        assert client.send(Step(path="/posts"), Values(None), DEADLINE_S).succeeded
        began = time.monotonic()
        response = client.send(Step(path="/posts"), Values(None), DEADLINE_S)
        assert time.monotonic() - began < DEADLINE_S + SLACK_S
    assert response.failure == "no complete response within 0.3 s"


@pytest.mark.parametrize("evidence_class", EvidenceClass)
def test_a_response_of_a_host_of_the_harness_is_not_awaited_after_an_interruption(
    server: Callable[..., Server], evidence_class: EvidenceClass
) -> None:
    """A host of an operator may still write what it was asked for, and what it wrote is cleaned up after that."""
    interrupted = Event()

    def serve(connection: socket.socket, stopped: Event) -> None:
        interrupted.set()
        if evidence_class is EvidenceClass.CI:
            stopped.wait(20)
        answers({})(connection, stopped)

    at = replace(site(server(serve).base_url), evidence_class=evidence_class, stopped=interrupted.is_set)
    with HttpClient(at) as client:
        response = client.send(Step(path="/posts"), Values(None), 600)
    assert response.failure == (INTERRUPTED if evidence_class is EvidenceClass.CI else "")


def test_all_addresses_of_a_host_share_one_deadline(
    server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first address accepts nothing; the second one answers with endless headers."""
    running = server(ENDLESS["headers"])
    good = ("127.0.0.1", int(running.base_url.rpartition(":")[2]))
    with full_backlog() as bad:
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (bad, good)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_options: addresses)
        response = send("http://shop.example")
    assert not response.succeeded


def test_the_text_of_a_response_does_not_show_its_data(server: Callable[..., Server]) -> None:
    """Not even when the response is printed as part of something larger."""
    response = send(server(answers({"diary": PERSONAL})).base_url)
    assert response.data == {"diary": PERSONAL}
    assert PERSONAL not in f"{(response,)} {response!r}"
