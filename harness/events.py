"""The events of a run. A listener, such as the terminal, decides what to do with them."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from harness.model import ObservedProof, Proof, Result, RunRecord, TopologyEvidence

if TYPE_CHECKING:
    from collections.abc import Iterator


class RunStarted(Struct, frozen=True):
    record: RunRecord
    #: the folder of the run
    folder: str
    #: when the same rows ended in earlier runs, in seconds after their start, ascending; empty without such runs
    earlier: tuple[float, ...] = ()


class Notice(Struct, frozen=True):
    """A message for a person, such as the use of a fallback."""

    text: str


class ImageStarted(Struct, frozen=True):
    """A pull or a build began; :class:`ImageReady` or :class:`ImageFailed` follows."""

    image: str
    #: such as `building`
    doing: str


class ImageProgress(Struct, frozen=True):
    """A step of a pull or a build."""

    image: str
    text: str


class ImageReady(Struct, frozen=True):
    image: str
    #: such as `built`
    done: str
    duration_s: float


class ImageFailed(Struct, frozen=True):
    image: str


class LabStarting(Struct, frozen=True):
    topology: str


class LabReady(Struct, frozen=True):
    topology: str
    evidence: TopologyEvidence
    #: whether they are the second servers of the topology, for checks that crash servers or put them under load
    own_servers: bool = False


class LabFailed(Struct, frozen=True):
    topology: str
    reason: str


class CheckStarted(Struct, frozen=True):
    topology: str
    check: str


class CheckProgress(Struct, frozen=True):
    """A check that lasts is in the middle of its faults or of its load."""

    topology: str
    check: str
    #: in any unit, such as faults or seconds
    done: float
    of: float
    #: what is being done, such as the name of a fault
    what: str


class CheckFinished(Struct, frozen=True):
    result: Result


class ControlFinished(Struct, frozen=True):
    proof: Proof


class MutationFinished(Struct, frozen=True):
    proof: ObservedProof
    #: how many mutations of the topology have their outcome, and how many it tries
    done: int
    of: int


class LabStopped(Struct, frozen=True):
    topology: str


class RunEnded(Struct, frozen=True):
    record: RunRecord


Event = (
    RunStarted
    | Notice
    | ImageStarted
    | ImageProgress
    | ImageReady
    | ImageFailed
    | LabStarting
    | LabReady
    | LabFailed
    | CheckStarted
    | CheckProgress
    | CheckFinished
    | ControlFinished
    | MutationFinished
    | LabStopped
    | RunEnded
)


class Listener(Protocol):
    """Receives every event, in any thread. It must handle its own errors: an exception would end the run."""

    def __call__(self, event: Event, /) -> None: ...


def silent(_event: Event) -> None:
    """Ignore all events."""


@contextlib.contextmanager
def making_image(listener: Listener, image: str, *, doing: str = "building", done: str = "built") -> Iterator[None]:
    """Report the start and the end of a pull or a build.

    :param doing: what happens to the image, such as `pulling`.
    :param done: what happened to it, such as `pulled`.
    """
    began = time.monotonic()
    listener(ImageStarted(image, doing))
    try:
        yield
    except BaseException:
        listener(ImageFailed(image))
        raise
    listener(ImageReady(image, done, time.monotonic() - began))
