"""The part of the object store that belongs to one check: a bucket, a prefix in it, and a proxy in front of it."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

from harness.checks.record import NotExercisedError
from harness.errors import HarnessError
from harness.ingest.s3 import S3, S3Error
from harness.ingest.store_proxy import StoreProxy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.checks.context import CheckContext
    from harness.checks.judges.ingest_state import Upload

REGION = "us-east-1"
_OTHERS = b"of somebody else: a pipeline has no reason to touch it\n"


class CheckStore:
    """A bucket of the lab's object store. Use it as a context manager: its proxy ends with the block."""

    def __init__(self, ctx: CheckContext) -> None:
        """Create the bucket, with an object of somebody else next to the prefix.

        :raises NotExercisedError: when the store is unavailable.
        """
        token = secrets.token_hex(6)
        self.bucket = f"ingest-{token}"
        #: keys of the pipeline have to begin with it
        self.prefix = f"{token}/"
        #: the key of the object of somebody else; it begins like the prefix
        self.other_key = f"{token}-of-others/keep.txt"
        try:
            #: the store itself, which a check may stop
            self.service = ctx.lab.object_store()
            #: past the proxy, so that the journal has only requests of clients and of the pipeline
            self.direct = self._client(str(self.service.address))
            self.direct.make_bucket()
            self.direct.put(self.other_key, _OTHERS)
        except HarnessError as error:
            raise NotExercisedError(f"the object store is unavailable: {error.what}") from None
        self._stack = contextlib.ExitStack()
        self.proxy = StoreProxy(lambda: self.service.address)

    def __enter__(self) -> Self:
        self._stack.enter_context(self.proxy)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _client(self, address: str) -> S3:
        return S3(f"http://{address}", self.service.access_key, self.service.secret_key, bucket=self.bucket)

    def variables(self) -> dict[str, str]:
        """Return the environment variables by which programs find the store."""
        internal = f"http://{self.proxy.internal}"
        return {
            "S3_ENDPOINT": internal,
            "S3_PUBLIC_ENDPOINT": f"http://{self.proxy.public}",
            "S3_BUCKET": self.bucket,
            "S3_PREFIX": self.prefix,
            "AWS_ENDPOINT_URL_S3": internal,
            "AWS_ACCESS_KEY_ID": self.service.access_key,
            "AWS_SECRET_ACCESS_KEY": self.service.secret_key,
            "AWS_REGION": REGION,
        }

    def round_trip(self) -> None:
        """Store a small object, and read it, as an upload and a download do."""
        key = f"{self.prefix}floor.txt"
        self.direct.put(key, _OTHERS)
        self.direct.get(key)

    def others_lost(self) -> int:
        """Return how many objects of others are gone or changed."""
        return int(self.digest(self.other_key) != hashlib.sha256(_OTHERS).hexdigest())

    def uploads_lost(self, uploads: Iterable[Upload]) -> int:
        """Return how many uploaded files are gone or changed."""
        return sum(self.digest(one.key) != one.sha256 for one in uploads if one.stored_s is not None)

    def remove(self, key: str) -> None:
        """Remove an object, past the proxy."""
        self.direct.delete(key)

    def write_inside_proxy(self, key: str) -> None:
        """Write an object as a program of the pipeline would do it."""
        self._client(str(self.proxy.internal)).put(key, b"written elsewhere\n")

    def digest(self, key: str) -> str:
        """Return the SHA-256 of an object; "" for one that is gone."""
        try:
            return hashlib.sha256(self.direct.get(key)).hexdigest()
        except S3Error as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return ""
            raise NotExercisedError(f"the objects of the check cannot be read: {error.what}") from None
