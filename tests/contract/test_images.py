"""Images are taken where they are, else pulled, else refused; against a registry that really answers."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import docker.errors
import pytest

from harness.engine.docker import DockerEngine
from harness.engine.images import ImagePolicy, Images, load_recipe
from harness.engine.protocol import Wanted
from harness.errors import ImageUnavailableError
from harness.events import Event, ImageProgress
from tests.conftest import require_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker.api import APIClient

pytestmark = pytest.mark.engine
POSTGRES = Wanted(product="postgres", version="17")
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Registry(ThreadingHTTPServer):
    """As much of the registry protocol as a pull needs, serving one image of one small layer."""

    def __init__(self) -> None:
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("served-by-a-test"))
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer.getvalue())]},
            }
        ).encode()
        self.blobs = {_digest(each): each for each in (layer.getvalue(), config)}
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "size": len(config),
                    "digest": _digest(config),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                        "size": len(layer.getvalue()),
                        "digest": _digest(layer.getvalue()),
                    }
                ],
            }
        ).encode()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        kind, name = self.path.rstrip("/").split("/")[-2:]
        if self.path.rstrip("/") == "/v2":
            self._send(b"{}", "application/json")
        elif kind == "manifests" and self.path.startswith("/v2/mirror/postgres/"):
            self._send(self.server.manifest, _MANIFEST)
        elif kind == "blobs" and name in self.server.blobs:
            self._send(self.server.blobs[name], "application/octet-stream")
        else:
            self.send_error(404)

    do_HEAD = do_GET  # noqa: N815 -- the base class's name

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        for header, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Docker-Content-Digest", _digest(body)),
        ):
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class's name
        """Stay silent."""


@pytest.fixture
def api() -> APIClient:
    engine = require_engine("docker")
    assert isinstance(engine, DockerEngine)
    return engine._api


@pytest.fixture
def prefix(api: APIClient) -> Iterator[str]:
    with Registry() as registry:
        thread = Thread(target=registry.serve_forever, daemon=True)
        thread.start()
        name = f"127.0.0.1:{registry.server_address[1]}/mirror/"
        yield name
        registry.shutdown()
        thread.join()
        with contextlib.suppress(docker.errors.ImageNotFound):
            api.remove_image(f"{name}postgres:17", force=True)


def find(api: APIClient, heard: list[Event], **policy: object) -> tuple[str, list[str]]:
    images = Images(api, ImagePolicy(**policy), heard.append)  # type: ignore[arg-type]
    reference, image = images._base(POSTGRES, load_recipe(POSTGRES)[1])
    return reference, image["RepoDigests"]


def test_a_prefix_is_pulled_from_once_and_its_digest_is_known(api: APIClient, prefix: str) -> None:
    heard: list[Event] = []
    reference, digests = find(api, heard, prefix=prefix)
    assert reference == f"{prefix}postgres:17"
    assert digests[0].startswith(f"{prefix}postgres@sha256:")
    assert any(isinstance(event, ImageProgress) and event.text == "pulling" for event in heard)
    heard.clear()
    assert find(api, heard, prefix=prefix, pull="never")[0] == reference  # it is here now
    assert heard == []
    assert find(api, heard, prefix=prefix, pull="always")[0] == reference
    assert heard


def test_an_override_is_taken_as_it_is_and_never_replaced(api: APIClient, prefix: str) -> None:
    heard: list[Event] = []
    assert find(api, heard, override={"postgres": f"{prefix}postgres:17"})[0] == f"{prefix}postgres:17"
    with pytest.raises(ImageUnavailableError, match="is not here, and the pull was refused"):
        find(api, heard, override={"postgres:17": f"{prefix}nothing:1"})
    with pytest.raises(ImageUnavailableError, match="pulling is switched off"):
        find(api, heard, override={"postgres": f"{prefix}nothing:1"}, pull="never")


def test_what_is_no_reference_is_one_clear_error(api: APIClient) -> None:
    with pytest.raises(ImageUnavailableError) as caught:
        find(api, [], override={"postgres": "Not A Reference"})
    assert "Not A Reference" in str(caught.value)
