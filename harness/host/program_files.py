"""The files that decide what a project's own programs do: those that its commands name, and those that these mention.

What a program loads is only known when it runs. So a file counts if a command names it, or if a file that counts
mentions its name, in whatever language: `import steps`, `require("./steps")`, `. ./steps.sh` and `open("steps.sql")`.
A file that is mentioned and not loaded makes evidence count less than it could. The other mistake would keep evidence
about another program. What runs and tools write next to a program changes nothing.
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
    from collections.abc import Iterable, Iterator

#: a file below the folder of a declaration, as a whole argument or within one, such as a command of a shell
_FILE = re.compile(r"^\{folder\}/(?P<name>[^{}]+)$")
_FILE_WITHIN = re.compile(r"\{folder\}/(?P<name>[^\s{}'\";|&<>()]+)")
#: the folder itself, such as a working directory
_FOLDER = re.compile(r"(?<!\$)\{folder\}(?!/[^\s{}'\";|&<>()])")
_WORD, _GLOB = re.compile(r"[A-Za-z_][\w-]*"), re.compile(r"\*(\.\w+)")
#: what programs are made of; files that git does not track only count if their names end like this
_SOURCES = frozenset(
    (
        *(".py", ".pyx", ".js", ".cjs", ".mjs", ".ts", ".cts", ".mts", ".sh", ".bash", ".sql", ".rb", ".php", ".pl"),
        *(".ex", ".exs", ".erl", ".go", ".rs", ".java", ".kt", ".scala", ".clj", ".cs", ".fs", ".jar", ".so", ".lua"),
        *(".mako", ".toml"),
    )
)
#: in addition to the folders of tools: results of runs, and environments
_WRITTEN = TOOL_FOLDERS | {"reports"}
#: declarations of other programs, and of this one: what it declares is in the digest already
_PROJECT_FILE, _DECLARES = "harness.toml", re.compile(rb"^\[commands\]", re.MULTILINE)
#: in one folder: entries that are looked at; of one program: files that count, and their bytes
_MOST_ENTRIES, _MOST_FILES, _MOST_BYTES = 50_000, 5_000, 256 * 1024 * 1024
#: of a longer file, nothing that it mentions is looked for
_LONGEST_SOURCE = 1_000_000
_LONGEST_S = 10.0


def named_files(arguments: Iterable[str], folder: Path) -> list[Path]:
    """Return the files that the arguments of a command name with `{folder}/…`."""
    return [
        folder / found["name"]
        for argument in arguments
        for found in (_FILE if _FILE.match(argument) else _FILE_WITHIN).finditer(argument)
    ]


def program_digest(declared: bytes, arguments: Iterable[str], *, folder: Path, where: str, ask_git: bool = True) -> str:
    """Return a digest of a declaration and of the files that decide what its programs do.

    :param declared: the declaration, such as the bytes of a TOML file.
    :param arguments: of all commands.
    :param folder: of the declaration. Files are named from it, so that a copy elsewhere has the same digest.
    :param where: the file with the declaration, for errors about it.
    :param ask_git: whether git decides where it knows the folder; not for files that are also installed without it.
    :raises ConfigError: when a file cannot be read, or the programs consist of more than is read.
    """
    digest, left = hashlib.sha256(declared), _MOST_BYTES
    for path in program_files(arguments, folder, where=where, ask_git=ask_git):
        try:
            content = path.read_bytes() if (left := left - path.stat().st_size) >= 0 else b""
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}", where=where) from None
        if left < 0:
            raise _too_much(path.parent, f"{_MOST_BYTES // 1024**2} MiB", where)
        digest.update(os.fsencode(f"\0{os.path.relpath(path, folder)}\0") + hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def program_files(arguments: Iterable[str], folder: Path, *, where: str, ask_git: bool = True) -> list[Path]:
    """Return the files that decide what programs do, in a fixed order.

    :param arguments: of all commands.
    :param folder: of the declaration.
    :param where: the file with the declaration, for errors about it.
    :param ask_git: see :func:`program_digest`.
    :raises ConfigError: when the programs consist of more files than are read.
    """
    arguments, folder = tuple(arguments), folder.resolve()
    named = [path.resolve() for path in named_files(arguments, folder)]
    whole = {path if path.is_dir() else path.parent for path in named if path.exists()} - {folder}
    if any(_FOLDER.search(argument) for argument in arguments):
        whole.add(folder)
    known = _Folder(folder, where, ask_git=ask_git)
    found: set[Path] = set()
    waiting = [path for path in named if _is_file(path)]
    for inside in whole:  # a program in a folder of its own is more than one file
        waiting += known.files if inside == folder else _Folder(inside, where, ask_git=ask_git).files
    waiting += known.mentioned_by("\n".join(arguments))
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += known.mentioned_by(_text_of(path))
        if len(found) > _MOST_FILES:
            raise _too_much(folder, f"{_MOST_FILES} files", where)
    return sorted(found)


class _Folder:
    """The files of a folder that may be parts of programs.

    With git, these are the files that it tracks, and sources that it does not ignore. Where git tracks no file, these
    are the sources. Caches, virtual environments and names that begin with a dot are left out.
    """

    def __init__(self, folder: Path, where: str, *, ask_git: bool) -> None:
        listed = (_known_to_git(folder) if ask_git else []) or _sources_below(folder, where)
        self.files = [path for path in listed if _is_file(path) and not _is_declaration(path)]
        #: by the name of a file without its ending, or of a folder in this one
        self._by_name: dict[str, list[Path]] = {}
        self._by_ending: dict[str, list[Path]] = {}
        for path in self.files:
            first = path.relative_to(folder).parts[0]
            self._by_name.setdefault(first.partition(".")[0], []).append(path)
            if path.parent == folder:
                self._by_ending.setdefault(path.suffix, []).append(path)

    def mentioned_by(self, text: str) -> Iterator[Path]:
        """Yield the files whose names a text has, all files of a folder that it names, and those of a `*.sql`."""
        for name in self._by_name.keys() & set(_WORD.findall(text)):
            yield from self._by_name[name]
        for ending in self._by_ending.keys() & set(_GLOB.findall(text)):
            yield from self._by_ending[ending]


def _known_to_git(folder: Path) -> list[Path]:
    """Return what git tracks in a folder, and sources that it does not ignore; [] if it tracks nothing there."""
    tracked = _listed(folder, "--cached")
    if not tracked:
        return []
    new = [name for name in _listed(folder, "--others", "--exclude-standard") if _is_source(name)]
    return [folder / name for name in (*tracked, *new)]


def _listed(folder: Path, *which: str) -> list[str]:
    output = git_output(folder, "ls-files", "-z", *which, "--", ".", timeout_s=_LONGEST_S) or ""
    return [name for name in output.split("\0") if name]


def _sources_below(folder: Path, where: str) -> Iterator[Path]:
    entries = 0
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_written(name))
        entries += len(folders) + len(names)
        if entries > _MOST_ENTRIES:
            raise _too_much(folder, f"{_MOST_ENTRIES} entries", where)
        yield from (Path(at) / name for name in sorted(names) if _is_source(name))


def _is_source(name: str) -> bool:
    return os.path.splitext(name)[1] in _SOURCES and not any(map(_is_written, name.split("/")))  # noqa: PTH122


def _is_written(part: str) -> bool:
    """Return whether a part of a path says that tools or runs wrote what it names."""
    return part in _WRITTEN or part.startswith(".") or part.endswith(".egg-info")


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.stat().st_size <= _LONGEST_SOURCE else ""
    except OSError:
        return ""  # the digest reports it


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
