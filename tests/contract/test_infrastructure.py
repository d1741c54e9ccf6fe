"""Failures of the engine and of servers in the middle of a run: Not run, exit code 3, and never an Issue."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest

from harness.engine.docker_engine import DockerEngine
from harness.engine.docker_labels import LABEL_RUN
from harness.model import EndedBy, Status
from harness.store import StoredRun, kept_runs, read_run
from harness.waiting import NotYet, poll
from tests.conftest import require_engine
from tests.contract.command_line import command, ended, environment, harness_here

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.engine, pytest.mark.long]

_CHUNK = 65536
#: quick checks that need no engine, and two that stop or restart servers
_BEFORE = ("autocommit", "copy", "cursor", "listen", "notify", "pipeline", "savepoint", "setting-kept", "transaction")
_AT_THE_ENGINE = ("pooling.restart-idle", "pooling.server-down")
#: a request that starts a program in a container, or stops or restarts it: only checks that need the engine send one
_OF_A_CHECK = re.compile(rb"^POST /\S*/containers/\S+/(exec|stop|kill|restart)\b", re.MULTILINE)


class CutSocket:
    """A proxy in front of the Docker engine, which goes away with the first request of a check."""

    def __init__(self, path: Path, engine: str) -> None:
        self.armed = Event()
        self.cut = Event()
        self._engine = engine
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(self._engine)
                self._open += [client, engine]
                Thread(target=self._forward, args=(client, engine), kwargs={"watch": True}, daemon=True).start()
                Thread(target=self._forward, args=(engine, client), daemon=True).start()

    def _forward(self, source: socket.socket, to: socket.socket, *, watch: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                if watch and self.armed.is_set() and _OF_A_CHECK.search(data):
                    self.close()
                    return
                to.sendall(data)
        for end in (source, to):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Refuse new connections, and break the open ones."""
        self.cut.set()
        for end in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder with a short path, because that of a socket is limited to about a hundred characters."""
    made = Path(tempfile.mkdtemp(prefix="harness-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def docker() -> DockerEngine:
    engine = require_engine("docker")
    assert isinstance(engine, DockerEngine)
    return engine


def start(folder: Path, *arguments: str, **extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=environment(**extra),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def first_results(folder: Path, *topologies: str) -> StoredRun:
    """Wait until a run has stored its first results, also those of each topology that is named."""

    def probe() -> StoredRun:
        runs, _ = kept_runs(folder / "reports")
        found = {result.target for result in runs[-1].results} if runs else set()
        if not found or not found.issuperset(topologies):
            raise NotYet(f"results of {found or 'no topology'}")
        return runs[-1]

    return poll(probe, what="the first results", deadline_s=120)


def require_not_run(done: subprocess.CompletedProcess[str], folder: Path) -> StoredRun:
    """Require exit code 3, a result for each row, at least one row that the failure ended, and no new Issue."""
    run = read_run(folder / "reports" / "runs" / "latest")
    # known defects of the pooler were seen before the failure
    new = [result for result in run.results if result.known is None]
    issues = [(result.check, result.reason) for result in new if result.status is Status.ISSUE]
    assert not issues
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert len(run.results) == len(run.record.plan)
    assert any(result.ended_by is EndedBy.INFRASTRUCTURE for result in new)
    for result in new:
        assert (result.ended_by is EndedBy.INFRASTRUCTURE) <= (result.status is Status.NOT_RUN)
        assert not any(expectation.broken for expectation in result.expectations)
    return run


def test_an_engine_that_goes_away_leaves_rows_not_run(docker: DockerEngine, folder: Path) -> None:
    real = (os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock").removeprefix("unix://")
    if not real.startswith("/"):
        pytest.skip("the Docker engine has no Unix socket here")
    proxy = CutSocket(folder / "proxy.sock", real)
    process = start(
        folder,
        *("verify", "transaction", "--engine", "docker"),
        *("--check", "capture.insert", "--check", "continuity.cutover-under-load"),
        *(f"--check=pooling.{check}" for check in _BEFORE),
        *(f"--check={check}" for check in _AT_THE_ENGINE),
        DOCKER_HOST=f"unix://{folder}/proxy.sock",
    )
    try:
        first_results(folder)
        proxy.armed.set()
        done = ended(process)
    finally:
        proxy.close()
        process.kill()
    assert proxy.cut.is_set()
    run = require_not_run(done, folder)
    reasons = [result.reason for result in run.results if result.ended_by]
    assert any("Docker engine does not answer" in reason or "could not be" in reason for reason in reasons)
    assert harness_here(folder, "reap", "--engine", "docker").returncode == 0
    assert not docker._api.containers(all=True, filters={"label": f"{LABEL_RUN}={run.record.run_id}"})


#: by topology, the service that somebody else kills, or starts again: it then answers before a row of it ends
_DISTURBED = {"direct": ("postgres", "kill"), "transaction": ("pooler", "restart")}


def test_a_server_that_somebody_else_ends_or_starts_again_leaves_rows_not_run(
    docker: DockerEngine, folder: Path
) -> None:
    process = start(folder, "verify", *_DISTURBED, "--engine", "docker", "--suite", "capture", "--jobs", "2")
    try:
        run = first_results(folder, *_DISTURBED)
        names = {
            container["Names"][0]: container["Id"]
            for container in docker._api.containers(filters={"label": f"{LABEL_RUN}={run.record.run_id}"})
        }
        for topology, (service, how) in _DISTURBED.items():
            [found] = [names[name] for name in names if topology in name and service in name]
            if how == "kill":
                docker._api.kill(found)
            else:
                docker._api.restart(found, timeout=0)
        done = ended(process)
    finally:
        process.kill()
    run = require_not_run(done, folder)
    for topology, (service, how) in _DISTURBED.items():
        reasons = [result.reason for result in run.results if result.target == topology]
        assert any(f"the service {service} is not running" in reason for reason in reasons), reasons
        if how == "restart":
            assert any("somebody else started its container again at" in reason for reason in reasons), reasons
