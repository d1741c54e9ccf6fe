"""Drivers behind real topologies: none is blamed where nothing is wrong, and the ones that break are seen to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.drivers.measure import DRIVERS, Measured, installed, measure
from harness.lab.lab import stand_up
from harness.lab.topologies import load_topologies
from harness.redaction import Redactor
from tests.conftest import require_engine

if TYPE_CHECKING:
    from harness.engine.owner import Owner
    from harness.engine.protocol import Engine
    from harness.model import Topology

pytestmark = pytest.mark.engine

ALL_QUERIES = 24 * 60
#: psycopg prepares from here on; the drivers suite asks more of each topology
FEWER = 30


@pytest.fixture
def docker() -> Engine:
    """The engine that has the versions a topology declares: PgBouncer tracks statements from 1.21 on."""
    return require_engine("docker")


def measure_all(engine: Engine, owner: Owner, topology: Topology, queries: int = 60) -> dict[str, Measured]:
    """Run every driver that is installed; in CI all of them have to be."""
    if missing := [driver.name for driver in DRIVERS if not installed(driver)]:
        assert not os.environ.get("CI"), f"CI is set, and not installed: {missing}"
    lab = stand_up(engine, topology, owner, Redactor())
    try:
        return {driver.name: measure(driver, lab.chain(), queries=queries) for driver in DRIVERS if installed(driver)}
    finally:
        lab.close()


@pytest.mark.parametrize(("name", "servers"), [("direct", 24), ("session", 8), ("transaction", 4)])
def test_every_driver_is_safe_where_statements_are_tracked(
    docker: Engine, owner: Owner, name: str, servers: int
) -> None:
    for driver, measured in measure_all(docker, owner, load_topologies()[name], FEWER).items():
        assert (measured.errors, measured.wrong, measured.examples) == ({}, 0, ()), driver
        assert measured.clean
        assert measured.queries == 24 * FEWER
        assert measured.server_pids == servers


def test_prepared_names_collide_where_they_are_not_tracked(docker: Engine, owner: Owner) -> None:
    topology = load_topologies()["transaction"]
    assert topology.pooler
    untracked = replace(topology, name="untracked", pooler=replace(topology.pooler, max_prepared_statements=0))
    found = measure_all(docker, owner, untracked)
    for name, measured in found.items():
        if name in {"psycopg-unprepared", "asyncpg-uncached"}:
            assert measured.clean, (name, measured.examples)
        else:
            assert measured.errors.keys() & {"26000", "42P05"}, name
            assert not measured.clean
        assert measured.queries == ALL_QUERIES, name
    for name in {"psycopg", "asyncpg"} & found.keys():
        assert found[name].wrong, f"{name}: wrong results without an error are what this is about"
        assert any(each.startswith("wrong result: expected ") for each in found[name].examples)
