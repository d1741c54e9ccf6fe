"""The trial of a trail: a few writes of the application, and which of the properties of a trail their changes have."""

from __future__ import annotations

from msgspec import Struct

from harness.audit.changes import Change
from harness.audit.target_file import Recorded


class Trial(Struct, frozen=True, kw_only=True):
    """What a trial of the trail found."""

    #: in one sentence each: what is missing of the properties that were not found
    missing: dict[Recorded, str]
    #: the changes of the trial, in the order of their capture
    changes: tuple[Change, ...]
