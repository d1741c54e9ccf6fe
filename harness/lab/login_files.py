"""The files with the logins of a topology that `up` keeps running. Passwords are printed nowhere else."""

from __future__ import annotations

import contextlib
import shutil
from shlex import quote
from typing import TYPE_CHECKING

import msgspec

from harness import places
from harness.engine.owner import Owner

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from harness.database import Endpoint

_OWNER, _ENV, _PGPASS = "owner.json", "env", "pgpass"


def folder_of_all() -> Path:
    """Return the folder of all login files; only this user can read it."""
    folder = places.cache() / "up"
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    return folder


class LoginFiles:
    """The files of one topology: `env` for a shell, and `pgpass` for libpq."""

    def __init__(self, folder: Path) -> None:
        self.env = folder / _ENV
        self.pgpass = folder / _PGPASS

    def write(self, variables: Mapping[str, str], logins: Iterable[Endpoint]) -> None:
        """Write both files.

        :param variables: what `env` exports, in addition to `PGPASSFILE`.
        :param logins: one line of `pgpass` for each.
        """
        given = {**variables, "PGPASSFILE": str(self.pgpass)}
        _write(self.env, [f"export {name}={quote(value)}" for name, value in given.items()])
        _write(self.pgpass, [_line(at) for at in logins])


@contextlib.contextmanager
def login_files(owner: Owner) -> Iterator[LoginFiles]:
    """Return the files of a process; they are removed at the end."""
    folder = folder_of_all() / owner.run_id
    folder.mkdir(mode=0o700)
    try:
        _write(folder / _OWNER, [msgspec.json.encode(owner).decode()])
        yield LoginFiles(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def reap_login_files() -> list[str]:
    """Remove the files of processes that ended without removing them; return one line for each folder."""
    removed = []
    for folder in sorted(folder_of_all().iterdir()):
        try:
            owner = msgspec.json.decode((folder / _OWNER).read_bytes(), type=Owner)
        except (OSError, msgspec.DecodeError):
            continue  # another process is about to write it, or to remove it
        if owner.is_gone():
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(f"login files {folder}")
    return removed


def _line(at: Endpoint) -> str:
    """Return a line of a password file (https://www.postgresql.org/docs/current/libpq-pgpass.html)."""
    fields = (at.host, str(at.port), "*", at.user, at.password)
    return ":".join(field.replace("\\", "\\\\").replace(":", "\\:") for field in fields)


def _write(path: Path, lines: Iterable[str]) -> None:
    path.touch(mode=0o600)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
