"""One upload of a file to a presigned address, as a client sends it: its headers are those that were signed."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from harness.host.http_response import HttpResponse

if TYPE_CHECKING:
    from collections.abc import Mapping


def put_file(
    url: str, contents: bytes, headers: Mapping[str, str], deadline_s: float, *, method: str = "PUT"
) -> HttpResponse:
    """Upload a file, and return the answer of the store without its body.

    :param deadline_s: for connecting, and for each part of the transfer, seconds.
    :param method: another one than the address was signed for.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not host or parts.scheme not in {"http", "https"}:
        return HttpResponse(status=0, failure="the presigned address is not an HTTP address", arrived=False)
    opened = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = opened(host, port, timeout=deadline_s)
    try:
        try:
            connection.connect()
        except OSError as error:
            why = type(error).__name__
            return HttpResponse(status=0, failure=f"the presigned address is unreachable: {why}", arrived=False)
        connection.request(method, f"{parts.path}?{parts.query}", body=contents, headers=dict(headers))
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException, ValueError) as error:
        return HttpResponse(status=0, failure=f"no complete response from the store: {type(error).__name__}")
    finally:
        connection.close()
    return HttpResponse(status=answer.status)
