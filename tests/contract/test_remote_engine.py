"""Published ports: those of an engine over TCP, as on another machine, and those of containers that are out of reach."""

from __future__ import annotations

import socket
import socketserver
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from harness.engine.docker_engine import DockerEngine
from harness.events import silent
from harness.lab.lab import stand_up
from harness.lab.topologies import load_topologies, wanted_by
from harness.redaction import Redactor
from harness.waiting import NotYet, poll
from tests.conftest import require_engine
from tests.contract.services import POSTGRES, connect_admin, specify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.engine.owner import Owner
    from harness.lab.lab import Lab

pytestmark = pytest.mark.engine


def own_address() -> str:
    """Return an address of this machine that is not loopback; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


class _Forward(socketserver.BaseRequestHandler):
    """Forwards one connection to the engine's socket."""

    path = ""

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(self.path)
            back = threading.Thread(target=_copy, args=(engine, self.request), daemon=True)
            back.start()
            _copy(self.request, engine)
            back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


@pytest.fixture
def over_tcp() -> Iterator[tuple[str, int]]:
    engine = require_engine("docker")
    assert isinstance(engine, DockerEngine)
    if not engine.address.startswith("unix://"):
        pytest.skip("the engine is remote already")
    handler = type("Forward", (_Forward,), {"path": engine.address.removeprefix("unix://")})
    socketserver.ThreadingTCPServer.daemon_threads = True
    with socketserver.ThreadingTCPServer((own_address(), 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield own_address(), int(server.server_address[1])
        server.shutdown()


def test_ports_of_a_remote_engine_are_published_at_its_address(
    over_tcp: tuple[str, int], owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, port = over_tcp
    monkeypatch.setenv("DOCKER_HOST", f"tcp://{host}:{port}")
    monkeypatch.setattr(DockerEngine, "_is_local", lambda _: False)  # as the answer of another kernel
    topology = load_topologies()["transaction"]
    engine = DockerEngine()
    try:
        engine.prepare(wanted_by(topology), silent)
        lab = stand_up(engine, topology, owner, Redactor())
        try:
            lab.outermost.restart()
            assert {service.endpoint().host for service in lab.services} == {host}
            poll(partial(_answers, lab), what="an answer after a restart", deadline_s=10)
            containers = engine._api.containers(filters={"label": f"pooler-harness.run={owner.run_id}"})
            published = [port for container in containers for port in container["Ports"] if port.get("PublicPort")]
            assert {port["IP"] for port in published} == {host}
            assert sorted(port["PrivatePort"] for port in published) == [5432, 6432]
        finally:
            lab.close()
    finally:
        engine.close()


def _answers(lab: Lab) -> None:
    if not lab.answers():
        raise NotYet("no answer")


@pytest.mark.parametrize("is_in_reach", [True, False])
def test_a_port_is_published_only_where_a_container_is_out_of_reach(
    is_in_reach: bool, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_engine("docker")
    engine = DockerEngine()
    try:
        if not engine.reach.is_local or engine.reach.needs_ports:
            pytest.skip("ports of this engine are always published")
        connect = socket.create_connection

        def answer(address: tuple[str, int], timeout: float) -> socket.socket:
            if is_in_reach:
                return connect(address, timeout=timeout)
            raise TimeoutError

        monkeypatch.setattr(socket, "create_connection", answer)
        engine.prepare((POSTGRES,), silent)
        group = engine.open_group(owner, "reach")
        try:
            spec, roles = specify(group)
            service = group.start(spec)
            with connect_admin(service, roles) as client:
                assert client.value("SELECT 1") == 1
            [container] = engine._api.containers(all=True, filters={"label": f"pooler-harness.run={owner.run_id}"})
            published = {port["IP"] for port in container["Ports"] if port.get("PublicPort")}
            assert published == (set() if engine.reach.directly("", 0) else {"127.0.0.1"})
            assert is_in_reach or published
        finally:
            group.close()
    finally:
        engine.close()
