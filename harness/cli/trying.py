"""What `jobs try` and `ingest try` have in common: a context in a lab, and the last lines that programs printed."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from harness.checks.record import NotExercisedError
from harness.checks.workspace import Workspace
from harness.errors import HarnessError, InterruptedRunError
from harness.printable import one_line
from harness.suites.catalogue import FIXTURES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from threading import Event

    from harness.checks.context import CheckContext
    from harness.cli.invocation import Invocation
    from harness.lab.lab import Lab

#: of each program's output
_LINES = 15


@contextlib.contextmanager
def trying(invocation: Invocation, lab: Lab, name: str, stop: Event) -> Iterator[CheckContext]:
    """Give a trial a context in a lab, and remove what the trial made at the end of the block.

    :param name: of the trial, such as `jobs.try`.
    :param stop: set by a signal.
    :raises InterruptedRunError: after a signal.
    :raises HarnessError: when nothing could be tried.
    """
    workspace = Workspace(lab, invocation.settings.target, FIXTURES)
    try:
        with workspace.context(name) as ctx:
            ctx.ends_with(stop)
            yield ctx
    except NotExercisedError as error:
        if stop.is_set():
            raise InterruptedRunError("interrupted: programs and servers are removed") from None
        raise HarnessError(str(error), where=f"topology {lab.topology.name}") from None
    finally:
        workspace.close()


def print_wrong(wrong: Iterable[str], output: Mapping[str, str], redact: Callable[[str], str]) -> None:
    """Print what is wrong, and the last lines of the output of each program.

    :param output: by the name of the program.
    """
    lines = list(wrong)
    for program, text in output.items():
        tail = text.rstrip().splitlines()[-_LINES:]
        lines += [f"output of {program}, its last lines:", *(f"  {line}" for line in tail)]
    sys.stdout.write("".join(f"{one_line(redact(line))}\n" for line in lines))
