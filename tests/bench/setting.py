"""What a part is measured on, and how much of it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.engine.choice import choose
from harness.engine.images import ImagePolicy
from harness.engine.owner import Owner
from harness.lab.host import HOST
from harness.lab.topologies import load_topologies, select, wanted_by
from harness.store import new_run_id
from tests.bench.trees import Tree, this_tree

if TYPE_CHECKING:
    from harness.engine.choice import EngineName
    from harness.engine.protocol import Engine
    from harness.events import Event
    from harness.model import Topology


class Scale(Struct, frozen=True, kw_only=True):
    """How much is measured; a part leaves out what has no meaning for it."""

    rounds: int = 1
    #: rows of a table, or copies of a run folder
    rows: int = 0
    #: by name; all that are not on demand when empty
    topologies: tuple[str, ...] = ()
    #: of `verify`: which checks; all when empty
    selection: tuple[str, ...] = ()


class Setting:
    """The engine, the trees that are compared, and what is said while it takes a while."""

    def __init__(self, engine: EngineName, trees: tuple[Tree, ...] = ()) -> None:
        self.owner = Owner.me(new_run_id())
        self.trees = trees or (this_tree(),)
        #: the names of those whose images are built and whose byte code is compiled
        self.prepared: set[str] = set()
        wanted = [
            wanted
            for topology in load_topologies().values()
            if not topology.on_demand
            for wanted in wanted_by(topology)
        ]
        # the reference host's image, too: what is measured later builds none
        self.engine: Engine = choose(engine, ImagePolicy(), tuple(wanted), _print)
        self.engine.prepare((*wanted, HOST), _print)

    def topologies(self, scale: Scale) -> list[Topology]:
        return select(load_topologies(), scale.topologies)

    def say(self, text: str) -> None:
        """Report progress, where figures do not go."""
        print(f"bench: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        self.engine.close()


def _print(event: Event) -> None:
    print(event, file=sys.stderr)


def machine(engine: Engine) -> str:
    """Describe what the figures were measured on, in one line."""
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
