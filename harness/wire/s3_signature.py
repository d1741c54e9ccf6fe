"""Signatures of requests to an S3 API: AWS Signature Version 4, in a header or in a presigned URL.

Source: Amazon S3 API Reference, "Authenticating Requests (AWS Signature Version 4)". The path is encoded once, unlike
the paths of other AWS services.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

_ALGORITHM = "AWS4-HMAC-SHA256"
_UNSIGNED = "UNSIGNED-PAYLOAD"
#: the longest that a presigned URL may be valid: seven days
LONGEST_VALID_S = 604_800


class Keys(Struct, frozen=True, kw_only=True):
    """The login of an S3 API. Its `repr` never shows the secret key."""

    access_key: str
    secret_key: str
    region: str = "us-east-1"

    def __repr__(self) -> str:
        return f"Keys({self.access_key!r})"


def encoded(text: str, *, safe: str = "") -> str:
    """Return a text in the percent encoding that signatures are made of: of all but A-Z, a-z, 0-9 and `-._~`."""
    return quote(text, safe=safe)


def path_of(bucket: str, key: str = "") -> str:
    """Return the encoded path of a bucket, or of an object in it. Slashes of the key separate parts of the path."""
    return f"/{encoded(bucket)}/{encoded(key, safe='/')}" if key else f"/{encoded(bucket)}"


def query_of(parameters: Mapping[str, str]) -> str:
    """Return the encoded query, sorted as the signature demands."""
    pairs = sorted((encoded(name), encoded(value)) for name, value in parameters.items())
    return "&".join(f"{name}={value}" for name, value in pairs)


def signed_headers(
    keys: Keys,
    method: str,
    host: str,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    now: datetime | None = None,
) -> dict[str, str]:
    """Return the headers of a signed request, the given ones included.

    :param host: the host and, unless it is the default of the scheme, the port.
    :param path: encoded; see :func:`path_of`.
    :param query: its parameters, not encoded.
    :param headers: further headers, all of which are signed.
    :param now: the time of the signature; by default, the current time.
    """
    at = _time_of(now)
    digest = hashlib.sha256(body).hexdigest()
    sent = {
        **{name.lower(): value for name, value in (headers or {}).items()},
        "host": host,
        "x-amz-content-sha256": digest,
        "x-amz-date": at,
    }
    signed = ";".join(sorted(sent))
    signature = _signature(keys, at, _request_text(method, path, query or {}, sent, digest))
    sent["authorization"] = (
        f"{_ALGORITHM} Credential={keys.access_key}/{_scope(keys, at)},SignedHeaders={signed},Signature={signature}"
    )
    return sent


def presigned_query(
    keys: Keys,
    method: str,
    host: str,
    path: str,
    *,
    valid_s: int,
    query: Mapping[str, str] | None = None,
    now: datetime | None = None,
) -> str:
    """Return the query of a URL that anybody may use for one method and path until it expires.

    :param valid_s: seconds from now, seven days at most.
    :raises ValueError: for another period.
    """
    if not 1 <= valid_s <= LONGEST_VALID_S:
        raise ValueError(f"a presigned URL is valid for 1 to {LONGEST_VALID_S} s; found {valid_s}")
    at = _time_of(now)
    parameters = {
        **(query or {}),
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{keys.access_key}/{_scope(keys, at)}",
        "X-Amz-Date": at,
        "X-Amz-Expires": str(valid_s),
        "X-Amz-SignedHeaders": "host",
    }
    signature = _signature(keys, at, _request_text(method, path, parameters, {"host": host}, _UNSIGNED))
    return f"{query_of(parameters)}&X-Amz-Signature={signature}"


def _time_of(now: datetime | None) -> str:
    return (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def _scope(keys: Keys, at: str) -> str:
    return f"{at[:8]}/{keys.region}/s3/aws4_request"


def _request_text(method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], payload: str) -> str:
    """Return the canonical request."""
    lines = [f"{name}:{' '.join(value.split())}" for name, value in sorted(headers.items())]
    return "\n".join([method, path, query_of(query), *lines, "", ";".join(sorted(headers)), payload])


def _signature(keys: Keys, at: str, request: str) -> str:
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join([_ALGORITHM, at, _scope(keys, at), digest])
    key = f"AWS4{keys.secret_key}".encode()
    for part in (at[:8], keys.region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()
