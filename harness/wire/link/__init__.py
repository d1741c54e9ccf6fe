"""A link: a TCP proxy whose connections can be cut, held back and slowed down. It never looks into TLS.

It runs inside the process of the harness, or as a program of its own between two services, where this folder is the
package `link`. So these files import only what Debian's package python3-minimal contains, and nothing of the harness.

What is held back is kept and delivered after the healing, as TCP repeats what a network lost: a connection that lasts
longer than the fault goes on, and no byte is missing or changed.
"""

from .connections import Reader, ResetConnection
from .control import BLACK_HOLE, CUT, HALF_OPEN, PASS, SLOW, STATES, Counts, ask, command_for
from .proxy import Link

__all__ = [
    "BLACK_HOLE",
    "CUT",
    "HALF_OPEN",
    "PASS",
    "SLOW",
    "STATES",
    "Counts",
    "Link",
    "Reader",
    "ResetConnection",
    "ask",
    "command_for",
]
