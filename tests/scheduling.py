"""Distribution of tests over processes: tests that share servers or a browser run in one process, which starts them once.

The unit tests of a module run in one process, too, because handing out thousands of tests one by one takes longer than
many of them. What takes longest begins first, and unit tests fill the processes at the end.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdist.scheduler import LoadScopeScheduling

from tests.conftest import ENGINES

if TYPE_CHECKING:
    import pytest
    from xdist.remote import Producer

#: modules whose tests share servers; a parameter that names the engine comes first, and its servers are other ones
SHARING = frozenset(
    {
        "test_acknowledged_writes",
        "test_actor_checks",
        "test_audit_attaching",
        "test_audit_edges",
        "test_audit_layer",
        "test_capture_checks",
        "test_claim_checks",
        "test_engine",
        "test_environment",
        "test_environment_leftovers",
        "test_faults",
        "test_hostapp",
        "test_ingest",
        "test_ingest_reference",
        "test_job_engines",
        "test_lab",
        "test_mutant_trails",
        "test_object_store",
        "test_required_actors",
        "test_soak_comparison",
        "test_store_proxy",
        "test_target_trial",
        "test_targets",
        "test_trail_errors",
    }
)

#: modules of unit tests that take seconds, most of them with few tests: others fill the processes at the end
SLOW_UNITS = frozenset(
    {
        "test_bootstrap",
        "test_drivers",
        "test_gates",
        "test_host_command",
        "test_imports",
        "test_job_engines_installation",
        "test_job_workers",
        "test_json_report",
        "test_language",
        "test_markdown_tables",
        "test_page_size",
        "test_spellings",
    }
)


def group_of(test: str) -> str:
    """Return the id of the group of tests that one process runs: most tests on servers are alone in theirs."""
    path, _, name = test.partition("::")
    module = _module(path)
    if _is_unit(path):
        return path
    if "/browser/" in path:
        return path.rpartition("/")[0]
    if module not in SHARING:
        return test
    parameters = name.partition("[")[2]
    return next((f"{module}-{engine}" for engine in ENGINES if parameters.startswith(engine)), module)


def sort(items: list[pytest.Item]) -> None:
    """Sort tests: long ones, then those that share something, then others on servers, then unit tests by module.

    Of the modules of unit tests, the slow ones come first, then large ones.
    """
    sizes = Counter(item.location[0] for item in items)

    def place(item: pytest.Item) -> tuple[int, int]:
        path = item.location[0]
        if item.get_closest_marker("long"):
            return 0, 0
        if _is_unit(path):
            return (3, 0) if _module(path) in SLOW_UNITS else (4, -sizes[path])
        return (2, 0) if group_of(item.nodeid) == item.nodeid else (1, -sizes[path])

    items.sort(key=place)


def import_share(config: pytest.Config) -> None:
    """Import this process's share of the test modules before all processes collect all modules.

    A fresh checkout has no compiled modules, and pytest takes longer to compile a test module than to collect it. Each
    process compiles its share, and loads what the others have compiled.
    """
    worker: dict[str, Any] = config.workerinput  # type: ignore[attr-defined]  # xdist has no types
    number, processes = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    for path in sorted(_modules(config))[number::processes]:
        with suppress(Exception):  # collection imports it again, and reports the error
            import_module(".".join(path.relative_to(config.rootpath).with_suffix("").parts))


def _modules(config: pytest.Config) -> set[Path]:
    folders = (Path(config.rootpath, argument) for argument in config.args)
    return {path for folder in folders for path in folder.rglob("test_*.py") if path.is_relative_to(config.rootpath)}


def _module(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".py")


def _is_unit(path: str) -> bool:
    return "/unit/" in path


class SharedServers(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Hands out one group after another, in the order of their first tests."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        config.option.loadscopereorder = False  # by size, the tests that are alone would begin last
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
