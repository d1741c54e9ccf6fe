"""One HTTP request to a host that may do anything: bounded in time and size, and discreet about what it answers."""

from __future__ import annotations

import contextlib
import socket
import time
from functools import cache
from threading import Timer
from typing import TYPE_CHECKING, Any, Self

import httpx
import msgspec
from msgspec import Struct

from harness.host.site import fill_all

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from harness.host.declarations import Step
    from harness.host.site import Site, Values

_LONGEST_BYTES = 1_048_576
_REDIRECTS = range(300, 400)
_LOGIN_NEEDED = (401, 403, 407)
#: a host that is busy, or whose gateway does not reach it (RFC 9110, RFC 6585): it has not judged the request
_BUSY = (408, 425, 429, 502, 503, 504)


_NOT_REACHED = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)


class HttpResponse(Struct, frozen=True, kw_only=True):
    """What came of a request. A body is kept only for the values that a declaration names."""

    #: 0 when there was none
    status: int
    #: the decoded JSON body; None when it was none
    data: Any = None
    #: why there is no whole answer; "" when there is
    trouble: str = ""
    #: whether the host may have begun to work on it
    arrived: bool = True

    @property
    def succeeded(self) -> bool:
        return not self.trouble and 200 <= self.status < 300  # noqa: PLR2004 -- RFC 9110: successful

    @property
    def why_not_exercised(self) -> str:
        """Return why this is no answer of the path at all; "" when it is one."""
        if not self.arrived:
            return self.trouble
        if self.status in _LOGIN_NEEDED:
            return f"the host answered {self.status}: it does not know the caller; are the caller's headers right?"
        if self.status in _BUSY:
            return f"the host answered {self.status}: it is busy, or down behind its gateway"
        if self.status in _REDIRECTS:
            return f"the host answered {self.status}, a redirect; does it want a login, or another base URL?"
        return ""

    def __str__(self) -> str:
        return self.trouble or str(self.status)

    def __repr__(self) -> str:
        return f"Answer({self})"


@cache
def _trusted(trust_env: bool) -> ssl.SSLContext:
    """Return what certificates are checked with; to read the authorities of the machine takes 20 ms each time."""
    return httpx.create_ssl_context(trust_env=trust_env)


class Exchange:
    """Requests to one host, over connections of its own."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._client = httpx.Client(
            follow_redirects=False,
            trust_env=site.trust_env,
            verify=_trusted(site.trust_env),
            headers={"user-agent": "pooler-harness"},
            # a connection of its own for each request: the watchdog has to know it before the answer begins
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._client.close()

    def send(self, step: Step, values: Values, deadline_s: float) -> HttpResponse:
        """Send one request and return its answer; whatever the host does, this ends with the deadline.

        :raises ConfigError: for a name in the declaration that nothing has.
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

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: Mapping[str, Any], deadline_s: float
    ) -> HttpResponse:
        wires: list[socket.socket] = []
        end = time.monotonic() + deadline_s
        #: a host that sends a byte now and then outlives every time-out of a read
        watchdog = Timer(deadline_s, _shut, [wires])
        watchdog.daemon = True
        watchdog.start()

        def note(event: str, told: Mapping[str, Any]) -> None:
            if event.endswith(("connect_tcp.complete", "start_tls.complete")):
                found = told["return_value"].get_extra_info("socket")
                if found is not None:
                    wires.append(found)
                    if time.monotonic() >= end:  # the watchdog has been here already
                        _shut(wires)

        try:
            with self._client.stream(
                method, url, headers=headers, timeout=deadline_s, extensions={"trace": note}, **body
            ) as response:
                return _whole(response, end, deadline_s)
        except (UnicodeError, httpx.LocalProtocolError) as error:
            why = "a header or an address holds what HTTP cannot carry"
            return HttpResponse(
                status=0, trouble=f"the request cannot be sent: {why} ({type(error).__name__})", arrived=False
            )
        except _NOT_REACHED as error:
            return HttpResponse(status=0, trouble=f"the host cannot be reached: {_reason(error)}", arrived=False)
        except httpx.HTTPError as error:
            trouble = (
                _late(deadline_s) if time.monotonic() >= end - 0.05 else f"no whole answer: {type(error).__name__}"
            )
            return HttpResponse(status=0, trouble=trouble)
        finally:
            watchdog.cancel()


def _late(deadline_s: float) -> str:
    return f"no whole answer within {deadline_s:g} s"


def _whole(response: httpx.Response, end: float, deadline_s: float) -> HttpResponse:
    """Read an answer to its end, its limit, or the deadline."""
    trouble, body = "", bytearray()
    for part in response.iter_bytes():
        body += part
        if len(body) > _LONGEST_BYTES:
            trouble = "an answer of more than 1 MiB"
        if trouble or time.monotonic() > end:
            break
    if not trouble and time.monotonic() >= end:  # ended by the watchdog, which looks like the end of the answer
        trouble = _late(deadline_s)
    data = None if trouble else _decoded(bytes(body))
    return HttpResponse(status=response.status_code, data=data, trouble=trouble)


def _shut(wires: list[socket.socket]) -> None:
    for wire in wires:
        with contextlib.suppress(OSError, ValueError):
            wire.shutdown(socket.SHUT_RDWR)


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _reason(error: Exception) -> str:
    """Return why a host was not reached, without the address, which may be an internal one."""
    text = str(error).lower()
    for sign, reason in (
        ("refused", "connection refused"),
        ("name or service", "its name is not known"),
        ("nodename", "its name is not known"),
        ("certificate", "its certificate is not trusted"),
        ("timed out", "it did not take the connection in time"),
    ):
        if sign in text:
            return reason
    return type(error).__name__
