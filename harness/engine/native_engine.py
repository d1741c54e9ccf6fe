"""The engine that runs services as processes of this machine, for machines without Docker."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import pwd
import shutil
import signal
import sys
from concurrent.futures import Future
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING

import msgspec

from harness import places
from harness.engine import embedded
from harness.engine.native_folders import OWNER, locked, memory_available, remove_folder, runs_in_memory, runs_on_disk
from harness.engine.native_group import NativeGroup
from harness.engine.owner import Owner, process_started
from harness.engine.processes import end_all, output_of
from harness.engine.programs import embedded_server, installed_program, origin_of
from harness.engine.protocol import Origin, Wanted, log_tail, unavailable_notice
from harness.engine.service_user import as_user, give, unprivileged_user
from harness.engine.storage import MemoryBudget, StoragePolicy
from harness.engine.virtual_environments import PYTHON_PRODUCT, EnvironmentBuilder, virtual_environment
from harness.engine.wheel_programs import WHEEL_PRODUCTS, program_of_wheel
from harness.errors import EngineUnavailableError
from harness.events import Listener, Notice, making_image

if TYPE_CHECKING:
    import subprocess


#: a program of the harness: it runs in the harness's own Python, as the harness's user
OWN_PRODUCT = "link"
#: ENOSPC as the C library words it
_NO_SPACE = "No space left on device"


class NativeEngine:
    """The engine behind `--engine native`."""

    name = "native"

    def __init__(self, storage: StoragePolicy = StoragePolicy.AUTO) -> None:
        """Search for no program yet.

        :param storage: where database servers keep their data.
        :raises EngineUnavailableError: when the harness runs as root, and no user for servers exists.
        """
        self.memory = MemoryBudget(storage, memory_available)
        self.version = os.uname().sysname + " " + os.uname().release
        self._preparing = Lock()
        #: the thread that adds a product prepares it; the other threads wait for the result
        self._preparations: dict[Wanted, Future[Origin]] = {}
        self._clusters: dict[str, Path] = {}
        self._users: dict[Wanted, pwd.struct_passwd] = {}
        self._builder = EnvironmentBuilder()
        self.user = unprivileged_user()

    def prepare(self, wanted: tuple[Wanted, ...], listener: Listener) -> None:
        """Prepare each product once, also for callers in several threads.

        pip may take a minute to make the environment of the reference host, so that is done in the background. Only
        callers that want nothing else wait for it.

        :raises EngineUnavailableError: when every product is unavailable.
        """
        products = tuple(dict.fromkeys(wanted))
        # the background work starts first
        for product in sorted(products, key=lambda product: product.product != PYTHON_PRODUCT):
            with self._preparing:
                if product in self._preparations:
                    continue
                preparation = self._preparations[product] = Future()
            if product.product == PYTHON_PRODUCT:
                Thread(
                    target=self._prepare_one,
                    args=(product, preparation, listener),
                    name=f"prepare-{product.product}",
                    daemon=True,
                ).start()
            else:
                self._prepare_one(product, preparation, listener)
        programs = [product for product in products if product.product != PYTHON_PRODUCT]
        errors = [self._preparations[product].exception() for product in programs or products]
        for error in errors:
            if error is not None and (all(errors) or not isinstance(error, EngineUnavailableError)):
                raise error

    def _prepare_one(self, product: Wanted, preparation: Future[Origin], listener: Listener) -> None:
        """Complete a preparation in every case, because other threads wait for it."""
        try:
            origin = self._locate(product, listener)
            if product.product == "postgres":
                self._clusters[origin.reference] = self._cluster(origin, listener)
        except EngineUnavailableError as error:
            listener(unavailable_notice(product, error))
            preparation.set_exception(error)
        except OSError as error:
            preparation.set_exception(
                EngineUnavailableError(f"{product.product} {product.version} could not be prepared: {error}")
            )
        except BaseException as error:
            preparation.set_exception(error)
            raise
        else:
            if origin.note:
                listener(Notice(origin.note))
            preparation.set_result(origin)

    def _locate(self, wanted: Wanted, listener: Listener) -> Origin:
        if wanted.product in {PYTHON_PRODUCT, *WHEEL_PRODUCTS}:
            return self._installed_by_pip(wanted, listener)
        if wanted.product == OWN_PRODUCT:
            self._users[wanted] = pwd.getpwuid(os.geteuid())
            return Origin(product=wanted.product, version=platform.python_version(), reference=sys.executable)
        if installed := installed_program(wanted):
            return installed
        server = embedded_server(wanted)
        folder = places.cache() / embedded.DISTRIBUTION
        folder.mkdir(exist_ok=True)
        with locked(folder / "lock"):
            server = embedded.executable_by(server, as_user(self.user), self.user.pw_name, folder)
        return origin_of(server, wanted)

    def _installed_by_pip(self, wanted: Wanted, listener: Listener) -> Origin:
        if wanted.product in WHEEL_PRODUCTS and (installed := installed_program(wanted)) and not installed.note:
            return installed
        install = virtual_environment if wanted.product == PYTHON_PRODUCT else program_of_wheel
        folder = places.cache() / wanted.product
        folder.mkdir(exist_ok=True)
        with locked(folder / "lock"):
            origin, by_service_user = install(wanted, folder, as_user(self.user), listener, self._builder)
        if not by_service_user:
            self._users[wanted] = pwd.getpwuid(os.geteuid())
        return origin

    def user_for(self, wanted: Wanted) -> pwd.struct_passwd:
        """Return the user that runs the services of a product."""
        return self._users.get(wanted, self.user)

    def _cluster(self, origin: Origin, listener: Listener) -> Path:
        """Return the initialised cluster of the cache; it is made once for each version and user."""
        folder = places.cache() / "clusters"
        folder.mkdir(exist_ok=True)
        give(folder, self.user)
        build = (
            f"{origin.version}-{embedded.DISTRIBUTION}" if embedded.is_embedded(origin.reference) else origin.version
        )
        cluster = folder / f"{build}-{self.user.pw_name}"
        with locked(folder / "lock"):
            if (cluster / "PG_VERSION").exists():
                return cluster
            with making_image(listener, str(cluster), doing="initialising a cluster", done="initialised"):
                fresh = folder / f"{cluster.name}.new"
                shutil.rmtree(fresh, ignore_errors=True)
                initdb = Path(origin.reference).with_name("initdb")
                done = self.run(
                    [
                        str(initdb),
                        f"--pgdata={fresh}",
                        "--username=harness_admin",
                        "--encoding=UTF8",
                        "--locale=C.UTF-8",
                        "--auth-local=reject",
                        "--auth-host=scram-sha-256",
                        "--no-sync",
                    ]
                )
                if done.returncode != 0:
                    shutil.rmtree(fresh, ignore_errors=True)
                    full = _NO_SPACE in done.stdout
                    raise EngineUnavailableError(
                        f"initdb of PostgreSQL {origin.version} failed" + (": the disk is full" if full else ""),
                        where=f"{initdb}, in {folder}",
                        detail=log_tail(done.stdout),
                        hint="free some space there, or set XDG_CACHE_HOME to a folder of another disk" if full else "",
                    )
                fresh.rename(cluster)
        return cluster

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a program of a server as the user that runs servers."""
        return output_of(command, as_user(self.user))

    def origin(self, wanted: Wanted) -> Origin:
        """Wait until a product is prepared, and return the origin of its program.

        :raises EngineUnavailableError: when the product is unavailable.
        """
        return self._preparations[wanted].result()

    def cluster(self, origin: Origin) -> Path:
        return self._clusters[origin.reference]

    def open_group(self, run: Owner, topology: str, *, durable: bool = False) -> NativeGroup:
        return NativeGroup(self, run, topology, self.memory.take(durable=durable))

    def reap(self) -> list[str]:
        """End the servers and remove the folders of runs whose owner on this host is gone."""
        removed = []
        for folder in sorted([*runs_on_disk().glob("*/*"), *runs_in_memory().glob("*/*")]):
            try:
                owner = msgspec.json.decode((folder / OWNER).read_bytes(), type=Owner)
            except (OSError, msgspec.MsgspecError):
                continue
            if not owner.is_gone():
                continue
            for pidfile in folder.glob("*/pid.json"):
                with contextlib.suppress(OSError, ValueError, TypeError):
                    pid, started = json.loads(pidfile.read_text())
                    if process_started(pid) == started:
                        end_all(pid, signal.SIGKILL)
                        removed.append(f"process {pid}")
            if remove_folder(folder):
                removed.append(f"folder {folder}")
            with contextlib.suppress(OSError):
                folder.parent.rmdir()
        return removed

    def cancel_preparation(self) -> None:
        self._builder.close()

    def close(self) -> None:
        self.cancel_preparation()
