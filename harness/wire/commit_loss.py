"""Connections that are lost at COMMIT: before the server gets it, or after it has committed and before it is heard.

A client cannot distinguish the two: both outcomes are unknown to it. The first write is certainly not there, the second
certainly is.
"""

from __future__ import annotations

import contextlib
import re
import struct
from threading import Lock
from typing import TYPE_CHECKING, Literal

from harness.wire.link import ResetConnection
from harness.wire.readers import ENCRYPTION, HEADER_BYTES, NotReadableError, taken

if TYPE_CHECKING:
    from collections.abc import Iterator

#: `request`: the server does not get the COMMIT; `answer`: it commits, and the client does not get the answer
Lost = Literal["request", "answer"]

_COMMIT = re.compile(rb"(?:^|;)\s*(?:COMMIT|END)\b", re.IGNORECASE)
_STARTUP_BYTES = 8
#: PostgreSQL accepts no longer one (MAX_STARTUP_PACKET_LENGTH)
_LONGEST_STARTUP = 10_000
_VERSION_3 = 3
_TLS_HELLO = 0x16


class CommitLoss:
    """Decides which commits of the clients of a link are lost; threads share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._armed: Lost | None = None
        self._left = 0
        #: commits that were lost
        self.lost = 0

    def arm(self, lost: Lost, most: int) -> None:
        """Lose the next commits.

        :param most: the number of commits.
        """
        with self._lock:
            self._armed, self._left = lost, most

    def disarm(self) -> None:
        """Lose no more commits."""
        with self._lock:
            self._armed, self._left = None, 0

    def reader(self) -> CommitReader:
        """Return the reader of a new connection."""
        return CommitReader(self)

    def chooses(self, lost: Lost) -> bool:
        """Return whether the commit that a connection is about to send is to be lost in this way."""
        with self._lock:
            chosen = self._armed == lost and self._left > 0
            if chosen:
                self._left -= 1
                self.lost += lost == "request"
            return chosen

    def answered(self, *, committed: bool) -> None:
        """Count an answer that is lost. If the transaction did not commit, another commit is chosen in its place."""
        with self._lock:
            if committed:
                self.lost += 1
            elif self._armed == "answer":
                self._left += 1


class CommitReader:
    """Reads the messages of one connection. What is encrypted passes unread."""

    def __init__(self, loss: CommitLoss) -> None:
        self._loss = loss
        self._requests, self._answers = bytearray(), bytearray()
        self._started = self._encryption_asked = self._opaque = self._loses_answer = False
        #: prepared statements and portals that commit, by name
        self._statements: set[bytes] = set()
        self._portals: set[bytes] = set()

    def requests(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the complete messages to the server; nothing goes back."""
        self._requests += data
        out = bytearray()
        with self._reading():
            while not self._opaque and (message := self._next_request()):
                if self._started and self._commits(message):
                    if self._loss.chooses("request"):
                        raise ResetConnection
                    self._loses_answer = self._loses_answer or self._loss.chooses("answer")
                self._started = self._started or self._begins_session(message)
                out += message
        if self._opaque:
            out += self._requests
            self._requests.clear()
        return bytes(out), b""

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Let everything from now on pass unread once a message is invalid."""
        try:
            yield
        except NotReadableError:
            self._opaque = True

    def _next_request(self) -> bytes:
        buffer = self._requests
        if self._started:
            return taken(buffer)
        if buffer[:1] and buffer[0] == _TLS_HELLO:
            self._opaque = True
            return b""
        return taken(buffer, _STARTUP_BYTES, at=0, longest=_LONGEST_STARTUP)

    def _begins_session(self, message: bytes) -> bool:
        code = struct.unpack_from("!i", message, 4)[0]
        if code in ENCRYPTION:
            self._encryption_asked = True
            return False
        if code >> 16 == _VERSION_3:
            return True
        self._opaque = True  # a cancel request
        return False

    def _commits(self, message: bytes) -> bool:
        """Return whether a message executes a COMMIT."""
        kind, body = message[:1], message[HEADER_BYTES:]
        names = [*body.split(b"\0", 2), b"", b""]
        if kind == b"Q":
            return _COMMIT.search(body) is not None
        if kind == b"P":
            (self._statements.add if _COMMIT.search(names[1]) else self._statements.discard)(names[0])
        elif kind == b"B":
            (self._portals.add if names[1] in self._statements else self._portals.discard)(names[0])
        return kind == b"E" and names[0] in self._portals

    def answers(self, data: bytes) -> bytes:
        """Return the complete messages to the client."""
        self._answers += data
        out = bytearray()
        with self._reading():
            while not self._opaque and (message := self._next_answer()):
                if self._loses_answer and message[:1] in {b"C", b"E"}:
                    self._watch_commit(message)
                out += message
        if self._opaque:
            out += self._answers
            self._answers.clear()
        return bytes(out)

    def _next_answer(self) -> bytes:
        if not self._encryption_asked:
            return taken(self._answers)
        # one byte, unless the server refuses the whole connection with an error message
        answer = bytes(self._answers[:1])
        if answer:
            self._encryption_asked = False
            if answer == b"E":
                return self._next_answer()
            self._opaque = answer in {b"S", b"G"}
            del self._answers[:1]
        return answer

    def _watch_commit(self, message: bytes) -> None:
        tag = message[HEADER_BYTES:]
        if message[:1] == b"C" and tag.startswith(b"COMMIT"):
            self._loss.answered(committed=True)
            raise ResetConnection
        if message[:1] == b"E" or tag.startswith(b"ROLLBACK"):
            self._loses_answer = False
            self._loss.answered(committed=False)
