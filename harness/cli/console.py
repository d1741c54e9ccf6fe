"""The door to rich: lines of prose, and a live display of the progress."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console as RichConsole
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.cli.terminal import Progress

_BAR_WIDTH = 24


class Console:
    """A console on a stream, which may be a terminal."""

    def __init__(self, stream: TextIO) -> None:
        # https://no-color.org: any value except the empty string
        self._console = _Console(
            file=stream, highlight=False, soft_wrap=True, no_color=bool(os.environ.get("NO_COLOR")) or None, emoji=False
        )

    @property
    def is_terminal(self) -> bool:
        return self._console.is_terminal

    def say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style))

    def live(self, progress: Iterable[Progress]) -> LiveDisplay:
        """Start a live display below the lines of prose."""
        return LiveDisplay(self._console, progress)


class LiveDisplay:
    """The progress of each topology."""

    def __init__(self, console: RichConsole, progress: Iterable[Progress]) -> None:
        self._live = Live(_table(progress), console=console, transient=True, refresh_per_second=8)
        self._live.start()

    def show(self, progress: Iterable[Progress]) -> None:
        self._live.update(_table(progress))

    def stop(self) -> None:
        """Remove the display."""
        self._live.stop()


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


def _table(progress: Iterable[Progress]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    for line in progress:
        filled = _BAR_WIDTH * line.done // line.planned if line.planned else 0
        table.add_row(
            line.topology,
            "█" * filled + "░" * (_BAR_WIDTH - filled),
            f"{line.done}/{line.planned}",
            line.state,
            Text(line.running, style="dim"),
        )
    return table
