"""What the pooling suite costs, one topology at a time and side by side, and how long recognising a chain takes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from harness import places
from harness.database import create_database
from harness.lab.lab import stand_up
from harness.recognition import recognise
from harness.redaction import Redactor

if TYPE_CHECKING:
    from harness.engine.owner import Owner
    from harness.engine.protocol import Engine
    from harness.model import Topology

_ROUNDS = 3
BOUND_ONE_S, BOUND_ALL_S, BOUND_IDENTIFY_S = 15.0, 60.0, 3.0


def measure(engine: Engine, topologies: list[Topology], owner: Owner) -> None:
    """Print seconds beside their bounds, each from the first container to the last byte of the report."""
    print(f"\nidentify, black box with the direct address, median of {_ROUNDS}")
    for topology in topologies:
        took = statistics.median(_recognise(engine, topology, owner) for _ in range(_ROUNDS))
        print(f"  {topology.name:<22} {took:.2f} s ({_verdict(took, BOUND_IDENTIFY_S)})", flush=True)
    print("\nthe pooling suite, with standing up and reporting")
    for topology in topologies:
        took = _verify(engine, [topology])
        print(f"  {topology.name:<22} {took:.1f} s ({_verdict(took, BOUND_ONE_S)})", flush=True)
    default = {each.name: each.pooler.version for each in topologies if each.pooler}
    newest = max(default.values(), key=lambda version: [int(part) for part in version.split(".")])
    current = [
        each
        for each in topologies
        if each.pooler and each.pooler.product == "pgbouncer" and each.pooler.version == newest
    ]
    took = _verify(engine, current)
    print(f"  {len(current)} with PgBouncer {newest}, side by side: {took:.1f} s ({_verdict(took, BOUND_ALL_S)})")


def _recognise(engine: Engine, topology: Topology, owner: Owner) -> float:
    lab = stand_up(engine, topology, owner, Redactor())
    try:
        with lab.connect_admin() as admin:
            create_database(admin, "recognised", owner=lab.roles.owner.name)
        return recognise(lab.chain("recognised"), direct=lab.direct("recognised")).elapsed_ms / 1000
    finally:
        lab.close()


def _verify(engine: Engine, topologies: list[Topology]) -> float:
    narrow = [each for each in topologies if each.verify and "pooling" not in each.verify]
    asked = (
        ["--suite", "pooling"] if len(narrow) < len(topologies) else [f"--check={each}" for each in narrow[0].verify]
    )
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        subprocess.run(
            [
                *(sys.executable, "-m", "harness", "verify", *(each.name for each in topologies), *asked),
                *("--engine", engine.name),
            ],
            cwd=folder,
            check=True,
            env={**os.environ, "PYTHONPATH": str(places.SHIPPED)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return time.perf_counter() - began


def _verdict(value: float, bound: float) -> str:
    return f"{'within' if value <= bound else 'OVER'} {bound:g} s"
