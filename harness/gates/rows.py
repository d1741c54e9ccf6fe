"""The rows of `gates`: one for each gate, with its status, its reason, and the places that show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import Status

if TYPE_CHECKING:
    from collections.abc import Sequence


class Place(Struct, frozen=True, order=True):
    """A place in the repository, with what is to be seen there. Line 0 stands for the whole file."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        at = f"{self.path}:{self.line}" if self.line else self.path
        return f"{at}: {self.what}" if self.what else at


class GateRow(Struct, frozen=True, kw_only=True):
    """The result of one gate."""

    gate: str
    status: Status
    reason: str
    places: tuple[Place, ...] = ()
    #: what to do about it; "" where nothing is to be done
    fix: str = ""


def judged(
    gate: str,
    *,
    broken: Sequence[Place] = (),
    undecided: Sequence[Place] = (),
    shown: Sequence[Place] = (),
    ok: str,
    fix: str,
    why_undecided: str = "",
) -> GateRow:
    """Return a row: an Issue when a place breaks the gate, Not run when one is undecided, otherwise OK.

    :param broken: places that break the gate.
    :param undecided: places where the gate may be broken.
    :param shown: places that show that the gate is kept.
    :param ok: the reason of an OK.
    :param fix: what to do about the other statuses.
    :param why_undecided: the reason of a Not run; by default, the first undecided place.
    """
    for status, places in ((Status.ISSUE, broken), (Status.NOT_RUN, undecided)):
        if places:
            found = tuple(dict.fromkeys(sorted(places)))
            more = f", and {len(found) - 1} more" if len(found) > 1 else ""
            reason = found[0].what + more
            if status is Status.NOT_RUN and why_undecided:
                reason = why_undecided
            return GateRow(gate=gate, status=status, reason=reason, places=found, fix=fix)
    return GateRow(gate=gate, status=Status.OK, reason=ok, places=tuple(shown))


def not_run(gate: str, reason: str, fix: str = "", places: Sequence[Place] = ()) -> GateRow:
    return GateRow(gate=gate, status=Status.NOT_RUN, reason=reason, places=tuple(places), fix=fix)


def issue(gate: str, reason: str, fix: str, places: Sequence[Place] = ()) -> GateRow:
    return GateRow(gate=gate, status=Status.ISSUE, reason=reason, places=tuple(places), fix=fix)
