"""The choice of the engine: the named one; without a name Docker, else native."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.engine.embedded import INSTALL_COMMAND
from harness.engine.native_engine import NativeEngine
from harness.engine.storage import StoragePolicy
from harness.errors import EngineUnavailableError
from harness.events import Listener, Notice

if TYPE_CHECKING:
    from harness.engine.protocol import Engine, EngineName, Wanted
    from harness.engine.recipes import ImagePolicy

_HINT = (
    "start Docker, set DOCKER_HOST, or apt-get install postgresql pgbouncer "
    f"(PostgreSQL without root: {INSTALL_COMMAND})"
)


def choose(
    name: EngineName,
    policy: ImagePolicy,
    wanted: tuple[Wanted, ...],
    listener: Listener,
    storage: StoragePolicy = StoragePolicy.AUTO,
) -> Engine:
    """Return an engine. Docker images are prepared later, by `Engine.prepare`.

    `auto` prefers Docker, and reports a fallback to the native engine. A named engine is never replaced.

    :param wanted: the products of the run; the native engine must find at least one of them on this machine.
    :param storage: where database servers keep their data.
    :raises EngineUnavailableError: when no engine is available; the message has the reason for each engine.
    """
    docker_error = ""
    if name in {"auto", "docker"}:
        from harness.engine.docker_engine import DockerEngine  # noqa: PLC0415 -- the native engine needs no Docker SDK

        try:
            return DockerEngine(policy, storage)
        except EngineUnavailableError as error:
            if name == "docker":
                raise
            docker_error = error.what
    native = NativeEngine(storage)
    try:
        native.prepare(wanted, listener)
    except EngineUnavailableError as error:
        if not docker_error:
            raise
        raise EngineUnavailableError(
            "no engine can run the servers", detail=f"docker: {docker_error}\nnative: {error.what}", hint=_HINT
        ) from None
    if docker_error:
        listener(Notice(f"{docker_error}; using the native engine"))
    return native
