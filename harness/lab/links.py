"""The links of a lab: proxies whose connections faults cut, hold back and slow down.

One is between the outermost pooler and PostgreSQL, as a service of its own; another is between the application and the
outermost service, inside the process of the harness.
"""

from __future__ import annotations

import contextlib
import secrets
from shlex import join, quote
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness import places
from harness.engine.protocol import Address, ServicePlace, ServiceSpec, Wanted
from harness.engine.recipes import load_product
from harness.errors import ServiceFailedError
from harness.wire.commit_loss import CommitLoss
from harness.wire.link import Counts, Link, ask, command_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.database import Endpoint
    from harness.engine.protocol import Service

LINK = Wanted(product="link", version="3.13")
#: the key of the service in a group
LINK_SERVICE = "link"

_PACKAGE = places.PACKAGE / "wire" / "link"
_PROGRAM = "import sys; from link.service import main; main(sys.argv[1:])"


def new_token() -> str:
    """Return a secret that controls a link."""
    return secrets.token_hex(16)


def link_spec(place: ServicePlace, upstream: Address, token: str) -> ServiceSpec:
    """Return the specification of a link as a service.

    :param upstream: the address of the server.
    :param token: the secret that controls it.
    """
    arguments = ["token", place.listen, str(place.port), upstream.host, str(upstream.port)]
    files = {f"link/{file.name}": file.read_text(encoding="utf-8") for file in sorted(_PACKAGE.glob("*.py"))}
    return ServiceSpec(
        place=place,
        files=files | {"token": token},
        script=f"cd {quote(place.folder)} && exec python3 -u -c {join([_PROGRAM, *arguments])}",
        stop_signal=load_product(LINK.product).stop_signal,
    )


class ServerLink:
    """The link between the pooler and PostgreSQL."""

    def __init__(self, service: Service, token: str) -> None:
        self.service = service
        self._token = token

    def change(self, state: str, *, bytes_per_s: float = 0.0, delay_s: float = 0.0) -> Counts:
        """Change the state, and return it once it has taken effect on every connection.

        :param state: one of :data:`harness.wire.link.STATES`.
        :param bytes_per_s: of a slow link; 0 for unbounded.
        :param delay_s: of a slow link, in each direction.
        :raises ServiceFailedError: when the link does not answer.
        """
        return self._ask(command_for(state, bytes_per_s=bytes_per_s, delay_s=delay_s))

    def counts(self) -> Counts:
        """Return the state and the counters.

        :raises ServiceFailedError: when the link does not answer.
        """
        return self._ask("state")

    def _ask(self, command: str) -> Counts:
        at = self.service.endpoint()
        try:
            return ask((at.host, at.port), self._token, command)
        except (OSError, ValueError) as error:
            raise ServiceFailedError(
                f"the link between the pooler and PostgreSQL does not answer: {error}", where=str(at)
            ) from None


class ApplicationLink:
    """The link between the application and the outermost service."""

    def __init__(self, chain: Callable[[str], Endpoint]) -> None:
        """Start it.

        :param chain: returns the endpoint of the application for a database; a restart may change its address.
        """
        self._chain = chain
        #: commits that are lost
        self.commits = CommitLoss()
        self._link = Link(self._upstream, reader=self.commits.reader)
        self._link.start()

    def _upstream(self) -> tuple[str, int]:
        at = self._chain("postgres")
        return at.host, at.port

    def endpoint(self, dbname: str) -> Endpoint:
        """Return the endpoint that the application connects to, as its own role."""
        host, port = self._link.address
        return replace(self._chain(dbname), host=host, port=port)

    def change(self, state: str, *, bytes_per_s: float = 0.0, delay_s: float = 0.0) -> Counts:
        """Change the state, and return it once it has taken effect on every connection. See :class:`ServerLink`."""
        with self._answering():
            return self._link.change(state, bytes_per_s=bytes_per_s, delay_s=delay_s)

    def counts(self) -> Counts:
        """Return the state and the counters. :raises ServiceFailedError: when the link is closed."""
        with self._answering():
            return self._link.counts()

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ServiceFailedError(f"the link of the application does not answer: {error}") from None

    def close(self) -> None:
        """End all connections, and stop listening."""
        self._link.close()
