"""Images are used from the cache, else pulled from a registry that the test runs, else refused."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import docker.errors
import pytest

from harness import places
from harness.engine.docker_engine import DockerEngine
from harness.engine.docker_labels import LABEL_BUILD, LABEL_PID
from harness.engine.image_availability import NAMESPACE
from harness.engine.images import Images
from harness.engine.protocol import Wanted
from harness.engine.recipes import ImagePolicy, load_recipe
from harness.errors import ImageUnavailableError
from harness.events import Event, ImageFailed, ImageReady, ImageStarted, Notice
from harness.waiting import NotYet, poll
from tests.conftest import require_engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from docker.api import APIClient

pytestmark = pytest.mark.engine
POSTGRES = Wanted(product="postgres", version="17")
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Registry(ThreadingHTTPServer):
    """A registry with one image of one small layer, and the part of the protocol that a pull needs."""

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
        self.blobs = {_digest(blob): blob for blob in (layer.getvalue(), config)}
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
        """Log nothing."""


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


def find(api: APIClient, events: list[Event], **policy: object) -> tuple[str, list[str]]:
    images = Images(api, ImagePolicy(**policy), events.append)  # type: ignore[arg-type]
    reference, image = images._base(POSTGRES, load_recipe(POSTGRES)[1])
    return reference, image["RepoDigests"]


def test_a_prefix_is_pulled_from_once_and_its_digest_is_known(api: APIClient, prefix: str) -> None:
    events: list[Event] = []
    reference, digests = find(api, events, prefix=prefix)
    assert reference == f"{prefix}postgres:17"
    assert any(digest.startswith(f"{prefix}postgres@sha256:") for digest in digests)
    assert [event.done for event in events if isinstance(event, ImageReady)] == ["pulled"]
    events.clear()
    assert find(api, events, prefix=prefix, pull="never")[0] == reference  # it is cached now
    assert events == []
    assert find(api, events, prefix=prefix, pull="always")[0] == reference
    assert events


def test_an_override_is_never_replaced(api: APIClient, prefix: str) -> None:
    events: list[Event] = []
    assert find(api, events, override={"postgres": f"{prefix}postgres:17"})[0] == f"{prefix}postgres:17"
    with pytest.raises(ImageUnavailableError, match="is missing, and the pull failed"):
        find(api, events, override={"postgres:17": f"{prefix}nothing:1"})
    with pytest.raises(ImageUnavailableError, match="pulling is switched off"):
        find(api, events, override={"postgres": f"{prefix}nothing:1"}, pull="never")


def test_an_invalid_reference_is_one_clear_error(api: APIClient) -> None:
    with pytest.raises(ImageUnavailableError) as caught:
        find(api, [], override={"postgres": "Not A Reference"})
    assert "Not A Reference" in str(caught.value)


def unfinished(api: APIClient, pid: int) -> list[str]:
    """Return the ids of the containers and images of unfinished builds of a process."""
    chosen = {"label": [LABEL_BUILD, f"{LABEL_PID}={pid}"]}
    containers = api.containers(all=True, filters=chosen)
    return [entry["Id"] for entry in containers + api.images(filters=chosen | {"dangling": True})]


@contextlib.contextmanager
def builder_process(api: APIClient, work: str, base: str) -> Iterator[subprocess.Popen[str]]:
    """Run a builder in its own process, and yield when its container is running.

    :param work: a statement that uses `builder` and the image `base`, and does not end.
    """
    script = (
        "import sys\n"
        "from harness.engine.builds import ImageBuilder\n"
        "from harness.engine.docker_engine import DockerEngine\n"
        "from harness.events import silent\n"
        "base = sys.argv[1]\n"
        "builder = ImageBuilder(DockerEngine()._api, silent)\n"
        f"{work}\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, base], text=True) as process:

        def runs() -> None:
            if not api.containers(filters={"label": [LABEL_BUILD, f"{LABEL_PID}={process.pid}"]}):
                raise NotYet(f"its exit code is {process.poll()}")

        try:
            poll(runs, what="the container of the build", deadline_s=60)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    "work",
    [
        "builder.build('harness-test:1', 'FROM ' + base + '\\nRUN sleep 600', {}, finished=False)",
        "builder.output_of(base, 'sleep 600')",
    ],
    ids=["in a build", "in a container"],
)
def test_leftovers_of_a_killed_builder_are_reaped_and_a_running_one_is_kept(api: APIClient, work: str) -> None:
    engine = require_engine("docker")
    assert isinstance(engine, DockerEngine)
    base = engine.origin(POSTGRES)[0]
    with builder_process(api, work, base) as process:
        engine.reap()
        left = unfinished(api, process.pid)
        assert left  # its owner is running
        process.kill()
        process.wait()
    removed: list[str] = []

    def gone() -> None:
        """Reap; another harness on this machine may be reaping the same leftovers."""
        removed.extend(engine.reap())
        if still := unfinished(api, process.pid):
            raise NotYet(f"{len(still)} of {len(left)}")

    poll(gone, what="the leftovers of a dead builder to be removed", deadline_s=60, interval_s=0.2)
    assert api.inspect_image(base)  # type: ignore[no-untyped-call]
    assert all(line.split()[0] in {"build", "container", "network", "folder", "process"} for line in removed)


def test_an_imported_system_of_a_killed_builder_is_reaped(api: APIClient) -> None:
    """The builder dies after the import, before the image has its name."""
    engine = require_engine("docker")
    assert isinstance(engine, DockerEngine)
    script = (
        "import os, signal\n"
        "from harness.engine.builds import ImageBuilder, tar_of\n"
        "from harness.engine.docker_engine import DockerEngine\n"
        "from harness.events import silent\n"
        "builder = ImageBuilder(DockerEngine()._api, silent)\n"
        "builder.build = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "print(os.getpid(), flush=True)\n"
        "builder.import_system('harness-test:1', [tar_of({'made': 'by a test'})])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid = int(done.stdout)
    removed = engine.reap() if unfinished(api, pid) else ["build image: another harness reaped it first"]
    assert any(line.startswith("build image") for line in removed)
    assert unfinished(api, pid) == []


def preparing(engine: DockerEngine, wanted: tuple[Wanted, ...], events: list[Event]) -> Thread:
    """Return a thread that prepares products; the caller checks the results with `engine.origin`."""

    def prepare() -> None:
        with contextlib.suppress(ImageUnavailableError):
            engine.prepare(wanted, events.append)

    return Thread(target=prepare)


def test_closing_ends_a_build_and_leaves_no_objects(api: APIClient, small_products: str) -> None:
    engine = DockerEngine(ImagePolicy(override={"slow": small_products}, pull="never"))
    slow = Wanted(product="slow", version="1")
    events: list[Event] = []
    waiting = preparing(engine, (slow,), events)
    waiting.start()

    def runs() -> None:
        if not api.containers(filters={"label": [LABEL_BUILD, f"{LABEL_PID}={os.getpid()}"]}):
            raise NotYet("no container")

    poll(runs, what="the container of the build", deadline_s=60)
    engine.close()
    waiting.join()
    assert unfinished(api, os.getpid()) == []
    with pytest.raises(ImageUnavailableError, match="was interrupted"):
        engine.origin(slow)


@pytest.fixture
def small_products(api: APIClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Declare four products with the same cached base image, and yield that image."""
    base = require_engine("docker").origin(POSTGRES)[0]  # type: ignore[attr-defined]
    unique = f"{tmp_path.name}-{time.time_ns()}"
    for name, command in (("quick", "true"), ("other", "true"), ("broken", "exit 3"), ("slow", "sleep 600")):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        (folder / "recipe.toml").write_text(
            'program = "postgres"\ntitle = "Small"\nport = 1\nstop_signal = "SIGTERM"\n'
            '[versions."1"]\nsuite = "none"\npackages = []\n'
        )
        (folder / "Dockerfile").write_text("FROM scratch\n")
        (folder / "prepared.Dockerfile").write_text(
            f"ARG BASE\nFROM ${{BASE}}\nRUN : {unique} && {command}\n"
        )
    monkeypatch.setattr(places, "TOPOLOGIES", tmp_path)
    yield base
    for name in ("quick", "other", "broken", "slow"):
        for image in api.images(name=f"{NAMESPACE}/{name}"):
            # another test may have images of these names at the same time
            if any(unique in layer["CreatedBy"] for layer in api.history(image["Id"])):  # type: ignore[no-untyped-call]
                api.remove_image(image["Id"], force=True)


def test_threads_share_common_products_and_do_not_wait_for_others(api: APIClient, small_products: str) -> None:
    names = ("quick", "other", "broken", "slow")
    engine = DockerEngine(ImagePolicy(override=dict.fromkeys(names, small_products), pull="never"))
    quick, other, broken, slow = (Wanted(product=name, version="1") for name in names)
    events: list[Event] = []
    endless = preparing(engine, (slow,), events)
    threads = [preparing(engine, wanted, events) for wanted in ((quick, broken), (broken, quick, other))]
    try:
        for thread in (endless, *threads):
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert endless.is_alive()
    finally:
        engine.close()
        endless.join()
    assert engine.origin(quick)[0].startswith(f"{NAMESPACE}/quick:1-")
    assert engine.origin(other)[1].version.startswith("17")
    for _ in range(2):  # the failure is remembered
        with pytest.raises(ImageUnavailableError, match=r"the build of .*broken:1-.* failed"):
            engine.origin(broken)
    with pytest.raises(ImageUnavailableError, match="broken"):
        engine.prepare((broken,), events.append)
    notices = [event.text for event in events if isinstance(event, Notice) and "broken" in event.text]
    assert len(notices) == 1
    ends = Counter(
        (event.image.partition(":")[0].removeprefix(f"{NAMESPACE}/"), type(event))
        for event in events
        if isinstance(event, (ImageStarted, ImageReady, ImageFailed))
    )
    assert ends == Counter(
        [
            *((name, ImageStarted) for name in names),
            *((name, ImageReady) for name in ("quick", "other")),
            *((name, ImageFailed) for name in ("broken", "slow")),
        ]
    )
    labels = api.inspect_image(engine.origin(quick)[0])["Config"]["Labels"]  # type: ignore[no-untyped-call]
    assert labels[LABEL_BUILD] == labels[LABEL_PID] == ""
    assert unfinished(api, os.getpid()) == []
