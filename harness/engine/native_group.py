"""The servers of one topology, each in a folder of its own."""

from __future__ import annotations

import contextlib
import secrets
import socket
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import msgspec

from harness.engine.native_folders import OWNER, open_to_servers, remove_folder, runs_in_memory, runs_on_disk
from harness.engine.native_service import NativeService
from harness.engine.protocol import Address, Service, ServicePlace, ServiceSpec, Wanted, log_tail
from harness.engine.service_user import give
from harness.errors import ServiceFailedError

if TYPE_CHECKING:
    from collections.abc import Collection

    from harness.engine.native_engine import NativeEngine
    from harness.engine.owner import Owner
    from harness.engine.storage import DataStorage


class NativeGroup:
    """The servers of one topology, each in a folder of its own."""

    def __init__(self, engine: NativeEngine, run: Owner, topology: str, storage: DataStorage) -> None:
        self.storage = storage
        self._engine = engine
        home = runs_in_memory() if storage.in_memory else runs_on_disk()
        self._folder = home / run.run_id / f"{topology}-{secrets.token_hex(4)}"
        self._lock = Lock()
        self._services: list[NativeService] = []
        self._wanted: dict[str, Wanted] = {}
        self._closed = False
        try:
            self._folder.mkdir(parents=True)
            for made in (self._folder.parent, self._folder):
                open_to_servers(made)
            (self._folder / OWNER).write_bytes(msgspec.json.encode(run))
        except OSError as error:
            engine.memory.give_back(storage)
            raise ServiceFailedError(
                f"the folder of the topology cannot be written: {error}", where=str(self._folder)
            ) from None

    def place(
        self,
        name: str,
        wanted: Wanted,
        *,
        avoiding: Collection[int] = (),  # noqa: ARG002 -- each service gets a free port
    ) -> ServicePlace:
        folder = self._folder / name
        folder.mkdir()
        give(folder, self._engine.user_for(wanted))
        port = free_port()
        self._wanted[name] = wanted
        return ServicePlace(
            name=name,
            folder=str(folder),
            data=str(folder / "data"),
            listen="127.0.0.1",
            port=port,
            inside=Address("127.0.0.1", port),
            origin=self._engine.origin(wanted),
        )

    def start(self, spec: ServiceSpec) -> Service:
        folder, engine = Path(spec.place.folder), self._engine
        user = engine.user_for(self._wanted[spec.place.name])
        try:
            for name, text in spec.files.items():
                path = folder / name
                if not path.parent.is_dir():
                    path.parent.mkdir()
                    give(path.parent, user)
                path.write_text(text, encoding="utf-8")
                path.chmod(0o600)
                give(path, user)
            if self._wanted[spec.place.name].product == "postgres":
                done = engine.run(["cp", "-a", str(engine.cluster(spec.place.origin)), spec.place.data])
                if done.returncode != 0:
                    output = done.stdout.strip().splitlines() or ["cp gave no reason"]
                    raise ServiceFailedError(
                        f"the cluster could not be copied: {output[-1]}",
                        where=str(folder),
                        detail=log_tail(done.stdout),
                        hint="--storage disk" if self.storage.in_memory else "",
                    )
        except OSError as error:
            raise ServiceFailedError(
                f"the folder of the service cannot be written: {error}", where=str(folder)
            ) from None
        with self._lock:
            if self._closed:
                raise ServiceFailedError("the topology is being torn down", where=spec.place.name)
            service = NativeService(spec, folder, user)
            self._services.append(service)
            service.launch()
        return service

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._engine.memory.give_back(self.storage)
            self._closed = True
            services = list(self._services)
        for service in services:
            service.remove()
        remove_folder(self._folder)
        with contextlib.suppress(OSError):
            self._folder.parent.rmdir()


def free_port() -> int:
    """Return a port that is free now. If another process takes it before the server does, the lab starts again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
