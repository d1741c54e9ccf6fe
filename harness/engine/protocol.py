"""What an engine is: the small protocol that Docker and native servers both keep.

An engine opens a group (the services of one topology, which reach each other). A service is given a
place first, so that configuration can be rendered with the addresses of its neighbours, and all
services of a group can then start side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from harness.events import Notice

if TYPE_CHECKING:
    from harness.engine.owner import Owner
    from harness.engine.storage import DataStorage
    from harness.errors import HarnessError
    from harness.events import Listener


class Address(Struct, frozen=True):
    """A TCP address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Wanted(Struct, frozen=True, kw_only=True):
    """A product in a version, as a topology declares it."""

    product: str
    version: str


class Origin(Struct, frozen=True, kw_only=True):
    """Where a service's program comes from."""

    product: str
    #: as far as it is known before the program runs; "" when only the server itself can tell
    version: str
    #: image reference with digest, or the binary's path
    reference: str
    #: a sentence for the evidence when this is not exactly what was asked for
    note: str = ""


class ServicePlace(Struct, frozen=True, kw_only=True):
    """Where a service will run, known before it starts, for its configuration to name."""

    name: str
    #: the folder that the files of its specification are written to
    folder: str
    #: the initialised cluster, for PostgreSQL
    data: str
    listen: str
    port: int
    #: how the other services of the group reach it
    inside: Address
    origin: Origin


class ServiceSpec(Struct, frozen=True, kw_only=True):
    """One service to start."""

    place: ServicePlace
    #: file name, or folder/name, to text; written into the place's folder
    files: Mapping[str, str]
    #: a POSIX shell script that ends in `exec`ing the server in the foreground, logging to stderr
    script: str
    #: the signal that ends the server at once, and in order
    stop_signal: str


class ServiceState(Struct, frozen=True):
    """Whether a service runs, and if not, how it ended."""

    running: bool
    detail: str


class Service(Protocol):
    """A server that was started."""

    @property
    def name(self) -> str: ...
    @property
    def origin(self) -> Origin: ...
    def endpoint(self) -> Address:
        """Return the address on loopback; it may change over a restart."""
        ...

    @property
    def inside(self) -> Address:
        """The address for the other services of its group, and for what runs beside it."""
        ...

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
        """Run a program beside the server and return its exit code and what it said.

        :raises ServiceFailedError: when it cannot be started.
        """
        ...

    def state(self) -> ServiceState: ...
    def logs(self) -> str:
        """Return everything the server logged, also after it ended."""
        ...

    def stop(self) -> None:
        """End it in order."""
        ...

    def kill(self) -> None:
        """End it as a crash would."""
        ...

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        ...

    def resume(self) -> None: ...
    def restart(self) -> None:
        """Start it again, with its files and its data, running or not."""
        ...

    def remove(self) -> None:
        """End it and remove whatever it left; a second call does nothing."""
        ...


class Group(Protocol):
    """The services of one topology, which reach each other."""

    @property
    def storage(self) -> DataStorage:
        """Where the data of its database server is; settled once that is started."""
        ...

    def place(self, name: str, wanted: Wanted) -> ServicePlace:
        """Return where a service will run.

        :raises HarnessError: when the product could not be had.
        """
        ...

    def start(self, spec: ServiceSpec) -> Service:
        """Start a service; it does not answer yet.

        :raises ServiceFailedError: with the log's tail when it did not even start.
        """
        ...

    def close(self) -> None:
        """Remove all services and what joins them; a second call does nothing."""
        ...


class Engine(Protocol):
    """Where services run."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    def prepare(self, wanted: tuple[Wanted, ...], listener: Listener) -> None:
        """Make sure that every product can start fast: pull, build or initialise what is missing.

        A product that cannot be had is told to the listener, and again when a service of it is placed: the
        topologies without it still stand.

        :raises ImageUnavailableError: or EngineUnavailableError, saying what was tried, when none can be had.
        """
        ...

    def cancel_preparation(self) -> None:
        """End what is being made ready, in other threads too: they raise what `prepare` raises. For Ctrl-C."""
        ...

    def open_group(self, run: Owner, topology: str, *, durable: bool = False) -> Group:
        """Return an empty group.

        :param durable: its data has to survive a crash of the server, so it is kept on disk.
        :raises ServiceFailedError: when its data was to be kept in memory, and there is not enough.
        """
        ...

    def reap(self) -> list[str]:
        """Remove what runs left whose owner is gone; say what was removed."""
        ...

    def close(self) -> None: ...


class Missing(dict["Wanted", "HarnessError"]):
    """The products that could not be had, and why."""

    def note(self, wanted: Wanted, error: HarnessError, listener: Listener) -> None:
        self[wanted] = error
        listener(Notice(f"{wanted.product} {wanted.version} cannot be had here: {error.what}"))

    def require(self, wanted: Wanted) -> None:
        if wanted in self:
            raise self[wanted]


def log_tail(text: str, lines: int = 20) -> str:
    """Return the end of a log, for an error message."""
    return "\n".join(text.rstrip().splitlines()[-lines:])
