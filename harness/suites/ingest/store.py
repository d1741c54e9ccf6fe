"""The part of an object store that belongs to one check, of the lab's or of an operator's, and a proxy in front of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

from harness.checks.record import NotExercisedError
from harness.errors import HarnessError
from harness.ingest.operator_store import OperatorStore, StoreDeclaration
from harness.ingest.s3 import S3, S3Error
from harness.ingest.store_bounds import Within

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.checks.context import CheckContext
    from harness.checks.judges.ingest_state import Upload
    from harness.ingest.store_proxy import StoreProxy
    from harness.lab.store import ObjectStore

_OTHERS = b"of somebody else: a pipeline has no reason to touch it\n"


class CheckStore:
    """A bucket of the lab's object store, or a folder in an operator's. The block of its context manager is its life."""

    def __init__(self, ctx: CheckContext, declared: StoreDeclaration | None = None) -> None:
        """Prepare the part of the store.

        :param declared: the operator's store; None for the one of the lab.
        """
        self._ctx, self._declared = ctx, declared
        self._token = secrets.token_hex(6)
        self.bucket = declared.bucket if declared else f"ingest-{self._token}"
        #: keys of the pipeline have to begin with it
        self.prefix = f"{self._token}/"
        #: the key of the object of somebody else; it begins like the prefix
        self.other_key = f"{self._token}-of-others/keep.txt"
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Begin to use the store, with an object of somebody else next to the prefix.

        :raises NotExercisedError: when the store cannot be used.
        """
        with contextlib.ExitStack() as stack:
            try:
                #: the store itself
                self.service: ObjectStore | OperatorStore = (
                    self._of_operator(stack, self._declared) if self._declared else self._of_lab()
                )
                self.direct.put(self.other_key, _OTHERS)
            except HarnessError as error:
                # of a store of the lab, the topology and the service are in the row
                said = ": ".join(filter(None, (error.where if self._declared else "", error.what)))
                raise NotExercisedError(f"the object store cannot be used: {said}") from None
            self.proxy = stack.enter_context(self._proxy_of(self.service))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End the proxy, and delete what is left in an operator's store."""
        self._stack.close()

    def _of_lab(self) -> ObjectStore:
        store = self._ctx.lab.object_store()
        #: past the proxy, so that the journal has only requests of clients and of the pipeline
        self.direct = S3(store.endpoint_url, store.access_key, store.secret_key, bucket=self.bucket)
        self.direct.make_bucket()
        return store

    def _of_operator(self, stack: contextlib.ExitStack, declared: StoreDeclaration) -> OperatorStore:
        owned = OperatorStore(declared, os.environ, self._ctx.lab)
        self.prefix, self.other_key = f"{owned.folder}{self.prefix}", f"{owned.folder}{self.other_key}"
        self.direct = owned.client
        stack.callback(self._leave, owned)
        owned.require_usable()
        self._ctx.fact("store", owned.said)
        self._ctx.fact("below the prefix before", owned.census())
        self._require_any_host(owned)
        return owned

    def _leave(self, owned: OperatorStore) -> None:
        """Delete the folder of the check. What is left becomes a fact: what was seen before is judged all the same."""
        try:
            if owned.wrote:
                owned.clean()
                self._ctx.fact("below the prefix after", owned.census())
        except HarnessError as error:
            self._ctx.left_behind(f"{error.what}, in the bucket {self.bucket}")

    def _proxy_of(self, store: ObjectStore | OperatorStore) -> StoreProxy:
        from harness.ingest.store_proxy import StoreProxy  # noqa: PLC0415 -- it loads an implementation of HTTP

        return StoreProxy(lambda: store.address, tls=store.tls, within=Within(self.bucket, self.prefix))

    def _require_any_host(self, owned: OperatorStore) -> None:
        """Require that the store accepts signatures for the addresses of the proxy.

        :raises NotExercisedError: when it accepts those for its own address only.
        """
        key = f"{self.prefix}probe.txt"
        try:
            # not the proxy of the check, whose journal has requests of clients and of the pipeline only
            with self._proxy_of(owned) as proxy:
                through = self._client(str(proxy.internal), owned)
                through.put(key, _OTHERS)
                through.delete(key)
        except S3Error as error:
            raise NotExercisedError(
                "the store of [store] answers its own address, and refuses a request that is signed for the address of "
                f"the proxy in front of it, as stores do that compare the host: {error.what}"
            ) from None

    def _client(self, address: str, service: ObjectStore | OperatorStore | None = None) -> S3:
        service = service or self.service
        return S3(f"http://{address}", service.access_key, service.secret_key, service.region, bucket=self.bucket)

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
            "AWS_REGION": self.service.region,
        }

    def round_trip(self) -> None:
        """Store a small object, and read it, as an upload and a download do.

        :raises NotExercisedError: when the store does not answer.
        """
        key = f"{self.prefix}floor.txt"
        try:
            self.direct.put(key, _OTHERS)
            self.direct.get(key)
        except S3Error as error:
            raise NotExercisedError(f"the store alone cannot be measured: {error.what}") from None

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
        with contextlib.suppress(S3Error):  # the proxy refuses it, and its journal shows it
            self._client(str(self.proxy.internal)).put(key, b"written elsewhere\n")

    def digest(self, key: str) -> str:
        """Return the SHA-256 of an object; "" for one that is gone."""
        try:
            return hashlib.sha256(self.direct.get(key)).hexdigest()
        except S3Error as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return ""
            raise NotExercisedError(f"the objects of the check cannot be read: {error.what}") from None
