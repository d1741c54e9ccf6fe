"""A guard ends a program, and all processes that it started, when this process is killed."""

from __future__ import annotations

import secrets
import subprocess

#: run by a shell that reads from the harness. When the harness is killed, the pipe closes before a line arrives, and
#: the shell ends the command's process group, $1, and the processes with the mark $2: first with SIGTERM, then with
#: SIGKILL
_GUARD = """
read -r _ && exit
mark=$2
marked() { grep -ls "$mark=" /proc/[0-9]*/environ 2>/dev/null | sed 's|^/proc/||; s|/environ$||'; }
kill -TERM "-$1" $(marked) 2>/dev/null
for _ in 1 2 3 4 5; do sleep 1; kill -0 "-$1" 2>/dev/null || [ -n "$(marked)" ] || exit; done
kill -KILL "-$1" $(marked) 2>/dev/null
"""


def new_mark() -> str:
    """Return the name of a variable that marks one command. Commands within commands have several marks."""
    return f"HARNESS_COMMAND_{secrets.token_hex(8).upper()}"


def start_guard(pid: int, mark: str) -> subprocess.Popen[str]:
    """Start the guard of a program.

    :param pid: of the program, which leads a session of its own.
    :param mark: the variable in the environment of the program, from :func:`new_mark`.
    """
    return subprocess.Popen(  # noqa: S603 -- our own arguments
        ["/bin/sh", "-c", _GUARD, "guard", str(pid), mark],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # a signal to the harness and its process group does not end the guard
    )


def release(guard: subprocess.Popen[str]) -> None:
    """End a guard whose program has ended."""
    guard.communicate("the command has ended\n")
