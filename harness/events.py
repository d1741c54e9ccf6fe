"""What a run tells its listeners. The run yields facts; terminals and files decide what to do with them."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from harness.model import Proof, Result, RunRecord, TopologyEvidence


class RunStarted(Struct, frozen=True):
    record: RunRecord
    folder: str


class Notice(Struct, frozen=True):
    """Something a person should read, such as a fallback that was taken."""

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
    """Hears every event, from any thread; must not raise for its own troubles."""

    def __call__(self, event: Event, /) -> None: ...


def silent(_event: Event) -> None:
    """Listen to nothing."""
