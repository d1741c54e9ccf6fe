"""One HTTP request to a host that may misbehave: bounded in time and size, and its body never becomes evidence."""

from __future__ import annotations

import contextlib
import socket
import time
from functools import cache
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Self

import httpx2
import msgspec

from harness.host.http_response import HttpResponse
from harness.host.site import fill_all
from harness.model import INTERRUPTED

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from harness.host.declarations import Step
    from harness.host.site import Site, Values

_MAX_BODY_BYTES = 1_048_576
#: how often the watchdog of a request looks whether the run ends
_LOOK_S = 0.1
_NOT_REACHED = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    httpx2.InvalidURL,
)


@cache
def _ssl_context(trust_env: bool) -> ssl.SSLContext:
    """Return the context that verifies certificates; loading the machine's authorities takes 30 ms each time."""
    return httpx2.create_ssl_context(trust_env=trust_env)


class HttpClient:
    """Sends requests to the host of one site, each over a new connection."""

    def __init__(self, site: Site) -> None:
        self._site = site
        # an operator's host may still write what it was asked for: what it wrote is cleaned up after its response
        self._is_ended: Callable[[], bool] = site.stopped if site.is_ours else bool
        self._client = httpx2.Client(
            follow_redirects=False,
            trust_env=site.trust_env,
            verify=_ssl_context(site.trust_env),
            headers={"user-agent": "pooler-harness"},
            # a new connection for each request: the watchdog must know the socket before the response begins
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._client.close()

    def send(self, step: Step, values: Values, deadline_s: float) -> HttpResponse:
        """Send one request and return the response. The call ends with the deadline, whatever the host does.

        Where the harness started the host, it also ends with the run.

        :param values: fills the placeholders in the step; its caller's headers are sent, too.
        :param deadline_s: for connecting, sending and reading together, seconds.
        :raises ConfigError: for a placeholder without a value.
        """
        headers = {**(values.caller.headers if values.caller else {}), **step.headers}
        body: dict[str, Any] = {}
        if step.json is not None:
            body["content"] = msgspec.json.encode(values.fill(step.json))
            headers = {"content-type": "application/json", **headers}
        if step.form:
            body["data"] = fill_all(step.form, values)
        return self._send(
            step.method,
            self._site.base_url.rstrip("/") + values.text(step.path),
            {name: values.text(value) for name, value in headers.items()},
            body,
            deadline_s,
        )

    def get(self, path: str, deadline_s: float) -> HttpResponse:
        """Send a GET request without the headers of a caller; see :meth:`send`.

        :param path: appended to the base URL.
        """
        return self._send("GET", self._site.base_url.rstrip("/") + path, {}, {}, deadline_s)

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: Mapping[str, Any], deadline_s: float
    ) -> HttpResponse:
        sockets: list[socket.socket] = []
        end, over = time.monotonic() + deadline_s, Event()

        def why_ended(early_s: float = 0.0) -> str:
            """Return why no response is awaited any more; "" while one is."""
            if self._is_ended():
                return INTERRUPTED
            return f"no complete response within {deadline_s:g} s" if time.monotonic() >= end - early_s else ""

        def watch() -> None:
            while not over.wait(max(0.0, min(_LOOK_S, end - time.monotonic()))):
                if why_ended():
                    _shut_down(sockets)
                    return

        # a host that sends a byte from time to time never triggers a read timeout
        Thread(target=watch, daemon=True, name="deadline of a request").start()

        def record_socket(event: str, info: Mapping[str, Any]) -> None:
            if event.endswith(("connect_tcp.complete", "start_tls.complete")):
                connected = info["return_value"].get_extra_info("socket")
                if connected is not None:
                    sockets.append(connected)
                    if why_ended():  # the watchdog has already fired
                        _shut_down(sockets)

        try:
            with self._client.stream(
                method, url, headers=headers, timeout=deadline_s, extensions={"trace": record_socket}, **body
            ) as response:
                return _read(response, why_ended)
        except (UnicodeError, httpx2.LocalProtocolError) as error:
            why = "a header or the URL contains characters that HTTP does not allow"
            return HttpResponse(
                status=0, failure=f"the request cannot be sent: {why} ({type(error).__name__})", arrived=False
            )
        except _NOT_REACHED as error:
            return HttpResponse(status=0, failure=f"the host is unreachable: {_reason(error)}", arrived=False)
        except httpx2.HTTPError as error:
            return HttpResponse(
                status=0, failure=why_ended(early_s=0.05) or f"no complete response: {type(error).__name__}"
            )
        finally:
            over.set()


def _read(response: httpx2.Response, why_ended: Callable[[], str]) -> HttpResponse:
    """Read a response until it is complete, it exceeds the size limit, or nobody awaits it any more."""
    failure, body = "", bytearray()
    for part in response.iter_bytes():
        body += part
        if len(body) > _MAX_BODY_BYTES:
            failure = "the response is larger than 1 MiB"
        if failure or why_ended():
            break
    failure = failure or why_ended()  # the watchdog closed the socket, which looks like the end of the body
    data = None if failure else _decoded(bytes(body))
    return HttpResponse(
        status=response.status_code, data=data, failure=failure, headers={} if failure else dict(response.headers)
    )


def _shut_down(sockets: list[socket.socket]) -> None:
    for connected in sockets:
        with contextlib.suppress(OSError, ValueError):
            connected.shutdown(socket.SHUT_RDWR)


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _reason(error: Exception) -> str:
    """Return why a host was not reached, without its address: the address may be internal."""
    text = str(error).lower()
    for sign, reason in (
        ("refused", "connection refused"),
        ("name or service", "the host name does not resolve"),
        ("nodename", "the host name does not resolve"),
        ("certificate", "the TLS certificate is not trusted"),
        ("timed out", "the connection timed out"),
    ):
        if sign in text:
            return reason
    return type(error).__name__
