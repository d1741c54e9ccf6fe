"""What an installation needs of a program under test: a job engine, or an ingest pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from harness.job_engines.target_file import Packages


class Installable(Protocol):
    """A program under test with packages of its own."""

    @property
    def title(self) -> str:
        """As its project spells it."""
        ...

    @property
    def packages(self) -> Packages: ...
    @property
    def not_run(self) -> str:
        """Why it does not run here; "" for one that runs."""
        ...

    def uses(self, placeholder: str) -> bool:
        """Return whether a command names a placeholder, such as `node`."""
        ...
