"""The protocol that every engine implements: engine, group, service.

An engine opens a group: the services of one topology, which can reach each other. Each service gets a place before it
starts. The configuration of a service can therefore name the addresses of the others, and all of them can start at the
same time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from msgspec import Struct

from harness.events import Notice

if TYPE_CHECKING:
    from harness.engine.owner import Owner
    from harness.engine.storage import DataStorage
    from harness.errors import HarnessError
    from harness.events import Listener

#: what a user can ask for; `choice.py` makes the engine of each name
EngineName = Literal["auto", "docker", "native"]
ENGINE_NAMES: tuple[EngineName, ...] = get_args(EngineName)


class Address(Struct, frozen=True):
    """A TCP address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Wanted(Struct, frozen=True, kw_only=True):
    """A product and its version, as a topology declares them."""

    product: str
    version: str


class Origin(Struct, frozen=True, kw_only=True):
    """The source of a service's program."""

    product: str
    #: "" when the version is unknown until the server runs
    version: str
    #: image reference with digest, or the path of the program
    reference: str
    #: a sentence for the evidence when the program differs from the declared one
    note: str = ""


class ServicePlace(Struct, frozen=True, kw_only=True):
    """The folders and addresses of a service, known before it starts."""

    name: str
    #: receives the files of the specification
    folder: str
    #: the data directory, for PostgreSQL
    data: str
    #: the IP address to listen on
    listen: str
    port: int
    #: the address for the other services of the group
    inside: Address
    origin: Origin


class ServiceSpec(Struct, frozen=True, kw_only=True):
    """One service to start."""

    place: ServicePlace
    #: maps a file name, or folder/name, to its text; written to the folder of the place
    files: Mapping[str, str]
    #: a POSIX shell script; its last command is `exec` of the server, in the foreground, with its log on stderr
    script: str
    #: the signal for an immediate, clean shutdown
    stop_signal: str


class ServiceState(Struct, frozen=True):
    """Whether a service is running; if not, `detail` says how it ended."""

    running: bool
    detail: str
    #: whether the harness stopped, killed or removed it
    on_purpose: bool = False


class Service(Protocol):
    """One started server."""

    @property
    def name(self) -> str: ...
    @property
    def origin(self) -> Origin: ...
    def endpoint(self) -> Address:
        """Return the address for the harness; a restart may change it."""
        ...

    @property
    def inside(self) -> Address:
        """The address for the other services of the group, and for programs that `run` starts."""
        ...

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
        """Run a program where the server runs: in its container, or next to its binary.

        :param command: the name of a program that is installed with the server, and its arguments.
        :returns: the exit code, and stdout and stderr in one text.
        :raises ServiceFailedError: when the program cannot be started.
        :raises TimedOutError: when it does not end within a minute, on native servers.
        """
        ...

    def state(self) -> ServiceState: ...
    def logs(self) -> str:
        """Return the whole log of the server, also after the server ended."""
        ...

    def stop(self, signal: str = "") -> None:
        """Shut the server down; the data stays.

        :param signal: the name of the signal, such as SIGQUIT; by default the one that ends the product cleanly.
        """
        ...

    def kill(self) -> None:
        """End the server as a crash does; the data stays."""
        ...

    def pause(self) -> None:
        """Freeze all processes of the server: connections stay open, and requests get no answer."""
        ...

    def resume(self) -> None: ...
    def signal_process(self, pid: int, signal: str) -> None:
        """Signal one process of the server, such as the one that serves a connection.

        :param pid: as the server itself sees it, in `pg_stat_activity` for example.
        :param signal: the name of the signal, such as SIGKILL.
        :raises ServiceFailedError: when the process is not one of the server's, or is gone.
        """
        ...

    @property
    def spare_folder(self) -> str:
        """The folder of a small file system that only this server uses; "" without one.

        A database server has one if its group is durable, and the engine can limit the size of a file system.
        """
        ...

    def restart(self) -> None:
        """Start the server again with its files and data, whether it is running or not."""
        ...

    def remove(self) -> None:
        """End the server and remove its files and data; a second call does nothing."""
        ...


class Group(Protocol):
    """The services of one topology, which can reach each other."""

    @property
    def storage(self) -> DataStorage:
        """Where the database server keeps its data; final once the server is started."""
        ...

    def place(self, name: str, wanted: Wanted, *, avoiding: Collection[int] = ()) -> ServicePlace:
        """Return the place of a service that will be started.

        :param name: unique within the group; the other services reach it under this name, where the engine has names.
        :param avoiding: ports that other services of the group need. Without it, a service gets its product's port,
            where the engine lets it choose.
        :raises HarnessError: when the product is unavailable.
        """
        ...

    def start(self, spec: ServiceSpec) -> Service:
        """Start a service and return without waiting until it is ready.

        :raises ServiceFailedError: with the end of the log when the service did not start.
        """
        ...

    def close(self) -> None:
        """Remove all services and their network; a second call does nothing."""
        ...


class Engine(Protocol):
    """Runs services: in containers, or as processes of this machine."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    def prepare(self, wanted: tuple[Wanted, ...], listener: Listener) -> None:
        """Pull, build or initialise every missing product, so that its services start fast.

        An unavailable product is reported to the listener once. Placing a service of it raises the same error.
        Topologies without that product can still start.

        :raises ImageUnavailableError: when every product is unavailable (Docker).
        :raises EngineUnavailableError: when every product is unavailable (native).
        """
        ...

    def cancel_preparation(self) -> None:
        """Cancel calls of `prepare` in all threads, which then raise. For Ctrl-C."""
        ...

    def open_group(self, run: Owner, topology: str, *, durable: bool = False) -> Group:
        """Return an empty group.

        :param run: owns the group; `reap` removes the group when this process is gone.
        :param topology: names the group in containers and folders.
        :param durable: the data must survive a crash of the server, and is kept on disk.
        :raises ServiceFailedError: when memory is demanded for the data, and too little is available.
        """
        ...

    def reap(self) -> list[str]:
        """Remove leftovers of runs whose owner is gone, and return a description of each."""
        ...

    def close(self) -> None: ...


def unavailable_notice(wanted: Wanted, error: HarnessError) -> Notice:
    """Return the notice about a product that cannot be prepared."""
    return Notice(f"{wanted.product} {wanted.version} is unavailable: {error.what}")


def log_tail(text: str, lines: int = 20) -> str:
    """Return the last lines of a log, for an error message."""
    return "\n".join(text.rstrip().splitlines()[-lines:])
