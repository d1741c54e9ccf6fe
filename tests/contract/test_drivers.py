"""Drivers behind a pool that does not track statements: their failures are detected, also those without an error.

The drivers suite, which `report` runs, measures all of them on a direct connection and with and without such a pool.
There it is enough that a driver fails.

In a run, one process loads the drivers for all checks, and it ends with the run.
"""

from __future__ import annotations

import os
from importlib import metadata
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.drivers import worker as worker_module
from harness.drivers.measure import DRIVERS, Measured, installed, measure
from harness.drivers.worker import Worker, Workers
from harness.lab.lab import stand_up
from harness.lab.topologies import load_topologies
from harness.model import Status
from harness.redaction import Redactor
from harness.store import read_run
from tests.conftest import require_engine
from tests.contract.command_line import harness_here

if TYPE_CHECKING:
    from pathlib import Path

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
    """Run each driver that is installed, and return the measurements by name; in CI all of them must be installed.

    One process loads all of them.
    """
    drivers = [driver for driver in DRIVERS if driver.name in NAMES]
    if missing := [driver.name for driver in drivers if not installed(driver)]:
        assert not os.environ.get("CI"), f"missing drivers in CI: {missing}"
    lab = stand_up(engine, topology, owner, Redactor())
    at = lab.chain()
    try:
        with Workers() as workers:
            return {
                driver.name: measure(
                    driver, at, clients=CLIENTS, processes=PROCESSES, queries=QUERIES, workers=workers
                )
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


def test_a_run_loads_drivers_in_one_process_and_a_driver_that_is_not_installed_is_not_run(
    any_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = metadata.version

    def without_asyncpg(name: str) -> str:
        if name == "asyncpg":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    started: list[Worker] = []

    def start() -> Worker:
        started.append(worker := Worker())
        return worker

    monkeypatch.setattr(metadata, "version", without_asyncpg)
    monkeypatch.setattr(worker_module, "Worker", start)
    checks = ("psycopg", "psycopg-unprepared", "asyncpg")
    selected = [f"--check=drivers.{check}" for check in checks]
    done = harness_here(tmp_path, "verify", "direct", *selected, "--engine", any_engine.name)
    assert done.returncode == 0, done.stderr
    run = read_run(tmp_path / "reports" / "runs" / "latest")
    results = {result.check.removeprefix("drivers."): result for result in run.answers()}
    assert [results[check].status for check in checks] == [Status.OK, Status.OK, Status.NOT_RUN]
    assert "asyncpg" in results["asyncpg"].reason
    assert [worker.is_running for worker in started] == [False]
