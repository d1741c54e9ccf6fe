"""Whether containers can be reached past the proxy that publishes their ports."""

from __future__ import annotations

import socket

#: for a container on this machine to answer; one that a firewall hides never does
_REACH_S = 0.5


class ContainerReach:
    """Whether containers can be reached at their own addresses, past the proxy that publishes their ports.

    The proxy copies every byte in a process of its own, which takes a tenth of the processor time of a run.
    """

    def __init__(self, *, is_local: bool) -> None:
        """Ask nobody yet.

        :param is_local: containers run on this machine's kernel: elsewhere the same address may be another's.
        """
        self.is_local = is_local
        self._found: bool | None = None if is_local else False

    def directly(self, host: str, port: int) -> bool:
        """Say whether a container's own address answers; the first answer counts for all containers."""
        if self._found is None:
            try:
                socket.create_connection((host, port), timeout=_REACH_S).close()
            except ConnectionRefusedError:  # the container answers, and its server does not listen yet
                self._found = True
            except OSError:
                self._found = False
            else:
                self._found = True
        return self._found
