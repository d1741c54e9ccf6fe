"""The meter of a busy machine: how many tasks want to run on each core, where Linux says it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.checks import pauses
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that the meter reads, every millisecond, on a machine with two cores."""
    for name, value in (("_LOAD", tmp_path / "loadavg"), ("_LOOKS", 4), ("_BEAT_S", 0.001)):
        monkeypatch.setattr(pauses, name, value)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    return tmp_path / "loadavg"


def crowd_after_some_looks() -> float:
    meter = pauses.PauseMeter()

    def looked() -> None:
        if len(meter._runnable) < 4:
            raise NotYet("it looks")

    try:
        poll(looked, what="four looks", deadline_s=30.0, interval_s=0.001)
    finally:
        meter.close()
    return meter.crowd


def test_it_counts_the_tasks_that_want_to_run_on_each_core(load: Path) -> None:
    load.write_text("1.50 1.20 0.90 26/1234 5678\n")
    assert crowd_after_some_looks() == 13.0


@pytest.mark.parametrize("text", [None, "", "1.50 1.20 0.90", "a b c d/e f"])
def test_it_counts_nothing_where_this_is_unknown(load: Path, text: str | None) -> None:
    if text is not None:
        load.write_text(text)
    assert crowd_after_some_looks() == 0.0
