"""A journal of writes in environments: each write is noted on this machine before it happens, until it is cleaned up.

A killed run leaves its notes. The next run against the same environment finds them, and knows that nobody uses the rows
any more, because their owner has ended.
"""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from harness import places
from harness.engine.owner import Owner


class Write(Struct, frozen=True, kw_only=True):
    """One write of a check that has not been cleaned up yet."""

    kind: Literal["rows", "table", "path"]
    #: the table, or the name of the path
    name: str
    #: rows: their text begins with it; path: the unique text of the attempt
    mark: str = ""
    #: rows: the column that holds the mark
    column: str = ""
    #: table: the role that was granted USAGE on the table's schema, or ""
    grantee: str = ""
    #: path: the values that its cleanup may need
    values: dict[str, Any] = {}
    #: path: ids of inserted jobs
    jobs: tuple[int, ...] = ()


class Note(Struct, frozen=True, kw_only=True):
    """A write, where it was made, and by which process."""

    environment: str
    #: digest of the environment's addresses: another project may have an environment of the same name
    place: str
    owner: Owner
    write: Write
    #: the folder of the harness.toml that declares the environment; "" in notes of earlier versions
    project: str = ""


class Journal:
    """The notes of one environment, one file each. A machine on which they cannot be stored has none."""

    def __init__(self, environment: str, place: str, run_id: str) -> None:
        """Create an empty journal.

        :param environment: its name in harness.toml.
        :param place: identifies its addresses.
        :param run_id: of the run that writes.
        """
        self._environment = environment
        self._place = place
        self._owner = Owner.me(run_id)
        self._project = str(Path.cwd())
        self._files: dict[tuple[str, str, str], Path] = {}

    def begin(self, write: Write) -> None:
        """Store a note before a write, or replace the note of the same write."""
        key = (write.kind, write.name, write.mark)
        note = Note(
            environment=self._environment, place=self._place, owner=self._owner, write=write, project=self._project
        )
        with contextlib.suppress(OSError, TypeError):
            folder = _folder()
            path = self._files.setdefault(key, folder / f"{self._owner.run_id}-{secrets.token_hex(4)}.json")
            temporary = path.with_suffix(".new")
            temporary.touch(mode=0o600)  # values may be personal data
            temporary.write_bytes(msgspec.json.encode(note))
            temporary.replace(path)

    def end(self, kind: str, name: str, mark: str = "") -> None:
        """Remove the note of a write that was cleaned up."""
        if path := self._files.pop((kind, name, mark), None):
            remove(path)

    def abandoned(self) -> list[tuple[Path, Write]]:
        """Return the writes in this environment whose owner has ended, oldest first."""
        return [
            (path, note.write)
            for path, note in abandoned()
            if (note.environment, note.place) == (self._environment, self._place)
        ]

    def marks(self, kind: str) -> set[str]:
        """Return the marks, or the names without one, of all noted writes of a kind, also of running processes."""
        return {note.write.mark or note.write.name for _, note in _notes() if note.write.kind == kind}


def abandoned() -> list[tuple[Path, Note]]:
    """Return the notes of all environments whose owner has ended, oldest first."""
    return [(path, note) for path, note in _notes() if note.owner.is_gone()]


def remove(path: Path) -> None:
    """Remove a note."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _notes() -> list[tuple[Path, Note]]:
    found = []
    with contextlib.suppress(OSError):
        for path in sorted(_folder().glob("*.json")):
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                found.append((path, msgspec.json.decode(path.read_bytes(), type=Note)))
    return found


def _folder() -> Path:
    folder = places.cache() / "environments"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
