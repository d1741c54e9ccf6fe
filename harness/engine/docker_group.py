"""The containers of one topology, and their network.

The services that are placed before the first one starts share the network of its container. They reach each other on
loopback, as on one machine. A network of their own takes Docker's daemon more time than their containers do: it starts
dozens of programs for it, and again to remove it.
"""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING

import docker.errors
from docker.types import LogConfig

from harness.engine.docker_errors import DOCKER_ERRORS, message_of
from harness.engine.docker_files import after_files, sent_to
from harness.engine.docker_labels import (
    LABEL_CREATED,
    LABEL_HOST,
    LABEL_PID,
    LABEL_RUN,
    LABEL_STARTED,
    LABEL_TOOL,
    LABEL_TOPOLOGY,
)
from harness.engine.docker_reach import LOOPBACK, PUBLISH, NotPublishedError
from harness.engine.docker_removal import remove_network
from harness.engine.docker_service import DockerService
from harness.engine.docker_storage import DATABASE, FOLDER, KEEPING, SPARE, memory_mount, spare_mount, supervised
from harness.engine.protocol import Address, Service, ServicePlace, ServiceSpec, Wanted
from harness.engine.recipes import load_product
from harness.errors import ServiceFailedError

if TYPE_CHECKING:
    from collections.abc import Collection

    from docker.api import APIClient

    from harness.engine.docker_engine import DockerEngine
    from harness.engine.owner import Owner
    from harness.engine.storage import DataStorage

#: in a host configuration: the network of the container whose id follows
_OF = "container:"


class DockerGroup:
    """The containers of one topology. Services that are added to running ones get a network with them."""

    def __init__(
        self,
        engine: DockerEngine,
        api: APIClient,
        run: Owner,
        topology: str,
        storage: DataStorage,
        *,
        durable: bool = False,
    ) -> None:
        self.storage = storage
        self._engine = engine
        self._api = api
        self._token = secrets.token_hex(4)
        # Docker's names allow no plus sign, as in transaction+postgres-15
        self._topology = topology.replace("+", "-")
        self._labels = {
            LABEL_TOOL: "run",
            LABEL_RUN: run.run_id,
            LABEL_TOPOLOGY: topology,
            LABEL_HOST: run.host,
            LABEL_PID: str(run.pid),
            LABEL_STARTED: str(run.started),
            LABEL_CREATED: str(int(time.time())),
        }
        self._places: dict[str, ServicePlace] = {}
        self._wanted: dict[str, Wanted] = {}
        self._services: list[DockerService] = []
        #: names of the services that share the network of the first one's container, which outlives its server
        self._chain: list[str] = []
        #: the first of them, once it runs
        self._host: DockerService | None = None
        self._network: str | None = None
        self._closed = False
        #: whether a database server gets a small file system of its own
        self._has_spare = durable
        self._lock = Lock()

    def place(self, name: str, wanted: Wanted, *, avoiding: Collection[int] = ()) -> ServicePlace:
        port = next(port for port in count(load_product(wanted.product).port) if port not in avoiding)
        if self._services:  # the configuration of this service will name those that run
            try:
                self._ensure_network()
            except DOCKER_ERRORS as error:
                raise ServiceFailedError(
                    f"the network of the services could not be created: {message_of(error)}", where=name
                ) from None
        elif self._chain or wanted.product in KEEPING:
            self._chain.append(name)
        place = ServicePlace(
            name=name,
            folder=FOLDER,
            data=f"{FOLDER}/data",
            listen="0.0.0.0",  # noqa: S104 -- inside the container; its port is published on one address, or not at all
            port=port,
            inside=Address(LOOPBACK if name in self._chain else name, port),
            origin=self._engine.origin(wanted)[1],
        )
        self._places[name], self._wanted[name] = place, wanted
        return place

    def start(self, spec: ServiceSpec) -> Service:
        place = spec.place
        image = self._engine.origin(self._wanted[place.name])[0]
        name = f"harness-{self._topology}-{place.name}-{self._token}"
        try:
            network = self._network_mode(place.name)
            service = self._launch(name, image, spec, network)
            try:
                service.endpoint()
            except NotPublishedError:  # the first containers of an engine find out that ports must be published
                self._discard(service)
                service = self._launch(name, image, spec, network)
                service.endpoint()
            service.note_start()
        except DOCKER_ERRORS as error:
            message = message_of(error)
            elsewhere = "cannot assign requested address" in message
            hint = f"set {PUBLISH} to an address of the engine's machine" if elsewhere else "harness doctor"
            raise ServiceFailedError(f"the container could not be started: {message}", where=name, hint=hint) from None
        if place.name in self._chain[:1]:
            self._host = service
        return service

    def _network_mode(self, name: str) -> str:
        """Return the network of a service's container, as Docker's host configuration names it."""
        if name not in self._chain:
            return self._ensure_network()
        if name == self._chain[0]:
            return "bridge"
        if self._host is None:
            raise ServiceFailedError(f"{self._chain[0]}, whose network it shares, is not started", where=name)
        return f"{_OF}{self._host.network_of}"

    def _discard(self, service: DockerService) -> None:
        """Remove a service that another one replaces."""
        service.remove()
        with self._lock:
            self._services.remove(service)

    def _launch(self, name: str, image: str, spec: ServiceSpec, network: str) -> DockerService:
        """Create and start a container. If Docker refuses memory for the data, start it with the data on disk."""
        product = self._wanted[spec.place.name].product
        is_database = product == DATABASE
        in_memory = product in KEEPING and self.storage.in_memory
        while True:
            spare = is_database and self._has_spare
            with self._lock:
                if self._closed:
                    raise ServiceFailedError("the topology is being torn down", where=name)
                mounts = memory_mount(self.storage.memory_mib, product) if in_memory else {}
                mounts |= spare_mount() if spare else {}
                container = self._create(name, image, spec, network, mounts)
                service = DockerService(
                    self._api,
                    container,
                    name,
                    spec,
                    reach=self._engine.reach,
                    network_of=network.removeprefix(_OF) if network.startswith(_OF) else container,
                    keeps_data=product in KEEPING,
                    spare_folder=SPARE if spare else "",
                )
                self._services.append(service)
            try:
                with sent_to(self._api, container, spec.files):
                    self._api.start(container)
            except docker.errors.APIError as error:
                if not in_memory and not spare:
                    raise
                self._discard(service)
                if spare:
                    self._has_spare = False
                    continue
                in_memory = False
                if is_database:
                    self.storage = self._engine.memory.refused(self.storage, message_of(error))
            else:
                return service

    def _create(self, container: str, image: str, spec: ServiceSpec, network: str, mounts: dict[str, str]) -> str:
        name, api = spec.place.name, self._api
        keeps_data = self._wanted[spec.place.name].product in KEEPING
        script = supervised(spec.script, spec.place.folder) if keeps_data else spec.script
        reach = self._engine.reach
        ports = self._ports(name)
        host = api.create_host_config(
            tmpfs=mounts or None,
            port_bindings=dict.fromkeys(ports, (reach.published.bind, None)) if reach.needs_ports else None,
            network_mode=network,
            log_config=LogConfig(type="json-file"),
            security_opt=["no-new-privileges"],
        )
        joined = (
            None
            if name in self._chain
            else api.create_networking_config({network: api.create_endpoint_config(aliases=[name])})  # type: ignore[arg-type]
        )
        created: str = api.create_container(
            image,
            command=["sh", "-c", after_files(script, spec.place.folder)],
            stdin_open=True,
            name=container,
            ports=ports,
            host_config=host,
            networking_config=joined,
            labels=self._labels,
            stop_signal=spec.stop_signal,
        )["Id"]
        return created

    def _ports(self, name: str) -> list[int]:
        """Return the ports of a service's container: the first of a chain has those of all, and the others none."""
        if name in self._chain[1:]:
            return []
        names = self._chain if name in self._chain else [name]
        return [self._places[other].port for other in names]

    def _ensure_network(self) -> str:
        """Create the network once, attach the services that run already, and return its name."""
        with self._lock:
            if self._network is None:
                name = f"harness-{self._topology}-{self._token}"
                self._api.create_network(name, labels=self._labels, check_duplicate=True)
                self._network = name
                for service in self._services:
                    service.join(name, self._chain)
            return self._network

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._engine.memory.give_back(self.storage)
            self._closed = True
            services, network, self._network = list(self._services), self._network, None
        first: Exception | None = None
        # the first container, with the network, is the last: ends of connections still have to reach their clients
        for together in ([other for other in services if other is not self._host], [self._host]):
            with ThreadPoolExecutor(len(together) or 1) as pool:
                removals = [pool.submit(service.remove) for service in together if service]
            for removal in removals:
                try:
                    removal.result()
                except ServiceFailedError as error:
                    first = first or error
        if network:
            try:
                remove_network(self._api, network)
            except DOCKER_ERRORS as error:
                first = first or ServiceFailedError(
                    f"the network could not be removed: {message_of(error)}", where=network
                )
        if first:
            raise first
