"""A small client of an S3 API, with the standard library only: what the harness itself does with an object store."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus, urlsplit
from xml.etree import ElementTree as ET

from harness.errors import ConfigError, HarnessError
from harness.wire.s3_signature import Keys, path_of, presigned_query, query_of, signed_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_TIMEOUT_S = 10.0
#: entries of one answer
_PAGE = 1000
#: answers of stores that have no list of uploads in parts: Bad Request, Not Found, Method Not Allowed, Not Implemented
_WITHOUT_UPLOADS = (400, 404, 405, 501)
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[\w-]{1,63}(\.[\w-]{1,63})*\.?", re.ASCII)
#: raised for a document that is not XML, or whose encoding Python does not know
_UNREADABLE = (ET.ParseError, LookupError, ValueError)


class S3Error(HarnessError):
    """An object store refused a request, or did not answer."""

    def __init__(self, what: str, *, where: str, status: int = 0, code: str = "") -> None:
        """Create an error.

        :param where: the address and the path of the request, without its query.
        :param status: of the answer; 0 without an answer.
        :param code: the store's own name for it, such as `NoSuchKey`; "" without one.
        """
        super().__init__(what, where=where)
        self.status = status
        self.code = code


class S3:
    """One bucket of an object store. Safe for several threads: each request has a connection of its own."""

    def __init__(
        self,
        endpoint_url: str,
        access_key: str,
        secret_key: str,
        region: str = "us-east-1",
        *,
        bucket: str,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        """Connect to nothing yet.

        :param endpoint_url: `http://HOST:PORT` or `https://HOST`; buckets are the first part of the path.
        :param timeout_s: for connecting, and for each read.
        :raises ConfigError: for another form of address. The message does not repeat it.
        """
        parts = endpoint_parts(endpoint_url)
        self.endpoint_url = endpoint_url.rstrip("/")
        self.bucket = bucket
        self._keys = Keys(access_key=access_key, secret_key=secret_key, region=region)
        self._scheme, self._name, self._port, self._host = parts
        self._timeout_s = timeout_s
        #: the product, as the header Server of its answers names it; "" before one does
        self.server = ""

    def __repr__(self) -> str:
        return f"S3({self.endpoint_url!r}, bucket={self.bucket!r})"

    def make_bucket(self) -> None:
        """Create the bucket; nothing happens if it exists and is ours.

        :raises S3Error: when the store refuses.
        """
        try:
            self._ask("PUT")
        except S3Error as error:
            if error.code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                raise

    def put(self, key: str, body: bytes) -> None:
        """Store an object.

        :raises S3Error: when the store refuses.
        """
        self._ask("PUT", key, body=body, headers={"Content-Type": "application/octet-stream"})

    def get(self, key: str) -> bytes:
        """Return the content of an object.

        :raises S3Error: when it is missing (its code is `NoSuchKey`), or the store refuses.
        """
        return self._ask("GET", key)[2]

    def delete(self, key: str) -> None:
        """Delete an object; nothing happens if it is missing.

        :raises S3Error: when the store refuses.
        """
        self._ask("DELETE", key, allowed=(http.client.NOT_FOUND,))

    def keys(self, prefix: str = "") -> tuple[str, ...]:
        """Return the keys of all objects that begin with a prefix.

        :raises S3Error: when the store refuses, or its answer is not a list.
        """
        return tuple(self._keys_of(prefix))

    def first_key(self, prefix: str) -> str:
        """Return one key that begins with a prefix, from a short answer; "" without any.

        :raises S3Error: when the store refuses, or its answer is not a list.
        """
        return next(self._keys_of(prefix, page=1), "")

    def page(self, prefix: str) -> dict[str, str]:
        """Return the first page of objects that begin with a prefix: key to ETag.

        :raises S3Error: when the store refuses, or its answer is not a list.
        """
        return {_value(one, "Key"): _value(one, "ETag").strip('"') for one in islice(self._listed(prefix), _PAGE)}

    def abort_uploads(self, prefix: str) -> None:
        """End the uploads in parts that begin with a prefix. A store that does not list them keeps none.

        :raises S3Error: when the store does not answer, or refuses to end one.
        """
        query = {"uploads": "", "prefix": prefix, "max-uploads": str(_PAGE), "encoding-type": "url"}
        status, _, body = self._ask("GET", query=query, allowed=_WITHOUT_UPLOADS)
        if status == http.client.OK:
            root, decoded = self._document(body)
            for one in _children(root, "Upload"):
                if (key := decoded(_value(one, "Key"))).startswith(prefix):
                    ended = {"uploadId": _value(one, "UploadId")}
                    self._ask("DELETE", key, query=ended, allowed=(http.client.NOT_FOUND,))

    def presign(self, method: str, key: str, valid_s: int) -> str:
        """Return a URL that anybody may use for one method and object until it expires.

        :param valid_s: seconds from now, seven days at most.
        :raises ValueError: for another period.
        """
        path = path_of(self.bucket, key)
        query = presigned_query(self._keys, method, self._host, path, valid_s=valid_s)
        return f"{self._scheme}://{self._host}{path}?{query}"

    def _keys_of(self, prefix: str, page: int = _PAGE) -> Iterator[str]:
        return (_value(one, "Key") for one in self._listed(prefix, page))

    def _listed(self, prefix: str, page: int = _PAGE) -> Iterator[ET.Element]:
        """Yield the entries of a list; their keys are decoded."""
        # XML cannot hold every character that a key may have
        query = {"list-type": "2", "prefix": prefix, "max-keys": str(page), "encoding-type": "url"}
        while True:
            root, decoded = self._document(self._ask("GET", query=query)[2])
            for one in _children(root, "Contents"):
                for key in _children(one, "Key"):
                    key.text = decoded(key.text or "")
                yield one
            token = _value(root, "NextContinuationToken")
            if _value(root, "IsTruncated") != "true" or not token:
                return
            if token == query.get("continuation-token"):
                raise S3Error("the list of objects never ends: its next page is the same one", where=self._where())
            query = query | {"continuation-token": token}

    def _document(self, body: bytes) -> tuple[ET.Element, Callable[[str], str]]:
        """Return a list, and the function that decodes its keys."""
        try:
            root = ET.fromstring(body)  # noqa: S314 -- no entity is expanded without a DTD of its own
        except _UNREADABLE as error:
            raise S3Error(f"the answer is not a list of objects: {error}", where=self._where()) from None
        return root, unquote_plus if _value(root, "EncodingType") == "url" else str

    def _where(self, key: str = "") -> str:
        return f"{self.endpoint_url}{path_of(self.bucket, key)}"

    def _ask(
        self,
        method: str,
        key: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        allowed: tuple[int, ...] = (),
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a signed request, and return status, headers by lower-case name, and body.

        :param allowed: statuses of errors that the caller handles.
        :raises S3Error: for every other error.
        """
        path = path_of(self.bucket, key)
        sent = signed_headers(self._keys, method, self._host, path, query=query, headers=headers, body=body)
        target = f"{path}?{query_of(query)}" if query else path
        connection = self._connection()
        try:
            with contextlib.suppress(
                BrokenPipeError, ConnectionResetError
            ):  # a store may refuse before it read the body
                connection.request(method, target, body=body or None, headers=sent)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise S3Error(_unanswered(method, error), where=self._where(key)) from None
        finally:
            connection.close()
        self.server = (answer.getheader("Server") or self.server).strip()
        if answer.status >= http.client.MULTIPLE_CHOICES and answer.status not in allowed:
            code, message = error_in(content)
            said = ": ".join(filter(None, (code, message))) or answer.reason
            raise S3Error(
                f"the object store answers {method} with {answer.status} {said}",
                where=self._where(key),
                status=answer.status,
                code=code,
            )
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content

    def _connection(self) -> http.client.HTTPConnection:
        if self._scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._name, self._port, timeout=self._timeout_s, context=context)
        return http.client.HTTPConnection(self._name, self._port, timeout=self._timeout_s)


def endpoint_parts(endpoint_url: str) -> tuple[str, str, int, str]:
    """Return the scheme, the host, the port and the value of the Host header of an address.

    :raises ConfigError: for an address with another scheme, a login, a path, a query or a fragment. The message does
        not repeat it.
    """
    try:
        parts = urlsplit(endpoint_url)
        name, port = parts.hostname or "", parts.port
        excess = parts.username or parts.password or parts.path.strip("/") or parts.query or parts.fragment
    except ValueError:
        name, port, excess = "", None, ""
    # an IPv6 address has colons
    if not (":" in name or _HOST.fullmatch(name)) or excess or parts.scheme not in _PORTS:
        raise ConfigError(
            "invalid address of an object store, expected http://HOST:PORT or https://HOST",
            hint="leave the bucket out of the address, and name it apart",
        )
    host = f"[{name}]" if ":" in name else name
    default = _PORTS[parts.scheme]
    return parts.scheme, name, port or default, host if port in {None, default} else f"{host}:{port}"


def _unanswered(method: str, error: OSError | http.client.HTTPException) -> str:
    """Return a sentence about a store that did not answer."""
    reason = str(error) or type(error).__name__
    match error:
        case ssl.SSLCertVerificationError():
            return f"the certificate of the object store is not trusted here: {error.verify_message}"
        case ssl.SSLError():
            return f"no TLS connection to the object store: {error.reason or reason}"
        case socket.gaierror():
            return f"the host of the object store is unknown: {error.strerror or reason}"
        case _:
            return f"the object store does not answer {method}: {reason}"


def _children(element: ET.Element, name: str) -> list[ET.Element]:
    """Return the children of a name, in any namespace."""
    return [child for child in element if child.tag.rpartition("}")[2] == name]


def _value(element: ET.Element, name: str) -> str:
    """Return the text of the first child of a name; "" without one."""
    return next((child.text or "" for child in _children(element, name)), "")


def error_in(body: bytes) -> tuple[str, str]:
    """Return the code and the message of an error document; "" twice for another body."""
    try:
        root = ET.fromstring(body)  # noqa: S314 -- no entity is expanded without a DTD of its own
    except _UNREADABLE:
        return "", ""
    texts = {child.tag.rpartition("}")[2]: " ".join((child.text or "").split()) for child in root}
    return texts.get("Code", ""), texts.get("Message", "")
