"""How fast topologies start: by the harness, and by other means with the same images."""

from __future__ import annotations

import importlib.util
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from harness.engine.docker_engine import DockerEngine
from harness.lab.lab import stand_up
from harness.redaction import Redactor
from tests.bench.figures import Table, verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from harness.lab.lab import Lab
    from harness.model import Topology
    from tests.bench.setting import Scale, Setting

BOUND_ONE_S, BOUND_TOGETHER_S, BOUND_DOWN_S = 0.8, 1.5, 1.0


def measure(setting: Setting, scale: Scale) -> Iterator[Table]:
    """Yield the medians of rounds in which all ways take turns."""
    others, notes = _others(setting)
    topologies = setting.topologies(scale)
    rows = []
    for topology in topologies:
        seconds: dict[str, list[float]] = {name: [] for name in ("harness", "down", *others)}
        for number in range(scale.rounds):
            setting.say(f"startup: {topology.name}, round {number + 1} of {scale.rounds}")
            up, down = start(setting, [topology])
            seconds["harness"].append(up)
            seconds["down"].append(down)
            for name, way in others.items():
                seconds[name].append(way(topology))
        median = {name: statistics.median(found) for name, found in seconds.items()}
        ours = median["harness"]
        rows.append(
            (
                *(topology.name, f"{ours:.2f} s", verdict(ours, BOUND_ONE_S), f"{median['down']:.2f} s"),
                *(f"{median[name]:.2f} s (harness {ours / median[name]:.2f} of it)" for name in others),
            )
        )
    rounds = f"Median of {scale.rounds}, taking turns; from nothing to a real query answered through the chain."
    yield Table(
        title="startup: one topology",
        columns=("Topology", "Harness", "Bound", "Torn down", *others),
        rows=tuple(rows),
        notes=(rounds, *notes),
    )
    if len(topologies) > 1:
        found = [start(setting, topologies) for _ in range(scale.rounds)]
        up, down = (statistics.median(part) for part in zip(*found, strict=True))
        yield Table(
            title="startup: all topologies at a time",
            columns=("Topologies", "Harness", "Bound", "Torn down", "Bound of that"),
            rows=(
                (
                    *(str(len(topologies)), f"{up:.2f} s", verdict(up, BOUND_TOGETHER_S)),
                    *(f"{down:.2f} s", verdict(down, BOUND_DOWN_S)),
                ),
            ),
            notes=(f"Median of {scale.rounds}.",),
        )


def start(setting: Setting, topologies: Sequence[Topology]) -> tuple[float, float]:
    """Return the seconds until all topologies answered, and until all were gone."""
    with ThreadPoolExecutor(len(topologies)) as pool:
        began = time.perf_counter()
        starting = [
            pool.submit(stand_up, setting.engine, topology, setting.owner, Redactor()) for topology in topologies
        ]
        try:
            for lab in starting:
                lab.result()
        finally:  # those that are up are closed, also after an error or Ctrl-C
            up = time.perf_counter()
            list(pool.map(_close, starting))
        return up - began, time.perf_counter() - up


def _close(starting: Future[Lab]) -> None:
    if starting.exception() is None:
        starting.result().close()


def _others(setting: Setting) -> tuple[dict[str, Callable[[Topology], float]], list[str]]:
    """Return what the harness is compared with here, and a sentence for whatever is skipped."""
    engine = setting.engine
    if not isinstance(engine, DockerEngine):
        return {}, ["Skipped: raw SDK, testcontainers and Compose, which need the docker engine."]
    from tests.bench.otherwise import Compose, raw_sdk, with_testcontainers

    ways: dict[str, Callable[[Topology], float]] = {"Raw SDK": lambda topology: raw_sdk(engine, topology)}
    notes = []
    if importlib.util.find_spec("testcontainers"):
        ways["testcontainers"] = lambda topology: with_testcontainers(engine, topology)
    else:
        notes.append("Skipped: testcontainers, which is not installed; the extra `bench` has it.")
    compose = Compose()
    if compose.command:
        how = "up --wait" if compose.waits else "up --detach and polling, as this version has no --wait"
        ways["Compose"] = lambda topology: compose.start(engine, topology)
        notes.append(f"Compose is {' '.join(compose.command)} {compose.version}: {how}.")
    else:
        notes.append("Skipped: Compose, as neither `docker compose` nor `docker-compose` is installed.")
    return ways, notes
