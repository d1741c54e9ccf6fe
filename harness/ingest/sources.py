"""The files that decide what the programs of a pipeline do: those that its commands name, and those that these import.

A run writes logs, caches and data next to its programs, and a developer writes notes there. They change no result. So a
file counts if the description names it, if git tracks it, or if it may be a program that git does not ignore.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.host.folder_state import git_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

#: a file below the folder of the pipeline, as an argument names it
_FILE_WITHIN = re.compile(r"\{folder\}/(?P<name>[^\s{}'\";|&<>()]+)")
#: between the words of an argument, which a shell may split
_BETWEEN_WORDS = re.compile(r"[\s'\";|&<>()=]+")
#: such as `shop`, `shop.api` or `shop.api:app`
_MODULE = re.compile(r"([A-Za-z_]\w*)(?:[.:]|$)")
_IMPORT = re.compile(r"^[ \t]*(?:from|import)[ \t]+([A-Za-z_][\w, \t]*)", re.MULTILINE)
_PYTHON = ".py"
#: folders of compiled programs, of tools and of results, unless git tracks what is in them
_BESIDES = frozenset({"__pycache__", "node_modules", "venv", "reports"})
#: what a program is made of, also before git knows it
_OF_PROGRAMS = frozenset(
    {_PYTHON, ".sql", ".sh", ".js", ".cjs", ".mjs", ".ts", ".rb", ".php", ".pl", ".lua", ".toml", ".mako"}
    | {".ex", ".exs", ".erl", ".go", ".rs", ".java", ".kt", ".scala", ".clj", ".cs", ".fs", ".jar", ".so"}
)
#: of a longer file, no imports are read
_LONGEST_SOURCE = 1_000_000


def named_files(arguments: Iterable[str], folder: Path) -> list[Path]:
    """Return the files that the arguments of a command name with `{folder}`."""
    return [folder / found["name"] for argument in arguments for found in _FILE_WITHIN.finditer(argument)]


def sources_of(arguments: Iterable[str], folder: Path, *, ask_git: bool) -> list[Path]:
    """Return the files that decide what programs do.

    :param arguments: of all commands.
    :param folder: of the description, which is the first one that Python imports from.
    :param ask_git: whether git decides about the files of a package, where it knows the folder.
    """
    arguments = tuple(arguments)
    waiting = list(dict.fromkeys((*_named_programs(arguments, folder), *_modules(_named_modules(arguments), folder))))
    seen: set[Path] = set()
    found: set[Path] = set()
    while waiting:
        root = waiting.pop()
        if root in seen:
            continue
        seen.add(root)
        for path in _files_below(root, ask_git=ask_git):
            found.add(path)
            waiting += _modules(_imports(path), folder)
    return sorted(found)


def _named_programs(arguments: tuple[str, ...], folder: Path) -> Iterator[Path]:
    for named in named_files(arguments, folder):
        yield named
        if named.parent.resolve() != folder.resolve():
            yield named.parent  # a program in a folder of its own is more than one file
        elif named.suffix and named.suffix != _PYTHON:
            yield from (path for path in folder.glob(f"*{named.suffix}") if named.suffix in _OF_PROGRAMS)


def _named_modules(arguments: tuple[str, ...]) -> set[str]:
    """Return the first names of modules that arguments may name: `shop.api:app` is found in `shop`."""
    words = (word for argument in arguments for word in _BETWEEN_WORDS.split(argument))
    return {found[1] for word in words if (found := _MODULE.match(word))}


def _imports(path: Path) -> set[str]:
    """Return the first names of the modules that a Python file imports."""
    if path.suffix != _PYTHON:
        return set()
    try:
        text = path.read_text(errors="replace") if path.stat().st_size <= _LONGEST_SOURCE else ""
    except OSError:
        return set()
    return {name for listed in _IMPORT.findall(text) for name in re.findall(r"[A-Za-z_]\w*", listed)}


def _modules(names: Iterable[str], folder: Path) -> Iterator[Path]:
    for name in names:
        yield from (path for path in (folder / name, folder / f"{name}{_PYTHON}") if path.exists())


def _files_below(root: Path, *, ask_git: bool) -> Iterator[Path]:
    """Yield a file, or the files of a folder that belong to its programs."""
    if root.is_file():
        yield root
    if not root.is_dir():
        return
    known = git_files(root) if ask_git else None
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        is_new = path.suffix in _OF_PROGRAMS and (known is None or name in known.untracked) and not _is_beside(name)
        if (is_new or (known and name in known.tracked)) and path.is_file():
            yield path


def _is_beside(name: str) -> bool:
    return any(part in _BESIDES or part.startswith(".") or part.endswith(".egg-info") for part in name.split("/"))
