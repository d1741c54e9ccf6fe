"""The files of a service: its container reads them from its standard input before the service starts.

Docker can put an archive into a container as well. Its daemon starts a process for that, which takes as much time as
the rest of the start. In a variable of the container, passwords would be seen by all of its processes.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import PurePosixPath
from shlex import quote
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from docker.api import APIClient

#: the last file to be written. A restarted container has all of them, and nobody sends them again
_COMPLETE = ".files"
_READ = """
cd {folder} || exit
[ -e {complete} ] || sh
[ -e {complete} ] || {{ echo 'the files of the service did not arrive' >&2; exit 1; }}
exec < /dev/null
{script}
"""


def after_files(script: str, folder: str) -> str:
    """Return a script that reads the files of a service into a folder once, and then does what another script does."""
    return _READ.format(folder=quote(folder), complete=_COMPLETE, script=script)


def script_of(files: Mapping[str, str]) -> str:
    """Return the script that writes text files into the working folder.

    :param files: path to text.
    """
    folders = sorted({str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."})
    lines = ["set -e", *(f"mkdir -p {quote(folder)}" for folder in folders)]
    lines += [f"printf %s {quote(text)} > {quote(name)}" for name, text in files.items()]
    # the shell does not wait for the end of the input, which not every connection to an engine can show
    return "\n".join([*lines, f": > {_COMPLETE}", "exit", ""])


@contextlib.contextmanager
def sent_to(api: APIClient, container: str, files: Mapping[str, str]) -> Iterator[None]:
    """Send files to a container that the block starts: whoever attaches later may be too late."""
    attached = api.attach_socket(container, params={"stdin": 1, "stream": 1})
    # the SDK returns a reader, or the connection itself, which depends on the address of the engine
    connection: Any = getattr(attached, "_sock", attached)
    try:
        yield
        with contextlib.suppress(OSError):  # the container has ended, and its log says why
            connection.sendall(script_of(files).encode())
            connection.shutdown(socket.SHUT_WR)
    finally:
        connection.close()
        attached.close()
