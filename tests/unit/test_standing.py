"""What a signal does to a command that waits for a trail."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, cast

import pytest

from harness.cli.standing import removed_by
from harness.database import SqlError
from harness.errors import DatabaseError, InterruptedRunError

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
