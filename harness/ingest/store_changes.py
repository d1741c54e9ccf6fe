"""Responses of an object store on their way to a client, with the fault that changes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h11

from harness.ingest.digests import BodyDigest, Declared
from harness.ingest.store_requests import OF_DOWNLOADS

if TYPE_CHECKING:
    from harness.ingest.store_journal import Entry

#: headers that belong to one connection, so they do not go on
OF_CONNECTION = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade"})
#: OK, and Partial Content
_WITH_CONTENT = {200, 206}


class Change:
    """What a fault makes of a response."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._kind = entry.fault.kind if entry.fault else ""
        #: how the response ends
        self.ending = {"cut": "reset", "partial": "cut-off"}.get(self._kind, "complete")
        #: bytes of the body that may pass; None: all
        self._left: int | None = None
        self._digest = BodyDigest(Declared())

    def apply(self, events: list[h11.Event]) -> tuple[bool, list[h11.Event]]:
        """Return whether the response ends with these events, and the events that go to the client."""
        passed: list[h11.Event] = []
        for event in events:
            if isinstance(event, h11.Response):
                self._begin(event)
                if self._left == 0 and self.ending == "reset":
                    # the client gets a reset, and no status
                    self._entry.status = 0
                    return True, passed
                headers = [pair for pair in event.headers.raw_items() if pair[0].lower() not in OF_CONNECTION]
                passed.append(h11.Response(status_code=event.status_code, headers=headers, reason=event.reason))
            elif isinstance(event, h11.Data):
                data = self._body(bytes(event.data))
                if data:
                    passed.append(h11.Data(data=data))
                if self._left is not None and self._left <= 0:
                    return True, passed
            elif isinstance(event, h11.EndOfMessage):
                if self._left is None:
                    self._complete()
                    passed.append(event)
                return True, passed
            elif isinstance(event, h11.InformationalResponse) and event.status_code == 100:  # noqa: PLR2004 -- Continue
                passed.append(event)
        return False, passed

    def _begin(self, response: h11.Response) -> None:
        self._entry.status = response.status_code
        length = int(dict(response.headers).get(b"content-length", b"2"))
        has_body = self._entry.method != "HEAD" and length > 0
        if self._kind in OF_DOWNLOADS and not (has_body and response.status_code in _WITH_CONTENT):
            self._entry.spare()
            self._kind, self.ending = "", "complete"
        if self.ending != "complete":
            self._left = length // 2 if has_body else 0

    def _body(self, data: bytes) -> bytes:
        if self._kind == "corrupt" and not self._entry.sent:
            data = bytes([data[0] ^ 1]) + data[1:]
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        self._entry.sent += len(data)
        self._digest.update(data)
        return data

    def _complete(self) -> None:
        if self._entry.method == "GET":
            self._entry.sha256 = self._digest.hexadecimal
