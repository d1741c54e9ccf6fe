"""Which engine runs: the one that was asked for, else Docker, else native."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from harness.engine.docker_engine import DockerEngine
from harness.engine.native_engine import NativeEngine
from harness.engine.storage import StoragePolicy
from harness.errors import EngineUnavailableError
from harness.events import Listener, Notice

if TYPE_CHECKING:
    from harness.engine.images import ImagePolicy
    from harness.engine.protocol import Engine, Wanted

EngineName = Literal["auto", "docker", "native"]


def choose(
    name: EngineName,
    policy: ImagePolicy,
    wanted: tuple[Wanted, ...],
    listener: Listener,
    storage: StoragePolicy = StoragePolicy.AUTO,
) -> Engine:
    """Return an engine that can run the given products. Images are not made yet: see `Engine.prepare`.

    `auto` prefers Docker and reports when it falls back; a named engine is never replaced.

    :param wanted: what the native engine must find on this machine, at least one of them.
    :param storage: where the data of database servers is kept.
    :raises EngineUnavailableError: when none can serve, with what each said.
    """
    refused = ""
    if name in {"auto", "docker"}:
        try:
            return DockerEngine(policy, storage)
        except EngineUnavailableError as error:
            if name == "docker":
                raise
            refused = error.what
    native = NativeEngine(storage)
    try:
        native.prepare(wanted, listener)
    except EngineUnavailableError as error:
        if not refused:
            raise
        raise EngineUnavailableError(
            f"nothing can run the servers: {refused}; and {error.what}",
            hint="start Docker, or install postgresql and pgbouncer",
        ) from None
    if refused:
        listener(Notice(f"{refused}; the native engine serves"))
    return native
