"""A Python of this machine for the reference host, with what the host imports in a virtual environment of the cache."""

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

from harness.engine.images import recipe_folder
from harness.engine.processes import end_all
from harness.engine.protocol import Origin, Wanted, log_tail
from harness.errors import EngineUnavailableError
from harness.events import ImageProgress, Listener

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: the product that is Python rather than a binary of its own
PYTHON_PRODUCT = "hostapp"
#: Oban for Python needs it
_OLDEST = (3, 12)
_NAMES = ("python3.14", "python3.13", "python3.12", "python3")
#: says what it is, and fails where a virtual environment could not be made with it
_QUESTION = "import ensurepip, ssl, sys, venv; print(sys.executable, *sys.version_info[:3])"
_ANSWER = re.compile(r"^(?P<path>/.+) (?P<version>\d+ \d+ \d+)$")
_HINT = (
    "install Python 3.13 with its venv module (apt-get install python3.13-venv, or pyenv install 3.13), name one in "
    "HARNESS_PYTHON, or use --engine docker"
)


class _Python(Struct, frozen=True, kw_only=True):
    path: str
    version: tuple[int, ...]
    #: whether the user that services run as may execute it
    shared: bool

    def __str__(self) -> str:
        return ".".join(map(str, self.version))


class EnvironmentBuilder:
    """Runs the programs that make an environment, and can be ended from another thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def run(self, command: list[str]) -> tuple[int, str]:
        """Run a program to its end and return its exit code and what it said.

        :raises EngineUnavailableError: when the builder was closed.
        """
        with tempfile.TemporaryFile() as output:  # a pipe would be open until the last descendant ends
            with self._lock:
                if self._closed:
                    raise EngineUnavailableError("the run ended before its environment was complete")
                # every user may read what it writes; the mask of this process stays, because other threads write
                self._process = process = subprocess.Popen(  # noqa: S603 -- our own arguments
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, umask=0o022
                )
            code = process.wait()
            output.seek(0)
            return code, output.read().decode(errors="replace")

    def close(self) -> None:
        """End what runs, and start nothing any more."""
        with self._lock:
            self._closed = True
            if self._process is not None and self._process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._process.pid, signal.SIGSTOP)  # it starts no more children while they are looked for
                end_all(self._process.pid, signal.SIGKILL)


def virtual_environment(
    wanted: Wanted, folder: Path, service_user: Mapping[str, object], listener: Listener, builder: EnvironmentBuilder
) -> tuple[Origin, bool]:
    """Return the Python of the host's virtual environment, making it once for each version and set of requirements.

    The caller holds the folder's lock.

    :param service_user: how subprocess runs a program as the user that services run as.
    :returns: where the Python is, and whether that user can execute it; otherwise whoever runs the harness must.
    :raises EngineUnavailableError: when there is no suitable Python, or packages cannot be installed.
    """
    python = _chosen(wanted, service_user)
    requirements = recipe_folder(wanted.product) / "requirements.txt"
    made_of = hashlib.sha256(f"{requirements.read_text(encoding='utf-8')}\0{python.path}".encode()).hexdigest()[:12]
    home = folder / f"{python}-{made_of}"
    if not (home / "complete").exists():
        listener(ImageProgress(str(home), f"making a virtual environment with Python {python}"))
        shutil.rmtree(home, ignore_errors=True)
        _make(home, python, requirements, builder)
    major_minor = ".".join(map(str, python.version[:2]))
    notes = []
    if major_minor != wanted.version:
        notes.append(f"native engine: the host was asked for on Python {wanted.version}, and runs on {python}")
    if not python.shared:
        notes.append(
            f"native engine: only who runs the harness may execute {python.path}, so the host runs as that user"
        )
    origin = Origin(
        product=wanted.product, version=str(python), reference=str(home / "bin" / "python"), note="; ".join(notes)
    )
    return origin, python.shared


def _chosen(wanted: Wanted, service_user: Mapping[str, object]) -> _Python:
    """Return the asked version where it is, else the newest; first of all those that services can execute."""
    named = os.environ.get("HARNESS_PYTHON", "")
    found = {each.path: each for path in _candidates(named) if (each := _asked(path, service_user))}
    suitable = [each for each in found.values() if each.version >= _OLDEST]
    if not suitable:
        here = ", ".join(sorted({str(each) for each in found.values()})) or "none"
        raise EngineUnavailableError(
            f"the reference host needs Python 3.12 or newer, with venv; found: {here}",
            where=f"HARNESS_PYTHON={named}" if named else "native engine",
            hint=_HINT,
        )
    asked = tuple(map(int, wanted.version.split(".")))
    return max(suitable, key=lambda each: (each.shared, each.version[: len(asked)] == asked, each.version))


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


def _asked(path: str, service_user: Mapping[str, object]) -> _Python | None:
    """Ask a Python what it is; None when it does not run, or cannot make virtual environments."""

    def answer(program: str, **as_user: object) -> re.Match[str] | None:
        try:
            said = subprocess.run(  # type: ignore[call-overload]  # noqa: S603 -- a Python of this machine
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
        return _ANSWER.match(said.strip())

    found = answer(path)
    if found is None:
        return None
    shared = not service_user or answer(found["path"], **service_user) is not None
    return _Python(path=found["path"], version=tuple(map(int, found["version"].split())), shared=shared)


def _pip_is_here() -> bool:
    """Say whether the Python of the harness has a pip that can fill another environment, as it can from 22.3 on."""
    try:
        return int(importlib.metadata.version("pip").split(".")[0]) > 22  # noqa: PLR2004
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False


def _make(home: Path, python: _Python, requirements: Path, builder: EnvironmentBuilder) -> None:
    """Make a virtual environment that anybody may read."""
    inside = str(home / "bin" / "python")
    if _pip_is_here():  # putting another pip into the environment would take half of the time
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
        code, said = builder.run(command)
        if code != 0:
            raise EngineUnavailableError(
                f"a virtual environment for the reference host could not be {what}",
                where=str(home),
                detail=log_tail(said),
                hint="set PIP_INDEX_URL, PIP_CERT or HTTPS_PROXY for pip; one package is compiled, and needs g++ "
                "and Python's headers (apt-get install g++ python3-dev)",
            )
    (home / "complete").touch()
