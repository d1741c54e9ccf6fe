"""Programs of a target that hide a module of Python: `signal.py` is imported in place of the standard `signal`."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from harness.job_engines.loading import JobEngine

#: modules that programs of job engines import besides the packages that their target names: the kit, and drivers
_IMPORTED = frozenset({"effects", "psycopg", "psycopg_pool", "asyncpg"})
_PYTHONS_OWN = sys.stdlib_module_names | _IMPORTED
_CIRCULAR = re.compile(r"partially initialized module '(?P<name>\w+)")
#: what Python prints when it imported another file than the program expected
_PRINTED = tuple(
    re.compile(pattern)
    for pattern in (
        _CIRCULAR.pattern,
        r"\bmodule '(?P<name>\w+)[\w.]*' has no attribute '",
        r"cannot import name '\w+' from '(?P<name>\w+)",
        r"'(?P<name>\w+)' is not a package",
    )
)


def namesakes(engine: JobEngine) -> dict[str, str]:
    """Return the files of a target that have the name of a module of Python, of a package, or of the kit, by name.

    A program imports such a file in place of the module, because its own folder comes first.
    """
    packages = {Requirement(text).name.replace("-", "_").lower() for text in engine.file.packages.python}
    return {name: str(path) for name, path in _modules_in(engine.folder) if name in _PYTHONS_OWN | packages}


def _modules_in(folder: Path) -> Iterator[tuple[str, Path]]:
    yield from ((path.stem, path) for path in sorted(folder.glob("*.py")))
    yield from ((path.parent.name, path.parent) for path in sorted(folder.glob("*/__init__.py")))


def shadowed(output: str, files: Mapping[str, str]) -> tuple[str, ...]:
    """Return the modules that a program imported from its own folder by mistake; none if the output does not say so.

    :param files: from :func:`namesakes`.
    """
    names = [found["name"] for pattern in _PRINTED for found in pattern.finditer(output)]
    if named := next((name for name in names if name in files), ""):
        return (named,)
    # Python names the module that the file kept from loading; a module of Python itself has no other reason for that
    circular = any(found["name"] in _PYTHONS_OWN for found in _CIRCULAR.finditer(output))
    in_traceback = tuple(
        name for name in files if re.search(rf"\b{re.escape(name)}(\.py|/__init__\.py)\", line", output)
    )
    return (in_traceback or tuple(files)) if circular else ()
