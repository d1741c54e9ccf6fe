"""What readers of a link share: whole messages however they arrive, and sessions that do not encrypt."""

from __future__ import annotations

import struct

from harness.wire.link import ResetConnection

#: the type byte of a message and its length
HEADER_BYTES = 5
#: SSLRequest and GSSENCRequest (https://www.postgresql.org/docs/current/protocol-message-formats.html)
ENCRYPTION = frozenset({80877103, 80877104})
_REQUESTS = {struct.pack("!ii", 8, code) for code in ENCRYPTION}


class NotReadableError(Exception):
    """Invalid messages: another protocol, or damaged bytes."""


def taken(buffer: bytearray, header: int = HEADER_BYTES, at: int = 1, longest: int = 0x7FFF_FFFF) -> bytes:
    """Remove the first message from a buffer, and return it; nothing while it is incomplete.

    :param header: the length of what every message has.
    :param at: where its length is.
    :param longest: the most bytes that a valid message has.
    :raises NotReadableError: when it is invalid.
    """
    if len(buffer) < header:
        return b""
    length = struct.unpack_from("!i", buffer, at)[0] + at
    if not header <= length <= longest:
        raise NotReadableError
    if len(buffer) < length:
        return b""
    message = bytes(buffer[:length])
    del buffer[:length]
    return message


class PlainReader:
    """Refuses encryption, so that it can read the server's messages, and forwards whole ones."""

    def __init__(self) -> None:
        self._logs_in = False
        self._answers = bytearray()

    def requests(self, data: bytes) -> tuple[bytes, bytes]:
        """Refuse encryption, and forward everything else."""
        if not self._logs_in and data in _REQUESTS:
            return b"", b"N"
        self._logs_in = True
        return data, b""

    def answers(self, data: bytes) -> bytes:
        """Return the complete messages that pass. A server that sends anything else is cut off."""
        self._answers += data
        out = bytearray()
        try:
            while message := taken(self._answers):
                if self.passes(message):
                    out += message
        except NotReadableError:
            raise ResetConnection from None
        return bytes(out)

    def passes(self, message: bytes) -> bool:
        """Return whether a message of the server goes on to the client; each one does by default."""
        del message
        return True
