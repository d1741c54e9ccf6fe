"""Which failures of its own servers end a topology, and which only explain an Issue."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from harness.checks.judging import Failure
from harness.checks.workspace import Workspace
from harness.engine.protocol import Address, ServiceState

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNS = ServiceState(running=True, detail="running")
ENDED = ServiceState(running=False, detail="exit code 137")


@pytest.fixture
def address() -> Iterator[Address]:
    """Return the address of a server that answers one SSLRequest."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def answer() -> None:
            with listener.accept()[0] as client:
                client.recv(8)
                client.sendall(b"N")

        answered = pool.submit(answer)
        yield Address("127.0.0.1", listener.getsockname()[1])
        answered.result()


@pytest.fixture
def accepting() -> Iterator[Address]:
    """Return the address of a server that accepts connections and never answers, as Docker's proxy does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Address("127.0.0.1", listener.getsockname()[1])


def workspace(*states: ServiceState, address: Address | None = None, log: str = "") -> Any:
    """Return a workspace with one service, which has these states one after another and this log.

    :param address: of the service; None for an address that refuses connections.
    """
    made: Any = object.__new__(Workspace)
    seen = iter((*states[:-1], *[states[-1]] * 9))
    endpoint = address or Address("127.0.0.1", 1)
    service = SimpleNamespace(name="postgres", state=lambda: next(seen), endpoint=lambda: endpoint, logs=lambda: log)
    made._lab = SimpleNamespace(required=(service,), postgres=service, evidence=SimpleNamespace(storage="in memory"))
    made._ended = False
    return made


def test_a_service_that_ended_ends_the_topology_once_a_check_found_it() -> None:
    found = workspace(ENDED)
    assert found.why_nothing_runs() == ""
    assert found.own_failure() == Failure(what="the service postgres is not running: exit code 137")
    assert found.why_nothing_runs() == "the service postgres is not running: exit code 137"


def test_the_engine_may_notice_the_end_of_a_service_after_its_clients() -> None:
    found = workspace(RUNS, RUNS, ENDED)
    assert found.own_failure() == Failure(what="the service postgres is not running: exit code 137")


def test_an_accepted_connection_is_no_sign_that_a_service_runs(
    accepting: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.checks.workspace._ANSWERS_S", 0.2)
    found = workspace(RUNS, RUNS, ENDED, address=accepting)
    assert found.own_failure() == Failure(what="the service postgres is not running: exit code 137")


def test_a_service_that_the_harness_ended_is_named_as_such() -> None:
    found = workspace(ServiceState(running=False, detail="killed", on_purpose=True))
    assert found.own_failure() == Failure(what="the service postgres is not running: killed", on_purpose=True)


def test_a_disk_that_was_full_explains_an_issue_and_stops_no_other_check(address: Address) -> None:
    found = workspace(RUNS, address=address, log="ERROR:  could not extend file: No space left on device")
    assert found.own_failure() == Failure(what="the file system of the server's data was full (in memory)")
    assert found.why_nothing_runs() == ""


def test_a_service_that_runs_and_answers_has_not_failed(address: Address) -> None:
    assert workspace(RUNS, address=address).own_failure() is None
