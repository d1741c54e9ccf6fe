"""What a CI workflow executes: commands, with what they check, where they are, and whether their failure counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.gates.programs import Kind
from harness.gates.rows import Place

if TYPE_CHECKING:
    from collections.abc import Iterable


class Executed(Struct, frozen=True, kw_only=True):
    """A command or an action that a workflow executes for a pull request."""

    text: str
    path: str
    line: int
    kinds: frozenset[Kind] = frozenset()
    #: whether its name does not say what it checks, and its content was not read
    unseen: bool = False
    #: whether its name says what it checks, and its content, which may check more, was not read
    by_name: bool = False
    #: why its failure does not fail the workflow
    lost: str = ""
    #: why its failure may not fail the workflow, or why it may not run
    unclear: str = ""
    #: why it does not run for pull requests
    never: str = ""
    #: whether it cannot fail, or others decide what its failure means
    harmless: bool = False
    #: files of code whose changes alone do not start its workflow
    excluded: frozenset[str] = frozenset()
    #: the command, without quotes, and the folder in which it runs
    words: tuple[str, ...] = ()
    folder: str = ""

    @property
    def place(self) -> Place:
        why = self.lost or self.never or self.unclear
        return Place(self.path, self.line, f"{self.text}: {why}" if why else self.text)


class Workflows(Struct, frozen=True, kw_only=True):
    """All workflows for pull requests. `broken` are places that nobody needs to run to know that they fail."""

    triggers: tuple[Place, ...] = ()
    #: of each trigger, files of code whose changes alone do not start the workflow
    excluded: tuple[frozenset[str], ...] = ()
    #: triggers that may exclude pull requests into the main branch
    doubtful: tuple[Place, ...] = ()
    executed: tuple[Executed, ...] = ()
    broken: tuple[Place, ...] = ()
    #: files and steps that were not read
    unread: tuple[Place, ...] = ()
    #: workflow files that do not run for pull requests
    elsewhere: tuple[Place, ...] = ()


def joined(parts: Iterable[Workflows]) -> Workflows:
    found = list(parts)
    return Workflows(
        triggers=tuple(place for part in found for place in part.triggers),
        excluded=tuple(names for part in found for names in part.excluded),
        doubtful=tuple(place for part in found for place in part.doubtful),
        executed=tuple(step for part in found for step in part.executed),
        broken=tuple(place for part in found for place in part.broken),
        unread=tuple(place for part in found for place in part.unread),
        elsewhere=tuple(place for part in found for place in part.elsewhere),
    )
