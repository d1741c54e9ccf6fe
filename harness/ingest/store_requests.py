"""Requests to an object store as the proxy sees them: what it records, the faults that it injects, and S3's errors."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape

from msgspec import Struct

#: the listener that was used: clients use the public one, the pipeline's own programs the internal one
Side = Literal["public", "internal"]

#: how a request ended
Ending = Literal[
    # it has not
    "open",
    # the whole response went to the client
    "complete",
    # a fault ended it early
    "cut",
    # the client closed the connection, or was too slow
    "client-gone",
    # the store was unreachable, or ended the response early
    "no-store",
    # it was not HTTP, or exceeded the limits of the proxy
    "invalid",
    # the proxy was closed
    "closed",
]

Kind = Literal[
    # 503 SlowDown
    "unavailable",
    # a delay before the request goes on
    "slow",
    # a reset in the middle of the body: the upload's, otherwise the response's
    "cut",
    # a download ends before the announced number of bytes
    "partial",
    # one byte of a download is changed
    "corrupt",
    # 404 NoSuchKey
    "missing",
    # 403 Request has expired
    "expired",
    # a reset before any answer
    "down",
]


class Fault(Struct, frozen=True):
    """Something that goes wrong, and the requests that it meets. A field that is None matches all of them."""

    kind: Kind
    method: str | None = None
    key: str | None = None
    #: only the first matching requests; None: until it is healed
    first: int | None = None
    side: Side | None = None
    #: of `slow`
    delay_s: float = 2.0


class S3Error(Struct, frozen=True):
    """An error as S3 answers it."""

    status: int
    code: str
    message: str
    #: further elements of its XML
    details: tuple[tuple[str, str], ...] = ()

    def body(self, resource: str) -> bytes:
        """Return the XML document of the error."""
        elements = (("Code", self.code), ("Message", self.message), *self.details, ("Resource", resource))
        inner = "".join(f"<{name}>{_text(value)}</{name}>" for name, value in elements)
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'.encode()


#: the faults that are answers; the store never gets these requests
ANSWERS: dict[str, S3Error] = {
    "unavailable": S3Error(503, "SlowDown", "Please reduce your request rate."),
    "missing": S3Error(404, "NoSuchKey", "The specified key does not exist."),
    "expired": S3Error(403, "AccessDenied", "Request has expired"),
}
#: the faults that change the body of a response, so that they apply to downloads only
OF_DOWNLOADS = frozenset({"partial", "corrupt"})


def content_mismatch(declared: str, computed: str) -> S3Error:
    """Return the error for a body that differs from the `x-amz-content-sha256` of its request."""
    return S3Error(
        400,
        "XAmzContentSHA256Mismatch",
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
        (("ClientComputedContentSHA256", declared), ("S3ComputedContentSHA256", computed)),
    )


BAD_DIGEST = S3Error(400, "BadDigest", "The SHA256 you specified did not match the calculated checksum.")
INCOMPLETE_BODY = S3Error(400, "IncompleteBody", "The request body terminated unexpectedly")
NOT_ALLOWED = S3Error(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
TOO_LARGE = S3Error(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
OUTSIDE = S3Error(403, "AccessDenied", "Access Denied: outside of S3_PREFIX, refused by the harness")
#: operations that ask for the contents of an object, and not for its tags and the like
_OF_CONTENTS = frozenset({"", "partNumber", "versionId", "partNumber&versionId"})


_SERVER_ERROR = 500


class StoreRequest(Struct, frozen=True, kw_only=True):
    """One request that reached the proxy. The journal has one for each, also for refused and unreadable ones."""

    #: when its head was complete, on the monotonic clock
    at: float
    #: until its end; until now while it is open
    seconds: float = 0.0
    side: Side
    #: "" for bytes that are not HTTP
    method: str = ""
    bucket: str = ""
    #: of the object, decoded; "" for a request to a bucket
    key: str = ""
    #: the names of the query parameters that say what is done, such as `uploads` or `partNumber&uploadId`
    operation: str = ""
    #: whether a header or the query carries a signature; "" when neither does
    signed: Literal["", "header", "query"] = ""
    #: the header Range
    range: str = ""
    #: 0 when nothing was answered
    status: int = 0
    #: bytes of the two bodies
    received: int = 0
    sent: int = 0
    #: why the harness refused it, such as `lists outside of the prefix`; "" if it did not
    refused: str = ""
    #: whether it would have changed something that is not of the pipeline
    changes_others: bool = False
    #: the kind of the fault that met it; "" for none
    fault: Kind | Literal[""] = ""
    #: of the complete body, of the upload or of the download, as it reached the other end; "" otherwise
    sha256: str = ""
    ending: Ending = "open"

    @property
    def named(self) -> str:
        """The request in a few words, such as `GET /bucket?list-type&prefix`."""
        operation = f"?{self.operation}" if self.operation else ""
        return f"{self.method} /{self.bucket}{'/' if self.key else ''}{self.key}{operation}"

    @property
    def failed_by_itself(self) -> bool:
        """Whether the store failed, and no fault was injected: with an error of its own, or without an answer."""
        return not self.fault and (self.ending == "no-store" or self.status >= _SERVER_ERROR)

    @property
    def is_attempt(self) -> bool:
        """Whether the pipeline's programs asked for the contents of an object."""
        return self.side == "internal" and self._asks_for_contents

    @property
    def is_download(self) -> bool:
        """Whether the client got an object, or a part of it, to the last byte."""
        return self._asks_for_contents and self.status in {200, 206} and self.ending == "complete"

    @property
    def _asks_for_contents(self) -> bool:
        return self.method == "GET" and self.key != "" and self.operation in _OF_CONTENTS


class Target(Struct, frozen=True, kw_only=True):
    """What a request is about, by its target in the path style of addresses."""

    bucket: str = ""
    key: str = ""
    operation: str = ""
    signed_query: bool = False


#: characters that XML 1.0 does not allow
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

#: parameters of a query that say nothing about the operation, in lower case
_OTHER_PARAMETERS = ("x-amz-", "x-id", "response-", "content-", "awsaccesskeyid", "signature", "expires")


def target_of(raw: str) -> Target:
    """Read a request target, such as `/bucket/a%20key?uploads`."""
    try:
        parts = urlsplit(raw)
    except ValueError:  # such as an invalid IPv6 address
        return Target()
    path = parts.path
    bucket, _, key = path.removeprefix("/").partition("/")
    return Target(
        bucket=unquote(bucket),
        key=unquote(key),
        operation="&".join(sorted(operations_of(parts.query))),
        signed_query=any(name.lower() in {"x-amz-signature", "signature"} for name in _names(parts.query)),
    )


def operations_of(query: str) -> frozenset[str]:
    """Return the names of the parameters of a query that say what is done."""
    return frozenset(filter(_says_what_is_done, _names(query)))


def _names(query: str) -> list[str]:
    return [unquote(pair.partition("=")[0]) for pair in query.split("&") if pair]


def _says_what_is_done(name: str) -> bool:
    return not name.lower().startswith(_OTHER_PARAMETERS)


def _text(value: str) -> str:
    return escape(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", value))
