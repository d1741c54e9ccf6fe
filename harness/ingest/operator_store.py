"""An object store of an operator: the table `[store]` of `harness.toml`.

It is used below one prefix only. Each check has a folder of its own there, which has to be empty before it; afterwards
the objects that were written there are deleted, and no others.
"""

from __future__ import annotations

import contextlib
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Protocol

from msgspec import Meta, Struct

from harness.engine.made_once import named_by
from harness.engine.protocol import Address
from harness.errors import ConfigError, HarnessError, ServiceFailedError
from harness.host.env_secrets import fill_in, require_set, variables_of
from harness.ingest.s3 import S3, S3Error, endpoint_parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_WHERE = "harness.toml, [store]"
#: named in an error about leftovers
_SHOWN = 5

_Variable = Annotated[str, Meta(pattern=r"^env:[A-Za-z_][A-Za-z0-9_]*$")]


class StoreDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[store]`: an object store of your own, which the suite `ingest` uses in place of the one of the lab."""

    #: `https://HOST`, `http://HOST:PORT`, or `env:NAME`; without the bucket
    endpoint: Annotated[str, Meta(pattern=r"^(https?://[^\s@/?#]+/?|env:[A-Za-z_][A-Za-z0-9_]*)$")]
    #: an existing bucket
    bucket: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    #: keys that runs use begin with it; it ends with a slash
    prefix: Annotated[str, Meta(pattern=r"^[^/\s][^\r\n]*/$", max_length=200)]
    #: a login that may list, read, write and delete there
    access_key: _Variable
    #: its secret
    secret_key: _Variable
    #: of the signatures
    region: Annotated[str, Meta(pattern=r"^[a-z0-9-]+$")] = "us-east-1"

    @property
    def identity(self) -> str:
        """Return a digest of what is declared: evidence from one store says nothing about another one."""
        return named_by(self.endpoint, self.bucket, self.prefix, self.region)


class Learns(Protocol):
    """Learns secrets, so that no output shows them."""

    def learn(self, *more: str) -> None: ...


class OperatorStore:
    """The store during one run: it remembers which objects the run wrote. Its `repr` shows no secret."""

    def __init__(self, declared: StoreDeclaration, client: S3, access_key: str, secret_key: str) -> None:
        self.client = client
        self.bucket = declared.bucket
        self.prefix = declared.prefix
        self.region = declared.region
        self.access_key = access_key
        self.secret_key = secret_key
        self._written: set[str] = set()
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"OperatorStore({self.bucket!r}, {self.prefix!r})"

    @property
    def endpoint_url(self) -> str:
        return self.client.endpoint_url

    @property
    def address(self) -> Address:
        _, host, port, _ = endpoint_parts(self.endpoint_url)
        return Address(host, port)

    def wrote(self, *keys: str) -> None:
        """Remember objects that the run writes, before it does: they are deleted when it ends.

        :raises ServiceFailedError: for a key that does not begin with the prefix; it is not remembered.
        """
        for key in keys:
            if not key.startswith(self.prefix):
                raise ServiceFailedError(
                    f"the key {key!r} does not begin with {self.prefix!r}, so the run must not use it", where=_WHERE
                )
            with self._lock:
                self._written.add(key)

    def clean(self) -> None:
        """Delete the objects that the run wrote.

        :raises ServiceFailedError: when one could not be deleted, or others are below the prefix: they stay.
        """
        failed: list[str] = []
        left_out = 0
        with self._lock:
            written = sorted(self._written)
        for number, key in enumerate(written):
            try:
                self.client.delete(key)
            except S3Error as error:
                failed.append(f"{key}: {error.what}")
                if not error.status:
                    # a store that is silent makes each further key wait for the whole timeout
                    left_out = len(written) - number - 1
                    break
            else:
                with self._lock:
                    self._written.discard(key)
        if failed:
            shown = failed[-_SHOWN:]
            if left_out:
                shown.append(f"{left_out} further keys were not tried")
            raise ServiceFailedError(
                f"{len(failed) + left_out} of {len(written)} objects of the run could not be deleted",
                where=self._place,
                detail="\n".join(shown),
                hint=f"delete the objects below {self.prefix} yourself",
            )
        try:
            left = self.client.keys(self.prefix)
        except S3Error as error:
            raise ServiceFailedError(
                f"the objects of the run were deleted, but the store does not list the rest: {error.what}",
                where=self._place,
            ) from None
        if left:
            raise ServiceFailedError(
                f"found {len(left)} object{'s' * (len(left) > 1)} below {self.prefix} that the run did not write, and "
                "deleted nothing of it",
                where=self._place,
                detail="\n".join(left[:_SHOWN]),
                hint="delete them if nobody needs them: the next run needs an empty prefix",
            )

    def require_empty(self) -> None:
        """Require that nothing is below the prefix.

        :raises ConfigError: when something is, or the store cannot be used; nothing was written.
        """
        try:
            found = self.client.first_key(self.prefix)
        except S3Error as error:
            raise ConfigError(
                error.what,
                where=self._place,
                hint="check endpoint, bucket, access_key, secret_key and region of [store]",
            ) from None
        if found:
            raise ConfigError(
                f"found the object {found!r}, expected nothing below the prefix {self.prefix!r}; nothing was written",
                where=self._place,
                hint="name a prefix of [store] that nothing else uses, or delete what an interrupted run left there",
            )

    @property
    def _place(self) -> str:
        return f"{_WHERE}, bucket {self.bucket}"


@contextlib.contextmanager
def operator_store(
    declared: StoreDeclaration, variables: Mapping[str, str], redactor: Learns
) -> Iterator[OperatorStore]:
    """Use an operator's store: its prefix is empty before the block, and cleaned up after it.

    :param variables: name to value.
    :param redactor: learns the keys, so that no output shows them.
    :raises UsageError: naming every variable that is not set.
    :raises ConfigError: when the address is invalid, the store refuses the keys, or the prefix is not empty.
    :raises ServiceFailedError: when objects are left after the block. An error of the block is never masked.
    """
    store = _resolved(declared, variables, redactor)
    store.require_empty()
    try:
        yield store
    except BaseException:
        with contextlib.suppress(HarnessError):
            store.clean()
        raise
    store.clean()


def _resolved(declared: StoreDeclaration, variables: Mapping[str, str], redactor: Learns) -> OperatorStore:
    require_set(variables_of(declared), variables, "[store]")
    access_key, secret_key, endpoint = _values(declared, variables)
    redactor.learn(access_key, secret_key)
    try:
        client = S3(endpoint, access_key, secret_key, declared.region, bucket=declared.bucket)
    except ConfigError as error:
        raise ConfigError(error.what, where="harness.toml, store.endpoint", hint=error.hint) from None
    if endpoint != declared.endpoint:
        redactor.learn(endpoint, client.endpoint_url, endpoint_parts(endpoint)[1])
    return OperatorStore(declared, client, access_key, secret_key)


def _values(declared: StoreDeclaration, variables: Mapping[str, str]) -> Iterable[str]:
    return (fill_in(text, variables) for text in (declared.access_key, declared.secret_key, declared.endpoint))
