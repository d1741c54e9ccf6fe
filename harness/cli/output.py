"""Stdout: the one place where lines leave the program. Texts from servers cannot control the terminal there."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, TextIO, cast

from harness.printable import printable, printable_with_colours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Stdout:
    """Stdout without secrets and control characters.

    Its reader may leave, as in `harness verify | head`: the command goes on, and its exit code stays.
    """

    def __init__(self, stream: TextIO, redact: Callable[[str], str]) -> None:
        """Wrap a stream.

        :param redact: removes the learned secrets from every text.
        """
        self._stream = stream
        self._change: Callable[[str], str] = lambda text: printable(redact(text))

    def write(self, text: str) -> int:
        try:
            self._stream.write(self._change(text))
        except BrokenPipeError:
            discard_stdout()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            discard_stdout()

    def data(self, for_terminal: Callable[[str], str]) -> TextIO:
        """Return this stream for texts that stay as they are, unless they are shown on a terminal."""
        found = Stdout(self._stream, str)
        found._change = for_terminal if self._stream.isatty() else str
        return cast("TextIO", found)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def data_stream() -> TextIO:
    """Return stdout for data, such as an exported trail: a file or a pipe receives every character unchanged."""
    return sys.stdout.data(printable) if isinstance(sys.stdout, Stdout) else sys.stdout


def command_stream() -> TextIO:
    """Return stdout for the output of a user's command: on a terminal its colours stay, elsewhere everything does."""
    return sys.stdout.data(printable_with_colours) if isinstance(sys.stdout, Stdout) else sys.stdout


def discard_stdout() -> None:
    """Redirect stdout, so that flushing it at exit raises no second error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
