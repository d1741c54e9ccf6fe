"""Install the packages of a program under test into the cache, once for each set of packages and interpreter."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from harness import places
from harness.engine.made_once import named_by
from harness.engine.pythons import PREFERRED, Python, choose_python
from harness.engine.virtual_environments import NO_SPACE_HINT, EnvironmentBuilder, make_environment
from harness.errors import EngineUnavailableError
from harness.job_engines.installed_once import DEADLINE_S, is_complete, made
from harness.job_engines.node import (
    install_packages,
    node_in,
    node_modules,
    node_of_wheel,
    node_on_path,
    npm_versions,
    require_wheel_new_enough,
    wheel_home,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.events import Listener
    from harness.job_engines.installable import Installable

KIT = Path(__file__).resolve().parent / "kit"


class Installed(Struct, frozen=True, kw_only=True):
    """The programs that the packages of a job engine were installed for."""

    #: the path of Python; "" if the engine needs none
    python: str
    #: the path of Node; "" if the engine needs none
    node: str
    #: the exact versions of Python, Node and each package that the target names
    versions: dict[str, str]
    #: variables that let programs find the packages and the kit
    environment: dict[str, str]


def install(engine: Installable, listener: Listener, builder: EnvironmentBuilder | None = None) -> Installed:
    """Install the packages of a job engine or of an ingest pipeline, unless they are installed already.

    Other processes and threads that need the same packages wait. A folder whose installation did not end is made again.

    :param builder: runs pip and npm; to be closed by another thread when the run ends early.
    :raises EngineUnavailableError: when something is missing that the target needs, with what to try.
    """
    _require_runnable(engine)
    try:
        return _installed(engine, listener, builder or EnvironmentBuilder(DEADLINE_S))
    except OSError as error:  # such as a full disk
        raise EngineUnavailableError(
            f"the packages of {engine.title} could not be installed: {error}",
            hint=NO_SPACE_HINT,
        ) from None


def _installed(engine: Installable, listener: Listener, builder: EnvironmentBuilder) -> Installed:
    packages = engine.packages
    folder = _folder()
    versions: dict[str, str] = {}
    paths: list[str] = []
    python = node = ""
    modules = [str(KIT)]
    if _needs_python(engine):
        chosen = _python(engine)
        home = _environment(folder, chosen, packages.python)
        with made(home, listener, builder, what=f"a virtual environment for {engine.title}") as what:
            if what:
                make_environment(home, chosen, packages.python, builder, what=what)
        python = str(home / "bin" / "python")
        versions |= {"Python": str(chosen), **_python_versions(home, packages.python)}
        paths.append(str(home / "bin"))
    if _needs_node(engine):
        used = node_on_path(engine) or node_of_wheel(engine, folder, listener, builder)
        home = node_modules(folder, used, packages.npm)
        if packages.npm:
            with made(home, listener, builder, what=f"packages of npm for {engine.title}") as what:
                if what:
                    install_packages(home, used, packages.npm, builder, what)
            modules.insert(0, str(home / "node_modules"))
            paths.append(str(home / "node_modules" / ".bin"))
        node = used.path
        versions |= {"Node": used.version, **npm_versions(home, packages.npm)}
        paths.append(str(Path(node).parent))
    return Installed(
        python=python,
        node=node,
        versions=versions,
        environment={
            "PATH": os.pathsep.join([*paths, os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": str(KIT),
            "PYTHONUNBUFFERED": "1",  # what a program printed before it was killed is evidence
            "NODE_PATH": os.pathsep.join(modules),
        },
    )


def is_installed(engine: Installable) -> bool:
    """Return whether :func:`install` would find everything in its place; nothing is installed.

    :raises EngineUnavailableError: when something is missing that pip and npm do not install.
    """
    _require_runnable(engine)
    folder, packages = _folder(), engine.packages
    homes = []
    if _needs_python(engine):
        homes.append(_environment(folder, _python(engine), packages.python))
    if _needs_node(engine):
        node = node_on_path(engine)
        if node is None:
            require_wheel_new_enough(engine)
            wheel = wheel_home(folder)
            homes.append(wheel)
            node = node_in(wheel) if is_complete(wheel) else None
        if node is not None and packages.npm:
            homes.append(node_modules(folder, node, packages.npm))
    return all(map(is_complete, homes))


# --- what a target needs ----------------------------------------------------------------------------------


def _require_runnable(engine: Installable) -> None:
    if engine.not_run:
        raise EngineUnavailableError(engine.not_run)
    if missing := [program for program in engine.packages.programs if shutil.which(program) is None]:
        raise EngineUnavailableError(
            f"{engine.title} needs {' and '.join(missing)}, missing on PATH",
            hint=f"install {' and '.join(missing)} on this machine, or add its folder to PATH",
        )


def missing_here(engine: Installable) -> str:
    """Return what this machine lacks for a job engine; "" if it can run, once its packages are installed."""
    try:
        _require_runnable(engine)
        if _needs_python(engine):
            _python(engine)
        if _needs_node(engine) and node_on_path(engine) is None:
            require_wheel_new_enough(engine)
    except EngineUnavailableError as error:
        return error.what
    return ""


def _needs_python(engine: Installable) -> bool:
    return bool(engine.packages.python) or engine.uses("python")


def _needs_node(engine: Installable) -> bool:
    return bool(engine.packages.npm) or engine.uses("node")


def _folder() -> Path:
    return places.cache() / "job-engines"


# --- Python -----------------------------------------------------------------------------------------------


def _python(engine: Installable) -> Python:
    major, minor = map(int, engine.packages.oldest_python.split("."))
    return choose_python((major, minor), PREFERRED, {}, what=engine.title)


def _environment(folder: Path, python: Python, requirements: Sequence[str]) -> Path:
    return folder / f"python-{python}-{named_by(python.path, *sorted(requirements))}"


def _python_versions(home: Path, requirements: Sequence[str]) -> dict[str, str]:
    """Return the installed version of each required package."""
    folders = [str(path) for path in home.glob("lib/python3*/site-packages")]
    found = {
        canonicalize_name(package.metadata["Name"]): package.version
        for package in importlib.metadata.distributions(path=folders)
    }
    names = [Requirement(text).name for text in requirements]
    # a requirement may be for other platforms only
    return {name: found[canonicalize_name(name)] for name in names if canonicalize_name(name) in found}
