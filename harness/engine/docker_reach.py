"""The way to a container: its own address, or the port that Docker publishes."""

from __future__ import annotations

import socket

#: a container on this machine answers within this time, unless a firewall drops the packets
_REACH_S = 0.5


class ContainerReach:
    """Finds out whether containers can be reached at their own addresses, without the proxy of the published port.

    The proxy is a process that copies every byte. It takes a tenth of the processor time of a run.
    """

    def __init__(self, *, is_local: bool) -> None:
        """Connect to nothing yet.

        :param is_local: containers run on this machine's kernel. Elsewhere their address may belong to another host.
        """
        self.is_local = is_local
        self._found: bool | None = None if is_local else False

    def directly(self, host: str, port: int) -> bool:
        """Return whether a container's own address answers; the first result is used for all containers."""
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
