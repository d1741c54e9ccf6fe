"""One topology that is up for a command, and what is removed before it starts."""

from __future__ import annotations

import contextlib
from threading import Event, Thread
from typing import TYPE_CHECKING

from harness.checks.record import NotExercisedError
from harness.checks.registry import TRANSACTION_BLOCKS
from harness.database import SqlError
from harness.engine.choice import choose
from harness.errors import HarnessError, InterruptedRunError, UsageError
from harness.events import Notice
from harness.job_engines.scratch import reap_scratch_folders
from harness.lab.lab import stand_up
from harness.lab.login_files import reap_login_files
from harness.lab.topologies import wanted_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.cli.invocation import Invocation
    from harness.cli.terminal import Terminal
    from harness.engine.owner import Owner
    from harness.engine.protocol import Engine
    from harness.lab.lab import Lab
    from harness.model import Topology

#: between two looks for a signal, seconds
_LOOK_S = 0.2


def require_transactions(topologies: Iterable[Topology]) -> None:
    """Refuse topologies without transaction blocks.

    :raises UsageError: for the first one.
    """
    for topology in topologies:
        if not TRANSACTION_BLOCKS.given(topology):
            raise UsageError(f"{topology.name}: {TRANSACTION_BLOCKS.lacking}, and audited writes need them")


@contextlib.contextmanager
def standing(invocation: Invocation, topology: Topology, owner: Owner, stop: Event) -> Iterator[Lab]:
    """Start a topology, and remove it at the end of the block.

    :param stop: set by a signal, in place of an exception at an arbitrary statement.
    """
    settings, terminal = invocation.settings, invocation.terminal
    wanted = wanted_by(topology)
    engine = choose(settings.engine, settings.images, wanted, terminal, settings.storage)
    try:
        reap_leftovers(engine, terminal)
        engine.prepare(wanted, terminal)
        with invocation.signals.deferred_to(stop.set):
            terminal.say(f"starting {topology.name}")
            try:
                lab = stand_up(engine, topology, owner, invocation.redactor, stop)
            except HarnessError:
                if stop.is_set():  # whatever it waited for then, it is not at fault
                    raise InterruptedRunError("interrupted: the servers are removed") from None
                raise
            try:
                yield lab
            finally:
                lab.close()
    finally:
        engine.close()


@contextlib.contextmanager
def removed_by(stop: Event, lab: Lab) -> Iterator[None]:
    """Remove the servers as soon as a signal arrives in the block: a statement of an audit trail may take long.

    :param stop: set by the signal.
    :raises InterruptedRunError: after a signal, in place of the errors that follow from it.
    """
    over = Event()

    def remove() -> None:
        while not over.wait(_LOOK_S):
            if stop.is_set():
                lab.close()
                return

    Thread(target=remove, daemon=True, name="removal of servers").start()
    try:
        yield
    except (SqlError, HarnessError, NotExercisedError):
        if not stop.is_set():
            raise
    finally:
        over.set()
    if stop.is_set():
        raise InterruptedRunError("interrupted: the servers are removed")


def reap_leftovers(engine: Engine, terminal: Terminal) -> None:
    """Remove the servers, login files and scratch folders that killed runs left, and name each of them."""
    for line in (*engine.reap(), *reap_login_files(), *reap_scratch_folders()):
        terminal(Notice(f"removed what a process that has ended left behind: {line}"))
