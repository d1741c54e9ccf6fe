"""Virtual environments in the cache, made once with a Python of this machine; the one of the reference host."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from threading import Event, Lock
from typing import TYPE_CHECKING

from harness.engine.guard import new_mark, release, start_guard
from harness.engine.made_once import named_by
from harness.engine.processes import end_all
from harness.engine.protocol import Origin, Wanted, log_tail
from harness.engine.pythons import Python, choose_python
from harness.engine.recipes import recipe_folder
from harness.errors import EngineUnavailableError
from harness.events import Listener, making_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

#: the product that runs in Python, and has no binary
PYTHON_PRODUCT = "hostapp"
#: the minimum for Oban for Python
_OLDEST = (3, 12)
_PIP_HINT = (
    "set PIP_INDEX_URL, PIP_CERT or HTTPS_PROXY for pip; a package without a wheel is compiled, which needs g++ and "
    "Python's headers (apt-get install g++ python3-dev)"
)


NO_SPACE_HINT = "free space, or set XDG_CACHE_HOME to a writable folder for the cache"
#: what pip, venv and npm print when a disk is full
_NO_SPACE = ("No space left on device", "ENOSPC")


class EnvironmentBuilder:
    """Runs the programs that make an environment; another thread can end them."""

    def __init__(self, deadline_s: float | None = None) -> None:
        """Start nothing yet.

        :param deadline_s: the longest that one program may run, in seconds; no limit by default.
        """
        self.deadline_s = deadline_s
        self._lock = Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        #: set when the run ends
        self.closed = Event()

    def run(
        self, command: Sequence[str], *, folder: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> tuple[int | None, str]:
        """Run a program to its end, and return its exit code and its output.

        :param folder: working directory of the program; this process's by default.
        :param environment: its variables; this process's by default.
        :returns: the exit code is None when the deadline ended the program.
        :raises EngineUnavailableError: when the builder is closed, or the program cannot be started.
        """
        process: subprocess.Popen[bytes] | None = None
        guard: subprocess.Popen[str] | None = None
        mark = new_mark()
        code: int | None = None
        with tempfile.TemporaryFile() as output:  # a pipe would stay open until the last descendant ends
            try:
                with self._lock:
                    if self.closed.is_set():
                        raise EngineUnavailableError("the run ended before the environment was complete")
                    # the umask lets every user read the files; it is set for the child only: other threads write, too
                    process = subprocess.Popen(  # noqa: S603 -- fixed arguments
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        cwd=folder,
                        env={**(os.environ if environment is None else environment), mark: "1"},
                        umask=0o022,
                        start_new_session=True,  # ended as a whole, with its guard
                    )
                    self._running.add(process)
                # a program of a killed run would write into the folder that the next run makes
                guard = start_guard(process.pid, mark)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(self.deadline_s)
            except OSError as error:
                raise EngineUnavailableError(f"{command[0]} cannot be started: {error.strerror}") from None
            finally:  # also when a signal raises here
                if process is not None:
                    with self._lock:
                        _end(process)
                        self._running.discard(process)
                if guard is not None:
                    release(guard)
            output.seek(0)
            return code, output.read().decode(errors="replace")

    def require(
        self,
        what: str,
        command: Sequence[str],
        *,
        where: Path,
        hint: str,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Run a program that has to succeed.

        :param what: a clause without its end, such as `the packages of absurd could not be installed`.
        :param where: what the program makes.
        :param hint: what to try after a failure.
        :param folder: see :meth:`run`.
        :param environment: see :meth:`run`.
        :raises EngineUnavailableError: when the program fails or takes too long, with the tail of its output.
        """
        code, output = self.run(command, folder=folder, environment=environment)
        if code != 0:
            if any(said in output for said in _NO_SPACE):
                hint = NO_SPACE_HINT
            late = f" within {self.deadline_s:g} s" if code is None else ""
            raise EngineUnavailableError(f"{what}{late}", where=str(where), detail=log_tail(output), hint=hint)

    def close(self) -> None:
        """End the running programs, and refuse to start others."""
        with self._lock:
            self.closed.set()
            for process in self._running:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and its descendants, if it still runs."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGSTOP)  # no new children while the children are listed
        end_all(process.pid, signal.SIGKILL)
        process.wait()


def virtual_environment(
    wanted: Wanted, folder: Path, service_user: Mapping[str, object], listener: Listener, builder: EnvironmentBuilder
) -> tuple[Origin, bool]:
    """Return the Python of the host's virtual environment, made once for each Python and set of requirements.

    The caller holds the folder's lock.

    :param folder: the folder of the cache for these environments.
    :param service_user: subprocess's options that run a program as the user for services.
    :param builder: runs venv and pip.
    :returns: the origin of the Python, and whether the user for services can execute it. If not, the services run as
        the user of the harness.
    :raises EngineUnavailableError: when no suitable Python is found, or packages cannot be installed.
    """
    python = _chosen(wanted, service_user)
    requirements = recipe_folder(wanted.product) / "requirements.txt"
    made_of = named_by(requirements.read_text(encoding="utf-8"), python.path)
    home = folder / f"{python}-{made_of}"
    if not (home / "complete").exists():
        doing, done = (f"{verb} a virtual environment with Python {python}" for verb in ("making", "made"))
        with making_image(listener, str(home), doing=doing, done=done):
            shutil.rmtree(home, ignore_errors=True)
            make_environment(
                home,
                python,
                ("-r", str(requirements)),
                builder,
                what="a virtual environment for the reference host",
            )
    major_minor = ".".join(map(str, python.version[:2]))
    notes = []
    if major_minor != wanted.version:
        notes.append(f"native engine: Python {wanted.version} is declared for the host; it runs on {python}")
    if not python.shared:
        notes.append(
            f"native engine: only the user of the harness can execute {python.path}, so the host runs as that user"
        )
    origin = Origin(
        product=wanted.product, version=str(python), reference=str(home / "bin" / "python"), note="; ".join(notes)
    )
    return origin, python.shared


def find_python(wanted: Wanted, service_user: Mapping[str, object]) -> str:
    """Return the version and the path of the Python that the host would run on; nothing is installed.

    :raises EngineUnavailableError: when no suitable Python is found.
    """
    python = _chosen(wanted, service_user)
    return f"Python {python} ({python.path})"


def _chosen(wanted: Wanted, service_user: Mapping[str, object]) -> Python:
    declared = tuple(map(int, wanted.version.split(".")))
    try:
        return choose_python(
            _OLDEST, declared, service_user, what="the reference host", hint=", or use --engine docker"
        )
    except EngineUnavailableError as error:
        error.where = error.where or "native engine"
        raise


def _has_pip() -> bool:
    """Return whether this Python's pip can install into another environment (`pip --python`, since pip 22.3)."""
    try:
        return int(importlib.metadata.version("pip").split(".")[0]) > 22  # noqa: PLR2004
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False


def make_environment(
    home: Path, python: Python, requirements: Iterable[str], builder: EnvironmentBuilder, *, what: str
) -> None:
    """Make a virtual environment that every user can read, and install packages; `home/complete` marks a complete one.

    :param requirements: arguments of `pip install`; nothing is installed without any.
    :param what: a noun phrase for errors.
    :raises EngineUnavailableError: when a step fails, with the tail of its output.
    """
    inside = str(home / "bin" / "python")
    if _has_pip():  # installing pip into the environment would take half of the time
        made, pip = (
            [python.path, "-m", "venv", "--without-pip", str(home)],
            [sys.executable, "-m", "pip", "--python", inside],
        )
    else:
        made, pip = [python.path, "-m", "venv", str(home)], [inside, "-m", "pip"]
    builder.require(f"{what} could not be made", made, where=home, hint=_PIP_HINT)
    if requirements := tuple(requirements):
        filled = [*pip, "install", "--quiet", "--disable-pip-version-check", *requirements]
        builder.require(f"{what} could not be filled", filled, where=home, hint=_PIP_HINT)
    (home / "complete").touch()
