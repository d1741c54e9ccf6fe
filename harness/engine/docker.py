"""Services as containers, through the Docker SDK."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from concurrent.futures import Future, wait
from pathlib import Path
from shlex import quote
from threading import BoundedSemaphore, Event, Lock, Thread
from typing import TYPE_CHECKING, Any

import docker
import docker.errors
import requests
from docker.context import Context, ContextAPI
from docker.types import LogConfig

from harness.engine import debian
from harness.engine.builds import (
    LABEL_BUILD,
    LABEL_HOST,
    LABEL_PID,
    LABEL_STARTED,
    LABEL_TOOL,
    ImageBuilder,
    remove_unfinished,
    tar_of,
)
from harness.engine.builds import TROUBLE as _TROUBLE
from harness.engine.builds import remove_container as _remove_container
from harness.engine.builds import short as _short
from harness.engine.images import ImagePolicy, Images, load_product, load_recipe
from harness.engine.owner import Owner
from harness.engine.protocol import (
    Address,
    Missing,
    Origin,
    Service,
    ServicePlace,
    ServiceSpec,
    ServiceState,
    Wanted,
    log_tail,
)
from harness.engine.storage import DataStorage, MemoryBudget, StoragePolicy, available_here_mib
from harness.errors import EngineUnavailableError, HarnessError, ImageUnavailableError, ServiceFailedError
from harness.events import silent
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from docker.api import APIClient

    from harness.events import Listener

LABEL_RUN = "pooler-harness.run"
LABEL_TOPOLOGY = "pooler-harness.topology"
LABEL_CREATED = "pooler-harness.created"
LABEL_KEPT = "pooler-harness.kept"

_FOLDER = "/srv/harness"
#: the product whose image holds a cluster, and whose container outlives its server
_DATABASE = "postgres"
#: where memory is mounted for the data of a database server
_MEMORY = f"{_FOLDER}/memory"
_MEMORY_OPTIONS = "size={mib}m,mode=1777"
#: Keeps the container, and with it the memory, while the server is stopped and started again. A server that ends by
#: itself ends the container, with its exit code. The cluster of the image is copied into memory, or used where it is.
_SUPERVISOR = """
cd {folder} || exit
if [ -e memory ]; then cp -a cluster memory/data && ln -s memory/data data || exit; else ln -s cluster data || exit; fi
mkfifo start || exit
trap 'kill -INT "$server"; wait "$server"; exit $?' TERM INT QUIT
while :; do
    sh -c {script} &
    server=$!
    echo "$server" > server.pid
    wait "$server"
    code=$?
    [ -e held ] || exit "$code"
    : > ended
    read -r _ < start
done
"""
#: Ends the server of a supervised container, waits until it has ended, and says with 1 that it has not.
_END = """
cd {folder} && : > held && {signal}
tries=0
until [ -e ended ]; do tries=$((tries + 1)); [ $tries -lt {tries} ] || exit 1; sleep 0.02; done
"""
_END_TRY_S = 0.02
_STOP_S = 10.0

_REMOVAL_S = 10.0
#: for a container on this machine to answer; one that a firewall hides never does
_REACH_S = 0.5
#: a build that was cancelled ends when the daemon has killed its container
_CANCELLED_S = 20.0
#: two at least: one build often waits for a package server while another one unpacks
_BUILDS_AT_ONCE = max(2, os.cpu_count() or 2)

_GONE = (docker.errors.NotFound,)


class DockerEngine:
    """The engine behind `--engine docker`."""

    name = "docker"

    def __init__(self, policy: ImagePolicy | None = None, storage: StoragePolicy = StoragePolicy.AUTO) -> None:
        """Connect as users expect: DOCKER_HOST, the current docker context, the socket.

        :param storage: where the data of database servers is kept.
        :raises EngineUnavailableError: when nothing answers.
        """
        self._policy = policy or ImagePolicy()
        self._images: dict[Wanted, tuple[str, Origin]] = {}
        self._missing = Missing()
        #: done when the product is in one of these two
        self._attempts: dict[Wanted, Future[None]] = {}
        self._builders: set[ImageBuilder] = set()
        self._slots = BoundedSemaphore(_BUILDS_AT_ONCE)
        self._cancelled = Event()
        self._lock = Lock()
        self.address = ""
        try:
            self._api = self._connect()
            self.version: str = self._api.version()["Version"]
        except (*_TROUBLE, ValueError) as error:  # ValueError: an address that cannot be parsed
            raise EngineUnavailableError(
                f"no Docker engine answers at {self.address or 'the default address'}: {_short(error)}",
                hint="start Docker, set DOCKER_HOST, or use --engine native",
            ) from None
        self.memory = MemoryBudget(storage, self._available)
        self.reach = Reach(is_local=self._is_on_this_machine())

    def _is_on_this_machine(self) -> bool:
        """Say whether containers run on this machine's own kernel, and not in a virtual machine or on another host."""
        try:
            info = self._api.info()
        except _TROUBLE:
            return False
        return info.get("Name") == socket.gethostname() and info.get("KernelVersion") == os.uname().release

    def _available(self) -> tuple[int, str]:
        """Return the memory available for data where containers run, and why there is none."""
        if self.reach.is_local:
            return available_here_mib(), ""
        try:  # what others use of it cannot be seen from here
            return int(self._api.info().get("MemTotal", 0)) // 2**20 // 2, ""
        except _TROUBLE as error:
            return 0, f"the Docker engine does not say how much memory it has: {_short(error)}"

    def _connect(self, version: str = "auto") -> APIClient:
        if host := os.environ.get("DOCKER_HOST"):
            self.address = host
            return docker.from_env(version=version, timeout=60).api
        context: Context | None = None
        with contextlib.suppress(Exception):  # a damaged ~/.docker must not hide a working socket
            context = ContextAPI.get_current_context()
        if context is not None and context.Name != "default":
            self.address = context.Host or ""
            return docker.APIClient(base_url=self.address, version=version, timeout=60, tls=context.TLSConfig)
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        sockets = [Path("/var/run/docker.sock"), Path(runtime) / "docker.sock", Path.home() / ".docker/run/docker.sock"]
        socket = next((path for path in sockets if path.is_absolute() and path.exists()), sockets[0])
        self.address = f"unix://{socket}"
        return docker.APIClient(base_url=self.address, version=version, timeout=60)

    def prepare(self, wanted: tuple[Wanted, ...], listener: Listener) -> None:
        """Make products ready side by side, and return when these are; other threads may prepare others meanwhile.

        :raises ImageUnavailableError: when none of them is available.
        """
        products = tuple(dict.fromkeys(wanted))
        for product in products:
            load_recipe(product)
        with self._lock:
            new = [product for product in products if product not in self._attempts]
            self._attempts |= {product: Future() for product in new}
            attempts = [self._attempts[product] for product in products]
        for product in new:
            name = f"{product.product} {product.version}"
            Thread(target=self._attempt, args=(product, listener), name=name, daemon=True).start()
        try:
            wait(attempts)
        except BaseException:  # Ctrl-C
            self.cancel_preparation()
            raise
        for attempt in attempts:
            attempt.result()
        if products and all(product in self._missing for product in products):
            raise self._missing[products[0]]

    def _attempt(self, product: Wanted, listener: Listener) -> None:
        attempt = self._attempts[product]
        try:
            try:
                self._images[product] = self._prepared(product, listener)
            except ImageUnavailableError as error:
                # after Ctrl-C every build fails, and nobody has to read that of each one
                self._missing.note(product, error, silent if self._cancelled.is_set() else listener)
            except (*_TROUBLE, OSError) as error:
                failed = ImageUnavailableError(f"its image could not be made ready: {_short(error)}")
                self._missing.note(product, failed, listener)
        except BaseException as error:  # noqa: BLE001 -- whoever waits for the product raises it
            attempt.set_exception(error)
        else:
            attempt.set_result(None)

    def _prepared(self, product: Wanted, listener: Listener) -> tuple[str, Origin]:
        # a session of the requests library is not promised to be safe in several threads
        api = self._connect(self._api.api_version)
        builder = ImageBuilder(api, listener, slots=self._slots, cancelled=self._cancelled)
        with self._lock:
            self._builders.add(builder)
        try:
            return Images(api, self._policy, listener, builder).prepared(product)
        finally:
            with self._lock:
                self._builders.discard(builder)
            api.close()

    def cancel_preparation(self) -> None:
        """End the builds that are under way, and wait until they have removed what they made."""
        self._cancelled.set()

        def ended() -> None:
            with self._lock:
                builders = tuple(self._builders)
            for builder in builders:  # without its container, the daemon ends a build
                builder.clean(self._api)
            if builders:
                raise NotYet(f"{len(builders)} of them")

        with contextlib.suppress(HarnessError):  # `harness reap` finds the rest
            poll(ended, what="builds to end", deadline_s=_CANCELLED_S, interval_s=0.05)

    def origin(self, wanted: Wanted) -> tuple[str, Origin]:
        """Return the image of a prepared product.

        :raises ImageUnavailableError: when it could not be had.
        """
        self._missing.require(wanted)
        return self._images[wanted]

    def open_group(self, run: Owner, topology: str, *, durable: bool = False) -> DockerGroup:
        return DockerGroup(self, self._api, run, topology, self.memory.take(durable=durable))

    def reap(self) -> list[str]:
        """Remove containers, networks and unfinished builds whose owner on this host is gone."""
        removed = debian.reap()
        chosen = {"label": LABEL_RUN}
        try:
            containers = [
                each for each in self._api.containers(all=True, filters=chosen) if _is_left_over(each["Labels"])
            ]
            removed += [
                f"container {each['Names'][0].lstrip('/')}"
                for each in containers
                if _remove_container(self._api, each["Id"])
            ]
            networks = [each for each in self._api.networks(filters=chosen) if _is_left_over(each["Labels"])]
            removed += [f"network {each['Name']}" for each in networks if _remove_network(self._api, each["Id"])]
            removed += remove_unfinished(self._api, _is_left_over)
        except _TROUBLE as error:
            raise ServiceFailedError(f"leftovers could not be removed: {_short(error)}") from None
        return removed

    def close(self) -> None:
        self.cancel_preparation()
        self._api.close()


class Reach:
    """Whether containers can be reached at their own addresses, past the proxy that publishes their ports.

    The proxy copies every byte in a process of its own, which takes a tenth of the processor time of a run.
    """

    def __init__(self, *, is_local: bool) -> None:
        """Ask nobody yet.

        :param is_local: containers run on this machine's kernel: elsewhere the same address may be another's.
        """
        self.is_local = is_local
        self._found: bool | None = None if is_local else False

    def directly(self, host: str, port: int) -> bool:
        """Say whether a container's own address answers; the first answer counts for all containers."""
        if self._found is None:
            try:
                socket.create_connection((host, port), timeout=_REACH_S).close()
            except ConnectionRefusedError:  # the container answers, and its server does not listen yet
                self._found = True
            except OSError:
                self._found = False
            else:
                self._found = True
        return self._found


class DockerGroup:
    """The containers of one topology, and the network that joins them."""

    def __init__(
        self, engine: DockerEngine, api: APIClient, run: Owner, topology: str, storage: DataStorage
    ) -> None:
        self.storage = storage
        self._engine = engine
        self._api = api
        self._token = secrets.token_hex(4)
        # an environment with other versions is called transaction+postgres-15, and Docker knows no plus
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
        self._network: str | None = None
        self._closed = False
        self._lock = Lock()

    def place(self, name: str, wanted: Wanted) -> ServicePlace:
        port = load_product(wanted.product).port
        if self._services:  # one that was started alone gets the name that this one's configuration will use
            try:
                self._join()
            except _TROUBLE as error:
                raise ServiceFailedError(f"the services could not be joined: {_short(error)}", where=name) from None
        place = ServicePlace(
            name=name,
            folder=_FOLDER,
            data=f"{_FOLDER}/data",
            listen="0.0.0.0",  # noqa: S104 -- inside the container; it is published on loopback only
            port=port,
            inside=Address(name, port),
            origin=self._engine.origin(wanted)[1],
        )
        self._places[name], self._wanted[name] = place, wanted
        return place

    def start(self, spec: ServiceSpec) -> Service:
        place = spec.place
        image = self._engine.origin(self._wanted[place.name])[0]
        name = f"harness-{self._topology}-{place.name}-{self._token}"
        try:
            network = self._join() if len(self._places) > 1 else None
            service = self._launch(name, image, spec, network)
        except _TROUBLE as error:
            raise ServiceFailedError(
                f"the container could not be started: {_short(error)}", where=name, hint="harness doctor"
            ) from None
        service.endpoint()
        return service

    def _launch(self, name: str, image: str, spec: ServiceSpec, network: str | None) -> DockerService:
        """Create and start a container; without memory for its data where the engine refuses it."""
        keeps_data = self._wanted[spec.place.name].product == _DATABASE
        while True:
            in_memory = keeps_data and self.storage.in_memory
            with self._lock:
                if self._closed:
                    raise ServiceFailedError("the topology is being torn down", where=name)
                container = self._create(name, image, spec, network, keeps_data=keeps_data)
                service = DockerService(
                    self._api,
                    container,
                    name,
                    spec,
                    reach=self._engine.reach,
                    alone=network is None,
                    keeps_data=keeps_data,
                )
                self._services.append(service)
            try:
                self._api.put_archive(container, spec.place.folder, tar_of(dict(spec.files)))
                self._api.start(container)
            except docker.errors.APIError as error:
                if not in_memory:
                    raise
                service.remove()
                self.storage = self._engine.memory.refused(self.storage, _short(error))
            else:
                return service

    def _create(self, name: str, image: str, spec: ServiceSpec, network: str | None, *, keeps_data: bool) -> str:
        port, api = spec.place.port, self._api
        script = spec.script
        if keeps_data:
            script = _SUPERVISOR.format(folder=spec.place.folder, script=quote(spec.script))
        in_memory = keeps_data and self.storage.in_memory
        host = api.create_host_config(
            tmpfs={_MEMORY: _MEMORY_OPTIONS.format(mib=self.storage.memory_mib)} if in_memory else None,
            port_bindings={port: ("127.0.0.1", None)},
            network_mode=network or "bridge",
            log_config=LogConfig(type="json-file"),
            security_opt=["no-new-privileges"],
        )
        joined = (
            api.create_networking_config({network: api.create_endpoint_config(aliases=[spec.place.name])})  # type: ignore[arg-type]
            if network
            else None
        )
        created: str = api.create_container(
            image,
            command=["sh", "-c", script],
            name=name,
            ports=[port],
            host_config=host,
            networking_config=joined,
            labels=self._labels,
            stop_signal=spec.stop_signal,
        )["Id"]
        return created

    def _join(self) -> str:
        with self._lock:
            if self._network is None:
                name = f"harness-{self._topology}-{self._token}"
                self._api.create_network(name, labels=self._labels, check_duplicate=True)
                self._network = name
                for service in self._services:  # started when they were alone
                    service.join(name)
            return self._network

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._engine.memory.give_back(self.storage)
            self._closed = True
            services, network, self._network = list(self._services), self._network, None
        first: Exception | None = None
        for service in services:
            try:
                service.remove()
            except ServiceFailedError as error:
                first = first or error
        if network:
            try:
                _remove_network(self._api, network)
            except _TROUBLE as error:
                first = first or ServiceFailedError(f"the network could not be removed: {_short(error)}", where=network)
        if first:
            raise first


class DockerService:
    """One container."""

    def __init__(
        self,
        api: APIClient,
        container: str,
        container_name: str,
        spec: ServiceSpec,
        *,
        reach: Reach,
        alone: bool,
        keeps_data: bool,
    ) -> None:
        self._api = api
        #: its container goes on while the server is down, because the data may be in the container's memory
        self._is_supervised = keeps_data
        #: known from the first question on; a container that is restarted may get another
        self._address: Address | None = None
        self._reach = reach
        #: how the server was ended, while it is down and its container goes on
        self._down = ""
        self._id = container
        self._spec = spec
        # a container that joined no network has no name there
        self._inside = Address("127.0.0.1", spec.place.port) if alone else spec.place.inside
        self._removed = False
        self.container_name = container_name
        self.name = spec.place.name
        self.origin = spec.place.origin

    def endpoint(self) -> Address:
        """Return where the service listens: in its container where that can be reached, else where it is published."""
        if self._address is None:
            network = self._inspect()["NetworkSettings"]
            port = self._spec.place.port
            bound = (network["Ports"] or {}).get(f"{port}/tcp")
            if not bound:
                raise ServiceFailedError(
                    f"the service ended while starting: {self.state().detail}",
                    where=self.container_name,
                    detail=log_tail(self.logs()),
                )
            own = next((each["IPAddress"] for each in network["Networks"].values() if each["IPAddress"]), "")
            if own and self._reach.directly(own, port):
                self._address = Address(own, port)
            else:
                self._address = Address(bound[0]["HostIp"] or "127.0.0.1", int(bound[0]["HostPort"]))
        return self._address

    @property
    def inside(self) -> Address:
        return self._inside

    def join(self, network: str) -> None:
        """Give a container that was alone a name for the others of its group."""
        self._api.connect_container_to_network(self._id, network, aliases=[self.name])
        self._inside = self._spec.place.inside

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
        try:
            started = self._api.exec_create(self._id, list(command), environment=dict(environment))["Id"]
            said: bytes = self._api.exec_start(started)
            code: int = self._api.exec_inspect(started)["ExitCode"]
        except _TROUBLE as error:
            raise ServiceFailedError(
                f"{command[0]} could not be run beside the server: {_short(error)}", where=self.container_name
            ) from None
        return code, said.decode(errors="replace")

    def state(self) -> ServiceState:
        if self._removed or self._down:
            return ServiceState(running=False, detail="removed" if self._removed else self._down)
        try:
            state = self._api.inspect_container(self._id)["State"]
        except _GONE:
            return ServiceState(running=False, detail="the container is gone")
        except _TROUBLE as error:
            return ServiceState(running=False, detail=f"the Docker engine does not answer: {_short(error)}")
        detail = state["Status"]
        if not state["Running"]:
            detail += f" with exit code {state['ExitCode']}" + (", out of memory" if state["OOMKilled"] else "")
            if state["Error"]:
                detail += f": {state['Error']}"
        return ServiceState(running=state["Running"], detail=detail)

    def logs(self) -> str:
        try:
            raw: bytes = self._api.logs(self._id)
        except _TROUBLE as error:
            return f"(the log cannot be read: {_short(error)})\n"
        return raw.decode("utf-8", errors="replace")

    def stop(self) -> None:
        if self._is_supervised:
            if not self._end(f'kill -{self._spec.stop_signal.removeprefix("SIG")} "$(cat server.pid)"', "stopped"):
                self.kill()
        else:
            self._do("stopped", lambda: self._api.stop(self._id, timeout=int(_STOP_S)))

    def kill(self) -> None:
        if self._is_supervised:
            # everything in the container but its first process and the one that signals, see kill(2)
            self._end("kill -KILL -1", "killed")
        else:
            self._do("killed", lambda: self._api.kill(self._id, signal="KILL"))
            self._do("awaited", lambda: self._api.wait(self._id, timeout=10))

    def _end(self, signal: str, how: str) -> bool:
        """End the server and leave its container; return whether it ended in time."""
        if self._down:
            return True
        script = _END.format(folder=self._spec.place.folder, signal=signal, tries=int(_STOP_S / _END_TRY_S))
        code, said = self.run(["sh", "-c", script], {})
        if code not in {0, 1}:
            raise ServiceFailedError(f"the server could not be {how}: {said.strip()}", where=self.container_name)
        self._down = how if code == 0 else ""
        return code == 0

    def pause(self) -> None:
        self._do("paused", lambda: self._api.pause(self._id))

    def resume(self) -> None:
        self._do("resumed", lambda: self._api.unpause(self._id))

    def restart(self) -> None:
        if not self._is_supervised:
            self._address = None
            self._do("restarted", lambda: self._api.restart(self._id, timeout=int(_STOP_S)))
            return
        self.stop()
        code, said = self.run(["sh", "-c", f"cd {self._spec.place.folder} && rm -f held ended && echo > start"], {})
        if code != 0:
            raise ServiceFailedError(f"the server could not be restarted: {said.strip()}", where=self.container_name)
        self._down = ""

    def remove(self) -> None:
        if self._removed:
            return
        try:
            _remove_container(self._api, self._id)
        except _TROUBLE as error:
            raise ServiceFailedError(
                f"the container could not be removed: {_short(error)}", where=self.container_name, hint="harness reap"
            ) from None
        self._removed = True

    def _inspect(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._api.inspect_container(self._id)
        except _TROUBLE as error:
            raise ServiceFailedError(f"the container is gone: {_short(error)}", where=self.container_name) from None
        return found

    def _do(self, done: str, action: Any) -> None:
        try:
            action()
        except _TROUBLE as error:
            raise ServiceFailedError(
                f"the container could not be {done}: {_short(error)}", where=self.container_name
            ) from None


def _remove_network(api: APIClient, network: str) -> bool:
    """Remove a network, and return whether it was this call that did."""

    def remove() -> bool:
        try:
            api.remove_network(network)
        except _GONE:
            return False
        except docker.errors.APIError as error:
            # a container that another run is removing may hold an endpoint a moment longer
            if error.status_code in {requests.codes.forbidden, requests.codes.conflict}:
                raise NotYet(str(error.explanation)) from None
            raise
        return True

    return poll(remove, what=f"the removal of network {network[:12]}", deadline_s=_REMOVAL_S)


def _is_left_over(labels: dict[str, str]) -> bool:
    if LABEL_KEPT in labels:
        return False
    try:
        owner = Owner(
            run_id=labels.get(LABEL_RUN) or labels[LABEL_BUILD],
            host=labels[LABEL_HOST],
            pid=int(labels[LABEL_PID]),
            started=int(labels[LABEL_STARTED]),
        )
    except (KeyError, ValueError):
        return False
    return owner.is_gone()
