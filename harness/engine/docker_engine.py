"""Services as containers, through the Docker SDK."""

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
from harness.engine.docker_reach import ContainerReach
from harness.engine.docker_removal import remove_container, remove_network, remove_unfinished
from harness.engine.images import ImagePolicy, Images, load_recipe
from harness.engine.protocol import Missing, Origin, Wanted
from harness.engine.storage import MemoryBudget, StoragePolicy, available_here_mib
from harness.errors import EngineUnavailableError, HarnessError, ImageUnavailableError, ServiceFailedError
from harness.events import silent
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from docker.api import APIClient

    from harness.engine.owner import Owner
    from harness.events import Listener

#: a build that was cancelled ends when the daemon has killed its container
_CANCELLED_S = 20.0
#: two at least: one build often waits for a package server while another one unpacks
_BUILDS_AT_ONCE = max(2, os.cpu_count() or 2)


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
        except (*DOCKER_ERRORS, ValueError) as error:  # ValueError: an address that cannot be parsed
            raise EngineUnavailableError(
                f"no Docker engine answers at {self.address or 'the default address'}: {message_of(error)}",
                hint="start Docker, set DOCKER_HOST, or use --engine native",
            ) from None
        self.memory = MemoryBudget(storage, self._available)
        self.reach = ContainerReach(is_local=self._is_on_this_machine())

    def _is_on_this_machine(self) -> bool:
        """Say whether containers run on this machine's own kernel, and not in a virtual machine or on another host."""
        try:
            info = self._api.info()
        except DOCKER_ERRORS:
            return False
        return info.get("Name") == socket.gethostname() and info.get("KernelVersion") == os.uname().release

    def _available(self) -> tuple[int, str]:
        """Return the memory available for data where containers run, and why there is none."""
        if self.reach.is_local:
            return available_here_mib(), ""
        try:  # what others use of it cannot be seen from here
            return int(self._api.info().get("MemTotal", 0)) // 2**20 // 2, ""
        except DOCKER_ERRORS as error:
            return 0, f"the Docker engine does not say how much memory it has: {message_of(error)}"

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
            except (*DOCKER_ERRORS, OSError) as error:
                failed = ImageUnavailableError(f"its image could not be made ready: {message_of(error)}")
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
                each for each in self._api.containers(all=True, filters=chosen) if is_leftover(each["Labels"])
            ]
            removed += [
                f"container {each['Names'][0].lstrip('/')}"
                for each in containers
                if remove_container(self._api, each["Id"])
            ]
            networks = [each for each in self._api.networks(filters=chosen) if is_leftover(each["Labels"])]
            removed += [f"network {each['Name']}" for each in networks if remove_network(self._api, each["Id"])]
            removed += remove_unfinished(self._api, is_leftover)
        except DOCKER_ERRORS as error:
            raise ServiceFailedError(f"leftovers could not be removed: {message_of(error)}") from None
        return removed

    def close(self) -> None:
        self.cancel_preparation()
        self._api.close()
