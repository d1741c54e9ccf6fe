"""The roles of a lab's services: the chain, and the services next to it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from harness.database import SqlError, connect, console
from harness.engine.protocol import Address, Wanted
from harness.errors import ServiceFailedError
from harness.lab.credentials import random_roles
from harness.lab.lab import Lab
from harness.lab.topologies import chain_of, load_topologies
from harness.redaction import Redactor
from tests.unit.made_up import stood

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

TOPOLOGIES = load_topologies()


class Running:
    """A service that only has a name, a log and a port."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.removed = False

    def logs(self) -> str:
        return f"the log of {self.name}"

    def endpoint(self) -> Address:
        return Address("127.0.0.1", len(self.name))

    def remove(self) -> None:
        self.removed = True


class Services:
    """A group that starts nothing. A specification is the name of the service."""

    def place(self, name: str, _wanted: Wanted, *, avoiding: Collection[int] = ()) -> str:
        return name

    def start(self, name: str) -> Running:
        return Running(name)

    def close(self) -> None:
        """Keep nothing."""


def lab_of(*names: str, topology: str = "direct") -> Lab:
    chain: Any = {name: Running(name) for name in names}
    group: Any = Services()
    engine: Any = SimpleNamespace(prepare=lambda _wanted, _listener: None)
    return Lab(TOPOLOGIES[topology], group, chain, random_roles(), engine=engine, redactor=Redactor())


def started(lab: Lab, name: str) -> str:
    specify: Any = str
    return lab.start_service(name, Wanted(product="hostapp", version="3"), specify).name


def test_a_chain_goes_from_the_database_outwards() -> None:
    assert list(chain_of(TOPOLOGIES["direct"])) == ["postgres"]
    assert {name: wanted.product for name, wanted in chain_of(TOPOLOGIES["transaction"]).items()} == {
        "postgres": "postgres",
        "pooler": "pgbouncer",
    }


@pytest.mark.parametrize(
    ("names", "poolers", "outermost"),
    [
        (("postgres",), [], "postgres"),
        (("postgres", "pooler"), ["pooler"], "pooler"),
        (("postgres", "inner", "outer-one"), ["inner", "outer-one"], "outer-one"),
    ],
)
def test_the_application_connects_to_the_outermost_service(
    names: tuple[str, ...], poolers: list[str], outermost: str
) -> None:
    lab = lab_of(*names)
    assert lab.postgres.name == "postgres"
    assert [service.name for service in lab.poolers] == poolers
    assert [service.name for service in lab.services] == list(names)
    assert lab.outermost.name == outermost
    assert (lab.chain().port, lab.dba().port) == (len(outermost), len(outermost))
    assert (lab.direct().port, lab.owner().port, lab.admin().port) == (8, 8, 8)


def test_services_next_to_the_chain_are_found_by_name() -> None:
    lab = lab_of("postgres", "pooler", topology="transaction")
    assert [started(lab, name) for name in ("app", "s3", "app")] == ["app", "s3", "app-2"]
    assert list(lab.beside) == ["app", "s3", "app-2"]
    assert lab.outermost.name == "pooler"
    first: Any = lab.beside["app"]
    lab.remove_service(first)
    lab.remove_service(first)
    assert first.removed
    assert "app" not in lab.beside
    assert lab.logs() == {name: f"the log of {name}" for name in ("postgres", "pooler", "s3", "app-2", "app")}
    assert started(lab, "app") == "app-3"  # a name is not used again: logs are kept by name


def test_no_service_starts_while_the_lab_closes() -> None:
    lab = lab_of("postgres")
    lab.close()
    with pytest.raises(ServiceFailedError):
        started(lab, "app")
    assert lab.beside == {}


@pytest.mark.parametrize(
    "ask",
    [
        lambda lab: connect(lab.chain()),
        lambda lab: connect(lab.admin("app")),
        lambda lab: connect(lab.through(lab.roles.app)),
        lambda lab: connect(lab.at_server(lab.roles.owner)),
        lambda lab: console(lab.console(), "SHOW VERSION"),
    ],
)
def test_nobody_connects_to_a_lab_that_closes(ask: Callable[[Lab], object]) -> None:
    """The address of a removed container answers nobody, so that the connection would wait for its timeout."""
    lab = lab_of("postgres", "pooler", topology="transaction")
    lab.close()
    with pytest.raises(ServiceFailedError, match="the server is being removed"):
        ask(lab)
    assert not lab.answers()


def test_an_address_from_before_the_lab_closed_is_not_used_either() -> None:
    lab = lab_of("postgres")
    before = lab.chain()
    with pytest.raises(SqlError):  # nothing listens there, which the server itself would say
        connect(before)
    lab.close()
    with pytest.raises(ServiceFailedError):
        connect(before)


def test_evidence_is_found_by_the_name_of_the_service() -> None:
    evidence = stood("transaction")
    assert evidence.service("postgres").product == "postgres"
    assert evidence.service("pooler").product == "pgbouncer"
    with pytest.raises(KeyError):
        stood("direct").service("pooler")
