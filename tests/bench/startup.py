"""The time to start topologies: with the harness, and with other tools on the same images."""

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
    """Yield the medians of interleaved rounds: the harness, then each of the other tools."""
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
            for name, start_with in others.items():
                seconds[name].append(start_with(topology))
        median = {name: statistics.median(rounds) for name, rounds in seconds.items()}
        ours = median["harness"]
        rows.append(
            (
                *(topology.name, f"{ours:.2f} s", verdict(ours, BOUND_ONE_S), f"{median['down']:.2f} s"),
                *(f"{median[name]:.2f} s (harness {ours / median[name]:.2f} of it)" for name in others),
            )
        )
    method = f"Median of {scale.rounds} interleaved rounds; from nothing to a real query answered through the chain."
    yield Table(
        title="startup: one topology",
        columns=("Topology", "Harness", "Bound", "Teardown", *others),
        rows=tuple(rows),
        notes=(method, *notes),
    )
    if len(topologies) > 1:
        rounds = [start(setting, topologies) for _ in range(scale.rounds)]
        up, down = (statistics.median(seconds) for seconds in zip(*rounds, strict=True))
        yield Table(
            title="startup: all topologies at once",
            columns=("Topologies", "Harness", "Bound", "Teardown", "Teardown bound"),
            rows=(
                (
                    *(str(len(topologies)), f"{up:.2f} s", verdict(up, BOUND_TOGETHER_S)),
                    *(f"{down:.2f} s", verdict(down, BOUND_DOWN_S)),
                ),
            ),
            notes=(f"Median of {scale.rounds}.",),
        )


def start(setting: Setting, topologies: Sequence[Topology]) -> tuple[float, float]:
    """Return the seconds to start all topologies, and the seconds to tear them down."""
    with ThreadPoolExecutor(len(topologies)) as pool:
        began = time.perf_counter()
        starting = [
            pool.submit(stand_up, setting.engine, topology, setting.owner, Redactor()) for topology in topologies
        ]
        try:
            for lab in starting:
                lab.result()
        finally:  # labs that started are closed, also after an error or Ctrl-C
            up = time.perf_counter()
            list(pool.map(_close, starting))
        return up - began, time.perf_counter() - up


def _close(starting: Future[Lab]) -> None:
    if starting.exception() is None:
        starting.result().close()


def _others(setting: Setting) -> tuple[dict[str, Callable[[Topology], float]], list[str]]:
    """Return the tools that this machine has to compare with, by column, and a sentence for each skipped one."""
    engine = setting.engine
    if not isinstance(engine, DockerEngine):
        return {}, ["Skipped: raw SDK, testcontainers and Compose, which need the docker engine."]
    from tests.bench.comparisons import Compose, raw_sdk, with_testcontainers

    tools: dict[str, Callable[[Topology], float]] = {"Raw SDK": lambda topology: raw_sdk(engine, topology)}
    notes = []
    if importlib.util.find_spec("testcontainers"):
        tools["testcontainers"] = lambda topology: with_testcontainers(engine, topology)
    else:
        notes.append("Skipped: testcontainers, which is not installed; it is in the extra `bench`.")
    compose = Compose()
    if compose.command:
        method = "up --wait" if compose.waits else "up --detach and polling, because this version has no --wait"
        tools["Compose"] = lambda topology: compose.start(engine, topology)
        notes.append(f"Compose is {' '.join(compose.command)} {compose.version}: {method}.")
    else:
        notes.append("Skipped: Compose, because neither `docker compose` nor `docker-compose` is installed.")
    return tools, notes
