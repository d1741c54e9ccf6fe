"""Progress for people, on stderr: a live display on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from functools import cached_property
from pathlib import Path
from threading import RLock, Thread
from typing import TYPE_CHECKING, TextIO

from harness.cli.progress import ProgressCounts
from harness.events import (
    CheckFinished,
    ControlFinished,
    Event,
    ImageFailed,
    ImageProgress,
    ImageReady,
    ImageStarted,
    LabFailed,
    LabReady,
    MutationFinished,
    Notice,
    RunEnded,
    RunStarted,
)
from harness.model import MutationState, Status
from harness.printable import one_line, printable
from harness.report.outcomes import BETTER_THAN, mark_of, text_of, word_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.cli.console import Console, LiveDisplay
    from harness.model import Proof, Result, TopologyEvidence

_COLOUR = {Status.OK: "green", Status.ISSUE: "bold red", Status.NA: "dim", Status.NOT_RUN: "yellow"}

#: seconds between two lines of progress in a log
BEAT_S = 10.0
#: steps of a failed pull or build that are printed
_MOST_STEPS = 20
#: outcomes of mutations that share a line
_MUTATIONS_A_LINE = 50


def _ready(evidence: TopologyEvidence, *, own_servers: bool) -> str:
    """Return which servers are ready, with the settings that decide what a crash may remove from the second ones."""
    servers = ", ".join(f"{service.product} {service.version}" for service in evidence.services)
    ready_s = evidence.ready_ms / 1000
    if not own_servers:
        return f"ready after {ready_s:.2f} s ({servers}; data {evidence.storage})"
    settings = evidence.service("postgres").settings
    shown = ", ".join(f"{name} {settings.get(name, 'unknown')}" for name in ("fsync", "synchronous_commit"))
    place = evidence.storage.partition(",")[0]
    return f"own servers of faults and loads ready after {ready_s:.2f} s ({servers}; data {place}, {shown})"


def _remark(result: Result) -> str:
    """Return the end of the line of a result: its reason, its documented outcome, or its documented limit."""
    if result.status is Status.OK and mark_of(result):
        return f"  {text_of(result)}, {mark_of(result)}"
    if result.limit:
        return f"  documented limit: {result.limit.outcome}"
    return f"  {one_line(result.reason)}" if result.reason else ""


def _colour(result: Result) -> str:
    mark = mark_of(result)
    is_yellow = result.status is Status.OK and mark and not mark.startswith(BETTER_THAN)
    return "yellow" if is_yellow else _COLOUR[result.status]


class Heartbeat:
    """Calls a function every ten seconds, in a thread of its own."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat = beat
        self._ended = threading.Event()
        self._thread = Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(BEAT_S):
            self._beat()

    def stop(self) -> None:
        self._ended.set()


class Terminal:
    """A listener of a run that prints its events: without secrets, and without control characters from outside.

    On a terminal, a live display shows the progress; elsewhere, a line every ten seconds. What is OK or N/A is only
    counted, unless `verbose` is set.
    """

    def __init__(self, redact: Callable[[str], str], stream: TextIO | None = None, *, verbose: bool = False) -> None:
        self._stream = stream or sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115 -- stderr may be closed
        self._redact = redact
        #: print every row, and every step of a pull or a build
        self.verbose = verbose
        #: False while a command prints on the same terminal: a live display would erase its lines
        self.has_screen_alone = True
        self._lock = RLock()
        self._live: LiveDisplay | None = None
        self._heartbeat: Heartbeat | None = None
        self._counts = ProgressCounts()
        #: the last steps of each image that is not ready
        self._steps: dict[str, deque[str]] = {}
        #: the number of attempts of each row
        self._attempts = 1
        #: number of rows by topology and reason
        self._not_run: dict[tuple[str, str], int] = {}

    @cached_property
    def _console(self) -> Console:
        from harness.cli.console import Console  # noqa: PLC0415 -- most commands print no prose

        return Console(self._stream)

    @property
    def screen(self) -> tuple[int, int] | None:
        """The columns and lines of the terminal; None if the stream is none."""
        return self._console.size if self._console.is_terminal else None

    def say(self, text: str, style: str = "") -> None:
        """Print a line of prose.

        :param style: a style of rich, such as `bold red`.
        """
        with self._lock:
            self._console.say(printable(self._redact(text)), style)

    def close(self) -> None:
        """End the live display; later lines are printed as usual."""
        with self._lock:
            self._counts.end()
            live, self._live = self._live, None
            heartbeat, self._heartbeat = self._heartbeat, None
        if live:
            live.stop()
        if heartbeat:
            heartbeat.stop()

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._counts.add(event)
            self._show(event)
            if self._counts.is_idle:  # after the images of a command that runs no check
                self.close()
            elif self._live:
                self._live.show(self._counts.view())
            elif not self._heartbeat:
                self._begin()

    def _begin(self) -> None:
        """Start what shows the progress."""
        if self._console.is_terminal and self.has_screen_alone:
            self._live = self._console.live(self._counts.view())
        else:
            self._heartbeat = Heartbeat(self._beat)

    def _beat(self) -> None:
        with self._lock:
            if self._counts.makes_images or (self.has_screen_alone and not self._counts.is_idle):
                self.say(self._counts.view().line(time.monotonic()))

    def _show(self, event: Event) -> None:
        match event:
            case RunStarted(record):
                self._attempts = max((row.attempts for row in record.plan), default=1)
                each = f", {self._attempts} attempts each" if self._attempts > 1 else ""
                topologies = ", ".join(dict.fromkeys(row.target for row in record.plan))
                planned = f"{len(record.plan)} row{'' if len(record.plan) == 1 else 's'}"
                self.say(f"run {record.run_id}: {planned}{each}, topologies: {topologies}; engine {record.ran_on}")
            case Notice(text):
                self.say(f"note: {one_line(text)}", "yellow")
            case ImageStarted() | ImageProgress() | ImageReady() | ImageFailed():
                self._image(event)
            case LabReady(topology, evidence, own_servers):
                self.say(f"{topology}: {_ready(evidence, own_servers=own_servers)}")
            case LabFailed(topology, reason):
                self.say(f"{topology}: {one_line(reason)}", "bold red")
            case CheckFinished(result):
                self._finished(result)
            case ControlFinished(proof):
                self._proof(proof)
            case MutationFinished():
                self._mutation(event)
            case RunEnded():
                self.close()
                for (topology, reason), rows in self._not_run.items():
                    if rows > 1:
                        more = "1 more row" if rows - 1 == 1 else f"{rows - 1} more rows"
                        self.say(f"{topology:<12} Not run  {more}: {one_line(reason)}", "yellow")
                self._not_run.clear()

    def _image(self, event: ImageStarted | ImageProgress | ImageReady | ImageFailed) -> None:
        """Print one line for an image that is ready, and the last steps of one that failed."""
        image = event.image
        match event:
            case ImageStarted(_, text) | ImageProgress(_, text):
                self._steps.setdefault(image, deque(maxlen=_MOST_STEPS)).append(text)
                if self.verbose:
                    self.say(f"image {image}: {text}", "dim")
            case ImageReady(_, done, duration_s):
                self._steps.pop(image, None)
                self.say(f"image {image}: {done} in {duration_s:.1f} s", "dim")
            case ImageFailed():
                for text in [] if self.verbose else self._steps.pop(image, ()):
                    self.say(f"image {image}: {text}", "dim")

    def _finished(self, result: Result) -> None:
        if result.status is Status.NOT_RUN:
            reason = (result.target, result.reason)
            self._not_run[reason] = self._not_run.get(reason, 0) + 1
            if self._not_run[reason] > 1:  # a topology that did not start has one reason for all of its rows
                return
        needs_attention = result.status in {Status.ISSUE, Status.NOT_RUN}
        if needs_attention or self.verbose:
            known = " (known)" if result.known else " (quarantined)" if result.quarantine else ""
            attempt = f" attempt {result.attempt} of {self._attempts}" if self._attempts > 1 else ""
            # a feature that is lost, as documented, is OK for the check and not for an application
            shown = (result.status is Status.OK and word_of(result)) or f"{result.status}{known}"
            took = f"{result.duration_ms / 1000:.2f}s"
            line = f"{result.target:<12} {shown:<8} {result.check}{attempt}  {took}{_remark(result)}"
            self.say(line, _colour(result) if self._console.is_terminal else "")

    def _mutation(self, event: MutationFinished) -> None:
        proof = event.proof
        if proof.state is MutationState.SURVIVED or self.verbose:
            shown = "SURVIVED" if proof.state is MutationState.SURVIVED else proof.state.value
            by = f"  {proof.check}, at {proof.at!r}" if proof.check else f"  {one_line(proof.reason)}"
            self.say(
                f"{proof.topology:<12} {shown:<8} {proof.name}: a trail that {proof.what}{by}",
                "bold red" if proof.state is MutationState.SURVIVED else "",
            )
        elif event.done == event.of or event.done % _MUTATIONS_A_LINE == 0:
            self.say(f"{proof.topology:<12} {event.done} of {event.of} mutations of the trail's rows tried", "dim")

    def _proof(self, proof: Proof) -> None:
        verdict = "n/a" if not proof.applicable else "proven" if proof.proven else "UNPROVEN"
        if verdict == "UNPROVEN" or self.verbose:
            reason = f"  {one_line(proof.reason)}" if proof.reason else ""
            self.say(
                f"{proof.topology:<12} {verdict:<8} {proof.check} under {proof.control}{reason}",
                "bold red" if verdict == "UNPROVEN" else "",
            )
