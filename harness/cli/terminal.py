"""Progress for people, on stderr: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

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
    from collections.abc import Callable

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


class _Console(Console):
    """A console that survives its reader: in `harness verify 2>&1 | head` the run continues, also on a full disk."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        self.file = Path(os.devnull).open("w")  # noqa: SIM115 -- open until the process ends

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError:  # prose that cannot be printed changes no exit code
            self.on_broken_pipe()


class Terminal:
    """A listener of a run that prints its events: without secrets, and without control characters from outside."""

    def __init__(self, redact: Callable[[str], str], stream: TextIO | None = None, *, quiet: bool = False) -> None:
        stream = stream or sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115 -- stderr may be closed
        self._redact = redact
        self._quiet = quiet
        # https://no-color.org: any value except the empty string
        self._console = _Console(
            file=stream, highlight=False, soft_wrap=True, no_color=bool(os.environ.get("NO_COLOR")) or None, emoji=False
        )
        self._lock = RLock()
        self._live: Live | None = None
        self._planned: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._running: dict[str, list[str]] = {}
        self._state: dict[str, str] = {}
        #: number of rows by topology and reason
        self._not_run: dict[tuple[str, str], int] = {}

    def say(self, text: str, style: str = "") -> None:
        """Print a line of prose.

        :param style: a style of rich, such as `bold red`.
        """
        with self._lock:
            self._console.print(Text(printable(self._redact(text)), style=style))

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
                self._live.update(self._table())

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
                    self._live = Live(self._table(), console=self._console, transient=True, refresh_per_second=8)
                    self._live.start()
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

    def _table(self) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        for topology, planned in self._planned.items():
            done = self._done.get(topology, 0)
            width = 24
            filled = width * done // planned if planned else 0
            table.add_row(
                topology,
                "█" * filled + "░" * (width - filled),
                f"{done}/{planned}",
                self._state.get(topology, "waiting"),
                Text(printable(", ".join(self._running.get(topology, [])[:3])), style="dim"),
            )
        return table
