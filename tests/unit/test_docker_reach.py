"""Where the ports of containers are published, and where they are reached."""

from __future__ import annotations

import pytest

from harness.engine.docker_reach import ContainerReach, Published, published_at
from harness.engine.protocol import Address
from harness.errors import EngineUnavailableError
from tests.tables import each_row

LOOPBACK = ("127.0.0.1", "127.0.0.1")


@each_row(
    ("address", "variables", "is_local", "expected"),
    [
        ("unix:///var/run/docker.sock", {}, True, LOOPBACK),
        ("unix:///home/ada/.docker/run/docker.sock", {}, False, LOOPBACK),  # a virtual machine that forwards ports
        ("npipe:////./pipe/docker_engine", {}, False, LOOPBACK),
        ("tcp://127.0.0.1:2375", {}, True, LOOPBACK),
        ("tcp://192.0.2.7:2376", {}, True, LOOPBACK),  # this machine under its own address
        ("tcp://192.0.2.7:2376", {}, False, ("192.0.2.7", "192.0.2.7")),
        ("tcp://[fd00::7]:2376", {}, False, ("fd00::7", "fd00::7")),
        ("ssh://ada@192.0.2.7", {}, False, ("192.0.2.7", "192.0.2.7")),
        ("tcp://localhost:2376", {}, False, ("127.0.0.1", "localhost")),
        ("tcp://127.0.0.1:2376", {"HARNESS_DOCKER_ADDRESS": "192.0.2.8"}, False, ("192.0.2.8", "192.0.2.8")),
        ("tcp://192.0.2.7:2376", {"HARNESS_DOCKER_PUBLISH": "0.0.0.0"}, False, ("0.0.0.0", "192.0.2.7")),  # noqa: S104
        (
            "ssh://builder",
            {"HARNESS_DOCKER_ADDRESS": "builder.example", "HARNESS_DOCKER_PUBLISH": "10.0.0.1"},
            False,
            ("10.0.0.1", "builder.example"),
        ),
    ],
)
def test_ports_are_published_where_they_are_reached(
    address: str, variables: dict[str, str], is_local: bool, expected: tuple[str, str]
) -> None:
    found = published_at(address, variables, is_local=is_local)
    assert (found.bind, found.host) == expected


@pytest.mark.parametrize(
    ("address", "variables", "message"),
    [
        ("tcp://no-such-host.invalid:2376", {}, "cannot be resolved"),
        ("unix:///x", {"HARNESS_DOCKER_PUBLISH": "builder"}, "HARNESS_DOCKER_PUBLISH: found 'builder'"),
    ],
)
def test_an_address_that_cannot_work_is_an_error(address: str, variables: dict[str, str], message: str) -> None:
    with pytest.raises(EngineUnavailableError, match=message) as raised:
        published_at(address, variables, is_local=False)
    assert "HARNESS_DOCKER_" in raised.value.hint


@pytest.mark.parametrize(("host", "text"), [("192.0.2.7", "192.0.2.7:80"), ("fd00::7", "[fd00::7]:80")])
def test_an_address_fits_into_a_url(host: str, text: str) -> None:
    assert str(Address(host, 80)) == text


def test_a_named_address_is_always_used() -> None:
    reach = ContainerReach(is_local=True, published=Published(), may_be_direct=False)
    assert not reach.directly("127.0.0.1", 1)  # where a refused connection would mean that the container answered
