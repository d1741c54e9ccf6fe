"""The journal of the store's proxy, and the faults that wait for their requests."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.errors import HarnessError
from harness.ingest.store_requests import OF_DOWNLOADS, Fault, StoreRequest, target_of

if TYPE_CHECKING:
    import h11

    from harness.ingest.store_bounds import Refusal
    from harness.ingest.store_requests import Ending, Side

#: a pipeline that asks without a pause, for several minutes
_MOST_REQUESTS = 200_000


class Injected:
    """A fault, and how many requests it still meets; None: all until it is healed."""

    def __init__(self, fault: Fault) -> None:
        self.fault, self.left = fault, fault.first

    def meets(self, request: StoreRequest) -> bool:
        fault = self.fault
        return (
            (self.left is None or self.left > 0)
            and fault.method in {None, request.method}
            and fault.key in {None, request.key}
            and fault.side in {None, request.side}
            and (fault.kind not in OF_DOWNLOADS or (request.method == "GET" and bool(request.key)))
        )


class Faults:
    """The faults of a proxy; any thread may add and heal them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._injected: list[Injected] = []

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._injected.append(Injected(fault))

    def heal(self) -> None:
        with self._lock:
            self._injected.clear()

    def take(self, request: StoreRequest) -> Injected | None:
        """Return the first fault that meets a request, and count it."""
        with self._lock:
            for injected in self._injected:
                if injected.meets(request):
                    if injected.left is not None:
                        injected.left -= 1
                    return injected
        return None

    def give_back(self, injected: Injected) -> None:
        """Count a request as not met: its response had nothing to change."""
        with self._lock:
            if injected.left is not None:
                injected.left += 1


class Entry:
    """One request while it is served; its numbers grow."""

    def __init__(self, request: StoreRequest, faults: Faults) -> None:
        self._request, self._faults = request, faults
        self._injected = faults.take(request) if request.method else None
        self._ended_at: float | None = None
        self.method, self.bucket, self.key = request.method, request.bucket, request.key
        self.status = self.received = self.sent = 0
        self.sha256 = ""
        self.ending: Ending = "open"

    @property
    def fault(self) -> Fault | None:
        return self._injected.fault if self._injected else None

    def spare(self) -> None:
        """Take the fault back: the response has nothing that it could change."""
        if self._injected:
            self._faults.give_back(self._injected)
            self._injected = None

    def refuse(self, refusal: Refusal) -> None:
        """Note that the harness refuses the request: it meets no fault then."""
        self.spare()
        self._request = replace(self._request, refused=refusal.what, changes_others=refusal.changes)

    def end(self, ending: Ending) -> None:
        """End the request; only the first call counts."""
        if self._ended_at is None:
            self.ending, self._ended_at = ending, time.monotonic()

    def seen(self) -> StoreRequest:
        """Return the request as it is now."""
        return replace(
            self._request,
            seconds=(self._ended_at or time.monotonic()) - self._request.at,
            status=self.status,
            received=self.received,
            sent=self.sent,
            fault=self.fault.kind if self.fault else "",
            sha256=self.sha256 if self.ending == "complete" else "",
            ending=self.ending,
        )


class StoreJournal:
    """All requests, in the order of their heads. One thread writes and reads it."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._entries: list[Entry] = []
        self._left_out = 0

    def begin(self, side: Side, request: h11.Request) -> Entry:
        """Record a request whose head is complete, and choose its fault."""
        target = target_of(request.target.decode("latin-1"))
        headers = {name: value.decode("latin-1") for name, value in request.headers}
        return self._add(
            StoreRequest(
                at=time.monotonic(),
                side=side,
                method=request.method.decode("latin-1"),
                bucket=target.bucket,
                key=target.key,
                operation=target.operation,
                signed="header" if b"authorization" in headers else "query" if target.signed_query else "",
                range=headers.get(b"range", ""),
            )
        )

    def garbage(self, side: Side) -> Entry:
        """Record bytes that are not HTTP."""
        return self._add(StoreRequest(at=time.monotonic(), side=side))

    def requests(self) -> tuple[StoreRequest, ...]:
        """Return the requests until now. :raises HarnessError: when some are missing."""
        if self._left_out:
            raise HarnessError(
                f"the journal of the object store is incomplete: it has room for {_MOST_REQUESTS} requests, "
                f"and {self._left_out} more came",
                hint="let the pipeline wait between two attempts",
            )
        return tuple(entry.seen() for entry in self._entries)

    def _add(self, request: StoreRequest) -> Entry:
        entry = Entry(request, self._faults)
        if len(self._entries) < _MOST_REQUESTS:
            self._entries.append(entry)
        else:
            self._left_out += 1
        return entry
