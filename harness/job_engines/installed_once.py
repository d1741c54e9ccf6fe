"""Folders of the cache that are made once: complete or made again, and locked while a run makes them."""

from __future__ import annotations

import contextlib
import shutil
from functools import partial
from typing import TYPE_CHECKING

from harness.engine.made_once import take
from harness.errors import EngineUnavailableError, TimedOutError
from harness.events import Listener, Notice, making_image
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.engine.virtual_environments import EnvironmentBuilder

#: the longest that pip or npm may run, seconds
DEADLINE_S = 180.0
#: why folders could not be made in this process
_failed: dict[Path, EngineUnavailableError] = {}


def is_complete(home: Path) -> bool:
    return (home / "complete").exists()


@contextlib.contextmanager
def made(home: Path, listener: Listener, builder: EnvironmentBuilder, *, what: str) -> Iterator[str]:
    """Hold the lock of a folder, and report its making; yields "" if it is complete, else what the block makes.

    A process that failed to make a folder does not try again: each of the many checks of a job engine needs it.

    :param what: a noun phrase for progress and errors.
    :raises EngineUnavailableError: when the folder could not be made before.
    """
    if is_complete(home):
        yield ""
        return
    home.parent.mkdir(exist_ok=True)
    with _locked(home.with_name(f"{home.name}.lock"), listener, builder, what):
        if is_complete(home):  # another process or thread made it meanwhile
            yield ""
            return
        if (failed := _failed.get(home)) is not None:
            raise EngineUnavailableError(failed.what, where=failed.where, hint=failed.hint, detail=failed.detail)
        with making_image(listener, str(home), doing=f"installing {what}", done=f"installed {what}"):
            shutil.rmtree(home, ignore_errors=True)
            try:
                yield what
            except EngineUnavailableError as error:
                if not builder.closed.is_set():
                    _failed[home] = error
                raise
            finally:
                if not is_complete(home):  # it may fill a disk
                    shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path, listener: Listener, builder: EnvironmentBuilder, what: str) -> Iterator[None]:
    """Hold a lock file that is shared with other runs. The wait for it ends with this run."""
    with path.open("w") as lock:
        acquire = partial(take, lock, "another run installs it")
        try:
            acquire()
        except NotYet:
            listener(Notice(f"waiting for another run that installs {what}"))
            try:
                poll(acquire, what=what, deadline_s=2 * DEADLINE_S, interval_s=0.05, cancelled=builder.closed)
            except TimedOutError as error:
                raise EngineUnavailableError(error.what, where=str(path)) from None
        yield
