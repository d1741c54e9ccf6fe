"""Progress for people, on stderr: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, NamedTuple, TextIO

from harness.events import (
    CheckFinished,
    CheckStarted,
    ControlFinished,
    Event,
    ImageProgress,
    LabFailed,
    LabReady,
    LabStarting,
    LabStopped,
    Notice,
    RunEnded,
    RunStarted,
)
from harness.model import Status
from harness.printable import printable
from harness.report.outcomes import BETTER_THAN, mark_of, text_of, word_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.cli.console import Console, LiveDisplay
    from harness.model import Proof, Result

_COLOUR = {Status.OK: "green", Status.ISSUE: "bold red", Status.NA: "dim", Status.NOT_RUN: "yellow"}


def _remark(result: Result) -> str:
    """Return the end of the line of a result: its reason, its documented outcome, or its documented limit."""
    if result.status is Status.OK and mark_of(result):
        return f"  {text_of(result)}, {mark_of(result)}"
    if result.limit:
        return f"  documented limit: {result.limit.outcome}"
    return f"  {result.reason}" if result.reason else ""


def _colour(result: Result) -> str:
    mark = mark_of(result)
    is_yellow = result.status is Status.OK and mark and not mark.startswith(BETTER_THAN)
    return "yellow" if is_yellow else _COLOUR[result.status]


class Progress(NamedTuple):
    """The line of one topology in the live display."""

    topology: str
    done: int
    planned: int
    state: str
    #: checks that are running now
    running: str


class Terminal:
    """A listener of a run that prints its events: without secrets, and without control characters from outside."""

    def __init__(self, redact: Callable[[str], str], stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115 -- stderr may be closed
        self._redact = redact
        self._quiet = quiet
        self._lock = RLock()
        self._live: LiveDisplay | None = None
        self._planned: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._running: dict[str, list[str]] = {}
        self._state: dict[str, str] = {}
        #: number of rows by topology and reason
        self._not_run: dict[tuple[str, str], int] = {}

    @cached_property
    def _console(self) -> Console:
        from harness.cli.console import Console  # noqa: PLC0415 -- most commands print no prose

        return Console(self._stream)

    def say(self, text: str, style: str = "") -> None:
        """Print a line of prose.

        :param style: a style of rich, such as `bold red`.
        """
        with self._lock:
            self._console.say(printable(self._redact(text)), style)

    def close(self) -> None:
        """End the live display; later lines are printed as usual."""
        with self._lock:
            if self._live:
                self._live.stop()
                self._live = None

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._show(event)
            if self._live:
                self._live.show(self._progress())

    def _show(self, event: Event) -> None:
        match event:
            case RunStarted(record):
                # a report on the native engine has two runs
                self._planned, self._done = {}, {}
                for row in record.plan:
                    self._planned[row.target] = self._planned.get(row.target, 0) + 1
                self.say(
                    f"run {record.run_id}: {len(record.plan)} rows, topologies: {', '.join(self._planned)}; "
                    f"engine {record.engine} {record.engine_version}"
                )
                if self._console.is_terminal and not self._quiet:
                    self._live = self._console.live(self._progress())
            case Notice(text):
                self.say(f"note: {text}", "yellow")
            case ImageProgress(image, text):
                self.say(f"image {image}: {text}", "dim")
            case LabStarting(topology):
                self._state[topology] = "starting"
            case LabReady(topology, evidence):
                self._state[topology] = "verifying"
                servers = ", ".join(f"{service.product} {service.version}" for service in evidence.services)
                ready_s = evidence.ready_ms / 1000
                self.say(f"{topology}: ready after {ready_s:.2f} s ({servers}; data {evidence.storage})")
            case LabFailed(topology, reason):
                self._state[topology] = "did not start"
                self.say(f"{topology}: {reason}", "bold red")
            case CheckStarted(topology, check):
                self._running.setdefault(topology, []).append(check)
            case CheckFinished(result):
                self._finished(result)
            case ControlFinished(proof):
                self._proof(proof)
            case LabStopped(topology):
                self._state[topology] = "stopped"
            case RunEnded():
                self.close()
                for (topology, reason), rows in self._not_run.items():
                    if rows > 1:
                        self.say(f"{topology:<12} Not run  {rows - 1} more rows: {reason}", "yellow")
                self._not_run.clear()

    def _finished(self, result: Result) -> None:
        self._done[result.target] = self._done.get(result.target, 0) + 1
        if result.check in self._running.get(result.target, []):
            self._running[result.target].remove(result.check)
        if result.status is Status.NOT_RUN:
            reason = (result.target, result.reason)
            self._not_run[reason] = self._not_run.get(reason, 0) + 1
            if self._not_run[reason] > 1:  # a topology that did not start has one reason for all of its rows
                return
        needs_attention = result.status in {Status.ISSUE, Status.NOT_RUN}
        if needs_attention or not (self._live or self._quiet):
            known = " (known)" if result.known else ""
            # a feature that is lost, as documented, is OK for the check and not for an application
            shown = (result.status is Status.OK and word_of(result)) or f"{result.status}{known}"
            line = f"{result.target:<12} {shown:<8} {result.check}  {result.duration_ms / 1000:.2f}s{_remark(result)}"
            self.say(line, _colour(result) if self._console.is_terminal else "")

    def _proof(self, proof: Proof) -> None:
        verdict = "n/a" if not proof.applicable else "proven" if proof.proven else "UNPROVEN"
        if verdict == "UNPROVEN" or not (self._live or self._quiet):
            reason = f"  {proof.reason}" if proof.reason else ""
            self.say(
                f"{proof.topology:<12} {verdict:<8} {proof.check} under {proof.control}{reason}",
                "bold red" if verdict == "UNPROVEN" else "",
            )

    def _progress(self) -> Iterator[Progress]:
        for topology, planned in self._planned.items():
            yield Progress(
                topology,
                self._done.get(topology, 0),
                planned,
                self._state.get(topology, "waiting"),
                printable(", ".join(self._running.get(topology, [])[:3])),
            )
