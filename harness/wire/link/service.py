"""The link as a program of its own, until a signal ends it."""

from __future__ import annotations

import signal
import sys

from .proxy import Link


def main(arguments: list[str]) -> None:
    """Run a link: `TOKEN-FILE HOST PORT UPSTREAM-HOST UPSTREAM-PORT`."""
    token_file, host, port, upstream_host, upstream_port = arguments
    with open(token_file, encoding="ascii") as file:  # noqa: PTH123 -- python3-minimal
        token = file.read().strip()
    # the first process of a container ignores signals without a handler
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    link = Link(lambda: (upstream_host, int(upstream_port)), (host, int(port)), token=token)
    sys.stderr.write(f"link: {host}:{port} to {upstream_host}:{upstream_port}\n")
    link.run()
