"""Drivers behind a pool that does not track statements: their failures are detected, also those without an error.

The drivers suite, which `report` runs, measures all of them on a direct connection and with and without such a pool.
There it is enough that a driver fails.
"""

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

#: one of each kind: it names its statements by connection, or by process
NAMES = ("psycopg", "asyncpg")
#: the drivers suite runs more of each
CLIENTS, PROCESSES = 8, 2
#: enough for psycopg to prepare its statements, and for their names to collide
QUERIES = 60


@pytest.fixture
def docker() -> Engine:
    """Return the engine with the declared versions: from PgBouncer 1.21 on, tracking can be switched off."""
    return require_engine("docker")


def measure_all(engine: Engine, owner: Owner, topology: Topology) -> dict[str, Measured]:
    """Run each driver that is installed, and return the measurements by name; in CI all of them must be installed."""
    drivers = [driver for driver in DRIVERS if driver.name in NAMES]
    if missing := [driver.name for driver in drivers if not installed(driver)]:
        assert not os.environ.get("CI"), f"missing drivers in CI: {missing}"
    lab = stand_up(engine, topology, owner, Redactor())
    try:
        return {
            driver.name: measure(driver, lab.chain(), clients=CLIENTS, processes=PROCESSES, queries=QUERIES)
            for driver in drivers
            if installed(driver)
        }
    finally:
        lab.close()


def test_prepared_statement_names_collide_without_tracking(docker: Engine, owner: Owner) -> None:
    topology = load_topologies()["transaction"]
    assert topology.pooler
    untracked = replace(topology, name="untracked", pooler=replace(topology.pooler, max_prepared_statements=0))
    results = measure_all(docker, owner, untracked)
    for name, measured in results.items():
        assert measured.errors.keys() & {"26000", "42P05"}, name
        assert not measured.clean
        assert measured.queries == CLIENTS * QUERIES, name
        assert measured.wrong, f"{name}: expected wrong results without an error"
        assert any(example.startswith("wrong result: expected ") for example in measured.examples)
