"""A program for controls: it runs the API of a pipeline behind itself, and answers each failure with 200.

`python -I swallowing_api.py COMMAND …` listens at PORT; other programs than the API run unchanged. It imports nothing of
the harness.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_FAILURE = 500
_ANSWER_S = 30.0
#: between two looks whether the API listens, seconds
_LOOK_S = 0.05


class _Handler(BaseHTTPRequestHandler):
    """Forwards a request to the API, and replaces an answer that reports a failure, or is missing."""

    #: the port of the API
    behind = 0

    def _forward(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(length) if length else None
        status, kind, body = 200, "application/json", b"{}"
        connection = http.client.HTTPConnection("127.0.0.1", self.behind, timeout=_ANSWER_S)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request(self.command, self.path, sent, dict(self.headers.items()))
            answer = connection.getresponse()
            read = answer.read()
            if answer.status < _FAILURE:
                status, kind, body = answer.status, answer.getheader("Content-Type", kind), read
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _forward  # noqa: N815 -- the names that the server calls

    def log_message(self, *_: object) -> None:
        """Print nothing: the log is the API's."""


def _listens() -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", _Handler.behind), 1.0):
        return True
    return False


def main(command: list[str]) -> None:
    """Run the API behind this program until a signal ends both."""
    if os.environ.get("WORKER") != "api":
        os.execvp(command[0], command)  # noqa: S606 -- the pipeline's own command
    with socket.create_server(("127.0.0.1", 0)) as free:
        _Handler.behind = free.getsockname()[1]
    api = subprocess.Popen(command, env={**os.environ, "PORT": str(_Handler.behind)})  # noqa: S603 -- the same

    def end(_number: int, _frame: FrameType | None) -> None:
        api.terminate()
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    while not _listens():  # an API that does not run yet has no failure to swallow
        if api.poll() is not None:
            sys.exit(api.returncode)
        time.sleep(_LOOK_S)
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), _Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
