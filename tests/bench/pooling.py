"""The time to recognise a chain from outside, and the time of the pooling suite on one and on several topologies."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from harness.database import create_database
from harness.lab.lab import stand_up
from harness.recognition.recognise import recognise
from harness.redaction import Redactor
from harness.suites.catalogue import catalogue
from tests.bench.figures import Table, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.model import Topology
    from tests.bench.setting import Scale, Setting

_SUITE = "pooling"
BOUND_ONE_S, BOUND_ALL_S, BOUND_IDENTIFY_S = 15.0, 60.0, 3.0


def measure(setting: Setting, scale: Scale) -> Iterator[Table]:
    """Yield seconds and their bounds. The suite is timed from the start of its process to its end, report included."""
    topologies = setting.topologies(scale)
    rows: list[tuple[str, ...]] = []
    for topology in topologies:
        setting.say(f"pooling: recognise {topology.name}")
        took = statistics.median(_recognise(setting, topology) for _ in range(scale.rounds))
        rows.append((topology.name, f"{took:.2f} s", verdict(took, BOUND_IDENTIFY_S)))
    yield Table(
        title="pooling: recognising a chain from outside",
        columns=("Topology", "Median", "Bound"),
        rows=tuple(rows),
        notes=(f"Median of {scale.rounds}; black box, with the direct address given; start-up is not counted.",),
    )
    rows = []
    for topology in topologies:
        took, checks = _verify(setting, [topology], scale)
        rows.append((topology.name, str(checks), f"{took:.1f} s", verdict(took, BOUND_ONE_S)))
    current = _newest_pgbouncer(topologies)
    if len(current) > 1:
        took, checks = _verify(setting, current, scale)
        rows.append(
            (", ".join(topology.name for topology in current), str(checks), f"{took:.1f} s", verdict(took, BOUND_ALL_S))
        )
    yield Table(
        title="pooling: the suite",
        columns=("Topologies", "Checks", "Once", "Bound"),
        rows=tuple(rows),
        notes=("Start-up, teardown and report included. A row with several names is one run of these topologies.",),
    )


def _newest_pgbouncer(topologies: Sequence[Topology]) -> list[Topology]:
    """Return the topologies of the newest PgBouncer version that verify the whole suite."""
    versions = {
        topology.name: [int(part) for part in topology.pooler.version.split(".")]
        for topology in topologies
        if topology.pooler and topology.pooler.product == "pgbouncer"
    }
    newest = max(versions.values(), default=None)
    suite = catalogue().select([_SUITE], [])
    return [
        topology
        for topology in topologies
        if versions.get(topology.name) == newest and all(topology.verifies(check.id) for check in suite)
    ]


def _recognise(setting: Setting, topology: Topology) -> float:
    lab = stand_up(setting.engine, topology, setting.owner, Redactor())
    try:
        with lab.connect_admin() as admin:
            create_database(admin, "recognised", owner=lab.roles.owner.name)
        return recognise(lab.chain("recognised"), direct=lab.direct("recognised")).elapsed_ms / 1000
    finally:
        lab.close()


def _verify(setting: Setting, topologies: Sequence[Topology], scale: Scale) -> tuple[float, int]:
    """Run the checks of the suite that all of these topologies verify; return the seconds and the number of rows."""
    checks = [
        check.id
        for check in catalogue().select([_SUITE], [])
        if all(topology.verifies(check.id) for topology in topologies)
    ][: scale.rows or None]
    selection = [f"--check={check}" for check in checks]
    names = [topology.name for topology in topologies]
    setting.say(f"pooling: verify {' '.join(names)}")
    return setting.run(setting.trees[0], "verify", *names, *selection)[0], len(checks) * len(names)
