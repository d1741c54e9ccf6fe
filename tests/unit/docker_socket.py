"""A fake Docker engine that answers the requests of bootstrap, before packages are installed."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import socketserver
import tempfile
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Answers(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        path = unquote(self.path)
        self.server.requests.append(path)
        kind, _, rest = path.removeprefix("/").partition("/")
        reference = rest.removesuffix("/json")
        known = {"images": self.server.cached, "distribution": self.server.pullable}
        self.send_response(200 if path == "/_ping" or (kind in known and known[kind](reference)) else 404)
        self.end_headers()

    def address_string(self) -> str:
        return "the socket"

    def log_message(self, *_arguments: Any) -> None:
        pass


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path, cached: Callable[[str], bool], pullable: Callable[[str], bool]) -> None:
        super().__init__(str(path), _Answers)
        self.cached, self.pullable, self.requests = cached, pullable, list[str]()

    def get_request(self) -> tuple[Any, Any]:
        request, _ = super().get_request()
        return request, ("the socket", 0)


@contextlib.contextmanager
def docker_socket(cached: Callable[[str], bool], pullable: Callable[[str], bool]) -> Iterator[tuple[Path, list[str]]]:
    """Serve until the end of the block.

    :param cached: whether the engine has an image, by its reference.
    :param pullable: whether the engine can pull an image, by its reference.
    :returns: the path of the socket, and the path of every request.
    """
    folder = Path(
        tempfile.mkdtemp(prefix="harness-")
    )  # short, because the path of a socket is limited to about a hundred characters
    server = _Server(folder / "docker.sock", cached, pullable)
    serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    try:
        yield folder / "docker.sock", server.requests
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
        shutil.rmtree(folder)
