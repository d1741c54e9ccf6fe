"""Compiled templates in the cache folder: compiling them takes a fifth of the CPU time of a short run."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import FileSystemBytecodeCache

from harness import places
from harness.report import cells, escape

if TYPE_CHECKING:
    from jinja2.bccache import Bucket

#: where the filters are: Jinja applies filters to constants while it compiles
_FILTERS = (cells.__file__, escape.__file__)


class TemplateCache(FileSystemBytecodeCache):
    """A cache whose folder may be full or unwritable, and whose files may be damaged: a template is then compiled.

    Jinja knows by the contents of a file whether it is about the same text and the same version of Python.
    """

    def load_bytecode(self, bucket: Bucket) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError, pickle.UnpicklingError):
            super().load_bytecode(bucket)

    def dump_bytecode(self, bucket: Bucket) -> None:
        with contextlib.suppress(OSError):
            super().dump_bytecode(bucket)


def template_cache(kind: str, *filters: str) -> TemplateCache | None:
    """Return the cache of the templates that one environment compiles; None where it cannot have a folder.

    :param kind: a name for the environment: its settings decide what a template is compiled to.
    :param filters: files with more of its filters.
    """
    code = hashlib.sha256(version("jinja2").encode())
    for file in (*_FILTERS, *filters):
        code.update(Path(file).read_bytes())
    folder = places.cache() / "templates" / f"{kind}-{code.hexdigest()[:12]}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return TemplateCache(str(folder))
