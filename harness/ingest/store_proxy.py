"""A proxy in front of an object store: it records every request, checks SHA-256, and fails where it has to.

It has two listeners on loopback: clients use the public one, and the programs of a pipeline the internal one. The Host
header passes unchanged, as everything that a signature covers does, so the store checks the signatures of clients.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any, Self, TypeVar

from harness.engine.protocol import Address
from harness.errors import HarnessError
from harness.ingest.store_exchange import Exchange
from harness.ingest.store_journal import Faults, StoreJournal
from harness.ingest.store_upstream import Limits, Route

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine

    from harness.ingest.store_bounds import Within
    from harness.ingest.store_requests import Fault, Side, StoreRequest

T = TypeVar("T")

_ANSWER_S = 10.0
#: iterations of the event loop in which a request that has just been answered reaches its end
_SETTLING = 4


class StoreProxy:
    """A reverse proxy in a thread of its own. All methods may be called from any thread."""

    def __init__(
        self,
        upstream: Address | Callable[[], Address],
        *,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
        within: Within | None = None,
    ) -> None:
        """Create a proxy; it listens inside its context.

        :param upstream: the store. A function is called for each request, for a store whose address changes.
        :param tls: of the connections to the store; None for plain HTTP.
        :param limits: of connections, bodies and waits.
        :param within: the part of the store that requests may reach; None for everything.
        """
        address = (lambda: upstream) if isinstance(upstream, Address) else upstream
        self._route = Route(address=address, tls=tls, limits=limits or Limits(), within=within)
        self._faults = Faults()
        self._journal = StoreJournal(self._faults)
        self._sockets: dict[Side, socket.socket] = {}
        self._exchanges: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="store-proxy", daemon=True)
        self._seen: tuple[StoreRequest, ...] = ()

    @property
    def public(self) -> Address:
        """The address for clients."""
        return self._address("public")

    @property
    def internal(self) -> Address:
        """The address for the programs of the pipeline."""
        return self._address("internal")

    def requests(self) -> tuple[StoreRequest, ...]:
        """Return all requests so far, in the order of their heads; also after the proxy is closed.

        A request whose response the client has read completely is complete here, too.

        :raises HarnessError: when there were too many to keep.
        """
        if self._thread.is_alive():
            self._seen = self._call(self._settled())
        return self._seen

    def fail(self, fault: Fault) -> None:
        """Inject a fault; of several that match a request, the first one is used."""
        self._faults.add(fault)

    def heal(self) -> None:
        """Remove all faults. Requests that have met one keep it."""
        self._faults.heal()

    def __enter__(self) -> Self:
        """Start to listen."""
        for side in ("public", "internal"):
            self._sockets[side] = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_exception: object) -> None:
        """End all connections, and stop listening."""
        self._seen = self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_ANSWER_S)

    def _address(self, side: Side) -> Address:
        host, port = self._sockets[side].getsockname()[:2]
        return Address(host, port)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(_ANSWER_S)
        except TimeoutError:
            future.cancel()
            raise HarnessError(f"the proxy of the object store did not answer within {_ANSWER_S:g} s") from None

    # --- the loop: everything below runs in one thread -----------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _listen(self) -> None:
        self._servers = [
            await asyncio.start_server(self._admission(side), sock=opened) for side, opened in self._sockets.items()
        ]

    def _admission(self, side: Side) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def admit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(self._exchanges) >= self._route.limits.connections:
                writer.transport.abort()
                return
            exchange = self._loop.create_task(Exchange(self._route, self._journal, side, reader, writer).run())
            self._exchanges.add(exchange)
            # also one that is cancelled before it begins
            exchange.add_done_callback(lambda _: writer.close())
            exchange.add_done_callback(self._exchanges.discard)

        return admit

    async def _settled(self) -> tuple[StoreRequest, ...]:
        for _ in range(_SETTLING):
            await asyncio.sleep(0)
        return self._journal.requests()

    async def _close(self) -> tuple[StoreRequest, ...]:
        for server in self._servers:
            server.close()
        exchanges = tuple(self._exchanges)
        for exchange in exchanges:
            exchange.cancel()
        if exchanges:
            await asyncio.wait(exchanges, timeout=_ANSWER_S / 2)
        return await self._settled()
