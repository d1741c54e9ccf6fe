"""The part of an object store that a proxy lets requests reach: one prefix of one bucket. Everything else is others'.

A request is refused when a store could read it in a way that leaves the prefix. Stores differ in what they make of dots
in a path, of a second decoding, and of parameters that are out of place, so an unknown form is refused, too.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING
from urllib.parse import unquote, unquote_plus
from xml.etree import ElementTree as ET

from msgspec import Struct

from harness.ingest.store_requests import operations_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Headers = Sequence[tuple[str, str]]

WRITES = frozenset({"PUT", "POST", "DELETE", "PATCH"})
#: a method and its parameter: requests about the bucket that show and change nothing of others
_OF_ITS_BUCKET = frozenset({("HEAD",), ("GET", "location"), ("POST", "delete")})
#: requests about the bucket that may change nothing of others
_UNCLEAR: dict[tuple[str, ...], str] = {
    ("PUT",): "creates the bucket, which exists",
    ("POST",): "uploads a form, whose key is not read",
}
_LISTS = "lists outside of the prefix"
#: headers, and parameters of presigned addresses, that name another object; the second one removes it
_SOURCE, _RENAMED = "x-amz-copy-source", "x-amz-rename-source"
#: parameters of a request about one object; others are about the bucket, or unknown
_OF_OBJECTS = frozenset(
    {
        *("partNumber", "uploadId", "uploads", "versionId", "part-number-marker", "max-parts", "encoding-type"),
        *("acl", "tagging", "retention", "legal-hold", "restore", "select", "select-type", "attributes", "torrent"),
        *("append", "position", "renameObject"),
    }
)
#: parameters of lists: of objects, of their versions, and of uploads in parts
_OF_LISTS = frozenset(
    {
        *("list-type", "prefix", "delimiter", "max-keys", "encoding-type", "continuation-token", "start-after"),
        *("fetch-owner", "marker", "versions", "key-marker", "version-id-marker"),
        *("uploads", "upload-id-marker", "max-uploads", "allow-unordered", "metadata"),
    }
)
#: elements of a request that deletes several objects
_OF_DELETIONS = frozenset({"Key", "VersionId", "ETag", "LastModifiedTime", "Size"})
#: of such a request: 1000 keys of 1024 bytes, escaped
MOST_TO_DELETE_BYTES = 8 << 20
#: a text that is still encoded after so many decodings is not a key that a program made
_DECODINGS = 5


class Refusal(Struct, frozen=True):
    """A request that the harness refuses."""

    #: continues a sentence that begins with the request, such as `lists outside of the prefix`
    what: str
    #: whether it would have changed something that is not of the pipeline
    changes: bool = False


class Within(Struct, frozen=True):
    """The part of a store that requests may reach."""

    bucket: str
    #: ends with a slash
    prefix: str

    def refusal(self, method: str, target: str, headers: Headers, hosts: frozenset[str]) -> Refusal | None:
        """Return why a request is refused; None for one that reaches nothing else.

        A request that deletes several objects is decided by its body: see :meth:`refusal_of_deletions`.

        :param target: as it was sent, such as `/bucket/key?uploads`.
        :param headers: pairs; the names are in lower case.
        :param hosts: the addresses of the listener; a store may find the bucket in another one.
        """
        if any(value.lower() not in hosts for name, value in headers if name == "host"):
            return Refusal("is addressed to another host, whose first part a store may take for a bucket")
        path, _, query = target.partition("?")
        if not path.startswith("/") or path.startswith("//") or "#" in target or ";" in query:
            return Refusal("has an address that stores read in different ways")
        bucket, _, key = (unquote(part) for part in path[1:].partition("/"))
        if bucket != self.bucket:
            return Refusal(f"is about {'another bucket' if bucket else 'all buckets'}", method in WRITES)
        names = operations_of(query)
        found = self._of_object(method, key, names) if key else self._of_bucket(method, query, names)
        return found or self._of_sources(query, headers)

    def deletes_several(self, method: str, target: str) -> bool:
        """Return whether the keys of a request that is not refused so far are in its body."""
        path, _, query = target.partition("?")
        return method == "POST" and not path[1:].partition("/")[2] and operations_of(query) == {"delete"}

    def refusal_of_deletions(self, body: bytes) -> Refusal | None:
        """Return why a request that deletes several objects is refused; None if all of them are below the prefix."""
        keys = _keys_to_delete(body)
        if keys is None:
            return Refusal("deletes objects, and its list of them cannot be read")
        if outside := [key for key in keys if not self._own(key)]:
            return Refusal(f"deletes {len(outside)} of {len(keys)} keys outside of the prefix", changes=True)
        return None

    def _own(self, key: str) -> bool:
        parts = _decoded(key).replace("\\", "/").split("/")
        # a store may read bytes that are not UTF-8 as dots
        return key.startswith(self.prefix) and not {".", ".."} & set(parts) and "\ufffd" not in key

    def _of_object(self, method: str, key: str, names: frozenset[str]) -> Refusal | None:
        if not self._own(key):
            outside = not posixpath.normpath(_decoded(key)).startswith(self.prefix)
            return Refusal("is about a key outside of the prefix", method in WRITES and outside)
        if unknown := sorted(names - _OF_OBJECTS):
            return Refusal(f"has the parameter {unknown[0]}, which is not about an object")
        return Refusal(_LISTS) if "uploads" in names and method != "POST" else None

    def _of_bucket(self, method: str, query: str, names: frozenset[str]) -> Refusal | None:
        if method == "GET" and names <= _OF_LISTS:
            prefixes = [value for name, value in _parameters(query) if name.lower() == "prefix"]
            return None if prefixes and all(map(self._own, prefixes)) else Refusal(_LISTS)
        if (method, *names) in _OF_ITS_BUCKET:
            return None
        if said := _UNCLEAR.get((method, *names)):
            return Refusal(said)
        return Refusal(f"{'changes' if method in WRITES else 'reads settings of'} the bucket", method in WRITES)

    def _of_sources(self, query: str, headers: Headers) -> Refusal | None:
        named = [*headers, *((name.lower(), value) for name, value in _parameters(query))]
        for name, value in named:
            if name in {_SOURCE, _RENAMED} and not self._own_source(value):
                said = "copies from" if name == _SOURCE else "renames"
                return Refusal(f"{said} an object outside of the prefix", name == _RENAMED)
        return None

    def _own_source(self, value: str) -> bool:
        bucket, _, key = unquote(value.removeprefix("/").partition("?")[0]).partition("/")
        return bucket == self.bucket and self._own(key)


def _parameters(query: str) -> Iterator[tuple[str, str]]:
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        yield unquote_plus(name), unquote_plus(value)


def _decoded(key: str) -> str:
    """Return a key as a store reads it that decodes once more than others."""
    for _ in range(_DECODINGS):
        further = unquote(key)
        if further == key:
            break
        key = further
    return key


def _keys_to_delete(body: bytes) -> list[str] | None:
    """Return the keys in a request that deletes several objects; None if stores could read it in different ways."""
    try:
        text = body.decode().removeprefix("\ufeff").lstrip()
        if text.startswith("<?xml"):
            declaration, _, text = text.partition("?>")
            if "encoding" in declaration.lower() and "utf-8" not in declaration.lower():
                return None
        # comments, sections, entities of one's own and instructions
        if "<!" in text or "<?" in text:
            return None
        root = ET.fromstring(text)  # noqa: S314 -- no document type, so no entities
    except (UnicodeDecodeError, ET.ParseError):
        return None
    keys: list[str] = []
    for child in root:
        match _local(child), [(_local(part), part) for part in child]:
            case "Quiet", []:
                pass
            case "Object", parts if _is_deletion([name for name, _ in parts]) and not any(map(len, child)):
                keys += [part.text or "" for name, part in parts if name == "Key"]
            case _:
                return None
    return keys if _local(root) == "Delete" else None


def _is_deletion(names: list[str]) -> bool:
    return names.count("Key") == 1 and _OF_DELETIONS.issuperset(names)


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]
