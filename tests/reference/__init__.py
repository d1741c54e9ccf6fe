"""The reference in `docs/`, made from the code: commands, checks, keys of TOML files, exit codes and Nox sessions.

`python -m tests.reference` writes it. A unit test compares the committed files with what the code gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.reference import checks, commands, files, overview

if TYPE_CHECKING:
    from collections.abc import Mapping


def documents() -> Mapping[str, str]:
    """Return every document of the reference by its path in the repository."""
    return {
        "docs/reference.md": overview.document(),
        "docs/reference/commands.md": commands.document(),
        "docs/reference/checks.md": checks.document(),
        "docs/reference/files.md": files.document(),
    }
