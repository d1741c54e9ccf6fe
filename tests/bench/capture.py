"""The cost of capture over a bare insert: the reference trail compared with the contract's plain trigger.

As a script it measures once, in a process of its own, and prints JSON: so the trail of another commit is measured
by the same code, which finds `harness` where PYTHONPATH says.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.audit.target_loading import reference_target
from harness.database import Client, connect, create_database, run_files
from harness.engine.choice import choose
from harness.engine.images import ImagePolicy
from harness.engine.owner import Owner
from harness.events import silent
from harness.lab.lab import stand_up
from harness.lab.topologies import load_topologies, wanted_by
from harness.redaction import Redactor
from harness.store import new_run_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.figures import Table
    from tests.bench.setting import Scale, Setting

_TRANSACTIONS = 600
_WHICH = ("bare", "plain", "ours")
BOUND_SINGLE, BOUND_BULK = 0.65, 0.35


def measure(setting: Setting, scale: Scale) -> Iterator[Table]:
    """Yield extra time and ratio for single-row transactions and for one bulk statement."""
    from tests.bench.figures import Table, verdict
    from tests.bench.trees import run_child

    rounds = max(scale.rounds // (2 * len(setting.trees)), 1)
    found: dict[str, list[dict[str, Any]]] = {tree.name: [] for tree in setting.trees}
    for number in range(1 if scale.rounds == 1 else 2):
        for tree in setting.trees if number % 2 == 0 else reversed(setting.trees):
            setting.say(f"capture: {tree.name}, server {number + 1}")
            told = {
                "engine": setting.engine.name,
                "topology": setting.topologies(scale)[0].name,
                "rounds": rounds,
                "transactions": min(_TRANSACTIONS, scale.rows),
                "rows": scale.rows,
            }
            with tempfile.TemporaryDirectory() as folder:
                child = run_child(
                    [tree.python, "-P", __file__],
                    folder=Path(folder),
                    environment=tree.environment(),
                    stdin=json.dumps(told).encode(),
                )
            found[tree.name].append(json.loads(child.stdout))
    rows, extra = [], {}
    for what, label, scaled, unit, bound in (
        ("single", "single-row transaction", 1e6, "µs", BOUND_SINGLE),
        ("bulk", f"{scale.rows:,} rows in one statement", 1e3, "ms", BOUND_BULK),
    ):
        for name, servers in found.items():
            seconds = {
                which: statistics.median(took for server in servers for took in server[what][which]) for which in _WHICH
            }
            plain, ours = seconds["plain"] - seconds["bare"], seconds["ours"] - seconds["bare"]
            extra[what, name] = ours
            rows.append(
                (
                    *(label, name, f"{seconds['bare'] * scaled:.1f} {unit}"),
                    *(f"+{plain * scaled:.1f} {unit}", f"+{ours * scaled:.1f} {unit}"),
                    *(f"{ours / plain:.3f}", verdict(ours / plain, bound, "") if name == setting.trees[0].name else ""),
                )
            )
    versions = sorted({server["version"] for servers in found.values() for server in servers})
    notes = [f"PostgreSQL {', '.join(versions)}; medians of rounds that take turns: bare, plain, ours."]
    if len(setting.trees) > 1:
        first, second = (tree.name for tree in setting.trees)
        notes += [
            f"{what}: extra time {extra[what, first] / extra[what, second]:.2f} of that of {second}."
            for what in ("single", "bulk")
        ]
    yield Table(
        title="capture: extra time over a bare insert",
        columns=("Write", "Tree", "Bare", "Plain trigger", "Reference trail", "Ratio", "Bound"),
        rows=tuple(rows),
        notes=tuple(notes),
    )


# --- one server, in a process of its own ---------------------------------------------------------------------


def _on_a_server(told: dict[str, Any]) -> dict[str, Any]:
    topology = load_topologies()[told["topology"]]
    engine = choose(told["engine"], ImagePolicy(), wanted_by(topology), silent)
    engine.prepare(wanted_by(topology), silent)
    try:
        lab = stand_up(engine, topology, Owner.me(new_run_id()), Redactor())
        try:
            with lab.connect_admin() as admin:
                create_database(admin, "bench", owner="harness_admin")
            with connect(lab.admin("bench")) as client:
                target = reference_target()
                target.install_in(client)
                run_files(client, [Path(__file__).parent / "plain.sql"])
                target.attach(client, "ours.t")
                return {
                    "version": client.value("SHOW server_version"),
                    "single": _single(client, told["rounds"], told["transactions"]),
                    "bulk": _bulk(client, max(told["rounds"] // 3, 1), told["rows"]),
                }
        finally:
            lab.close()
    finally:
        engine.close()


def _single(client: Client, rounds: int, transactions: int) -> dict[str, list[float]]:
    """Return seconds for one transaction, by interleaved round."""
    seconds: dict[str, list[float]] = {which: [] for which in _WHICH}
    for warm_up in (True, False):
        for _ in range(2 if warm_up else rounds):
            for which in _WHICH:
                began = time.perf_counter()
                client.run(f"CALL {which}.single({transactions})")
                if not warm_up:
                    seconds[which].append((time.perf_counter() - began) / transactions)
    return seconds


def _bulk(client: Client, rounds: int, rows: int) -> dict[str, list[float]]:
    """Return seconds for one statement, by interleaved round; each writes into empty tables."""
    seconds: dict[str, list[float]] = {which: [] for which in _WHICH}
    for _ in range(rounds):
        for which in _WHICH:
            client.run(f"TRUNCATE {which}.t")
            for schema in ("plain", "public"):
                client.run(f"TRUNCATE {schema}.audit_changes, {schema}.audit_transactions")
            client.run("CHECKPOINT")
            began = time.perf_counter()
            with client.transaction():
                client.value('SELECT set_config(\'threadline.actor_ref\', \'{"type": "user", "id": "42"}\', true)')
                client.run(f"INSERT INTO {which}.t (name, value) SELECT 'name', n FROM generate_series(1, {rows}) n")
            seconds[which].append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_on_a_server(json.load(sys.stdin))))
