"""What an error of an operator's object store means for the table `[store]` of `harness.toml`."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.ingest.s3 import S3Error

_FULL = "the object store is full"
#: by the store's own name of the error; of Amazon S3, unless another product is named
_MEANINGS = {
    "InvalidAccessKeyId": "the object store does not know access_key",
    "SignatureDoesNotMatch": "secret_key does not belong to access_key, or the store computes another signature",
    "ExpiredToken": "access_key has expired",
    "InvalidToken": "access_key needs a session token, which [store] has no key for",
    "NoSuchBucket": "the bucket does not exist",
    "PermanentRedirect": "the bucket is in another region, or at another endpoint",
    "AuthorizationHeaderMalformed": "the bucket is in another region than [store] names",
    "RequestTimeTooSkewed": "the clocks of this machine and of the object store differ",
    # Alibaba Cloud OSS
    "SecondLevelDomainForbidden": "the object store wants the bucket in the host name, and the harness names it in "
    "the path",
    # MinIO
    "XMinioStorageFull": _FULL,
    "XMinioAdminBucketQuotaExceeded": _FULL,
    # Ceph
    "QuotaExceeded": _FULL,
}
_BY_STATUS: dict[int, str] = {
    HTTPStatus.INSUFFICIENT_STORAGE: _FULL,
    HTTPStatus.MOVED_PERMANENTLY: "the object store answers with a redirect: another endpoint or region is needed",
    HTTPStatus.TEMPORARY_REDIRECT: "the object store answers with a redirect: another endpoint or region is needed",
    HTTPStatus.NOT_FOUND: "the bucket does not exist, or no object store is at the endpoint",
}


def explained(error: S3Error, doing: str) -> str:
    """Return what an error means, with the store's own words after it.

    :param doing: the right that was tried: `list`, `write`, `read` or `delete`.
    """
    meaning = _MEANINGS.get(error.code) or _BY_STATUS.get(error.status, "")
    if not meaning and error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        # rclone answers 500 when its disk is full
        meaning = "the object store fails, or is full"
    elif not meaning and error.status in {HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED}:
        meaning = f"the keys lack the right to {doing} there"
    return f"{meaning}: {error.what}" if meaning else error.what
