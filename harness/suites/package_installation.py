"""Installs the packages of a subject that runs as programs of this machine, until the check or its run ends."""

from __future__ import annotations

import contextlib
from threading import Event, Thread
from typing import TYPE_CHECKING

from harness.checks.record import NotExercisedError
from harness.engine.virtual_environments import EnvironmentBuilder
from harness.errors import HarnessError
from harness.job_engines.installation import install
from harness.job_engines.installed_once import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.checks.context import CheckContext
    from harness.job_engines.installable import Installable
    from harness.job_engines.installation import Installed

#: how often an installation looks whether its run has ended, seconds
_LOOK_S = 0.05


def install_packages(ctx: CheckContext, subject: Installable) -> Installed:
    """Install the packages of a subject once, and record their versions.

    :raises NotExercisedError: when they cannot be installed here, or the run ends meanwhile.
    """
    builder = EnvironmentBuilder(DEADLINE_S)
    try:
        with _closed_when_ended(ctx, builder):
            installed = install(subject, ctx.notify, builder)
    except HarnessError as error:
        last = error.detail.strip().splitlines()[-1:]
        said = "; ".join(filter(None, (error.what, *last, error.hint and f"try: {error.hint}")))
        raise NotExercisedError(f"{subject.title} cannot be installed here: {said}") from None
    ctx.fact("versions", ", ".join(f"{name} {version}" for name, version in installed.versions.items()))
    return installed


@contextlib.contextmanager
def _closed_when_ended(ctx: CheckContext, builder: EnvironmentBuilder) -> Iterator[None]:
    """Close the builder as soon as the check or the run ends: pip and npm may take minutes."""
    done = Event()

    def watch() -> None:
        while not done.wait(_LOOK_S):
            if ctx.is_ended:
                builder.close()
                return

    watcher = Thread(target=watch, daemon=True, name="end of an installation")
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
