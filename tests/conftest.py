"""Shared fixtures: the engines of this machine, and the order of tests that run in parallel."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from harness.engine.docker_engine import DockerEngine
from harness.engine.native_engine import NativeEngine
from harness.engine.owner import Owner
from harness.errors import HarnessError
from harness.events import silent
from harness.git import REPOSITORY_VARIABLES
from harness.lab.topologies import load_topologies, wanted_by
from harness.store import new_run_id

if TYPE_CHECKING:
    from xdist.remote import Producer

    from harness.engine.protocol import Engine
    from tests.scheduling import SharedServers

# the duration of an example depends on the machine, so no example has a deadline. Every run has other examples, so fewer
# of them find the same mistakes within a few runs. To draw one takes four times as long as to test it
settings.register_profile("harness", deadline=None, max_examples=30)
settings.load_profile("harness")

ENGINES = ("docker", "native")
_opened: dict[str, Engine | HarnessError] = {}


def pytest_configure(config: pytest.Config) -> None:
    """Let the processes that tests start share compiled modules until the run ends, if Python writes none.

    Nothing that is collected is garbage, so the garbage collector pauses until all tests are.
    """
    gc.disable()
    for name in REPOSITORY_VARIABLES:  # tests that make repositories, run by a hook of git, would change this one
        os.environ.pop(name, None)
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):  # workers inherit the changed environment
        compiled = tempfile.TemporaryDirectory(prefix="harness-compiled-", ignore_cleanup_errors=True)
        config.add_cleanup(compiled.cleanup)
        _link_compiled_modules(compiled.name)
        os.environ |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": compiled.name}


def _link_compiled_modules(folder: str) -> None:
    """Fill a folder for compiled modules with those of Python and of installed packages that this process has loaded."""
    specs = [spec for module in list(sys.modules.values()) if (spec := getattr(module, "__spec__", None))]
    compiled = {spec.origin: spec.cached for spec in specs if spec.cached and Path(spec.cached).exists()}
    before, sys.pycache_prefix = sys.pycache_prefix, folder
    for source, cached in compiled.items():
        link = Path(importlib.util.cache_from_source(source))
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(cached)
    sys.pycache_prefix = before


def pytest_collection(session: pytest.Session) -> None:
    """Compile the test modules once when tests run in parallel, and not once in each process."""
    if hasattr(session.config, "workerinput"):
        from tests.scheduling import import_share

        import_share(session.config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort tests that run in parallel."""
    if hasattr(config, "workerinput"):
        from tests.scheduling import sort

        sort(items)


def pytest_collection_finish() -> None:
    """Exempt the thousands of collected tests from garbage collection: none of them is garbage until the run ends."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SharedServers:
    """Run tests that share servers in one process when tests run in parallel."""
    from tests.scheduling import SharedServers

    return SharedServers(config, log)


def _open(name: str) -> Engine | HarnessError:
    """Open and prepare an engine once per test run. Return the error instead when it is missing."""
    if name not in _opened:
        wanted = tuple(product for topology in load_topologies().values() for product in wanted_by(topology))
        try:
            engine: DockerEngine | NativeEngine = DockerEngine() if name == "docker" else NativeEngine()
            engine.prepare(wanted, silent)
            for topology in load_topologies().values():
                if not topology.on_demand:
                    for product in wanted_by(topology):
                        engine.origin(product)  # raises for a missing product
            _opened[name] = engine
        except HarnessError as error:
            _opened[name] = error
    return _opened[name]


def require_engine(name: str) -> Engine:
    """Return an engine. A missing one fails the test when CI is set, and skips it otherwise."""
    engine = _open(name)
    if isinstance(engine, HarnessError):
        if os.environ.get("CI"):
            pytest.fail(f"the {name} engine is missing, and CI requires it: {engine}")
        pytest.skip(f"the {name} engine is missing: {engine.what}")
    return engine


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Every engine in turn: both fulfil the same contract."""
    return require_engine(request.param)


@pytest.fixture(scope="session")
def some_engine() -> Engine:
    """One engine, for tests of the layers above: the native one, or docker when native is missing."""
    native = _open("native")
    return native if not isinstance(native, HarnessError) else require_engine("docker")


@pytest.fixture
def any_engine(some_engine: Engine) -> Engine:
    return some_engine


@pytest.fixture
def owner() -> Owner:
    return Owner.me(new_run_id())
