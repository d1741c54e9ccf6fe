"""The events of a run. A listener, such as the terminal, decides what to do with them."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from harness.model import Proof, Result, RunRecord, TopologyEvidence


class RunStarted(Struct, frozen=True):
    record: RunRecord
    #: the folder of the run
    folder: str


class Notice(Struct, frozen=True):
    """A message for a person, such as the use of a fallback."""

    text: str


class ImageProgress(Struct, frozen=True):
    """A step of a pull or a build."""

    image: str
    text: str


class LabStarting(Struct, frozen=True):
    topology: str


class LabReady(Struct, frozen=True):
    topology: str
    evidence: TopologyEvidence


class LabFailed(Struct, frozen=True):
    topology: str
    reason: str


class CheckStarted(Struct, frozen=True):
    topology: str
    check: str


class CheckFinished(Struct, frozen=True):
    result: Result


class ControlFinished(Struct, frozen=True):
    proof: Proof


class LabStopped(Struct, frozen=True):
    topology: str


class RunEnded(Struct, frozen=True):
    record: RunRecord


Event = (
    RunStarted
    | Notice
    | ImageProgress
    | LabStarting
    | LabReady
    | LabFailed
    | CheckStarted
    | CheckFinished
    | ControlFinished
    | LabStopped
    | RunEnded
)


class Listener(Protocol):
    """Receives every event, in any thread. It must handle its own errors: an exception would end the run."""

    def __call__(self, event: Event, /) -> None: ...


def silent(_event: Event) -> None:
    """Ignore all events."""
