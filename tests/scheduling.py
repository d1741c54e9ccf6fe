"""Distribution of tests over processes: tests that share servers or a browser run in one process, which starts them once."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

from tests.conftest import ENGINES

#: modules whose tests share servers, or a browser; a parameter that names the engine comes first, and its servers are
#: other ones
SHARING = frozenset(
    {
        "test_acknowledged_writes",
        "test_audit_edges",
        "test_audit_layer",
        "test_engine",
        "test_faults",
        "test_hostapp",
        "test_page",
        "test_page_everywhere",
        "test_soak_comparison",
        "test_trail_errors",
    }
)


def group_of(test: str) -> str:
    """Return the id of the group of tests that one process runs: most tests are alone in theirs."""
    path, _, name = test.partition("::")
    module = path.rpartition("/")[2].removesuffix(".py")
    if module not in SHARING:
        return test
    parameters = name.partition("[")[2]
    return next((f"{module}-{engine}" for engine in ENGINES if parameters.startswith(engine)), module)


class SharedServers(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Hands out one group after another, the largest groups first."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
