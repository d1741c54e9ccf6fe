"""The reference in `docs/`, made from the code: commands, checks, keys of TOML files, exit codes and Nox sessions.

Documents that show whole files of the repository are among them.

`python -m tests.reference` writes it. A unit test compares the committed files with what the code gives.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

from tests.reference import checks, commands, embedded, files, overview, targets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: what makes each document, by its path in the repository
_MADE: dict[str, Callable[[], str]] = {
    "docs/reference.md": overview.document,
    "docs/reference/commands.md": commands.document,
    "docs/reference/checks.md": checks.document,
    "docs/reference/files.md": files.document,
    targets.DOCUMENT: targets.document,
} | {name: partial(embedded.document, name) for name in embedded.DOCUMENTS}
NAMES = tuple(_MADE)


@cache
def documents() -> Mapping[str, str]:
    """Return every document that is made from the code, by its path in the repository."""
    return {name: made() for name, made in _MADE.items()}
