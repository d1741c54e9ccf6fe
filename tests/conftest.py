"""Shared fixtures: engines that are really there, and evidence that is made up for the report's tests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from harness.engine.docker_engine import DockerEngine
from harness.engine.native_engine import NativeEngine
from harness.engine.owner import Owner
from harness.errors import HarnessError
from harness.events import silent
from harness.lab.topologies import load_topologies, wanted_by
from harness.store import new_run_id

if TYPE_CHECKING:
    from harness.engine.protocol import Engine

# how long an example takes says something about the machine, and nothing about the code
settings.register_profile("harness", deadline=None)
settings.load_profile("harness")

ENGINES = ("docker", "native")
_opened: dict[str, Engine | HarnessError] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin the long tests first where they run side by side, so that the others end beside them."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda each: each.get_closest_marker("long") is None)


def _open(name: str) -> Engine | HarnessError:
    """Open and prepare an engine once for the whole test run; remember why when it is missing."""
    if name not in _opened:
        wanted = tuple(each for topology in load_topologies().values() for each in wanted_by(topology))
        try:
            engine: DockerEngine | NativeEngine = DockerEngine() if name == "docker" else NativeEngine()
            engine.prepare(wanted, silent)
            for topology in load_topologies().values():
                if not topology.on_demand:
                    for product in wanted_by(topology):
                        engine.origin(product)  # raises where it is missing
            _opened[name] = engine
        except HarnessError as error:
            _opened[name] = error
    return _opened[name]


def require_engine(name: str) -> Engine:
    """Return an engine. In CI a missing one fails the test; elsewhere it skips it."""
    engine = _open(name)
    if isinstance(engine, HarnessError):
        if os.environ.get("CI"):
            pytest.fail(f"the {name} engine is missing, and CI is set: {engine}")
        pytest.skip(f"the {name} engine is missing: {engine.what}")
    return engine


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine in turn: the same contract holds for both."""
    return require_engine(request.param)


@pytest.fixture(scope="session")
def some_engine() -> Engine:
    """One engine, the native one where it is: for tests of what is built on engines."""
    native = _open("native")
    return native if not isinstance(native, HarnessError) else require_engine("docker")


@pytest.fixture
def any_engine(some_engine: Engine) -> Engine:
    return some_engine


@pytest.fixture
def owner() -> Owner:
    return Owner.me(new_run_id())
