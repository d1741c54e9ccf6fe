"""Verdicts about pointers: whether what a table cell points to exists in the repository."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from harness.lint.repository import Repository


class PointerVerdict(StrEnum):
    EXISTS = "exists"
    MISSING = "missing"
    #: a valid pointer whose target the linter does not check
    UNKNOWN = "unknown"


class Judgement(NamedTuple):
    """A verdict. `reason` is what is missing, or what was not checked; `fix` is what to do about a missing target."""

    verdict: PointerVerdict
    reason: str = ""
    fix: str = ""


class Pointer(Struct, frozen=True):
    """Something that a cell points to, as written, with its verdict. See `Judgement` for `reason` and `fix`."""

    text: str
    verdict: PointerVerdict
    reason: str = ""
    fix: str = ""


class PointerScope(Struct, frozen=True):
    """The repository that pointers are resolved in, and the folder that relative paths start from."""

    repository: Repository
    folder: Path


EXISTS = Judgement(PointerVerdict.EXISTS)


def missing(reason: str, fix: str) -> Judgement:
    return Judgement(PointerVerdict.MISSING, reason, fix)


def unknown(reason: str) -> Judgement:
    return Judgement(PointerVerdict.UNKNOWN, reason)
