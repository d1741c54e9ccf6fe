"""The files that decide what a project's own programs do: the named ones, and those next to them that they may import.

Which files a program imports is only known when it runs, so all sources of its folder count. An edit of one that it
does not import makes evidence count less than it could; the other mistake would keep evidence about another program.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ConfigError
from harness.host.folder_state import TOOL_FOLDERS, git_output

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

#: names of files that programs import, in the languages of workers; of files without git, only these count
_SOURCES = (
    *(".py", ".pyx", ".js", ".cjs", ".mjs", ".ts", ".cts", ".mts", ".sh", ".bash", ".sql", ".rb", ".php", ".pl"),
    *(".ex", ".exs", ".erl", ".go", ".rs", ".java", ".kt", ".scala", ".clj", ".cs", ".lua"),
)
#: documents next to a program, which git tracks too
_DOCUMENTS = (".md", ".rst", ".adoc")
#: declarations of other programs, and of this one: what it declares is in the digest already
_PROJECT_FILE, _DECLARES = "harness.toml", re.compile(rb"^\[commands\]", re.MULTILINE)
#: in one folder: entries that are looked at, files that count, and their bytes
_MOST_ENTRIES, _MOST_FILES, _MOST_BYTES = 50_000, 5_000, 256 * 1024 * 1024
_LONGEST_S = 10.0


def program_digest(declared: bytes, programs: Iterable[Path], *, top: Path, where: str) -> str:
    """Return a digest of a declaration and of the files that decide what its programs do.

    :param declared: the declaration, such as the bytes of a TOML file.
    :param programs: files and folders that its commands name; one that does not exist counts as such.
    :param top: the folder from which files are named in the digest, so that a copy elsewhere has the same one.
    :param where: the file with the declaration, for errors about it.
    :raises ConfigError: when a file cannot be read, or a folder holds more than is read.
    """
    digest, left = hashlib.sha256(declared), _MOST_BYTES
    for path in program_files(programs, where=where):
        name = os.path.relpath(path, top)
        try:
            content = path.read_bytes() if (left := left - path.stat().st_size) >= 0 else b""
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}", where=where) from None
        if left < 0:
            raise _too_much(path.parent, f"{_MOST_BYTES // 1024**2} MiB", where)
        digest.update(os.fsencode(f"\0{name}\0") + hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def program_files(programs: Iterable[Path], *, where: str) -> list[Path]:
    """Return the files that decide what programs do, in a fixed order.

    Of the folder of a program, with the folders below it, these are the files that git tracks, except documents, and
    sources that git does not ignore. Where git tracks no file, these are the sources. Caches, virtual environments and
    names that begin with a dot do not count, and neither do `harness.toml` and other declarations. A named file does.

    :param programs: files, and folders of programs.
    :param where: the file with the declaration, for errors about it.
    :raises ConfigError: when a folder holds more files than are read.
    """
    named = {path.resolve() for path in programs}
    folders = {path if path.is_dir() else path.parent for path in named if path.exists()}
    outermost = [folder for folder in folders if not any(other in folder.parents for other in folders)]
    found = {path for path in named if _is_file(path)}
    for folder in outermost:
        found.update(_of_folder(folder, where))
    return sorted(found)


def _of_folder(folder: Path, where: str) -> list[Path]:
    files: list[Path] = []
    for path in _known_to_git(folder) or _sources_below(folder, where):
        of_tools = _is_of_tools(path.relative_to(folder).parts)
        if not of_tools and _is_file(path) and not _is_declaration(path):
            files.append(path)
        if len(files) > _MOST_FILES:
            raise _too_much(folder, f"{_MOST_FILES} files", where)
    return files


def _known_to_git(folder: Path) -> list[Path]:
    """Return what git tracks in a folder, and sources that it does not ignore; [] if it tracks nothing there."""
    tracked = _listed(folder, "--cached")
    if not tracked:
        return []
    new = [path for path in _listed(folder, "--others", "--exclude-standard") if path.suffix in _SOURCES]
    return [path for path in tracked if path.suffix not in _DOCUMENTS] + new


def _listed(folder: Path, *which: str) -> list[Path]:
    output = git_output(folder, "ls-files", "-z", *which, "--", ".", timeout_s=_LONGEST_S) or ""
    return [folder / name for name in output.split("\0") if name]


def _sources_below(folder: Path, where: str) -> Iterator[Path]:
    entries = 0
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_of_tools((name,)))
        entries += len(folders) + len(names)
        if entries > _MOST_ENTRIES:
            raise _too_much(folder, f"{_MOST_ENTRIES} entries", where)
        yield from (Path(at) / name for name in sorted(names) if name.endswith(_SOURCES))


def _is_of_tools(parts: Collection[str]) -> bool:
    return any(part.startswith(".") or part in TOOL_FOLDERS for part in parts)


def _is_declaration(path: Path) -> bool:
    """Return whether a file declares a project, a job engine or a pipeline."""
    if path.suffix != ".toml":
        return False
    try:
        return path.name == _PROJECT_FILE or bool(_DECLARES.search(path.read_bytes()))
    except OSError:
        return False


def _is_file(path: Path) -> bool:
    """Return whether a path leads to a file: to read a FIFO takes for ever, and a submodule is a folder."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _too_much(folder: Path, limit: str, where: str) -> ConfigError:
    return ConfigError(
        f"the folder of a program holds more than {limit}: {folder}",
        where=where,
        hint="put the program and what it imports into a folder of its own: a digest of it belongs to the evidence",
    )
