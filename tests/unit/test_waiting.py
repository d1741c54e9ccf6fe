"""Polling with a deadline."""

from __future__ import annotations

from threading import Event

import pytest

from harness.errors import TimedOutError
from harness.waiting import NotYet, poll


def test_a_poll_repeats_the_probe_until_it_returns() -> None:
    seen = [NotYet("one"), NotYet("two")]

    def probe() -> int:
        if seen:
            raise seen.pop(0)
        return 3

    assert poll(probe, what="three", deadline_s=5, interval_s=0.001) == 3


def test_a_timeout_names_the_awaited_and_the_last_observed_state() -> None:
    def probe() -> None:
        raise NotYet("connection refused")

    with pytest.raises(TimedOutError, match=r"waiting for an answer; last seen: connection refused"):
        poll(probe, what="an answer", deadline_s=0.02, interval_s=0.001)


def test_another_error_of_the_probe_ends_the_wait_at_once() -> None:
    def probe() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        poll(probe, what="x", deadline_s=60)


def test_a_wait_can_be_cancelled() -> None:
    cancelled = Event()
    cancelled.set()

    def probe() -> None:
        raise NotYet("nothing")

    with pytest.raises(TimedOutError, match="stopped waiting"):
        poll(probe, what="x", deadline_s=60, cancelled=cancelled)
