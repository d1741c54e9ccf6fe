from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest

from harness.audit.target_loading import load_target
from harness.errors import ConfigError
from harness.host.declarations import Caller, Step
from harness.host.http_client import Exchange, HttpResponse
from harness.host.site import Site, Values
from harness.model import EvidenceClass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.database import Client

DEADLINE_S = 0.3
#: for scheduling, on a machine that does other things, too
SLACK_S = 5.0
OF_ANOTHER = "the-diary-of-somebody-else"
JSON = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"


def _request(wire: socket.socket) -> bytes:
    """Read a request to its end, so that closing the connection is no reset; one that is large is left unread."""
    heard = b""
    while b"\r\n\r\n" not in heard:
        if not (part := wire.recv(65536)):
            return heard
        heard += part
    head, _, body = heard.partition(b"\r\n\r\n")
    told = re.search(rb"(?i)content-length: (\d+)", head)
    length = int(told[1]) if told else 0
    while len(body) < length < 65536 and (part := wire.recv(65536)):
        body += part
    return head + b"\r\n\r\n" + body


class Server:
    """Takes connections on loopback and does with each of them what a test says, until it ends."""

    def __init__(self, serve: Callable[[socket.socket, Event], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.ended = Event()
        self.taken: list[socket.socket] = []
        #: what the clients sent first
        self.heard: list[bytes] = []
        self._threads = [Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, _ = self._listener.accept()
                self.taken.append(wire)
                self._threads.append(Thread(target=self._answer, args=(wire,), daemon=True))
                self._threads[-1].start()

    def _answer(self, wire: socket.socket) -> None:
        with wire, contextlib.suppress(OSError):
            self.heard.append(_request(wire))
            self._serve(wire, self.ended)

    def close(self) -> None:
        self.ended.set()
        for wire in (self._listener, *self.taken):
            with contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)
            wire.close()
        for each in self._threads:
            each.join(5)


@pytest.fixture
def server() -> Iterator[Callable[[Callable[[socket.socket, Event], None]], Server]]:
    running: list[Server] = []

    def start(serve: Callable[[socket.socket, Event], None]) -> Server:
        running.append(Server(serve))
        return running[-1]

    yield start
    for each in running:
        each.close()


def says(told: bytes) -> Callable[[socket.socket, Event], None]:
    return lambda wire, _ended: wire.sendall(told)


def answered(data: object) -> Callable[[socket.socket, Event], None]:
    body = json.dumps(data).encode()
    return says(JSON % (len(body), body))


def trickles(first: bytes, then: bytes, every_s: float = 0.02) -> Callable[[socket.socket, Event], None]:
    """Send something now and then, so that no read ever times out."""

    def serve(wire: socket.socket, ended: Event) -> None:
        wire.sendall(first)
        while not ended.wait(every_s):
            wire.sendall(then)

    return serve


def accepts(_wire: socket.socket, ended: Event) -> None:
    ended.wait(20)


@contextlib.contextmanager
def full_queue() -> Iterator[tuple[str, int]]:
    """Yield an address that takes no more connections, and refuses none."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        host, port = listener.getsockname()
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
        yield host, port


def _nobody() -> Client:
    raise AssertionError("an exchange asks no database")


def site(base_url: str, callers: tuple[Caller, ...] = ()) -> Site:
    return Site(
        name="staging",
        evidence_class=EvidenceClass.HOST,
        base_url=base_url,
        callers=callers,
        target=load_target("reference"),
        trail=_nobody,
        application=_nobody,
        trust_env=False,
    )


def send(base_url: str, step: Step | None = None, *, deadline_s: float = DEADLINE_S) -> HttpResponse:
    """Send a request, and require that it ends in time and tells nothing of a body."""
    began = time.monotonic()
    with Exchange(site(base_url)) as exchange:
        answer = exchange.send(step or Step(path="/posts", json={"slug": "{unique}"}), Values(None), deadline_s)
    assert time.monotonic() - began < deadline_s + SLACK_S
    assert OF_ANOTHER not in str(answer) + answer.trouble + answer.why_not_exercised
    return answer


def test_a_refused_connection_is_told_without_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    answer = send(f"http://127.0.0.1:{port}")
    assert answer == HttpResponse(status=0, trouble="the host cannot be reached: connection refused", arrived=False)
    assert answer.why_not_exercised == answer.trouble
    assert str(port) not in str(answer)


def test_a_name_that_is_not_known_is_told_without_the_name() -> None:
    answer = send("http://host.invalid", deadline_s=5.0)
    assert not answer.arrived
    assert "host.invalid" not in str(answer)


@pytest.mark.parametrize("base_url", ["ftp://127.0.0.1", "http://127.0.0.1:99999"])
def test_an_address_that_is_none_was_not_reached(base_url: str) -> None:
    answer = send(base_url)
    assert (answer.status, answer.arrived) == (0, False)
    assert answer.trouble.startswith("the host cannot be reached: ")


def test_a_whole_answer_is_decoded(server: Callable[..., Server]) -> None:
    answer = send(server(answered({"id": 7})).base_url)
    assert answer == HttpResponse(status=201, data={"id": 7})
    assert answer.succeeded
    assert str(answer) == "201"


def test_a_redirect_is_not_followed_and_its_target_not_told(server: Callable[..., Server]) -> None:
    told = f"HTTP/1.1 302 Found\r\nlocation: https://{OF_ANOTHER}.example/login\r\ncontent-length: 0\r\n\r\n"
    running = server(says(told.encode()))
    answer = send(running.base_url)
    assert answer.why_not_exercised == ("the host answered 302, a redirect; does it want a login, or another base URL?")
    assert len(running.taken) == 1


@pytest.mark.parametrize("status", [401, 403, 407])
def test_a_caller_who_is_not_known_has_exercised_nothing(server: Callable[..., Server], status: int) -> None:
    body = json.dumps({"error": OF_ANOTHER})
    told = f"HTTP/1.1 {status} No\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    answer = send(server(says(told.encode())).base_url)
    assert answer.why_not_exercised == (
        f"the host answered {status}: it does not know the caller; are the caller's headers right?"
    )
    assert not answer.succeeded


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_host_that_is_busy_or_behind_a_gateway_has_judged_nothing(server: Callable[..., Server], status: int) -> None:
    answer = send(server(says(f"HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n".encode())).base_url)
    assert f"the host answered {status}" in answer.why_not_exercised


@pytest.mark.parametrize("status", [404, 422, 500])
def test_another_status_is_an_answer(server: Callable[..., Server], status: int) -> None:
    told = f"HTTP/1.1 {status} No\r\ncontent-length: {len(OF_ANOTHER)}\r\n\r\n{OF_ANOTHER}"
    answer = send(server(says(told.encode())).base_url)
    assert (str(answer), answer.why_not_exercised, answer.succeeded) == (str(status), "", False)


ENDLESS = {
    "body-without-length": trickles(b"HTTP/1.1 201 Created\r\n\r\n{", b" "),
    "body-in-chunks": trickles(b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n", b"1\r\n \r\n"),
    "body-of-a-declared-length": trickles(b"HTTP/1.1 201 Created\r\ncontent-length: 900000\r\n\r\n{", b" "),
    "headers": trickles(b"HTTP/1.1 201 Created\r\n", b"x-more: " + OF_ANOTHER.encode() + b"\r\n"),
    "part-of-a-header": trickles(b"HTTP/1.1 201 Created\r\nx-more: ", b"y"),
    "interim-answers": trickles(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "silence": accepts,
}


@pytest.mark.parametrize("serve", ENDLESS.values(), ids=ENDLESS.keys())
def test_what_never_ends_is_ended_by_the_deadline(
    server: Callable[..., Server], serve: Callable[[socket.socket, Event], None]
) -> None:
    answer = send(server(serve).base_url)
    assert answer.trouble == "no whole answer within 0.3 s"
    assert (answer.data, answer.succeeded, answer.arrived) == (None, False, True)


def test_a_host_that_does_not_listen_to_what_it_is_sent_is_ended(server: Callable[..., Server]) -> None:
    """The request is larger than what lies between the two, so the sending waits, too."""
    answer = send(server(accepts).base_url, Step(path="/posts", json={"text": "x" * 30_000_000}))
    assert answer.trouble.startswith("no whole answer")


def test_a_connection_that_is_never_taken_is_told_as_not_reached() -> None:
    with full_queue() as (host, port):
        answer = send(f"http://{host}:{port}")
    assert answer == HttpResponse(
        status=0, trouble="the host cannot be reached: it did not take the connection in time", arrived=False
    )


def test_an_answer_that_is_too_large_is_not_read_to_its_end(server: Callable[..., Server]) -> None:
    answer = send(server(answered(OF_ANOTHER * 100_000)).base_url, deadline_s=5.0)
    assert answer == HttpResponse(status=201, trouble="an answer of more than 1 MiB")
    assert not answer.succeeded


def test_an_answer_that_is_small_on_the_way_and_large_here_is_not_read_to_its_end(
    server: Callable[..., Server],
) -> None:
    import gzip

    body = gzip.compress(b" " * 50_000_000)
    told = b"HTTP/1.1 201 Created\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    assert send(server(says(told)).base_url, deadline_s=5.0).trouble == "an answer of more than 1 MiB"


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>" + OF_ANOTHER.encode() + b"</html>", b'{"slug": "half', b"\xff\xfe{}", b"[" * 100_000],
    ids=["nothing", "html", "half", "no-text", "deep"],
)
def test_what_is_no_json_is_no_data(server: Callable[..., Server], body: bytes) -> None:
    answer = send(server(says(JSON % (len(body), body))).base_url, deadline_s=5.0)
    assert answer == HttpResponse(status=201)
    assert answer.succeeded


CUT = {
    "in-the-headers": b"HTTP/1.1 201 Created\r\nx-more: " + OF_ANOTHER.encode(),
    "in-the-body": b"HTTP/1.1 201 Created\r\ncontent-length: 900\r\n\r\n" + OF_ANOTHER.encode(),
    "in-a-chunk": b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\nff\r\n" + OF_ANOTHER.encode(),
    "before-it-began": b"",
    "of-another-protocol": OF_ANOTHER.encode() + b"\r\n\r\n",
}


@pytest.mark.parametrize("told", CUT.values(), ids=CUT.keys())
def test_half_an_answer_is_none(server: Callable[..., Server], told: bytes) -> None:
    answer = send(server(says(told)).base_url, deadline_s=5.0)
    assert answer == HttpResponse(status=0, trouble="no whole answer: RemoteProtocolError")


def test_half_an_answer_without_a_length_cannot_be_told_from_a_whole_one(server: Callable[..., Server]) -> None:
    """It is no JSON, so nothing of it is relied on."""
    assert send(server(says(b'HTTP/1.1 201 Created\r\n\r\n{"slug": "ha')).base_url).data is None


# --- what is sent -------------------------------------------------------------------------------------------


def test_what_is_sent_is_filled_in_and_names_the_caller(server: Callable[..., Server]) -> None:
    running = server(answered({}))
    ada = Caller(actor={"type": "user", "id": "ada"}, headers={"authorization": "Bearer of-ada", "x-of": "{actor.id}"})
    values = Values(ada)
    values.keep("post_id", 7)
    step = Step(
        method="PATCH",
        path="/posts/{post_id}?by={actor.id}",
        headers={"x-correlation-id": "{correlation}"},
        json={"id": "{post_id}", "slug": "{unique}"},
    )
    with Exchange(site(f"{running.base_url}/api/", (ada,))) as exchange:
        assert exchange.send(step, values, 5.0).succeeded
    head, _, body = running.heard[0].decode().partition("\r\n\r\n")
    lines = head.split("\r\n")
    assert lines[0] == "PATCH /api/posts/7?by=ada HTTP/1.1"
    assert {"authorization: Bearer of-ada", "x-of: ada", f"x-correlation-id: {values.correlation}"} <= {*lines}
    assert json.loads(body) == {"id": 7, "slug": values.unique}


def test_a_name_that_nothing_has_is_a_mistake_of_the_declaration(server: Callable[..., Server]) -> None:
    with pytest.raises(ConfigError, match="nothing is called that here"):
        send(server(answered({})).base_url, Step(path="/posts/{post_id}"))


@pytest.mark.parametrize(
    "header", [f"{OF_ANOTHER}\n", f"{OF_ANOTHER}\x00", f"{OF_ANOTHER} für Ada"], ids=["line", "nul", "umlaut"]
)
def test_a_header_that_cannot_be_sent_has_exercised_nothing(server: Callable[..., Server], header: str) -> None:
    """It never left this machine: that says something of the variable it came from, and nothing of the host."""
    running = server(answered({}))
    answer = send(running.base_url, Step(path="/posts", headers={"x-token": header}))
    assert not answer.arrived
    assert answer.why_not_exercised


def test_a_second_request_is_bounded_as_the_first(server: Callable[..., Server]) -> None:
    """Also over a connection that is used again, where nothing is connected."""
    trickle = trickles(b"HTTP/1.1 201 Created\r\n", b"x-more: y\r\n")
    first = Event()

    def serve(wire: socket.socket, ended: Event) -> None:
        if not first.is_set():
            first.set()
            wire.sendall(JSON % (2, b"{}"))
            if not _request(wire):
                return
        trickle(wire, ended)

    running = server(serve)
    with Exchange(site(running.base_url)) as exchange:
        assert exchange.send(Step(path="/posts"), Values(None), DEADLINE_S).succeeded
        began = time.monotonic()
        answer = exchange.send(Step(path="/posts"), Values(None), DEADLINE_S)
        assert time.monotonic() - began < DEADLINE_S + SLACK_S
    assert answer.trouble == "no whole answer within 0.3 s"


def test_a_host_of_several_addresses_has_one_deadline(
    server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first address takes nobody, and the second one answers with headers that never end."""
    running = server(ENDLESS["headers"])
    good = ("127.0.0.1", int(running.base_url.rpartition(":")[2]))
    with full_queue() as bad:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", at) for at in (bad, good)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_asked, **_more: found)
        answer = send("http://shop.example")
    assert not answer.succeeded


def test_what_is_kept_of_an_answer_is_not_in_its_text(server: Callable[..., Server]) -> None:
    """Also not where it is printed as it is, as part of something larger."""
    answer = send(server(answered({"diary": OF_ANOTHER})).base_url)
    assert answer.data == {"diary": OF_ANOTHER}
    assert OF_ANOTHER not in f"{(answer,)} {answer!r}"
