"""Which failures of its own servers end a topology, and which only explain an Issue."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from harness.checks.judging import Failure
from harness.checks.workspace import Workspace
from harness.engine.protocol import ServiceState


def workspace(log: str = "", *, running: bool = True) -> Any:
    """Return a workspace whose only service runs or not, and has this log; it provisions no database."""
    made: Any = object.__new__(Workspace)
    service = SimpleNamespace(
        name="postgres", state=lambda: ServiceState(running=running, detail="exit code 137"), logs=lambda: log
    )
    made._lab = SimpleNamespace(services=(service,), postgres=service, evidence=SimpleNamespace(storage="in memory"))
    made._ended = False
    return made


def test_a_service_that_ended_ends_the_topology_once_a_check_found_it() -> None:
    found = workspace(running=False)
    assert found.why_nothing_runs() == ""
    assert found.own_failure() == Failure(what="the service postgres is not running: exit code 137")
    assert found.why_nothing_runs() == "the service postgres is not running: exit code 137"


def test_a_disk_that_was_full_explains_an_issue_and_stops_no_other_check() -> None:
    found = workspace("ERROR:  could not extend file: No space left on device")
    assert found.own_failure() == Failure(what="the file system of the server's data was full (in memory)")
    assert found.why_nothing_runs() == ""
