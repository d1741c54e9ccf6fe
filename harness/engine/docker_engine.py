"""The engine that runs services in containers, through the Docker SDK."""

from __future__ import annotations

import contextlib
import os
import socket
from concurrent.futures import Future, wait
from pathlib import Path
from threading import BoundedSemaphore, Event, Lock, Thread
from typing import TYPE_CHECKING

import docker
from docker.context import Context, ContextAPI

from harness.engine import debian
from harness.engine.builds import ImageBuilder
from harness.engine.docker_errors import DOCKER_ERRORS, message_of
from harness.engine.docker_group import DockerGroup
from harness.engine.docker_labels import LABEL_RUN, is_leftover
from harness.engine.docker_reach import ADDRESS, ContainerReach, published_at
from harness.engine.docker_removal import remove_container, remove_network, remove_unfinished
from harness.engine.images import Images
from harness.engine.protocol import Origin, Wanted, unavailable_notice
from harness.engine.recipes import ImagePolicy, load_recipe
from harness.engine.storage import MemoryBudget, StoragePolicy, available_here_mib
from harness.errors import EngineUnavailableError, HarnessError, ImageUnavailableError, ServiceFailedError
from harness.events import silent
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from docker.api import APIClient

    from harness.engine.owner import Owner
    from harness.events import Listener

#: a cancelled build ends once the daemon has killed its container
_CANCELLATION_S = 20.0
#: at least two, because one build often waits for a package server while another unpacks
_CONCURRENT_BUILDS = max(2, os.cpu_count() or 2)


class DockerEngine:
    """The engine behind `--engine docker`."""

    name = "docker"

    def __init__(self, policy: ImagePolicy | None = None, storage: StoragePolicy = StoragePolicy.AUTO) -> None:
        """Connect to Docker as its client does: DOCKER_HOST, else the current context, else the socket.

        :param policy: where images come from.
        :param storage: where database servers keep their data.
        :raises EngineUnavailableError: when no Docker engine answers, or its machine's name cannot be resolved.
        """
        self._policy = policy or ImagePolicy()
        self._images: dict[Wanted, tuple[str, Origin]] = {}
        self._unavailable: dict[Wanted, HarnessError] = {}
        #: done when the product is in one of the two above
        self._preparations: dict[Wanted, Future[None]] = {}
        self._builders: set[ImageBuilder] = set()
        self._slots = BoundedSemaphore(_CONCURRENT_BUILDS)
        self._cancelled = Event()
        self._lock = Lock()
        self.address = ""
        try:
            self._api = self._connect()
            self.version: str = self._api.version()["Version"]
        except (*DOCKER_ERRORS, ValueError) as error:  # ValueError: the address cannot be parsed
            raise EngineUnavailableError(
                f"no Docker engine answers at {self.address or 'the default address'}: {message_of(error)}",
                hint="start Docker, set DOCKER_HOST to its address, or use --engine native",
            ) from None
        is_local = self._is_local()
        self.reach = ContainerReach(
            is_local=is_local,
            published=published_at(self.address, os.environ, is_local=is_local),
            may_be_direct=not os.environ.get(ADDRESS),
        )
        self.memory = MemoryBudget(storage, self._available_memory)

    def _is_local(self) -> bool:
        """Return whether containers share this machine's kernel: not in a virtual machine, not on another host."""
        try:
            info = self._api.info()
        except DOCKER_ERRORS:
            return False
        return info.get("Name") == socket.gethostname() and info.get("KernelVersion") == os.uname().release

    def _available_memory(self) -> tuple[int, str]:
        """Return the memory for data in MiB where containers run, and the reason when it is 0."""
        if self.reach.is_local:
            return available_here_mib(), ""
        try:  # the engine reports its total only, so half of it is assumed to be free
            return int(self._api.info().get("MemTotal", 0)) // 2**20 // 2, ""
        except DOCKER_ERRORS as error:
            return 0, f"the Docker engine does not report its memory: {message_of(error)}"

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
        """Prepare products concurrently, and return when they are ready. Other threads may prepare others.

        :raises ImageUnavailableError: when every one of these products is unavailable.
        """
        products = tuple(dict.fromkeys(wanted))
        for product in products:
            load_recipe(product)
        with self._lock:
            new = [product for product in products if product not in self._preparations]
            self._preparations |= {product: Future() for product in new}
            preparations = [self._preparations[product] for product in products]
        for product in new:
            name = f"{product.product} {product.version}"
            Thread(target=self._prepare_one, args=(product, listener), name=name, daemon=True).start()
        try:
            wait(preparations)
        except BaseException:  # Ctrl-C
            self.cancel_preparation()
            raise
        for preparation in preparations:
            preparation.result()
        if products and all(product in self._unavailable for product in products):
            raise self._unavailable[products[0]]

    def _prepare_one(self, product: Wanted, listener: Listener) -> None:
        """Complete a preparation in every case, because other threads wait for it."""
        preparation = self._preparations[product]
        try:
            try:
                self._images[product] = self._prepared_image(product, listener)
            except ImageUnavailableError as error:
                # Ctrl-C makes every build fail; one message about it is enough
                self._note_unavailable(product, error, silent if self._cancelled.is_set() else listener)
            except (*DOCKER_ERRORS, OSError) as error:
                failed = ImageUnavailableError(f"its image could not be prepared: {message_of(error)}")
                self._note_unavailable(product, failed, listener)
        except BaseException as error:  # noqa: BLE001 -- raised in the threads that wait for the product
            preparation.set_exception(error)
        else:
            preparation.set_result(None)

    def _note_unavailable(self, product: Wanted, error: HarnessError, listener: Listener) -> None:
        self._unavailable[product] = error
        listener(unavailable_notice(product, error))

    def _prepared_image(self, product: Wanted, listener: Listener) -> tuple[str, Origin]:
        # a client for each thread: the requests library does not promise that its sessions are thread-safe
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
        """Cancel the running builds, and wait until their containers and images are removed."""
        self._cancelled.set()

        def ended() -> None:
            with self._lock:
                builders = tuple(self._builders)
            for builder in builders:  # the daemon ends a build whose container is gone
                builder.clean(self._api)
            if builders:
                raise NotYet(f"{len(builders)} builds")

        with contextlib.suppress(HarnessError):  # `harness reap` removes the rest
            poll(ended, what="builds to end", deadline_s=_CANCELLATION_S, interval_s=0.05)

    def origin(self, wanted: Wanted) -> tuple[str, Origin]:
        """Return the image of a prepared product, and its origin.

        :raises ImageUnavailableError: when the product is unavailable.
        """
        if wanted in self._unavailable:
            raise self._unavailable[wanted]
        return self._images[wanted]

    def open_group(self, run: Owner, topology: str, *, durable: bool = False) -> DockerGroup:
        return DockerGroup(self, self._api, run, topology, self.memory.take(durable=durable), durable=durable)

    def reap(self) -> list[str]:
        """Remove containers, networks and unfinished builds whose owner on this host is gone.

        :raises ServiceFailedError: when Docker refuses.
        """
        removed = debian.reap()
        labelled = {"label": LABEL_RUN}
        try:
            removed += [
                f"container {container['Names'][0].lstrip('/')} of run {container['Labels'][LABEL_RUN]}"
                for container in self._api.containers(all=True, filters=labelled)
                if is_leftover(container["Labels"]) and remove_container(self._api, container["Id"])
            ]
            removed += [
                f"network {network['Name']} of run {network['Labels'][LABEL_RUN]}"
                for network in self._api.networks(filters=labelled)
                if is_leftover(network["Labels"]) and remove_network(self._api, network["Id"])
            ]
            removed += remove_unfinished(self._api, is_leftover)
        except DOCKER_ERRORS as error:
            raise ServiceFailedError(f"leftovers could not be removed: {message_of(error)}") from None
        return removed

    def close(self) -> None:
        self.cancel_preparation()
        self._api.close()
