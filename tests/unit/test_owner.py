"""The owner of a run: it counts as gone only if its process has certainly ended."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

from harness.engine import owner
from harness.engine.owner import Owner, process_started

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """Set the limit of open files to zero."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_that_ended_has_no_start_time() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert process_started(process.pid)
        process.communicate(b"\n")
    assert process_started(process.pid) is None


def test_the_start_time_of_an_unreadable_process_is_unknown() -> None:
    with no_more_files():
        started = process_started(1)
    assert started == 0


def test_an_owner_with_an_unknown_start_time_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Owner.me("run")
    monkeypatch.setattr(owner, "process_started", lambda _: 0)
    assert not own.is_gone()
    monkeypatch.setattr(owner, "process_started", lambda _: None)
    assert own.is_gone()
