"""What a signal does to a command that waits for a trail."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, cast
from unittest.mock import MagicMock

import pytest

from harness.cli import standing
from harness.cli.standing import removed_by
from harness.database import SqlError
from harness.engine.owner import Owner
from harness.errors import DatabaseError, HarnessError, InterruptedRunError
from harness.lab.topologies import load_topologies
from harness.store import new_run_id

if TYPE_CHECKING:
    from harness.lab.lab import Lab


class _Lab:
    def __init__(self) -> None:
        self.closed = Event()

    def close(self) -> None:
        self.closed.set()


@pytest.mark.parametrize("error", [SqlError("the connection is lost"), DatabaseError("not provisioned"), None])
def test_a_signal_removes_the_servers_and_what_follows_is_no_error(error: Exception | None) -> None:
    stop, lab = Event(), _Lab()

    def interrupted() -> None:
        with removed_by(stop, cast("Lab", lab)):
            stop.set()
            assert lab.closed.wait(10)
            if error:
                raise error

    with pytest.raises(InterruptedRunError, match="the servers are removed"):
        interrupted()


def test_without_a_signal_the_servers_stay_and_an_error_is_one() -> None:
    lab = _Lab()
    with pytest.raises(DatabaseError, match="not provisioned"), removed_by(Event(), cast("Lab", lab)):
        raise DatabaseError("not provisioned")
    with removed_by(Event(), cast("Lab", lab)):
        pass
    assert not lab.closed.is_set()


@pytest.mark.parametrize("signalled", [True, False])
def test_a_signal_while_the_servers_start_is_no_fault_of_theirs(
    monkeypatch: pytest.MonkeyPatch, *, signalled: bool
) -> None:
    def never_ready(*_arguments: object) -> None:
        if signalled:
            stop.set()
        raise HarnessError("stopped waiting for an answer")

    stop = Event()
    monkeypatch.setattr(standing, "choose", MagicMock())
    monkeypatch.setattr(standing, "reap_leftovers", MagicMock())
    monkeypatch.setattr(standing, "stand_up", never_ready)
    kind, match = (InterruptedRunError, "are removed") if signalled else (HarnessError, "stopped waiting")
    with (
        pytest.raises(kind, match=match),
        standing.standing(MagicMock(), load_topologies()["direct"], Owner.me(new_run_id()), stop),
    ):
        pass
