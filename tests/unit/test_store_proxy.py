"""The proxy in front of an object store: what passes, what it records, and how it fails on demand."""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
import tracemalloc
from hashlib import sha256
from http.client import HTTPConnection, HTTPException, IncompleteRead
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import fromstring

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from harness.engine.protocol import Address
from harness.errors import HarnessError
from harness.ingest.store_proxy import StoreProxy
from harness.ingest.store_requests import ANSWERS, Fault, Kind, S3Error, StoreRequest, Target, target_of
from harness.ingest.store_upstream import Limits
from harness.waiting import NotYet, poll
from tests.tables import each_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PATH = "/evidence/p/a%20key"
KEY = "p/a key"
CONTENT = b"the content of a file"


class Store(ThreadingHTTPServer):
    """A store that keeps what it gets."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.heads: list[tuple[str, dict[str, str]]] = []
        self.held, self.reached = Event(), Event()
        self.held.set()

    @property
    def place(self) -> Address:
        return Address("127.0.0.1", self.server_port)

    def handle_error(self, *_: Any) -> None:
        """A connection that the proxy cuts is no error of a test."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def _note(self) -> None:
        self.server.heads.append((self.path, dict(self.headers.items())))
        self.server.reached.set()
        self.server.held.wait(10)

    def _respond(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_PUT(self) -> None:
        self._note()
        kept, left = bytearray(), int(self.headers.get("Content-Length", 0))
        is_kept = left < 1 << 20
        while left and (piece := self.rfile.read(min(left, 1 << 16))):
            left -= len(piece)
            kept += piece if is_kept else b""
        if not left:
            self.server.objects[self.path] = bytes(kept)
        self._respond(200, b"")

    def do_GET(self) -> None:
        self._note()
        body = self.server.objects.get(self.path)
        if body is not None and (wanted := self.headers.get("Range")):
            first, last = wanted.removeprefix("bytes=").split("-")
            self._respond(206, body[int(first) : int(last) + 1])
            return
        self._respond(404 if body is None else 200, body or b"")

    do_HEAD = do_GET  # noqa: N815 -- the name that the server calls

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as opened:
        thread = Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield opened
        opened.held.set()
        opened.shutdown()
        thread.join()


@pytest.fixture
def proxy(store: Store) -> Iterator[StoreProxy]:
    with StoreProxy(store.place) as opened:
        yield opened


def connected(address: Address) -> HTTPConnection:
    return HTTPConnection(address.host, address.port, timeout=10)


def ask(
    address: Address,
    method: str,
    path: str = PATH,
    body: bytes | Iterable[bytes] | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    connection = connected(address)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def exchanged(address: Address, data: bytes) -> bytes:
    """Send bytes, end the sending, and return everything that comes back."""
    with socket.create_connection((address.host, address.port), timeout=10) as opened:
        out = bytearray()
        with contextlib.suppress(OSError):  # the proxy may have answered and closed: "not connected" is no ConnectionError
            opened.sendall(data)
            opened.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while got := opened.recv(65536):
                out += got
        return bytes(out)


def require(seen: bool) -> None:
    """Let a poll go on until something was seen."""
    if not seen:
        raise NotYet("not seen")


def ended(proxy: StoreProxy) -> StoreRequest:
    """Return the first request. :raises NotYet: while it is open."""
    first = proxy.requests()[0]
    if first.ending == "open":
        raise NotYet("it is open")
    return first


def code_of(body: bytes) -> str:
    return fromstring(body).findtext("Code") or ""  # noqa: S314 -- the proxy's own


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


# --- what passes, and what is recorded -------------------------------------------------------------------------------


def test_an_upload_and_its_downloads_pass_unchanged_and_are_recorded(store: Store, proxy: StoreProxy) -> None:
    signed = f"{PATH}?X-Amz-Signature=abc&X-Amz-Expires=60"
    store.objects[PATH] = CONTENT
    assert ask(proxy.public, "PUT", signed, CONTENT) == (200, b"")
    assert ask(proxy.internal, "GET", PATH, headers={"Authorization": "AWS4-HMAC-SHA256"}) == (200, CONTENT)
    assert ask(proxy.internal, "GET", PATH, headers={"Range": "bytes=1-3"}) == (206, CONTENT[1:4])
    assert ask(proxy.internal, "HEAD", PATH) == (200, b"")
    assert store.objects[signed] == CONTENT
    # a signature covers the target and the Host header
    assert [path for path, _ in store.heads] == [signed, PATH, PATH, PATH]
    assert [headers["Host"] for _, headers in store.heads] == [str(proxy.public), *[str(proxy.internal)] * 3]
    upload, download, part, head = proxy.requests()
    assert (upload.side, upload.method, upload.bucket, upload.key) == ("public", "PUT", "evidence", KEY)
    assert (upload.signed, upload.status, upload.received, upload.sent) == ("query", 200, len(CONTENT), 0)
    assert (upload.sha256, upload.ending, upload.fault) == (digest(CONTENT), "complete", "")
    assert (download.side, download.signed, download.sent, download.sha256) == (
        "internal",
        "header",
        len(CONTENT),
        digest(CONTENT),
    )
    assert (part.range, part.status, part.sent) == ("bytes=1-3", 206, 3)
    assert (head.method, head.sent, head.sha256) == ("HEAD", 0, "")
    assert [request.is_download for request in (upload, download, part, head)] == [False, True, True, False]
    assert upload.at <= download.at <= part.at <= head.at


def test_a_connection_serves_several_requests(proxy: StoreProxy) -> None:
    connection = connected(proxy.public)
    try:
        for number in range(3):
            connection.request("PUT", f"/evidence/{number}", CONTENT)
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"")
            assert not response.will_close
    finally:
        connection.close()
    assert [request.key for request in proxy.requests()] == ["0", "1", "2"]


def test_an_answer_that_a_client_has_read_is_complete_in_the_journal(store: Store, proxy: StoreProxy) -> None:
    store.objects[PATH] = CONTENT * 20_000
    for _ in range(20):
        ask(proxy.internal, "GET")
        assert proxy.requests()[-1].ending == "complete"


def test_many_clients_are_served_at_a_time(store: Store, proxy: StoreProxy) -> None:
    answers: list[tuple[int, bytes]] = []
    store.objects[PATH] = CONTENT
    threads = [Thread(target=lambda: answers.append(ask(proxy.internal, "GET"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [(200, CONTENT)] * 20
    assert sum(request.is_download for request in proxy.requests()) == 20


def test_a_body_of_32_mib_is_not_held_in_memory(proxy: StoreProxy) -> None:
    piece, pieces = b"x" * 65536, 512
    size = str(len(piece) * pieces)
    whole = sha256()
    for _ in range(pieces):
        whole.update(piece)
    tracemalloc.start()
    try:
        for headers in ({}, {"x-amz-content-sha256": whole.hexdigest()}):
            assert ask(proxy.public, "PUT", PATH, [piece] * pieces, {"Content-Length": size, **headers}) == (200, b"")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
    assert [request.sha256 for request in proxy.requests()] == [whole.hexdigest()] * 2


@pytest.mark.parametrize("headers", ["", f"x-amz-content-sha256: {digest(CONTENT)}\r\n"])
def test_a_client_that_waits_for_permission_gets_it(store: Store, proxy: StoreProxy, headers: str) -> None:
    head = (
        f"PUT {PATH} HTTP/1.1\r\nHost: store\r\nContent-Length: {len(CONTENT)}\r\nExpect: 100-continue\r\n{headers}\r\n"
    )
    with socket.create_connection((proxy.public.host, proxy.public.port), timeout=10) as opened:
        opened.sendall(head.encode())
        answer = opened.makefile("rb")
        assert answer.readline().startswith(b"HTTP/1.1 100")
        opened.sendall(CONTENT)
        assert [line for line in iter(answer.readline, b"\r\n") if line.startswith(b"HTTP/")] == []
        assert answer.readline().startswith(b"HTTP/1.1 200")
        answer.close()
    assert store.objects == {PATH: CONTENT}


def test_a_request_whose_client_has_waited_for_permission_and_got_a_refusal(store: Store, proxy: StoreProxy) -> None:
    proxy.fail(Fault("unavailable"))
    head = f"PUT {PATH} HTTP/1.1\r\nHost: store\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
    assert exchanged(proxy.public, head.encode()).startswith(b"HTTP/1.1 503")
    assert store.heads == []


# --- SHA-256 ---------------------------------------------------------------------------------------------------------


def checksum(data: bytes) -> str:
    return base64.b64encode(sha256(data).digest()).decode()


def chunked(data: bytes, trailer: str) -> bytes:
    half = len(data) // 2
    chunks = [data[:half], data[half:], b""]
    lines = b"".join(b"%x;chunk-signature=ab\r\n%s%s" % (len(part), part, b"\r\n" if part else b"") for part in chunks)
    return lines + trailer.encode() + b"\r\n"


STREAMED = {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x-amz-trailer": "x-amz-checksum-sha256"}


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({"x-amz-content-sha256": digest(CONTENT)}, CONTENT, ""),
        ({"x-amz-content-sha256": digest(CONTENT).upper()}, CONTENT, ""),
        ({"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}, CONTENT, ""),
        ({"x-amz-content-sha256": digest(b"other")}, CONTENT, "XAmzContentSHA256Mismatch"),
        ({"x-amz-checksum-sha256": checksum(CONTENT)}, CONTENT, ""),
        ({"x-amz-checksum-sha256": checksum(b"other")}, CONTENT, "BadDigest"),
        ({"x-amz-checksum-sha256": "not base64"}, CONTENT, "BadDigest"),
        (STREAMED, chunked(CONTENT, f"x-amz-checksum-sha256:{checksum(CONTENT)}\r\n"), ""),
        (STREAMED, chunked(CONTENT, f"x-amz-checksum-sha256:{checksum(b'other')}\r\n"), "BadDigest"),
        (STREAMED, chunked(CONTENT, ""), "BadDigest"),
        (STREAMED, chunked(CONTENT, "")[:-4], "IncompleteBody"),
        ({"x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}, chunked(CONTENT, ""), ""),
    ],
)
def test_an_upload_that_contradicts_its_digest_is_refused_and_not_stored(
    store: Store, proxy: StoreProxy, headers: dict[str, str], body: bytes, code: str
) -> None:
    store.objects[PATH] = b"before"
    status, answer = ask(proxy.public, "PUT", PATH, body, headers)
    assert (status, code_of(answer) if answer else "") == (400 if code else 200, code)
    assert store.objects[PATH] == (b"before" if code else body)
    (request,) = proxy.requests()
    assert (request.status, request.received) == (status, len(body))
    if not code:
        assert request.sha256 == digest(CONTENT)


def test_the_checksum_of_an_object_in_parts_is_not_the_one_of_the_request_that_completes_it(proxy: StoreProxy) -> None:
    ask(proxy.public, "POST", f"{PATH}?uploadId=1", b"<xml/>", {"x-amz-checksum-sha256": checksum(CONTENT)})
    assert proxy.requests()[0].status == 501  # the test's store knows no POST


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD"])
def test_a_fault_answers_as_s3_does(store: Store, proxy: StoreProxy, kind: Kind, method: str) -> None:
    proxy.fail(Fault(kind))
    status, answer = ask(proxy.internal, method, body=CONTENT if method == "PUT" else None)
    assert status == ANSWERS[kind].status
    assert method == "HEAD" or code_of(answer) == ANSWERS[kind].code
    assert store.heads == []
    assert [(seen.fault, seen.status, seen.ending) for seen in proxy.requests()] == [(kind, status, "complete")]


def test_a_fault_meets_the_first_requests_that_match(store: Store, proxy: StoreProxy) -> None:
    store.objects |= {PATH: CONTENT, "/evidence/other": CONTENT}
    proxy.fail(Fault("unavailable", "GET", KEY, first=2, side="internal"))
    assert ask(proxy.public, "GET")[0] == 200
    assert ask(proxy.internal, "HEAD")[0] == 200
    assert ask(proxy.internal, "GET", "/evidence/other")[0] == 200
    assert [ask(proxy.internal, "GET")[0] for _ in range(4)] == [503, 503, 200, 200]


def test_a_fault_lasts_until_it_is_healed(store: Store, proxy: StoreProxy) -> None:
    store.objects[PATH] = CONTENT
    proxy.fail(Fault("down"))
    for _ in range(3):
        with pytest.raises(ConnectionError):
            ask(proxy.internal, "GET")
    proxy.heal()
    assert ask(proxy.internal, "GET") == (200, CONTENT)
    assert [(seen.fault, seen.ending) for seen in proxy.requests()] == [("down", "cut")] * 3 + [("", "complete")]
    assert len(store.heads) == 1


def test_a_slow_request_arrives(store: Store, proxy: StoreProxy) -> None:
    store.objects[PATH] = CONTENT
    proxy.fail(Fault("slow", delay_s=0.01))
    assert ask(proxy.internal, "GET") == (200, CONTENT)
    (request,) = proxy.requests()
    assert (request.fault, request.ending, request.sha256) == ("slow", "complete", digest(CONTENT))
    assert request.seconds >= 0.01


@pytest.mark.parametrize("is_reset", [False, True])
def test_a_slow_download_that_its_client_gives_up_is_not_complete(
    store: Store, proxy: StoreProxy, is_reset: bool
) -> None:
    store.objects[PATH] = CONTENT
    proxy.fail(Fault("slow", "GET", delay_s=0.3))
    with socket.create_connection((proxy.internal.host, proxy.internal.port), timeout=10) as opened:
        opened.sendall(f"GET {PATH} HTTP/1.1\r\nHost: {proxy.internal}\r\n\r\n".encode())
        poll(lambda: require(bool(proxy.requests())), what="the request", deadline_s=10)
        if is_reset:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    poll(lambda: require(proxy.requests()[0].ending != "open"), what="its end", deadline_s=10)
    (request,) = proxy.requests()
    assert (request.ending, request.sent, request.is_download) == ("client-gone", 0, False)
    assert store.heads == []


def test_a_download_is_cut_in_the_middle(store: Store, proxy: StoreProxy) -> None:
    store.objects[PATH] = CONTENT
    proxy.fail(Fault("cut", "GET"))
    with pytest.raises(ConnectionError):
        ask(proxy.internal, "GET")
    (request,) = proxy.requests()
    assert (request.status, request.sent, request.ending, request.sha256) == (200, len(CONTENT) // 2, "cut", "")


def test_an_upload_is_cut_in_the_middle_and_never_reaches_the_store(store: Store, proxy: StoreProxy) -> None:
    proxy.fail(Fault("cut", "PUT"))
    with pytest.raises(ConnectionError):
        ask(proxy.public, "PUT", PATH, CONTENT)
    assert store.heads == []
    assert [(seen.status, seen.ending, seen.fault) for seen in proxy.requests()] == [(0, "cut", "cut")]


def test_a_download_ends_before_the_announced_number_of_bytes(store: Store, proxy: StoreProxy) -> None:
    store.objects[PATH] = CONTENT
    proxy.fail(Fault("partial"))
    with pytest.raises(IncompleteRead) as raised:
        ask(proxy.internal, "GET")
    assert raised.value.partial == CONTENT[: len(CONTENT) // 2]
    assert [(seen.sent, seen.ending, seen.is_download) for seen in proxy.requests()] == [
        (len(CONTENT) // 2, "cut", False)
    ]


def test_a_corrupt_download_has_the_right_length(store: Store, proxy: StoreProxy) -> None:
    store.objects[PATH] = CONTENT
    proxy.fail(Fault("corrupt"))
    status, body = ask(proxy.internal, "GET")
    assert (status, len(body), body[1:]) == (200, len(CONTENT), CONTENT[1:])
    assert body != CONTENT
    # the journal has what the client got
    assert proxy.requests()[0].sha256 == digest(body)


@pytest.mark.parametrize("kind", ["partial", "corrupt"])
def test_a_response_without_content_does_not_use_up_a_fault_of_downloads(
    store: Store, proxy: StoreProxy, kind: Kind
) -> None:
    proxy.fail(Fault(kind, first=1))
    assert ask(proxy.internal, "GET") == (404, b"")
    store.objects[PATH] = b""
    assert ask(proxy.internal, "GET") == (200, b"")
    assert ask(proxy.internal, "HEAD") == (200, b"")
    assert [(seen.fault, seen.ending) for seen in proxy.requests()] == [("", "complete")] * 3
    ask(proxy.internal, "PUT", PATH, CONTENT)
    with contextlib.suppress(IncompleteRead):
        assert ask(proxy.internal, "GET") != (200, CONTENT)
    assert proxy.requests()[-1].fault == kind
    assert ask(proxy.internal, "GET") == (200, CONTENT)


# --- when things go wrong --------------------------------------------------------------------------------------------


def test_a_store_that_is_gone_looks_like_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = Address(*free.getsockname()[:2])
    with StoreProxy(nobody) as proxy:
        with pytest.raises(ConnectionError):
            ask(proxy.internal, "GET")
        assert [(seen.status, seen.ending) for seen in proxy.requests()] == [(0, "no-store")]


def test_the_store_may_move(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        places = [Address(*free.getsockname()[:2])]
    with StoreProxy(lambda: places[-1]) as proxy:
        with pytest.raises(ConnectionError):
            ask(proxy.public, "PUT", PATH, CONTENT)
        places.append(store.place)
        assert ask(proxy.public, "PUT", PATH, CONTENT) == (200, b"")


class GoneStoreError(HarnessError):
    """The address of a container that was removed."""


def test_a_store_whose_address_is_unknown_looks_like_one_that_is_gone() -> None:
    def address() -> Address:
        raise GoneStoreError("the container is gone")

    with StoreProxy(address) as proxy:
        with pytest.raises(ConnectionError):
            ask(proxy.internal, "GET")
        assert [(seen.status, seen.ending) for seen in proxy.requests()] == [(0, "no-store")]


def test_a_mistake_of_the_proxy_leaves_no_request_open() -> None:
    def address() -> Address:
        raise ZeroDivisionError

    with StoreProxy(address) as proxy:
        with pytest.raises((ConnectionError, HTTPException)):
            ask(proxy.internal, "GET")
        assert [(seen.status, seen.ending) for seen in proxy.requests()] == [(0, "closed")]


def test_a_store_that_does_not_read_ends_the_upload() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        place = Address(*deaf.getsockname()[:2])
        with StoreProxy(place, limits=Limits(piece_s=0.2)) as proxy:
            with pytest.raises(ConnectionError):
                ask(proxy.public, "PUT", PATH, b"x" * (32 << 20))
            assert [(seen.status, seen.ending) for seen in proxy.requests()] == [(0, "no-store")]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_an_answer_to_a_client_that_has_closed_its_connection_is_not_complete(
    store: Store, proxy: StoreProxy, method: str
) -> None:
    store.objects[PATH] = CONTENT
    store.held.clear()
    connection = connected(proxy.internal)
    connection.request(method, PATH, CONTENT if method == "PUT" else None)
    assert store.reached.wait(10)
    connection.close()
    # the proxy has seen the end of the first connection when it has served another one
    proxy.fail(Fault("unavailable"))
    ask(proxy.internal, "GET")
    store.held.set()
    seen = poll(lambda: ended(proxy), what="the answer of the store", deadline_s=10)
    assert (seen.ending, seen.status, seen.sent, seen.sha256, seen.is_download) == ("client-gone", 0, 0, "", False)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_cut_response_without_content_has_no_status(store: Store, proxy: StoreProxy, method: str) -> None:
    store.objects[PATH] = b""
    proxy.fail(Fault("cut"))
    with pytest.raises(ConnectionError):
        ask(proxy.internal, method)
    assert [(seen.status, seen.sent, seen.ending) for seen in proxy.requests()] == [(0, 0, "cut")]


def test_an_upload_that_its_client_gives_up_is_not_complete(store: Store, proxy: StoreProxy) -> None:
    exchanged(proxy.public, f"PUT {PATH} HTTP/1.1\r\nHost: store\r\nContent-Length: 100\r\n\r\nhalf".encode())
    (request,) = proxy.requests()
    assert (request.received, request.ending, request.sha256) == (4, "client-gone", "")
    assert store.objects == {}


def test_requests_that_are_open_when_the_proxy_ends(store: Store) -> None:
    store.held.clear()
    with StoreProxy(store.place) as proxy, socket.create_connection((proxy.public.host, proxy.public.port)) as opened:
        opened.sendall(f"GET {PATH} HTTP/1.1\r\nHost: store\r\n\r\n".encode())
        assert store.reached.wait(10)
        assert [seen.ending for seen in proxy.requests()] == ["open"]
    assert [seen.ending for seen in proxy.requests()] == ["closed"]


@pytest.mark.parametrize(
    ("sent", "status", "method"),
    [
        (b"\x16\x03\x01 TLS\r\n\r\n", b"400", ""),
        (b"GET / HTTP/1.1\r\n\r\n", b"400", ""),  # without Host
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 200_000 + b"\r\n\r\n", b"431", ""),
        (b"PUT /b/k HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n", b"400", "PUT"),
        (b"PUT /b/k HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", b"400", ""),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", b"405", "CONNECT"),
    ],
)
def test_requests_that_are_not_served(store: Store, sent: bytes, status: bytes, method: str) -> None:
    with StoreProxy(store.place, limits=Limits(body_bytes=1000)) as proxy:
        answer = exchanged(proxy.public, sent)
        assert answer[9:12] == status
        (request,) = proxy.requests()
        assert (request.method, request.status) == (method, int(status))
        assert request.ending in {"invalid", "complete"}
    assert store.objects == {}


def test_a_body_that_is_not_http_ends_its_request(store: Store, proxy: StoreProxy) -> None:
    store.held.clear()
    assert exchanged(proxy.public, b"PUT /b/k HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n") == b""
    assert [(seen.method, seen.status, seen.ending) for seen in proxy.requests()] == [("PUT", 0, "invalid")]


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HT", f"PUT {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab".encode()]
)
def test_a_client_that_stops_sending_is_disconnected(store: Store, sent: bytes) -> None:
    limits = Limits(idle_s=0.05, head_s=0.05, piece_s=0.05)
    with (
        StoreProxy(store.place, limits=limits) as proxy,
        socket.create_connection((proxy.public.host, proxy.public.port), timeout=10) as opened,
    ):
        opened.sendall(sent)
        assert opened.recv(1) == b""
    assert store.objects == {}


def test_more_connections_than_allowed_are_reset(store: Store) -> None:
    with StoreProxy(store.place, limits=Limits(connections=1)) as proxy:
        first = connected(proxy.public)
        first.request("PUT", PATH, CONTENT)
        assert first.getresponse().read() == b""
        with pytest.raises(ConnectionError):
            ask(proxy.public, "GET")
        first.close()


#: parts of requests, in any order
PARTS = (
    *(b"GET /b/k HTTP/1.1\r\n", b"PUT /b/k HTTP/1.0\r\n", b"Host: a\r\n", b"Content-Length: 3\r\n", b"\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"abc", b"0", b"3"),
    *(b"x-amz-content-sha256: STREAMING-X\r\n", b"x-amz-trailer: x-amz-checksum-sha256\r\n", b"\0"),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(PARTS), max_size=12).map(b"".join)))
def test_no_bytes_end_the_proxy(store: Store, proxy: StoreProxy, garbage: bytes) -> None:
    store.objects[PATH] = CONTENT
    exchanged(proxy.public, garbage)
    assert ask(proxy.internal, "GET") == (200, CONTENT)
    assert all(request.ending != "open" for request in proxy.requests())


# --- addresses, and documents ----------------------------------------------------------------------------------------


@each_row(
    ("raw", "target"),
    [
        ("/b/p/a%20b%2Bc?x-id=GetObject", Target(bucket="b", key="p/a b+c")),
        ("http://store:9000/b/k?partNumber=1&uploadId=2", Target(bucket="b", key="k", operation="partNumber&uploadId")),
        ("/b?list-type=2&prefix=p", Target(bucket="b", operation="list-type&prefix")),
        ("/b/k?X-Amz-Signature=1&X-Amz-Expires=9", Target(bucket="b", key="k", signed_query=True)),
        ("/b/k?AWSAccessKeyId=1&Signature=2&Expires=9&content-type=a", Target(bucket="b", key="k", signed_query=True)),
        ("/b/k//l", Target(bucket="b", key="k//l")),
        ("//[", Target()),
        ("*", Target(bucket="*")),
    ],
)
def test_targets(raw: str, target: Target) -> None:
    assert target_of(raw) == target


@given(st.text())
def test_any_target_can_be_read(raw: str) -> None:
    assert isinstance(target_of(raw), Target)


@given(st.text())
def test_errors_are_valid_documents(text: str) -> None:
    error = S3Error(400, "Code", text, (("Detail", text),))
    resource = text.encode("utf-8", "replace").decode()
    assert fromstring(error.body(resource)).findtext("Code") == "Code"  # noqa: S314 -- the proxy's own


def test_a_list_of_parts_is_not_a_download() -> None:
    request = StoreRequest(at=0.0, side="internal", method="GET", bucket="b", key="k", status=200, ending="complete")
    assert request.is_download
    assert not structs.replace(request, operation="uploadId").is_download
