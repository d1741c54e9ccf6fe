"""One connection of a client to the store's proxy: its requests, one after another, and their responses.

A body passes in pieces. Only an upload that declares its SHA-256 is kept first, in a temporary file, so that the store
never gets a body that contradicts its request. Each request has a connection of its own to the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import struct
import tempfile
import time
from typing import TYPE_CHECKING

import h11

from harness.ingest.digests import BodyDigest, Declared
from harness.ingest.store_bounds import MOST_TO_DELETE_BYTES
from harness.ingest.store_changes import Change
from harness.ingest.store_requests import ANSWERS, NOT_ALLOWED, OUTSIDE, TOO_LARGE, S3Error
from harness.ingest.store_upstream import (
    PIECE_BYTES,
    GoneError,
    NoStoreError,
    next_piece,
    onward,
    open_store,
    pieces,
    upload,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from harness.ingest.store_journal import Entry, StoreJournal
    from harness.ingest.store_requests import Side
    from harness.ingest.store_upstream import Route

_IN_MEMORY_BYTES = 1 << 20
_RESET = struct.pack("ii", 1, 0)
#: of a listener; a pipeline may write the second one
_NAMES = ("127.0.0.1", "localhost")


class _ResetError(Exception):
    """The client's connection is reset."""


class Exchange:
    """The requests of one connection."""

    def __init__(
        self,
        route: Route,
        journal: StoreJournal,
        side: Side,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._route, self._limits = route, route.limits
        self._journal, self._side = journal, side
        self._reader, self._writer = reader, writer
        self._client = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head_bytes)
        # drain() then waits until the kernel has everything
        writer.transport.set_write_buffer_limits(high=0)

    async def run(self) -> None:
        """Answer requests until the connection ends; the caller closes it."""
        try:
            while await self._serve():
                self._client.start_next_cycle()
        except _ResetError:
            _reset(self._writer)
        except (GoneError, OSError):
            pass

    async def _serve(self) -> bool:
        """Answer one request, and return whether the connection can have another one."""
        try:
            request = await self._head()
        except h11.RemoteProtocolError as error:
            entry = self._journal.garbage(self._side)
            refusal = S3Error(error.error_status_hint, "InvalidRequest", "The request is invalid.")
            try:
                with contextlib.suppress(h11.LocalProtocolError):
                    await self._answer(entry, refusal)
            finally:
                entry.end("invalid")
            return False
        if request is None:
            return False
        entry = self._journal.begin(self._side, request)
        try:
            await self._exchange(request, entry)
        except _ResetError:
            entry.end("cut")
            raise
        except (GoneError, OSError):
            entry.end("client-gone")
            raise
        except NoStoreError:
            entry.end("no-store")
            raise _ResetError from None
        except h11.ProtocolError:
            # a body that is not HTTP
            entry.end("invalid")
            return False
        except BaseException:
            # the proxy ends, or has a mistake of its own: no request stays open
            entry.end("closed")
            raise
        return self._client.our_state is h11.DONE and self._client.their_state is h11.DONE

    async def _exchange(self, request: h11.Request, entry: Entry) -> None:
        if error := self._refusal(request, entry):
            await self._refuse(entry, error)
            return
        fault = entry.fault
        if fault and fault.kind == "slow":
            await asyncio.sleep(fault.delay_s)
            if self._reader.at_eof() or self._reader.exception():
                # it did not wait: a response to it would be no download
                raise GoneError
        elif fault and fault.kind == "down":
            raise _ResetError
        headers = dict(_pairs(request))
        announced = int(headers.get("content-length", "0"))
        if announced > self._limits.body_bytes:
            await self._refuse(entry, TOO_LARGE, reads_body=False)
            return
        has_body = announced > 0 or "transfer-encoding" in headers
        if fault and fault.kind == "cut" and has_body:
            await self._continue()
            async for data in self._body():
                entry.received += len(data)
                if entry.received * 2 >= announced:
                    break
            raise _ResetError
        declared = Declared.of(entry.method, headers)
        if self._deletes_several(request):
            await self._delete_several(request, entry, declared)
            return
        if not declared.is_checkable:
            await self._forward(request, entry, self._counted(entry, BodyDigest(declared)))
            return
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as kept:
            digest = BodyDigest(declared)
            await self._continue()
            async for data in self._counted(entry, digest):
                kept.write(data)
            if refusal := digest.refusal():
                await self._answer(entry, refusal)
                return
            kept.seek(0)
            await self._forward(request, entry, pieces(kept), expects=False)

    def _refusal(self, request: h11.Request, entry: Entry) -> S3Error | None:
        """Return the answer to a request that does not go on to the store; None for the others."""
        if within := self._route.within:
            port = self._writer.get_extra_info("sockname")[1]
            hosts = frozenset(f"{name}:{port}" for name in _NAMES)
            if refusal := within.refusal(entry.method, _target(request), _pairs(request), hosts):
                entry.refuse(refusal)
                return OUTSIDE
        if entry.fault and entry.fault.kind in ANSWERS:
            return ANSWERS[entry.fault.kind]
        return NOT_ALLOWED if entry.method == "CONNECT" else None

    def _deletes_several(self, request: h11.Request) -> bool:
        within = self._route.within
        return bool(within and within.deletes_several(request.method.decode("latin-1"), _target(request)))

    async def _delete_several(self, request: h11.Request, entry: Entry, declared: Declared) -> None:
        """Read the keys first: a store never sees a request that has one of others."""
        await self._continue()
        digest, kept = BodyDigest(declared), bytearray()
        async for data in self._counted(entry, digest):
            if len(kept) <= MOST_TO_DELETE_BYTES:
                kept += data
        if len(kept) > MOST_TO_DELETE_BYTES:
            await self._answer(entry, TOO_LARGE)
        elif refusal := self._route.within and self._route.within.refusal_of_deletions(bytes(kept)):
            entry.refuse(refusal)
            await self._answer(entry, OUTSIDE)
        elif error := digest.refusal():
            await self._answer(entry, error)
        else:
            await self._forward(request, entry, pieces(io.BytesIO(kept)), expects=False)

    async def _head(self) -> h11.Request | None:
        """Return the next request; None when the connection ends before it, or idles too long."""
        limit_s = self._limits.idle_s
        begun_until: float | None = None
        while True:
            event = self._client.next_event()
            if isinstance(event, h11.Request):
                return event
            if event is not h11.NEED_DATA:
                return None
            if self._client.trailing_data[0]:
                begun_until = begun_until or time.monotonic() + self._limits.head_s
                limit_s = max(0.0, begun_until - time.monotonic())
            self._client.receive_data(await self._read(limit_s))

    async def _read(self, limit_s: float) -> bytes:
        try:
            async with asyncio.timeout(limit_s):
                return await self._reader.read(PIECE_BYTES)
        except TimeoutError:
            raise GoneError from None

    async def _body(self) -> AsyncIterator[bytes]:
        """Yield the body of the current request in pieces.

        :raises h11.RemoteProtocolError: when it ends early, or is larger than the limit.
        """
        size = 0
        while True:
            event = self._client.next_event()
            if event is h11.NEED_DATA:
                piece = await self._read(self._limits.piece_s)
                if not piece:
                    raise GoneError
                self._client.receive_data(piece)
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > self._limits.body_bytes:
                    raise h11.RemoteProtocolError("the body is too large")
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return
            else:
                raise GoneError

    async def _counted(self, entry: Entry, digest: BodyDigest) -> AsyncIterator[bytes]:
        async for data in self._body():
            entry.received += len(data)
            digest.update(data)
            yield data
        if entry.received:
            entry.sha256 = digest.hexadecimal

    async def _continue(self) -> None:
        """Let a client send its body that waits for permission."""
        if self._client.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))

    async def _send(self, *events: h11.Event) -> None:
        self._writer.write(b"".join(self._client.send(event) or b"" for event in events))
        try:
            async with asyncio.timeout(self._limits.piece_s):
                await self._writer.drain()
        except (TimeoutError, OSError):
            raise GoneError from None

    async def _refuse(self, entry: Entry, error: S3Error, *, reads_body: bool = True) -> None:
        """Read the body, then answer with an error. A client that waits for permission does not send the body."""
        if reads_body and not self._client.they_are_waiting_for_100_continue:
            async for data in self._body():
                entry.received += len(data)
        await self._answer(entry, error)

    async def _answer(self, entry: Entry, error: S3Error) -> None:
        body = error.body(f"/{entry.bucket}/{entry.key}")
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
        events: list[h11.Event] = [h11.Response(status_code=error.status, headers=headers)]
        if entry.method != "HEAD":
            events.append(h11.Data(data=body))
            entry.sent = len(body)
        entry.status = error.status
        await self._send(*events, h11.EndOfMessage())
        entry.end("complete")

    async def _forward(
        self, request: h11.Request, entry: Entry, body: AsyncIterator[bytes], *, expects: bool = True
    ) -> None:
        """Send the request to the store, and its response to the client."""
        head = onward(request, expects=expects)
        reader, writer = await open_store(self._route)
        server = h11.Connection(h11.CLIENT, max_incomplete_event_size=self._limits.head_bytes)
        sending = asyncio.create_task(upload(server, writer, head, body, self._limits.piece_s))
        try:
            await self._respond(server, reader, entry, sending)
        except h11.RemoteProtocolError as error:
            # the client's body is invalid, or the store's response is
            if sending.done() and not sending.cancelled() and isinstance(sending.exception(), h11.RemoteProtocolError):
                raise
            raise NoStoreError from error
        finally:
            # nothing is left to send, or the store does not read it
            writer.transport.abort()
            sending.cancel()
            await asyncio.wait([sending])
            if not sending.cancelled():
                sending.exception()

    async def _respond(
        self, server: h11.Connection, reader: asyncio.StreamReader, entry: Entry, sending: asyncio.Task[None]
    ) -> None:
        """Forward the response, with the fault of the request."""
        change = Change(entry)
        while True:
            events: list[h11.Event] = []
            while isinstance(event := server.next_event(), h11.Event):
                if isinstance(event, h11.ConnectionClosed):
                    raise NoStoreError
                events.append(event)
                if isinstance(event, h11.EndOfMessage):
                    break
            ends, passed = change.apply(events)
            if passed:
                self._require_client(entry)
                await self._send(*passed)
            if ends and change.ending == "complete":
                entry.end("complete")
                return
            if ends and change.ending == "cut-off":
                entry.end("cut")
                raise GoneError
            if ends:
                raise _ResetError
            server.receive_data(await next_piece(reader, sending, self._limits.piece_s))

    def _require_client(self, entry: Entry) -> None:
        """Require that the client still waits: the kernel takes bytes for one that has closed its connection, too."""
        if not (self._reader.at_eof() or self._reader.exception()):
            return
        if self._client.our_state is h11.SEND_RESPONSE:
            entry.status = entry.sent = 0
        raise GoneError


def _target(request: h11.Request) -> str:
    return request.target.decode("latin-1")


def _pairs(request: h11.Request) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]


def _reset(writer: asyncio.StreamWriter) -> None:
    opened: socket.socket = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
