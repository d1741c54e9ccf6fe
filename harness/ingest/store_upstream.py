"""The proxy's connections to the object store, one for each request."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

import h11
from msgspec import Struct

from harness.engine.protocol import Address
from harness.errors import HarnessError
from harness.ingest.store_bounds import Within
from harness.ingest.store_changes import OF_CONNECTION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PIECE_BYTES = 65_536
_CONNECT_S = 10.0


class Limits(Struct, frozen=True, kw_only=True):
    """How much a client can use, and how long it can wait."""

    connections: int = 256
    #: S3 allows 8 KiB of headers
    head_bytes: int = 32_768
    body_bytes: int = 1 << 30
    #: for a connection without a request
    idle_s: float = 60.0
    #: for the rest of a head that has begun
    head_s: float = 10.0
    #: between two pieces of a body, in both directions
    piece_s: float = 30.0


class Route(Struct, frozen=True, kw_only=True):
    """The way to the store."""

    #: called for each request
    address: Callable[[], Address]
    #: None for plain HTTP
    tls: ssl.SSLContext | None = None
    limits: Limits = Limits()
    #: None for everything
    within: Within | None = None


class GoneError(Exception):
    """The client closed the connection, or was too slow."""


class NoStoreError(Exception):
    """The store cannot be reached, or ended the response early."""


async def open_store(route: Route) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the store. :raises NoStoreError: when it is unreachable."""
    try:
        address = route.address()
        async with asyncio.timeout(_CONNECT_S):
            return await asyncio.open_connection(address.host, address.port, ssl=route.tls)
    except (OSError, HarnessError):
        raise NoStoreError from None


async def upload(
    server: h11.Connection, writer: asyncio.StreamWriter, head: h11.Request, body: AsyncIterator[bytes], limit_s: float
) -> None:
    """Send a request to the store.

    :param limit_s: for the store to take a piece.
    :raises TimeoutError: when it takes longer.
    """
    writer.write(server.send(head) or b"")
    async for data in body:
        writer.write(server.send(h11.Data(data=data)) or b"")
        async with asyncio.timeout(limit_s):
            await writer.drain()
    writer.write(server.send(h11.EndOfMessage()) or b"")
    async with asyncio.timeout(limit_s):
        await writer.drain()


async def next_piece(reader: asyncio.StreamReader, sending: asyncio.Task[None], limit_s: float) -> bytes:
    """Return the next bytes of the response; an upload that fails ends the wait, except when the store refuses more."""
    reading = asyncio.create_task(reader.read(PIECE_BYTES))
    try:
        while not reading.done():
            if sending.done():
                async with asyncio.timeout(limit_s):
                    await asyncio.wait({reading})
                continue
            await asyncio.wait({reading, sending}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and isinstance(error := sending.exception(), GoneError | h11.ProtocolError):
                raise error
        return reading.result()
    except (OSError, TimeoutError):
        raise NoStoreError from None
    finally:
        reading.cancel()


async def pieces(kept: IO[bytes]) -> AsyncIterator[bytes]:
    while data := kept.read(PIECE_BYTES):
        yield data


def onward(request: h11.Request, *, expects: bool) -> h11.Request:
    """Return the request for the store: everything but what belongs to the client's connection is unchanged."""
    dropped = OF_CONNECTION if expects else {*OF_CONNECTION, b"expect"}
    headers = [(name, value) for name, value in request.headers.raw_items() if name.lower() not in dropped]
    return h11.Request(method=request.method, target=request.target, headers=[*headers, (b"Connection", b"close")])
