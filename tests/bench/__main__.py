"""The bench session: figures for what the project promises, each beside what it is compared with.

Nothing here fails: a slow machine is not a defect. A figure over its bound says OVER.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import places
from harness.engine.choice import choose
from harness.engine.images import ImagePolicy
from harness.engine.owner import Owner
from harness.errors import HarnessError
from harness.lab.catalogue import load_topologies, select, wanted_by
from harness.lab.lab import stand_up
from harness.redaction import Redactor
from harness.store import new_run_id, read_run
from tests.bench import capture, pooling, trail

BOUND_RUN_S, BOUND_PROVE_S = 120.0, 600.0
_ALL = ("startup", "capture", "trail", "pooling", "run", "prove")


def main() -> int:
    parser = argparse.ArgumentParser(prog="nox -s bench --")
    parser.add_argument("--engine", choices=("auto", "docker", "native"), default="auto")
    parser.add_argument("what", nargs="*", choices=(*_ALL, []), help="all when none is named")
    arguments = parser.parse_args()
    asked = arguments.what or list(_ALL)
    topologies = select(load_topologies(), [])
    wanted = tuple(each for topology in topologies for each in wanted_by(topology))
    try:
        engine = choose(arguments.engine, ImagePolicy(), wanted, lambda event: print(event, file=sys.stderr))
    except HarnessError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    owner = Owner.me(new_run_id())
    print(
        f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, python {platform.python_version()}, "
        f"engine {engine.name} {engine.version}"
    )
    if "startup" in asked:
        from tests.bench import startup

        startup.measure(engine, topologies, owner)
    if "capture" in asked:
        lab = stand_up(engine, topologies[0], owner, Redactor())
        try:
            capture.measure(lab)
        finally:
            lab.close()
    if "trail" in asked:
        lab = stand_up(engine, topologies[0], owner, Redactor())
        try:
            trail.measure(lab)
        finally:
            lab.close()
    if "pooling" in asked:
        pooling.measure(engine, topologies, owner)
    engine.close()
    for what, bound in (("run", BOUND_RUN_S), ("prove", BOUND_PROVE_S)):
        if what in asked:
            measure_run(what, bound, engine.name)
    return 0


def measure_run(what: str, bound_s: float, engine: str) -> None:
    """Print how long all suites take on all topologies, as the nox sessions run them, and what a check costs."""
    command = ["report", "--complete"] if what == "run" else ["prove"]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "harness", *command, "--engine", engine],
            cwd=folder,
            check=True,
            env={**os.environ, "PYTHONPATH": str(places.SHIPPED)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        took = time.perf_counter() - began
        run = read_run(Path(folder) / "reports" / "runs" / "latest")
    rows = [each for each in run.results if each.expectations]
    cost = len(rows) if what == "run" else len(rows) + len(run.proofs) + sum(each.tried for each in run.trail_proofs)
    verdict = "within" if took <= bound_s else "OVER"
    named = "all suites on all topologies" if what == "run" else "prove"
    print(f"\n{named}: {took:.1f} s ({verdict} {bound_s:.0f} s), {cost} checks run, {took / cost * 1000:.0f} ms each")
    slowest = sorted(rows, key=lambda each: -each.duration_ms)[:5]
    print("  slowest: " + ", ".join(f"{each.check} in {each.topology} {each.duration_ms:.0f} ms" for each in slowest))
    if what == "run":
        by_suite: dict[str, list[float]] = {}
        for row in rows:
            by_suite.setdefault(row.check.partition(".")[0], []).append(row.duration_ms)
        print(
            "  a check, by suite: "
            + ", ".join(f"{suite} {sum(each) / len(each):.0f} ms" for suite, each in by_suite.items())
        )


if __name__ == "__main__":
    raise SystemExit(main())
