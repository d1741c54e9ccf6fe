"""The way to a container: its own address, or the port that Docker publishes."""

from __future__ import annotations

import ipaddress
import socket
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct

from harness.errors import EngineUnavailableError, ServiceFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: a container on this machine answers within this time, unless a firewall drops the packets
_REACH_S = 0.5
LOOPBACK = "127.0.0.1"
#: engine addresses that name a machine; the others are sockets of this machine
_REMOTE = ("tcp", "http", "https", "ssh")
#: environment variables: the host at which published ports are reached, and the engine's address that publishes them
ADDRESS, PUBLISH = "HARNESS_DOCKER_ADDRESS", "HARNESS_DOCKER_PUBLISH"


class NotPublishedError(ServiceFailedError):
    """A container is out of reach, and was started without a published port."""


class Published(Struct, frozen=True, kw_only=True):
    """Where the ports of containers are published, and where this machine reaches them."""

    #: an IP address of the engine's machine
    bind: str = LOOPBACK
    host: str = LOOPBACK


def published_at(address: str, variables: Mapping[str, str], *, is_local: bool) -> Published:
    """Return where ports are published: on loopback, or at the address by which a remote engine is reached.

    :param address: of the engine, such as `tcp://builder:2376`.
    :param variables: of this process: name to value; two of them override the result.
    :param is_local: containers run on this machine's kernel.
    :raises EngineUnavailableError: when the name of the engine's machine cannot be resolved.
    """
    parts = urlsplit(address)
    host = parts.hostname if parts.scheme in _REMOTE and not is_local else ""
    host = variables.get(ADDRESS) or host or LOOPBACK
    if bind := variables.get(PUBLISH):
        try:
            return Published(bind=str(ipaddress.ip_address(bind)), host=host)
        except ValueError:
            raise EngineUnavailableError(
                f"{PUBLISH}: found {bind!r}, expected an IP address of the engine's machine", hint=f"{PUBLISH}=0.0.0.0"
            ) from None
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise EngineUnavailableError(
            f"the host {host!r} of the Docker engine cannot be resolved: {error.strerror or error}",
            where=address,
            hint=f"set {ADDRESS} to the host or IP address at which this machine reaches published ports",
        ) from None
    return Published(bind=LOOPBACK if host == "localhost" else str(found[0][4][0]), host=host)


class ContainerReach:
    """Finds out whether containers can be reached at their own addresses, without the proxy of the published port.

    The proxy is a process that copies every byte. It takes a tenth of the processor time of a run. A port is therefore
    published only where containers are out of reach.
    """

    def __init__(self, *, is_local: bool, published: Published | None = None, may_be_direct: bool = True) -> None:
        """Connect to nothing yet.

        :param is_local: containers run on this machine's kernel. Elsewhere their address may belong to another host.
        :param published: where ports are published; on loopback by default.
        :param may_be_direct: false when the user named the host at which ports are reached.
        """
        self.is_local = is_local
        self.published = published or Published()
        self._lock = Lock()
        self._found: bool | None = None if is_local and may_be_direct else False

    @property
    def needs_ports(self) -> bool:
        """Whether containers are known to be out of reach, except at published ports."""
        return self._found is False

    def directly(self, host: str, port: int) -> bool:
        """Return whether a container's own address answers; the first result is used for all containers."""
        with self._lock:
            if self._found is None:
                try:
                    socket.create_connection((host, port), timeout=_REACH_S).close()
                except ConnectionRefusedError:  # the container answered; its server does not listen yet
                    self._found = True
                except OSError:
                    self._found = False
                else:
                    self._found = True
            return self._found
