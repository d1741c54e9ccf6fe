"""The Python of the reference host: a virtual environment in the cache, made with a Python of this machine."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.engine.processes import end_all
from harness.engine.protocol import Origin, Wanted, log_tail
from harness.engine.recipes import recipe_folder
from harness.errors import EngineUnavailableError
from harness.events import Listener, making_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: the product that runs in Python, and has no binary
PYTHON_PRODUCT = "hostapp"
#: the minimum for Oban for Python
_OLDEST = (3, 12)
_NAMES = ("python3.14", "python3.13", "python3.12", "python3")
#: prints path and version; fails if this Python lacks a module for making virtual environments
_QUESTION = "import ensurepip, ssl, sys, venv; print(sys.executable, *sys.version_info[:3])"
_ANSWER = re.compile(r"^(?P<path>/.+) (?P<version>\d+ \d+ \d+)$")
_HINT = (
    "install Python 3.13 with its venv module (apt-get install python3.13-venv, or pyenv install 3.13), set "
    "HARNESS_PYTHON to the path of a suitable Python, or use --engine docker"
)


class _Python(Struct, frozen=True, kw_only=True):
    path: str
    version: tuple[int, ...]
    #: whether the user that runs services can execute it
    shared: bool

    def __str__(self) -> str:
        return ".".join(map(str, self.version))


class EnvironmentBuilder:
    """Runs the programs that make an environment; another thread can end them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def run(self, command: list[str]) -> tuple[int, str]:
        """Run a program to its end, and return its exit code and its output.

        :raises EngineUnavailableError: when the builder is closed.
        """
        with tempfile.TemporaryFile() as output:  # a pipe would stay open until the last descendant ends
            with self._lock:
                if self._closed:
                    raise EngineUnavailableError("the run ended before the environment was complete")
                # the umask lets every user read the files; it is set for the child only, because other threads write
                self._process = process = subprocess.Popen(  # noqa: S603 -- fixed arguments
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, umask=0o022
                )
            code = process.wait()
            output.seek(0)
            return code, output.read().decode(errors="replace")

    def close(self) -> None:
        """End the running program, and refuse to start others."""
        with self._lock:
            self._closed = True
            if self._process is not None and self._process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._process.pid, signal.SIGSTOP)  # no new children while the children are listed
                end_all(self._process.pid, signal.SIGKILL)


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
    made_of = hashlib.sha256(f"{requirements.read_text(encoding='utf-8')}\0{python.path}".encode()).hexdigest()[:12]
    home = folder / f"{python}-{made_of}"
    if not (home / "complete").exists():
        doing, done = (f"{verb} a virtual environment with Python {python}" for verb in ("making", "made"))
        with making_image(listener, str(home), doing=doing, done=done):
            shutil.rmtree(home, ignore_errors=True)
            _make(home, python, requirements, builder)
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


def _chosen(wanted: Wanted, service_user: Mapping[str, object]) -> _Python:
    """Return the best Python: one that services can execute, then the declared version, then the newest."""
    named = os.environ.get("HARNESS_PYTHON", "")
    found = {python.path: python for path in _candidates(named) if (python := _inspected(path, service_user))}
    suitable = [python for python in found.values() if python.version >= _OLDEST]
    if not suitable:
        versions = ", ".join(sorted({str(python) for python in found.values()})) or "none"
        raise EngineUnavailableError(
            f"the reference host needs Python 3.12 or newer, with venv; found: {versions}",
            where=f"HARNESS_PYTHON={named}" if named else "native engine",
            hint=_HINT,
        )
    declared = tuple(map(int, wanted.version.split(".")))
    return max(
        suitable, key=lambda python: (python.shared, python.version[: len(declared)] == declared, python.version)
    )


def _candidates(named: str) -> Iterator[str]:
    if named:
        yield named
        return
    for name in _NAMES:
        for folder in [*os.environ.get("PATH", "").split(os.pathsep), "/usr/local/bin", "/usr/bin"]:
            path = Path(folder) / name
            if folder and path.is_file() and os.access(path, os.X_OK):
                yield str(path)
    yield from sorted(glob.glob(str(Path.home() / ".pyenv/versions/3.1[2-9]*/bin/python3")))  # noqa: PTH207


def _inspected(path: str, service_user: Mapping[str, object]) -> _Python | None:
    """Run a Python and return its facts; None if it does not run, or cannot make virtual environments."""

    def answer(program: str, **as_user: object) -> re.Match[str] | None:
        try:
            output = subprocess.run(  # type: ignore[call-overload]  # noqa: S603 -- a Python of this machine
                [program, "-I", "-c", _QUESTION],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                cwd="/",
                timeout=20,
                **as_user,
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            return None
        return _ANSWER.match(output.strip())

    found = answer(path)
    if found is None:
        return None
    shared = not service_user or answer(found["path"], **service_user) is not None
    return _Python(path=found["path"], version=tuple(map(int, found["version"].split())), shared=shared)


def _has_pip() -> bool:
    """Return whether this Python's pip can install into another environment (`pip --python`, since pip 22.3)."""
    try:
        return int(importlib.metadata.version("pip").split(".")[0]) > 22  # noqa: PLR2004
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False


def _make(home: Path, python: _Python, requirements: Path, builder: EnvironmentBuilder) -> None:
    """Make a virtual environment that every user can read, and install the requirements."""
    inside = str(home / "bin" / "python")
    if _has_pip():  # installing pip into the environment would take half of the time
        made, pip = (
            [python.path, "-m", "venv", "--without-pip", str(home)],
            [sys.executable, "-m", "pip", "--python", inside],
        )
    else:
        made, pip = [python.path, "-m", "venv", str(home)], [inside, "-m", "pip"]
    for what, command in (
        ("made", made),
        ("filled", [*pip, "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)]),
    ):
        code, output = builder.run(command)
        if code != 0:
            raise EngineUnavailableError(
                f"a virtual environment for the reference host could not be {what}",
                where=str(home),
                detail=log_tail(output),
                hint="set PIP_INDEX_URL, PIP_CERT or HTTPS_PROXY for pip; one package is compiled, which needs g++ "
                "and Python's headers (apt-get install g++ python3-dev)",
            )
    (home / "complete").touch()
