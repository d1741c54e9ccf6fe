"""A topology started by other tools, with the same images and configuration: the raw Docker SDK, testcontainers, Compose.

The code is what users of these tools would write. Every measurement ends when the chain has answered the same query.
"""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker

from harness.database import Endpoint, SqlError, connect
from harness.engine.protocol import Address, ServicePlace, ServiceSpec
from harness.errors import HarnessError
from harness.lab.credentials import Roles, random_roles
from harness.lab.services import pooler_spec, postgres_spec
from harness.lab.topologies import wanted_by
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from harness.engine.docker_engine import DockerEngine
    from harness.model import Topology

#: the health check's interval in Compose; people usually write seconds, so this favours Compose
_HEALTH_INTERVAL = "100ms"


def _specs(engine: DockerEngine, topology: Topology, upstream: str) -> tuple[list[tuple[str, ServiceSpec]], Roles]:
    """Return the image and the specification of each service, and the roles that the servers know."""
    roles, specs = random_roles(), []
    for wanted, port in zip(wanted_by(topology), (5432, 6432), strict=False):
        image, origin = engine.origin(wanted)
        place = ServicePlace(
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
    """Return the command of a container; it writes the service's files, then runs its script."""
    files = "".join(
        f"echo {base64.b64encode(text.encode()).decode()} | base64 -d > {spec.place.folder}/{name}; "
        for name, text in spec.files.items()
    )
    # on disk, as users of these tools would: the image's own cluster is used in place
    cluster = f"ln -s cluster {spec.place.folder}/data; " if spec.place.name == "postgres" else ""
    return ["sh", "-c", files + cluster + spec.script]


def _answered(host: str, port: int, roles: Roles) -> None:
    endpoint = Endpoint(host=host, port=port, user=roles.app.name, password=roles.app.password, dbname="postgres")

    def probe() -> None:
        try:
            with connect(endpoint, connect_timeout_s=2) as client:
                client.value("SELECT 1")
        except SqlError as error:
            raise NotYet(str(error)) from None

    poll(probe, what="an answer", deadline_s=30)


def raw_sdk(engine: DockerEngine, topology: Topology) -> float:
    client = docker.from_env()
    token = secrets.token_hex(4)  # leftovers of a killed bench have other names, so they do not collide
    upstream = f"bench-postgres-{token}"
    network: Any = None
    containers: list[Any] = []
    began = time.perf_counter()
    try:
        specs, roles = _specs(engine, topology, upstream)
        if len(specs) > 1:
            network = client.networks.create(f"bench-raw-{token}")
        for name, (image, spec) in zip((upstream, f"bench-pooler-{token}"), specs, strict=False):
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


def with_testcontainers(engine: DockerEngine, topology: Topology) -> float:
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network

    # its reaper needs one more image, which offline machines lack; containers are removed below
    testcontainers_config.ryuk_disabled = True
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


class Compose:
    """Compose on this machine: the plugin `docker compose`, or the program `docker-compose`."""

    def __init__(self) -> None:
        self.command, self.version = _compose()
        #: version 1 has no `up --wait`; then the bench polls for readiness, as users of version 1 do
        self.waits = bool(self.command) and not self.version.startswith("1.")

    def start(self, engine: DockerEngine, topology: Topology) -> float:
        """Return the seconds until `up` has returned and the chain has answered the query."""
        specs, roles = _specs(engine, topology, "postgres")
        with tempfile.TemporaryDirectory(prefix="pooler-harness-bench-") as folder:
            file = Path(folder) / "compose.json"
            file.write_text(json.dumps(_composed(specs, roles)))
            compose = [
                *self.command,
                "--file",
                str(file),
                "--project-name",
                Path(folder).name.lower().replace("_", "-"),
            ]
            last = _NAMES[len(specs) - 1]
            began = time.perf_counter()
            try:
                _call([*compose, "up", "--detach", *(["--wait"] if self.waits else [])])
                address = _call([*compose, "port", last, str(specs[-1][1].place.port)]).strip()
                _answered("127.0.0.1", int(address.rpartition(":")[2]), roles)
                return time.perf_counter() - began
            finally:
                _call([*compose, "down", "--volumes", "--timeout", "0"])


_NAMES = ("postgres", "pooler")


def _compose() -> tuple[list[str], str]:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            completed = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
            if completed.returncode == 0:
                return command, completed.stdout.strip().removeprefix("v")
    return [], ""


def _composed(specs: list[tuple[str, ServiceSpec]], roles: Roles) -> dict[str, Any]:
    """Return the Compose file. A service is healthy once it answers a query of the application's role."""
    services: dict[str, Any] = {}
    for name, (image, spec) in zip(_NAMES, specs, strict=False):
        query = f"psql -X -q -h 127.0.0.1 -p {spec.place.port} -U {roles.app.name} -d postgres -c 'SELECT 1'"
        services[name] = {
            "image": image,
            # Compose would read a single dollar as a variable
            "command": [part.replace("$", "$$") for part in _command(spec)],
            "ports": [f"127.0.0.1::{spec.place.port}"],
            "environment": {"PGPASSWORD": roles.app.password},
            "healthcheck": {
                "test": ["CMD-SHELL", query],
                "interval": _HEALTH_INTERVAL,
                "timeout": "5s",
                "retries": 300,
            },
        } | ({"depends_on": {"postgres": {"condition": "service_healthy"}}} if name != "postgres" else {})
    return {"version": "2.4", "services": services}


def _call(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    except subprocess.CalledProcessError as error:
        raise HarnessError(f"{' '.join(command[:2])} exited with {error.returncode}: {error.stderr.strip()}") from None
    except subprocess.TimeoutExpired:
        raise HarnessError(f"{' '.join(command[:2])} did not end within 120 s") from None
