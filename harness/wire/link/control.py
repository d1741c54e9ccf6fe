"""The states of a link, its counters, and the commands that change and read them."""

from __future__ import annotations

import socket
from typing import NamedTuple

#: forward everything
PASS = "pass"  # noqa: S105 -- a state
#: reset all connections, and every new one
CUT = "cut"
#: keep all connections open, accept new ones, and forward nothing
BLACK_HOLE = "black-hole"
#: forward what clients send, and hold back every answer
HALF_OPEN = "half-open"
#: forward with a delay, and at most so many bytes a second, in each direction
SLOW = "slow"
STATES = (PASS, CUT, BLACK_HOLE, HALF_OPEN, SLOW)

#: a control connection begins with this and the token; a client of PostgreSQL begins with a zero byte, TLS with 0x16
MAGIC = b"pooler-harness-link "
#: within which a link answers, seconds
ANSWER_S = 5.0
_CHUNK_BYTES = 4096


class Counts(NamedTuple):
    """The state of a link, and what has passed since it started."""

    state: str
    #: connections of clients
    accepted: int = 0
    #: connections of clients that are open now
    open: int = 0
    #: new connections that were reset while the link was cut
    refused: int = 0
    #: open connections that the link reset
    resets: int = 0
    #: connections that ended because nothing answered at the other end
    unreachable: int = 0
    #: bytes
    to_server: int = 0
    to_client: int = 0
    #: bytes that are held back now
    held_to_server: int = 0
    held_to_client: int = 0


def command_for(state: str, *, bytes_per_s: float = 0.0, delay_s: float = 0.0) -> str:
    """Return the command that changes the state of a link."""
    return f"{SLOW} {bytes_per_s:g} {delay_s:g}" if state == SLOW else state


def ask(address: tuple[str, int], token: str, command: str, timeout_s: float = ANSWER_S) -> Counts:
    """Send a command to a link that runs as a program, and return its state and counters.

    :param command: `state`, or one of :func:`command_for`.
    :raises OSError: when the link does not answer.
    :raises ValueError: when it refuses the command.
    """
    with socket.create_connection(address, timeout_s) as control:
        control.sendall(MAGIC + f"{token} {command}\n".encode())
        answer = b""
        while not answer.endswith(b"\n") and (got := control.recv(_CHUNK_BYTES)):
            answer += got
    pairs = dict(word.split("=", 1) for word in answer.decode("ascii", "replace").split() if "=" in word)
    if set(pairs) != set(Counts._fields):
        raise ValueError(f"the link answered {answer.decode('ascii', 'replace').strip()!r}")
    return Counts(pairs.pop("state"), **{name: int(value) for name, value in pairs.items()})


def answered(counts: Counts) -> str:
    """Return the answer to a command, as :func:`ask` reads it."""
    return " ".join(f"{name}={value}" for name, value in counts._asdict().items())
