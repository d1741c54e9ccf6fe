"""What is read from a file while it is downloaded: its checksum, its size, and the beginning of its text."""

from __future__ import annotations

import base64
import codecs
import hashlib
import re
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

#: text that is kept of a file, in bytes of the file
MOST_TEXT = 256 * 1024
#: Python also has codecs that decode no text, such as `zip`, which inflates
_CHARSETS = frozenset({"utf-8", "us-ascii", "iso-8859-1", "iso-8859-15", "latin-1", "windows-1252"})
_CHARSET = re.compile(r"charset=([a-z0-9._-]+)")
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')


class CorruptedError(Exception):
    """The bytes that arrived are others than the object store holds."""


class Content(Struct, frozen=True, kw_only=True):
    """The result of a download."""

    #: hexadecimal
    sha256: str
    size: int
    #: the beginning of its text; None for other files
    text: str | None


class ContentReader:
    """Reads a file part by part."""

    def __init__(self, content_type: str) -> None:
        self._content_type = content_type
        self._sha256 = hashlib.sha256()
        # some stores name an object's MD5 as its ETag; it protects from a faulty network and from nobody else
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._size = 0
        self._beginning = bytearray()
        self._is_text = content_type.lower().startswith("text/")

    def add(self, part: bytes) -> None:
        self._sha256.update(part)
        self._md5.update(part)
        self._size += len(part)
        if self._is_text and len(self._beginning) < MOST_TEXT:
            self._beginning += part[: MOST_TEXT - len(self._beginning)]

    def finish(self, headers: Mapping[str, str]) -> Content:
        """Return what was read.

        :param headers: of the answer, with names in lower case.
        :raises CorruptedError: when size or a checksum differs from what the store declares.
        """
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) != self._size:
            raise CorruptedError(f"{self._size} bytes arrived, expected {declared}")
        # an ETag of several parts, or with a key of KMS, is not an MD5
        etag = _MD5.fullmatch(headers.get("etag", ""))
        if (
            etag
            and not headers.get("x-amz-server-side-encryption", "").startswith("aws:")
            and (etag[1] != self._md5.hexdigest())
        ):
            raise CorruptedError("the MD5 of the bytes that arrived differs from the ETag of the object")
        checksum = headers.get("x-amz-checksum-sha256", "")
        if checksum and "-" not in checksum and checksum != base64.b64encode(self._sha256.digest()).decode():
            raise CorruptedError("the SHA-256 of the bytes that arrived differs from that of the object")
        return Content(sha256=self._sha256.hexdigest(), size=self._size, text=self._text() if self._is_text else None)

    def _text(self) -> str:
        named = _CHARSET.search(self._content_type.lower())
        charset = named[1] if named and named[1] in _CHARSETS else "utf-8"
        decoder = codecs.getincrementaldecoder(charset)("replace")
        # the last character may continue after the beginning that is kept
        text = decoder.decode(bytes(self._beginning), final=self._size == len(self._beginning))
        # PostgreSQL cannot store NUL or an unpaired surrogate
        return text.replace("\0", "").encode("utf-8", "replace").decode()
