"""One HTTP request whose answer is read as text: probes and metrics of a pipeline, and attempts at presigned addresses."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST_BYTES = 1 << 20


class Reply(Struct, frozen=True, kw_only=True):
    """The answer to a request."""

    #: 0 when none came in time
    status: int = 0
    text: str = ""


def ask(
    method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None, deadline_s: float
) -> Reply:
    """Send a request over a new connection, and return the answer.

    :param deadline_s: for connecting, and for each part of the answer, seconds.
    """
    parts = urlsplit(url)
    opened = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = opened(parts.netloc, timeout=deadline_s)
    try:
        connection.request(
            method, f"{parts.path}?{parts.query}" if parts.query else parts.path, body, dict(headers or {})
        )
        answer = connection.getresponse()
        return Reply(status=answer.status, text=answer.read(_LONGEST_BYTES).decode(errors="replace"))
    except (OSError, http.client.HTTPException):
        return Reply()
    finally:
        connection.close()
