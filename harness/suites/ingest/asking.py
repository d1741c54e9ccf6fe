"""One HTTP request over a new connection: probes and metrics of a pipeline, uploads, and attempts at presigned addresses."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
from threading import Event, Timer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from harness.host.http_response import HttpResponse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LONGEST_BYTES = 1 << 20
#: without blanks and control characters
_HOST = re.compile(r"[^\x00-\x20\x7f]+")


class Reply(HttpResponse, frozen=True, kw_only=True):
    """The answer to a request, with its body as text."""

    #: 0 when no complete one came in time
    status: int = 0
    text: str = ""


def is_http_address(url: str) -> bool:
    """Return whether a pipeline's address can be asked at all."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and _HOST.fullmatch(host) is not None and port != 0


@contextlib.contextmanager
def _ended_after(connection: http.client.HTTPConnection, seconds: float) -> Iterator[Event]:
    """Shut a connection down when the block takes longer: a server that sends a byte a second never times out.

    :return: set once it was shut down.
    """
    late = Event()

    def end() -> None:
        late.set()
        if connection.sock:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def ask(
    method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None, deadline_s: float
) -> Reply:
    """Send a request with these headers, and return the answer.

    :param deadline_s: for connecting, and then for the request and the whole answer, seconds.
    """
    if not is_http_address(url):
        return Reply(failure="not an HTTP address", arrived=False)
    parts = urlsplit(url)
    opened = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = opened(parts.hostname or "", parts.port, timeout=deadline_s)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    try:
        try:
            connection.connect()
        except OSError as error:
            return Reply(failure=f"unreachable: {type(error).__name__}", arrived=False)
        with _ended_after(connection, deadline_s) as late:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            text = answer.read(_LONGEST_BYTES).decode(errors="replace")
        if late.is_set():  # the socket that was shut down looks like the end of the body
            return Reply(failure=f"no complete response within {deadline_s:g} s")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Reply(failure=f"no complete response: {type(error).__name__}")
    finally:
        connection.close()
    return Reply(status=answer.status, text=text)
