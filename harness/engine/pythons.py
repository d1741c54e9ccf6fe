"""Finds a Python of this machine that is new enough, and can make virtual environments."""

from __future__ import annotations

import functools
import glob
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.errors import EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NEWEST_MINOR = 14
#: most packages have wheels for it
PREFERRED = (3, 13)
#: prints path and version, unless this Python lacks a module for making virtual environments; importing them takes
#: four times as long as searching for them
_QUESTION = """
import _ssl, sys
from importlib.util import find_spec
if find_spec("ensurepip") and find_spec("venv"):
    print(sys.executable, *sys.version_info[:3])
"""
_ANSWER = re.compile(r"^(?P<path>/.+) (?P<version>\d+ \d+ \d+)$")


class Python(Struct, frozen=True, kw_only=True):
    path: str
    version: tuple[int, ...]
    #: whether the user that runs services can execute it
    shared: bool

    def __str__(self) -> str:
        return ".".join(map(str, self.version))


def choose_python(
    oldest: tuple[int, int],
    preferred: tuple[int, ...],
    service_user: Mapping[str, object],
    *,
    what: str,
    hint: str = "",
) -> Python:
    """Return the best Python: one that services can execute, then the preferred version, then the newest.

    :param oldest: the minimum version.
    :param preferred: the first numbers of the version that is taken if the machine has it.
    :param service_user: subprocess's options that run a program as the user for services; empty if none runs.
    :param what: the program that needs it, for the error.
    :param hint: of the error: what to try instead of another Python.
    :raises EngineUnavailableError: when no suitable Python is found.
    """
    named = os.environ.get("HARNESS_PYTHON", "")
    found: dict[str, Python] = {}
    for path in _candidates(named, oldest, preferred):
        if (python := _inspected(path, service_user)) is not None:
            found[python.path] = python
            if python.shared and python.version >= oldest and python.version[: len(preferred)] == preferred:
                return python  # starting each Python of a machine takes seconds
    suitable = [python for python in found.values() if python.version >= oldest]
    if not suitable:
        versions = ", ".join(sorted({str(python) for python in found.values()})) or "none"
        wanted = ".".join(map(str, max(oldest, PREFERRED)))
        raise EngineUnavailableError(
            f"{what} needs Python {oldest[0]}.{oldest[1]} or newer, with venv; found: {versions}",
            where=f"HARNESS_PYTHON={named}" if named else "",
            hint=f"install Python {wanted} with its venv module (apt-get install python{wanted}-venv, or pyenv install "
            f"{wanted}), or set HARNESS_PYTHON to the path of a suitable Python{hint}",
        )
    return max(
        suitable, key=lambda python: (python.shared, python.version[: len(preferred)] == preferred, python.version)
    )


def _candidates(named: str, oldest: tuple[int, int], preferred: tuple[int, ...]) -> Iterator[str]:
    """Yield the paths of Pythons: those with the preferred version in their name, then newer before older ones."""
    if named:
        yield named
        return
    minors = sorted(range(oldest[1], _NEWEST_MINOR + 1), key=lambda minor: ((3, minor) != preferred[:2], -minor))
    for minor in minors:
        yield from _on_path(f"python3.{minor}")
        yield from sorted(glob.glob(str(Path.home() / f".pyenv/versions/3.{minor}.*/bin/python3")))  # noqa: PTH207
    yield from _on_path("python3")
    yield sys.executable


def _on_path(name: str) -> Iterator[str]:
    """Yield the programs of a name on PATH, with the versions of pyenv in place of its shim.

    A shim starts a dozen shells to find one of them.
    """
    for folder in dict.fromkeys([*os.environ.get("PATH", "").split(os.pathsep), "/usr/local/bin", "/usr/bin"]):
        path = Path(folder) / name
        if not folder or not path.is_file() or not os.access(path, os.X_OK):
            continue
        versions = path.parent.parent / "versions"
        if path.parent.name == "shims" and versions.is_dir():
            yield from map(str, sorted(versions.glob(f"{name.removeprefix('python')}.*/bin/python3")))
        else:
            yield str(path)


def _inspected(path: str, service_user: Mapping[str, object]) -> Python | None:
    """Return the facts of a Python; None if it does not run, or cannot make virtual environments."""
    found = _answer_here(path)
    if found is None:
        return None
    shared = not service_user or _answer(found["path"], service_user) is not None
    return Python(path=found["path"], version=tuple(map(int, found["version"].split())), shared=shared)


@functools.cache
def _answer_here(path: str) -> re.Match[str] | None:
    return _answer(path, {})


def _answer(program: str, as_user: Mapping[str, object]) -> re.Match[str] | None:
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
