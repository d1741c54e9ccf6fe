"""Judges: pure functions from a history and the final state to expectations.

A check runs its judge at its end, and `harness judge` runs it again from disk, with the same result. A judge asks no
server and no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from harness.checks.record import spell
from harness.errors import StoreError
from harness.model import Expectation
from harness.model.history import History

#: the fact of a history whose control replaced the judge itself: judging it again shows nothing about the control
REPLACED_JUDGE = "judge replaced by the control"


class Judge(Struct, frozen=True, kw_only=True):
    """A judge, as a history names it."""

    #: lower-case words with dashes; stored histories hold it, so it stays the same
    name: str
    #: the class of the final state that it needs besides the history
    state: type[Struct]
    #: compares them; it raises :class:`~harness.errors.StoreError` for a history that contradicts itself
    judge: Callable[[History, Any], tuple[Expectation, ...]]
    #: what it compared, in words, where the history does not have each operation
    compares: Callable[[History, Any], str] = lambda _history, _state: ""


def compared(name: str, observed: object, expected: object) -> Expectation:
    """Return an expectation of a judge, with its values as the evidence prints them."""
    return Expectation(name=name, expected=spell(expected), observed=spell(observed), held=observed == expected)


def judge_of(name: str, judges: tuple[Judge, ...]) -> Judge:
    """Return the judge of a history.

    :raises StoreError: for a name that this version of the harness does not know.
    """
    for judge in judges:
        if judge.name == name:
            return judge
    raise StoreError(f"unknown judge {name!r}, expected one of {', '.join(judge.name for judge in judges)}")
