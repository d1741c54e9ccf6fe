"""The result of one HTTP request to a host."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

_REDIRECTS = range(300, 400)
_REJECTS_CALLER = (401, 403, 407)
#: the host is overloaded, or its gateway cannot reach it (RFC 9110, RFC 6585): it did not judge the request
_UNAVAILABLE = (408, 425, 429, 502, 503, 504)


class HttpResponse(Struct, frozen=True, kw_only=True):
    """The result of one request. The body is kept only for the values that a declaration names."""

    #: 0 when no response arrived
    status: int
    #: the decoded JSON body; None when the body is not JSON
    data: Any = None
    #: why no complete response arrived; "" when one did
    failure: str = ""
    #: its headers, their names in lower case; they never become evidence either
    headers: dict[str, str] = {}
    #: whether the host may have started to process the request
    arrived: bool = True

    @property
    def succeeded(self) -> bool:
        return not self.failure and 200 <= self.status < 300  # noqa: PLR2004 -- RFC 9110: successful

    @property
    def why_not_exercised(self) -> str:
        """Return why this response says nothing about the path; "" when it does."""
        if not self.arrived:
            return self.failure
        if self.status in _REJECTS_CALLER:
            return f"the host answered {self.status}: it rejects the caller; check the caller's headers"
        if self.status in _UNAVAILABLE:
            return f"the host answered {self.status}: it is overloaded, or its gateway cannot reach it"
        if self.status in _REDIRECTS:
            return (
                f"the host answered {self.status}, a redirect, which is not followed; "
                "does it require a login or another base URL?"
            )
        return ""

    def __str__(self) -> str:
        return self.failure or str(self.status)

    def __repr__(self) -> str:
        return f"HttpResponse({self})"
