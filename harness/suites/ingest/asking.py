"""One HTTP request over a new connection: probes and metrics of a pipeline, uploads, and attempts at presigned addresses."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from harness.host.http_response import HttpResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST_BYTES = 1 << 20


class Reply(HttpResponse, frozen=True, kw_only=True):
    """The answer to a request, with its body as text."""

    #: 0 when no complete one came in time
    status: int = 0
    text: str = ""


def ask(
    method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None, deadline_s: float
) -> Reply:
    """Send a request with these headers, and return the answer.

    :param deadline_s: for connecting, and for each part of the transfer, seconds.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not host or parts.scheme not in {"http", "https"}:
        return Reply(failure="not an HTTP address", arrived=False)
    opened = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = opened(host, port, timeout=deadline_s)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    try:
        try:
            connection.connect()
        except OSError as error:
            return Reply(failure=f"unreachable: {type(error).__name__}", arrived=False)
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        text = answer.read(_LONGEST_BYTES).decode(errors="replace")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Reply(failure=f"no complete response: {type(error).__name__}")
    finally:
        connection.close()
    return Reply(status=answer.status, text=text)
