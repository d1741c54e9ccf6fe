"""Who a run's servers belong to: nobody is taken for gone of whom nothing could be learned."""

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
    """Let this process open no file, as one that has used up its limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_that_ended_has_no_start() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert process_started(process.pid)
        process.communicate(b"\n")
    assert process_started(process.pid) is None


def test_a_process_that_cannot_be_looked_at_is_not_one_that_ended() -> None:
    with no_more_files():
        started = process_started(1)
    assert started == 0


def test_an_owner_that_cannot_be_looked_at_is_not_known_to_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    living = Owner.me("run")
    monkeypatch.setattr(owner, "process_started", lambda _: 0)
    assert not living.is_gone()
    monkeypatch.setattr(owner, "process_started", lambda _: None)
    assert living.is_gone()
