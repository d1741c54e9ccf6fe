"""The setting of a benchmark: its engine, its trees and its scale."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.engine.choice import choose
from harness.engine.owner import Owner
from harness.engine.recipes import ImagePolicy
from harness.lab.host import HOST
from harness.lab.topologies import load_topologies, select, wanted_by
from harness.store import new_run_id, read_run
from tests.bench.trees import Tree, this_tree

if TYPE_CHECKING:
    from harness.engine.protocol import Engine, EngineName
    from harness.events import Event
    from harness.model import Topology
    from harness.store import StoredRun


class Scale(Struct, frozen=True, kw_only=True):
    """The amount of work of one part. A part ignores the fields that do not apply to it."""

    rounds: int = 1
    #: rows of a table, checks of a suite, or copies of a run folder
    rows: int = 0
    #: names; empty: all topologies that are not on demand
    topologies: tuple[str, ...] = ()
    #: options of `verify` that select checks; empty: all checks
    selection: tuple[str, ...] = ()


class Setting:
    """The engine that runs the servers, the trees that are compared, and progress messages on stderr."""

    def __init__(self, engine: EngineName, trees: tuple[Tree, ...] = (), *, quick: bool = False) -> None:
        self.quick = quick
        #: in quick mode only, where parts share them
        self._runs: dict[tuple[str, ...], tuple[float, StoredRun]] = {}
        self.owner = Owner.me(new_run_id())
        self.trees = trees or (this_tree(),)
        #: names of the trees whose images are built and whose byte code is compiled
        self.prepared: set[str] = set()
        wanted = [
            product
            for topology in load_topologies().values()
            if not topology.on_demand
            for product in wanted_by(topology)
        ]
        # with the image of the reference host, so that no image is built while a part is timed
        self.engine: Engine = choose(engine, ImagePolicy(), tuple(wanted), _print)
        self.engine.prepare((*wanted, HOST), _print)

    def topologies(self, scale: Scale) -> list[Topology]:
        return select(load_topologies(), scale.topologies)

    def run(self, tree: Tree, *command: str) -> tuple[float, StoredRun]:
        """Run a command of the harness in a new folder.

        In quick mode, parts with the same command share one run of it: what differs is what they make of it.

        :return: the seconds, report included, and the run, which is read completely before its folder is removed.
        """
        key = (tree.name, *command)
        if key in self._runs:
            return self._runs[key]
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            tree.harness(Path(folder), *command, "--engine", self.engine.name)
            took = time.perf_counter() - began
            done = took, read_run((Path(folder) / "reports" / "runs" / "latest").resolve())
        if self.quick:
            self._runs[key] = done
        return done

    def say(self, text: str) -> None:
        """Report progress on stderr; stdout has the figures."""
        print(f"bench: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        self.engine.close()


def _print(event: Event) -> None:
    print(event, file=sys.stderr)


def machine(engine: Engine) -> str:
    """Describe the machine and the engine in one line."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    storage = f", storage driver {driver}" if (driver := _storage_driver(engine)) else ""
    return (
        f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, "
        f"load {os.getloadavg()[0]:.1f} before it began, Python {platform.python_version()}, "
        f"engine {engine.name} {engine.version}{storage}"
    )


def _storage_driver(engine: Engine) -> str:
    if engine.name != "docker":
        return ""
    try:
        done = subprocess.run(
            ["docker", "info", "--format", "{{.Driver}}"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
