"""SHA-256 of uploads: what a request declares about its body, and what the body is."""

from __future__ import annotations

import base64
import binascii
import re
from hashlib import sha256
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.ingest.store_requests import BAD_DIGEST, INCOMPLETE_BODY, S3Error, content_mismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_CHECKSUM = "x-amz-checksum-sha256"
#: the longest line of a chunk or a trailer
_LONGEST_LINE = 8192
_LONGEST_TRAILER = 16_384


class Declared(Struct, frozen=True, kw_only=True):
    """What a request declares about its body."""

    #: `x-amz-content-sha256`, lower case, when it is a digest
    content: str = ""
    #: `x-amz-checksum-sha256` of an upload, base64
    checksum: str = ""
    #: the checksum follows the body
    in_trailer: bool = False
    #: the body is in chunks with signatures of their own
    is_aws_chunked: bool = False

    @property
    def is_checkable(self) -> bool:
        """Whether the body can contradict its request, so that the store must not get it unchecked."""
        return bool(self.content or self.checksum or self.in_trailer)

    @classmethod
    def of(cls, method: str, headers: Mapping[str, str]) -> Declared:
        """Read the headers of a request; their names are in lower case.

        A POST declares the checksum of an object that earlier requests uploaded in parts, so it says nothing about its
        own body.
        """
        content = headers.get("x-amz-content-sha256", "").strip()
        is_upload = method == "PUT"
        return cls(
            content=content.lower() if _DIGEST.fullmatch(content) else "",
            checksum=headers.get(_CHECKSUM, "").strip() if is_upload else "",
            in_trailer=is_upload and _CHECKSUM in headers.get("x-amz-trailer", "").lower(),
            is_aws_chunked=content.startswith("STREAMING-"),
        )


class BodyDigest:
    """The SHA-256 of a body that arrives in pieces, of its content where it is in AWS's chunks."""

    def __init__(self, declared: Declared) -> None:
        self._declared = declared
        self._hash = sha256()
        self._chunks = AwsChunks() if declared.is_aws_chunked else None

    def update(self, data: bytes) -> None:
        self._hash.update(self._chunks.feed(data) if self._chunks else data)

    @property
    def hexadecimal(self) -> str:
        return self._hash.hexdigest()

    def refusal(self) -> S3Error | None:
        """Compare the complete body with what its request declares, and return S3's error; None when they agree."""
        if self._chunks and not self._chunks.is_complete:
            return INCOMPLETE_BODY
        if self._declared.content and self._declared.content != self.hexadecimal:
            return content_mismatch(self._declared.content, self.hexadecimal)
        checksums = [self._declared.checksum] if self._declared.checksum else []
        if self._declared.in_trailer:
            checksums.append((self._chunks.trailer if self._chunks else {}).get(_CHECKSUM, ""))
        if any(_decoded(checksum) != self._hash.digest() for checksum in checksums):
            return BAD_DIGEST
        return None


class AwsChunks:
    """Decodes `aws-chunked`: lines `SIZE;chunk-signature=…`, each before its content, and a trailer after size 0."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        #: bytes of the current chunk that are missing, with its line end; None: a line follows
        self._missing: int | None = None
        self._in_trailer = self._is_broken = False
        self._trailer_bytes = 0
        self.trailer: dict[str, str] = {}
        self.is_complete = False

    def feed(self, data: bytes) -> bytes:
        """Take the next piece, and return the content in it. An invalid body never becomes complete."""
        self._buffer += data
        out = bytearray()
        while self._buffer and not self.is_complete and not self._is_broken:
            if self._missing is not None:
                piece = bytes(self._buffer[: self._missing])
                del self._buffer[: len(piece)]
                # the last two bytes of a chunk are its line end
                out += piece[: max(0, self._missing - 2)]
                self._missing -= len(piece)
                if self._missing:
                    break
                self._missing = None
                continue
            length = self._buffer.find(b"\r\n")
            if length < 0:
                self._is_broken = len(self._buffer) > _LONGEST_LINE
                break
            line = bytes(self._buffer[:length])
            del self._buffer[: length + 2]
            self._read_line(line)
        if self.is_complete or self._is_broken:
            self._buffer.clear()
        return bytes(out)

    def _read_line(self, line: bytes) -> None:
        if self._in_trailer:
            self._trailer_bytes += len(line)
            self._is_broken = self._trailer_bytes > _LONGEST_TRAILER
            self.is_complete = not line
            name, _, value = line.decode("latin-1").partition(":")
            if name:
                self.trailer[name.strip().lower()] = value.strip()
            return
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            size = -1
        self._is_broken = size < 0
        self._in_trailer = size == 0
        self._missing = size + 2 if size > 0 else None


def _decoded(checksum: str) -> bytes:
    try:
        return base64.b64decode(checksum, validate=True)
    except (binascii.Error, ValueError):
        return b""
