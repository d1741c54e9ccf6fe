"""The progress of a run: counts by topology, kept from its events. What a display shows, without any output."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from harness.cli.estimate import about, clock, left_s
from harness.events import (
    CheckFinished,
    CheckProgress,
    CheckStarted,
    ControlFinished,
    Event,
    ImageFailed,
    ImageProgress,
    ImageReady,
    ImageStarted,
    LabFailed,
    LabReady,
    LabStarting,
    LabStopped,
    RunStarted,
)
from harness.model import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WAITING, STARTING, VERIFYING, FAILED, STOPPED = "waiting", "starting", "verifying", "did not start", "stopped"


class Steps(Struct, frozen=True):
    """How far a check is that reports it, with times of :func:`time.monotonic`."""

    #: the first and the newest report
    first: CheckProgress
    newest: CheckProgress
    first_at: float
    newest_at: float

    def left_s(self, now: float) -> float | None:
        """Return about how many seconds are left; None before the first step is done."""
        done = self.newest.done - self.first.done
        if done <= 0:
            return None
        pace = (self.newest_at - self.first_at) / done
        return max(0.0, pace * (self.newest.of - self.newest.done) - (now - self.newest_at))

    def text(self, now: float) -> str:
        """Return `server-killed, 3 of 12, about 20 s left`."""
        left = self.left_s(now)
        shown = f"{self.newest.what}, {self.newest.done:.0f} of {self.newest.of:.0f}"
        return shown if left is None else f"{shown}, {about(left)} left"


class TopologyProgress(Struct):
    """The counts of one topology."""

    topology: str
    planned: int = 0
    state: str = WAITING
    #: rows by status
    rows: dict[Status, int] = {}
    #: those of the Issues that are known
    known: int = 0
    #: checks that run now, oldest first
    running: list[str] = field(default_factory=list)
    #: when they began
    begins: dict[str, float] = field(default_factory=dict)
    #: of those of them that report how far they are
    steps: dict[str, Steps] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return sum(self.rows.values())

    def count(self, status: Status) -> int:
        return self.rows.get(status, 0)

    def lasting(self, now: float) -> list[str]:
        """Return the checks that report how far they are, such as `resilience.x: server-killed, 3 of 12`."""
        return [f"{check}: {self.steps[check].text(now)}" for check in self.running if check in self.steps]


class ProgressView(Struct, frozen=True):
    """An immutable copy of the progress, for the thread that draws it."""

    topologies: tuple[TopologyProgress, ...]
    #: what happens to the images that are not ready: `building` or another verb, with the number of images
    images: tuple[tuple[str, int], ...]
    #: steps of pulls and builds since the start
    steps: int
    proven: int
    unproven: int
    earlier: tuple[float, ...]
    began: float
    #: when a row ended, or the run began
    ended: float
    #: what `planned` counts: `rows`, or `attempts` if rows are tried several times
    counted: str = "rows"

    def summary(self, now: float) -> str:
        """Return one line: elapsed time, rows, and about how much is left.

        :param now: of :func:`time.monotonic`.
        """
        return ", ".join(self._parts(now))

    def _parts(self, now: float) -> Iterator[str]:
        elapsed_s = now - self.began
        done, planned = (sum(getattr(row, name) for row in self.topologies) for name in ("done", "planned"))
        yield f"{clock(elapsed_s)} elapsed"
        if planned:
            yield f"{done} of {planned} {self.counted}"
        is_ending = all(row.state in {STOPPED, FAILED} for row in self.topologies)  # after an interruption
        left = self._left_s(done, planned, elapsed_s, now) if done < planned and not is_ending else None
        if left:
            yield f"{about(left)} left"
        if self.proven or self.unproven:
            yield f"{self.proven} controls proven"
        if self.unproven:
            yield f"{self.unproven} UNPROVEN"
        for doing, number in self.images:
            yield f"{doing} {number} image{'s' if number > 1 else ''}"
        if self.images:
            yield f"{self.steps} step{'' if self.steps == 1 else 's'} done"

    def _left_s(self, done: int, planned: int, elapsed_s: float, now: float) -> float | None:
        """Return about how many seconds are left: not less than those of a check that lasts."""
        steps = [left for row in self.topologies for one in row.steps.values() if (left := one.left_s(now)) is not None]
        if 0 < planned - done <= len(steps):  # each row that is left says it
            return max(steps)
        silent = [
            begins
            for row in self.topologies
            for check, begins in row.begins.items()
            if check not in row.steps or row.steps[check].left_s(now) is None
        ]
        used_s = now - min(silent, default=now)
        usual = left_s(self.earlier, done, planned, elapsed_s, since_s=now - self.ended, used_s=used_s)
        return max(steps if usual is None else (usual, *steps), default=None)

    def line(self, now: float) -> str:
        """Return one line with everything that a log shows: the summary, the counts, and what runs."""
        known = sum(row.known for row in self.topologies)
        counts = []
        for status in Status:
            if number := sum(row.count(status) for row in self.topologies):
                accepted = f" ({known} known)" if known and status is Status.ISSUE else ""
                counts.append(f"{number} {status}{accepted}")
        runs = [
            f"{row.topology} ({'; '.join(lasting)})" if (lasting := row.lasting(now)) else row.topology
            for row in self.topologies
            if row.state in {STARTING, VERIFYING}
        ]
        parts = (self.summary(now), ", ".join(counts), f"running: {', '.join(runs)}" if runs else "")
        return "; ".join(part for part in parts if part)


class ProgressCounts:
    """Counts events. One thread at a time may call it."""

    def __init__(self) -> None:
        self._topologies: dict[str, TopologyProgress] = {}
        #: the image, and what happens to it
        self._images: dict[str, str] = {}
        self._steps = self._proven = self._unproven = 0
        self._earlier: tuple[float, ...] = ()
        self._counted = "rows"
        self._began = self._ended = time.monotonic()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in progress."""
        return not self._topologies and not self._images

    @property
    def makes_images(self) -> bool:
        return bool(self._images)

    def end(self) -> None:
        """Forget the run: it has ended."""
        self._topologies, self._images = {}, {}

    def view(self) -> ProgressView:
        doing = list(self._images.values())
        return ProgressView(
            topologies=tuple(
                replace(
                    row,
                    rows=dict(row.rows),
                    running=list(row.running),
                    begins=dict(row.begins),
                    steps=dict(row.steps),
                )
                for row in self._topologies.values()
            ),
            images=tuple((text, doing.count(text)) for text in dict.fromkeys(doing)),
            steps=self._steps,
            proven=self._proven,
            unproven=self._unproven,
            earlier=self._earlier,
            began=self._began,
            ended=self._ended,
            counted=self._counted,
        )

    def add(self, event: Event) -> None:
        match event:
            case RunStarted(record, _, earlier):
                # a report on the native engine has two runs
                self._topologies, self._proven, self._unproven = {}, 0, 0
                self._earlier = earlier
                self._began = self._ended = time.monotonic()
                self._counted = "attempts" if any(row.attempts > 1 for row in record.plan) else "rows"
                for planned in record.plan:
                    self._of(planned.target).planned += planned.attempts
            case ImageStarted(image, doing):
                if self.is_idle:
                    self._began = self._ended = time.monotonic()
                self._images[image] = doing.partition(" ")[0]
            case ImageProgress():
                self._steps += 1
            case ImageReady(image) | ImageFailed(image):
                self._images.pop(image, None)
            case LabStarting(topology):
                self._of(topology).state = STARTING
            case LabReady(topology):
                self._of(topology).state = VERIFYING
            case LabFailed(topology):
                self._of(topology).state = FAILED
            case LabStopped(topology):
                self._of(topology).state = STOPPED
            case CheckStarted(topology, check):
                self._of(topology).running.append(check)
                self._of(topology).begins[check] = time.monotonic()
            case CheckProgress(topology, check):
                self._step(self._of(topology), check, event)
            case CheckFinished(result):
                row = self._of(result.target)
                row.rows[result.status] = row.count(result.status) + 1
                row.known += result.known is not None
                self._ended = time.monotonic()
                if result.check in row.running:
                    row.running.remove(result.check)
                row.begins.pop(result.check, None)
                row.steps.pop(result.check, None)
            case ControlFinished(proof):
                self._proven += proof.applicable and proof.proven
                self._unproven += proof.applicable and not proof.proven

    @staticmethod
    def _step(row: TopologyProgress, check: str, event: CheckProgress) -> None:
        now, before = time.monotonic(), row.steps.get(check)
        first, first_at = event, now
        # a check begins again under its next control
        if before is not None and event.done >= before.newest.done and event.of == before.newest.of:
            first, first_at = before.first, before.first_at
        row.steps[check] = Steps(first, event, first_at, now)

    def _of(self, topology: str) -> TopologyProgress:
        return self._topologies.setdefault(topology, TopologyProgress(topology))


def shown_first(rows: Iterable[TopologyProgress], most: int) -> tuple[list[TopologyProgress], int]:
    """Return the rows for a display of a few lines, in their order, and how many are left out.

    Those that run come first, then those that wait, then those that ended.
    """
    rows = list(rows)
    order = (VERIFYING, STARTING, FAILED, WAITING, STOPPED)
    chosen = sorted(range(len(rows)), key=lambda number: (order.index(rows[number].state), number))[:most]
    return [rows[number] for number in sorted(chosen)], len(rows) - len(chosen)
