"""An object store of an operator: the table `[store]` of `harness.toml`.

It is used below one prefix only. Each check has a folder of its own there, whose name nobody else knows; afterwards the
folder is deleted, and nothing else. The name says which process it belongs to, so leftovers of a killed run are known.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import ssl
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Protocol

from msgspec import Meta, Struct

from harness.engine.made_once import named_by
from harness.engine.owner import Owner, this_host
from harness.engine.protocol import Address
from harness.errors import ConfigError, ServiceFailedError
from harness.host.env_secrets import fill_in, require_set, variables_of
from harness.ingest.s3 import S3, S3Error, endpoint_parts
from harness.ingest.store_answers import explained

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_OTHERS, _IN_USE = "of others", "of other runs, which may still be running"
_WHERE = "harness.toml, [store]"
#: named in an error about leftovers
_SHOWN = 5
#: begins the name of the folder of a check
_FOLDER = "harness-check"
_OF_PROCESS = re.compile(rf"{_FOLDER}-(?P<host>[0-9a-f]{{8}})-(?P<pid>\d+)-(?P<started>\d+)-[0-9a-f]+/")

_Variable = Annotated[str, Meta(pattern=r"^env:[A-Za-z_][A-Za-z0-9_]*$")]


class StoreDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[store]`: an object store of your own, which the suite `ingest` uses in place of the one of the lab."""

    #: `https://HOST`, `http://HOST:PORT`, or `env:NAME`; without the bucket
    endpoint: Annotated[str, Meta(pattern=r"^(https?://[^\s@/?#]+/?|env:[A-Za-z_][A-Za-z0-9_]*)$")]
    #: an existing bucket
    bucket: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")]
    #: keys that runs use begin with it; it ends with a slash, and has no empty part, `.` or `..`
    prefix: Annotated[str, Meta(pattern=r"^(?!(.*/)?\.{0,2}/)[^\s][^\r\n\\]*/\Z", max_length=200)]
    #: a login that may list, read, write and delete there
    access_key: _Variable
    #: its secret
    secret_key: _Variable
    #: of the signatures
    region: Annotated[str, Meta(pattern=r"^[a-z0-9-]+\Z")] = "us-east-1"

    @property
    def identity(self) -> str:
        """Return a digest of what is declared: evidence from one store says nothing about another one."""
        return named_by(self.endpoint, self.bucket, self.prefix, self.region)


class Learns(Protocol):
    """Learns secrets, so that no output shows them."""

    def learn(self, *more: str) -> None: ...


class OperatorStore:
    """The part of the store that belongs to one check. Its `repr` shows no secret."""

    def __init__(self, declared: StoreDeclaration, variables: Mapping[str, str], redactor: Learns) -> None:
        """Connect to nothing yet.

        :param variables: name to value.
        :param redactor: learns the keys, so that no output shows them.
        :raises UsageError: naming every variable that is not set.
        :raises ConfigError: when the address or a key is invalid; the message does not repeat it.
        """
        require_set(variables_of(declared), variables, "[store]")
        self.access_key, self.secret_key, endpoint = (
            fill_in(text, variables) for text in (declared.access_key, declared.secret_key, declared.endpoint)
        )
        redactor.learn(self.access_key, self.secret_key)
        _require_sent_unchanged(self.access_key, self.secret_key)
        self.bucket, self.region = declared.bucket, declared.region
        try:
            self.client = S3(endpoint, self.access_key, self.secret_key, declared.region, bucket=declared.bucket)
        except ConfigError as error:
            raise ConfigError(error.what, where="harness.toml, store.endpoint", hint=error.hint) from None
        host = endpoint_parts(endpoint)[1]
        if endpoint != declared.endpoint:
            redactor.learn(endpoint, self.client.endpoint_url, host)
        if host.startswith(f"{declared.bucket}."):
            raise ConfigError(
                "the endpoint begins with the bucket, expected the host without it: the harness names the bucket in "
                "the path",
                where="harness.toml, store.endpoint",
            )
        self._declared = declared
        #: begins all keys of the check
        self.folder = f"{declared.prefix}{_mine()}{secrets.token_hex(6)}/"
        #: whether something may be in the folder
        self.wrote = False

    def __repr__(self) -> str:
        return f"OperatorStore({self.bucket!r}, {self.folder!r})"

    @property
    def endpoint_url(self) -> str:
        return self.client.endpoint_url

    @property
    def address(self) -> Address:
        _, host, port, _ = endpoint_parts(self.endpoint_url)
        return Address(host, port)

    @property
    def tls(self) -> ssl.SSLContext | None:
        """How to connect to it; None for plain HTTP."""
        return ssl.create_default_context() if self.endpoint_url.startswith("https://") else None

    @property
    def place(self) -> str:
        """The store in an error."""
        return f"{_WHERE}, bucket {self.bucket}"

    @property
    def said(self) -> str:
        """What the evidence says about the store; an address from a variable is named by the variable."""
        header = f"the header Server says {self.client.server}" if self.client.server else "no header Server"
        return f"{self._declared.endpoint}, bucket {self.bucket}, prefix {self._declared.prefix}, {header}"

    def folder_of(self, key: str) -> str:
        """Return the folder of a check that a key is in, without the prefix; "" for an object of others."""
        found = _OF_PROCESS.match(key.removeprefix(self._declared.prefix))
        return found[0] if found else ""

    def census(self) -> str:
        """Return how many objects are below the prefix, and whose they are, by the first page of a list.

        Those of checks of this run are left out.

        :raises ServiceFailedError: when the store does not list them.
        """
        with self.explaining("list"):
            page = self.client.page(self._declared.prefix)
        counts = Counter(filter(None, map(self._owner_of, page)))
        theirs = [f"{key} {etag}" for key, etag in sorted(page.items()) if self._owner_of(key) == _OTHERS]
        words = [f"{count} {whose}" for whose, count in sorted(counts.items())]
        if theirs:
            digest = hashlib.sha256("\n".join(theirs).encode()).hexdigest()[:12]
            words.append(f"digest of those of others {digest}, the first one {theirs[0].rpartition(' ')[0]}")
        return ", ".join(words) or "nothing"

    def _owner_of(self, key: str) -> str:
        folder = self.folder_of(key)
        if not folder:
            return _OTHERS
        if folder.startswith(_mine()):
            return ""
        return "left by runs that have ended (harness reap deletes them)" if is_left_by_killed(folder) else _IN_USE

    def require_usable(self) -> None:
        """Require the rights to list, write, read and delete, before a pipeline needs them.

        :raises ServiceFailedError: when one is missing, or the store cannot be reached.
        """
        key = f"{self.folder}probe.txt"
        with self.explaining("list"):
            self.client.first_key(self.folder)
        self.wrote = True
        with self.explaining("write"):
            self.client.put(key, b"can this login write?\n")
        with self.explaining("read"):
            self.client.get(key)
        with self.explaining("delete"):
            self.client.delete(key)

    @contextlib.contextmanager
    def explaining(self, doing: str) -> Iterator[None]:
        """Turn an error of the store into a sentence about `[store]`."""
        try:
            yield
        except S3Error as error:
            raise ServiceFailedError(
                explained(error, doing),
                where=self.place,
                hint="check endpoint, bucket, access_key, secret_key and region of [store]",
            ) from None

    def clean(self) -> None:
        """Delete the folder of the check.

        :raises ServiceFailedError: naming what is left.
        """
        remove_folder(self.client, self.folder, self.place)


def _require_sent_unchanged(access_key: str, secret_key: str) -> None:
    """Require keys without what a file or a shell adds, and an access key that a header can hold.

    :raises ConfigError: naming the key.
    """
    for name, text in (("access_key", access_key), ("secret_key", secret_key)):
        if text != text.strip():
            problem = "begins or ends with a blank or a line break"
        elif name == "access_key" and not (text.isascii() and text.isprintable()):
            problem = "has a character that no header can hold"
        else:
            continue
        raise ConfigError(f"the variable of {name} {problem}", where=f"harness.toml, store.{name}")


def reap_store(declared: StoreDeclaration, variables: Mapping[str, str], redactor: Learns) -> list[str]:
    """Delete the folders of checks whose process was on this host and is gone; return one line for each folder.

    :raises HarnessError: when the store cannot be used, or a folder not be deleted.
    """
    store = OperatorStore(declared, variables, redactor)
    with store.explaining("list"):
        keys = store.client.keys(f"{declared.prefix}{_FOLDER}-{_host()}-")
    removed = []
    for folder, count in Counter(filter(None, (store.folder_of(key) for key in keys))).items():
        if is_left_by_killed(folder):
            remove_folder(store.client, f"{declared.prefix}{folder}", store.place)
            removed.append(f"{count} object{'s' * (count > 1)} below {declared.prefix}{folder} of {declared.bucket}")
    return removed


def remove_folder(client: S3, folder: str, place: str) -> None:
    """Delete the objects below a folder, and the uploads in parts that nobody completed.

    :param place: of the store, for an error.
    :raises ServiceFailedError: naming what is left.
    """
    failed: list[str] = []
    hint = f"delete the objects below {folder} yourself, or run harness reap when the store is back"
    try:
        for key in client.keys(folder):
            try:
                client.delete(key)
            except S3Error as error:
                if not error.status:
                    raise  # a store that is silent makes each further key wait for the whole timeout
                failed.append(f"{key}: {error.what}")
        client.abort_uploads(folder)
        left = client.keys(folder)
    except S3Error as error:
        raise ServiceFailedError(f"objects below {folder} may be left: {error.what}", where=place, hint=hint) from None
    if left:
        raise ServiceFailedError(
            f"{len(left)} object{'s' * (len(left) > 1)} below {folder} could not be deleted: {(failed or left)[0]}",
            where=place,
            detail="\n".join((failed or left)[:_SHOWN]),
            hint=hint,
        )


def is_left_by_killed(folder: str) -> bool:
    """Return whether the process that the name of a folder says was on this host, and is gone."""
    found = _OF_PROCESS.match(folder)
    if not found or found["host"] != _host():
        return False
    return Owner(run_id="", host=this_host(), pid=int(found["pid"]), started=int(found["started"])).is_gone()


def _mine() -> str:
    """Return what the names of all folders of this process begin with."""
    me = Owner.me("")
    return f"{_FOLDER}-{_host()}-{me.pid}-{me.started}-"


def _host() -> str:
    """Return a short name for the host and the pid namespace in which a pid is unique."""
    return hashlib.sha256(this_host().encode()).hexdigest()[:8]
