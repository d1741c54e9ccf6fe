"""The door to rich: lines of prose, and a live display of the progress."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.live import Live
from rich.text import Text

from harness.cli.progress import shown_first
from harness.cli.wrapping import shortened, wrapped
from harness.model import Status
from harness.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.cli.progress import ProgressView, TopologyProgress

_BAR_WIDTH = 16
_REFRESHES_PER_S = 4
#: lines of a terminal that the live display leaves to the prose above it
_PROSE_LINES = 8
#: from this width on there is room for a bar, and for the checks that run
_BAR_FROM, _CHECKS_FROM = 60, 100


class Console:
    """A console on a stream, which may be a terminal."""

    def __init__(self, stream: TextIO) -> None:
        # https://no-color.org: any value except the empty string
        self._console = _Console(
            file=stream, highlight=False, soft_wrap=True, no_color=bool(os.environ.get("NO_COLOR")) or None, emoji=False
        )
        self._has_screen = stream.isatty() and not self._console.is_dumb_terminal

    @property
    def is_terminal(self) -> bool:
        """Whether lines can be replaced on the stream; FORCE_COLOR makes no terminal of a log."""
        return self._has_screen

    @property
    def size(self) -> tuple[int, int]:
        """The columns and lines of the terminal."""
        return self._console.width, self._console.height

    def say(self, text: str, style: str = "") -> None:
        if self._has_screen:
            text = "\n".join(wrapped(text, self._console.width, cell_len))
        self._console.print(Text(text, style=style))

    def live(self, view: ProgressView) -> LiveDisplay:
        """Start a live display below the lines of prose."""
        return LiveDisplay(self._console, view)


class LiveDisplay:
    """The progress of each topology, and a line for the whole run. It redraws itself, so that the time passes."""

    def __init__(self, console: RichConsole, view: ProgressView) -> None:
        self._console = console
        self._view = view
        self._live = Live(
            get_renderable=self._text, console=console, transient=True, refresh_per_second=_REFRESHES_PER_S
        )
        self._live.start(refresh=True)

    def show(self, view: ProgressView) -> None:
        """Show this progress from the next redraw on."""
        self._view = view

    def stop(self) -> None:
        """Remove the display."""
        self._live.stop()

    def _text(self) -> Text:
        # the thread that draws holds a lock of rich, and must not wait for the lock of the terminal
        width, height = self._console.width, self._console.height
        lines = live_lines(self._view, time.monotonic(), width - 1, max(height - _PROSE_LINES, 1))
        return Text("\n", no_wrap=True, end="").join(lines)


class _Console(RichConsole):
    """A console that survives its reader: in `harness verify 2>&1 | head` the run continues, also on a full disk."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        self.file = Path(os.devnull).open("w")  # noqa: SIM115 -- open until the process ends

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError:  # prose that cannot be printed changes no exit code
            self.on_broken_pipe()


def live_lines(view: ProgressView, now: float, width: int, most: int) -> Iterator[Text]:
    """Yield the lines of the live display, none wider than `width`.

    :param most: the most lines of topologies; one more line says how many are left out.
    """
    rows, left_out = shown_first(view.topologies, most)
    names = max((cell_len(row.topology) for row in rows), default=0)
    digits = max((len(str(row.planned)) for row in rows), default=1)
    for row in rows:
        line = _line(row, now, width, names, digits)
        line.truncate(width, overflow="ellipsis")
        yield line
    if left_out:
        yield Text(shortened(f"and {left_out} more topologies", width), style="dim")
    for text in wrapped(view.summary(now), width, cell_len):
        yield Text(shortened(text, width, cell_len), style="bold")


def _line(row: TopologyProgress, now: float, width: int, names: int, digits: int) -> Text:
    """Return the line of one topology: the name may be shortened, so that the counts are always there."""
    counts = Text(f" {row.done:>{digits}}/{row.planned:<{digits}}")
    counts.append(f" {row.count(Status.OK):>{digits}} OK", style="green")
    issues = row.count(Status.ISSUE)
    counts.append(f" {issues:>2} Issue", style="" if not issues else "yellow" if issues == row.known else "bold red")
    if not_run := row.count(Status.NOT_RUN):
        counts.append(f" {not_run} Not run", style="yellow")
    filled = _BAR_WIDTH * min(row.done, row.planned) // row.planned if row.planned else 0
    bar = f" {'█' * filled}{'░' * (_BAR_WIDTH - filled)}" if width >= _BAR_FROM else ""
    room = max(width - cell_len(counts.plain) - len(bar), 1)
    name = shortened(printable(row.topology), min(names, room), cell_len)
    line = Text(f"{name}{' ' * (min(names, room) - cell_len(name))}{bar}")
    line.append_text(counts)
    if width >= _CHECKS_FROM:
        shown = row.lasting(now) or row.running[:3]
    else:
        shown = [steps.text(now) for steps in row.steps.values()]
    checks = f": {', '.join(shown)}" if shown else ""
    _append_if_room(line, f"  {row.state}{printable(checks)}", width)
    return line


def _append_if_room(line: Text, text: str, width: int) -> None:
    room = width - cell_len(line.plain)
    if room >= len("  starting"):
        line.append(shortened(text, room, cell_len), style="dim")
