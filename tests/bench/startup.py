"""How fast topologies stand: ours, beside the raw Docker SDK and testcontainers with the same images."""

from __future__ import annotations

import base64
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import docker
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from harness.database import Endpoint, SqlError, connect
from harness.engine.docker import DockerEngine
from harness.engine.protocol import Address, Place, ServiceSpec
from harness.lab.catalogue import wanted_by
from harness.lab.credentials import Roles, random_roles
from harness.lab.lab import stand_up
from harness.lab.services import pooler_spec, postgres_spec
from harness.redaction import Redactor
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from harness.engine.owner import Owner
    from harness.engine.protocol import Engine
    from harness.model import Topology

_ROUNDS = 5
BOUND_ONE_S, BOUND_THREE_S, BOUND_DOWN_S = 0.8, 1.5, 1.0


def measure(engine: Engine, topologies: list[Topology], owner: Owner) -> None:
    """Print the medians; every way answers the same query through the same chain before it counts."""
    print(f"\nstart until a real query was answered through the chain, {engine.name} engine, median of {_ROUNDS}")
    for topology in topologies:
        ours, down = _ours(engine, topology, owner)
        line = f"  {topology.name:<12} ours {ours:.2f} s ({_verdict(ours, BOUND_ONE_S)}), torn down {down:.2f} s"
        if isinstance(engine, DockerEngine):
            raw = statistics.median(_raw(engine, topology) for _ in range(_ROUNDS))
            contained = statistics.median(_testcontainers(engine, topology) for _ in range(_ROUNDS))
            line += f"; raw SDK {raw:.2f} s (ours/raw {ours / raw:.2f}); testcontainers {contained:.2f} s (ours/it {ours / contained:.2f})"
        print(line, flush=True)
    rounds = [_side_by_side(engine, topologies, owner) for _ in range(_ROUNDS)]
    up, down = (statistics.median(each) for each in zip(*rounds, strict=True))
    print(
        f"  {len(topologies)} together   ours {up:.2f} s ({_verdict(up, BOUND_THREE_S)}), "
        f"torn down {down:.2f} s ({_verdict(down, BOUND_DOWN_S)})"
    )


def _verdict(value: float, bound: float) -> str:
    return f"{'within' if value <= bound else 'OVER'} {bound} s"


def _ours(engine: Engine, topology: Topology, owner: Owner) -> tuple[float, float]:
    rounds = [_side_by_side(engine, [topology], owner) for _ in range(_ROUNDS)]
    up, down = (statistics.median(each) for each in zip(*rounds, strict=True))
    return up, down


def _side_by_side(engine: Engine, topologies: list[Topology], owner: Owner) -> tuple[float, float]:
    with ThreadPoolExecutor(len(topologies)) as pool:
        began = time.perf_counter()
        labs = list(pool.map(lambda each: stand_up(engine, each, owner, Redactor()), topologies))
        up = time.perf_counter()
        list(pool.map(lambda lab: lab.close(), labs))
        return up - began, time.perf_counter() - up


# --- the others, as their users would write it ---------------------------------------------------------------


def _specs(engine: DockerEngine, topology: Topology, upstream: str) -> tuple[list[tuple[str, ServiceSpec]], Roles]:
    """Return image and specification of each service; the files travel inside the script."""
    roles, specs = random_roles(), []
    for wanted, port in zip(wanted_by(topology), (5432, 6432), strict=False):
        image, origin = engine.origin(wanted)
        place = Place(
            name=wanted.product,
            folder="/srv/harness",
            data="/srv/harness/data",
            listen="0.0.0.0",  # noqa: S104
            port=port,
            inside=Address(wanted.product, port),
            origin=origin,
        )
        if wanted.product == "postgres":
            specs.append((image, postgres_spec(place, topology.postgres, roles)))
        elif topology.pooler:
            specs.append((image, pooler_spec(place, topology.pooler, roles, Address(upstream, 5432))))
    return specs, roles


def _command(spec: ServiceSpec) -> list[str]:
    files = "".join(
        f"echo {base64.b64encode(text.encode()).decode()} | base64 -d > {spec.place.folder}/{name}; "
        for name, text in spec.files.items()
    )
    return ["sh", "-c", files + spec.script]


def _answered(host: str, port: int, roles: Roles) -> None:
    endpoint = Endpoint(host=host, port=port, user=roles.app.name, password=roles.app.password, dbname="postgres")

    def probe() -> None:
        try:
            with connect(endpoint, connect_timeout_s=2) as client:
                client.value("SELECT 1")
        except SqlError as error:
            raise NotYet(str(error)) from None

    poll(probe, what="an answer", deadline_s=30)


def _raw(engine: DockerEngine, topology: Topology) -> float:
    client = docker.from_env()
    network: Any = None
    containers: list[Any] = []
    began = time.perf_counter()
    try:
        specs, roles = _specs(engine, topology, "bench-postgres")
        if len(specs) > 1:
            network = client.networks.create("bench-raw")
        for name, (image, spec) in zip(("bench-postgres", "bench-pooler"), specs, strict=False):
            container = client.containers.run(
                image,
                _command(spec),
                name=name,
                detach=True,
                ports={f"{spec.place.port}/tcp": ("127.0.0.1", 0)},
                network=network.name if network else None,
            )
            containers.append(container)
            container.reload()
            (bound,) = container.ports[f"{spec.place.port}/tcp"] or []
            _answered("127.0.0.1", int(bound["HostPort"]), roles)
        return time.perf_counter() - began
    finally:
        for container in containers:
            container.remove(force=True, v=True)
        if network:
            network.remove()
        client.close()


def _testcontainers(engine: DockerEngine, topology: Topology) -> float:
    network: Network | None = None
    containers: list[DockerContainer] = []
    began = time.perf_counter()
    try:
        specs, roles = _specs(engine, topology, "upstream")
        if len(specs) > 1:
            network = Network().create()
        for image, spec in specs:
            container = DockerContainer(image).with_command(_command(spec)).with_exposed_ports(spec.place.port)
            if network:
                container = container.with_network(network).with_network_aliases(
                    "upstream" if spec.place.port == 5432 else "pooler"
                )
            containers.append(container)
            container.start()
            _answered("127.0.0.1", int(container.get_exposed_port(spec.place.port)), roles)
        return time.perf_counter() - began
    finally:
        for container in containers:
            container.stop()
        if network:
            network.remove()
