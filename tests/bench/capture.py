"""The cost of capture over a bare insert: the reference trail compared with the contract's plain trigger.

Run as a script, this module reads a request from stdin, measures on one server and prints JSON. PYTHONPATH selects the
tree whose `harness` it imports, so the same code measures the trail of another commit.
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
from harness.engine.owner import Owner
from harness.engine.recipes import ImagePolicy
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
#: schemas of plain.sql: no trigger, the contract's plain trigger, the reference trail
_SCHEMAS = ("bare", "plain", "ours")
BOUND_SINGLE, BOUND_BULK = 0.65, 0.35


def measure(setting: Setting, scale: Scale) -> Iterator[Table]:
    """Yield extra time and ratio for single-row transactions and for one bulk statement."""
    from tests.bench.figures import Table, verdict
    from tests.bench.trees import run_child

    rounds = max(scale.rounds // (2 * len(setting.trees)), 1)
    measured: dict[str, list[dict[str, Any]]] = {tree.name: [] for tree in setting.trees}
    for number in range(1 if scale.rounds == 1 else 2):
        for tree in setting.trees if number % 2 == 0 else reversed(setting.trees):
            setting.say(f"capture: {tree.name}, server {number + 1}")
            request = {
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
                    stdin=json.dumps(request).encode(),
                )
            measured[tree.name].append(json.loads(child.stdout))
    rows, extra = [], {}
    for write, label, scaled, unit, bound in (
        ("single", "single-row transaction", 1e6, "µs", BOUND_SINGLE),
        ("bulk", f"{scale.rows:,} rows in one statement", 1e3, "ms", BOUND_BULK),
    ):
        for name, servers in measured.items():
            seconds = {
                schema: statistics.median(took for server in servers for took in server[write][schema])
                for schema in _SCHEMAS
            }
            plain, ours = seconds["plain"] - seconds["bare"], seconds["ours"] - seconds["bare"]
            extra[write, name] = ours
            rows.append(
                (
                    *(label, name, f"{seconds['bare'] * scaled:.1f} {unit}"),
                    *(f"+{plain * scaled:.1f} {unit}", f"+{ours * scaled:.1f} {unit}"),
                    *(f"{ours / plain:.3f}", verdict(ours / plain, bound, "") if name == setting.trees[0].name else ""),
                )
            )
    versions = sorted({server["version"] for servers in measured.values() for server in servers})
    notes = [f"PostgreSQL {', '.join(versions)}; medians of interleaved rounds: bare, plain, ours."]
    if len(setting.trees) > 1:
        first, second = (tree.name for tree in setting.trees)
        notes += [
            f"{write}: {extra[write, first] / extra[write, second]:.2f} times the extra time of {second}."
            for write in ("single", "bulk")
        ]
    yield Table(
        title="capture: extra time over a bare insert",
        columns=("Write", "Tree", "Bare", "Plain trigger", "Reference trail", "Ratio", "Bound"),
        rows=tuple(rows),
        notes=tuple(notes),
    )


# --- one server, in a separate process -----------------------------------------------------------------------


def _measure_on_one_server(request: dict[str, Any]) -> dict[str, Any]:
    topology = load_topologies()[request["topology"]]
    engine = choose(request["engine"], ImagePolicy(), wanted_by(topology), silent)
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
                    "single": _single(client, request["rounds"], request["transactions"]),
                    "bulk": _bulk(client, max(request["rounds"] // 3, 1), request["rows"]),
                }
        finally:
            lab.close()
    finally:
        engine.close()


def _single(client: Client, rounds: int, transactions: int) -> dict[str, list[float]]:
    """Return the seconds for one transaction in each interleaved round, by schema."""
    seconds: dict[str, list[float]] = {schema: [] for schema in _SCHEMAS}
    for warm_up in (True, False):
        for _ in range(2 if warm_up else rounds):
            for schema in _SCHEMAS:
                began = time.perf_counter()
                client.run(f"CALL {schema}.single({transactions})")
                if not warm_up:
                    seconds[schema].append((time.perf_counter() - began) / transactions)
    return seconds


def _bulk(client: Client, rounds: int, rows: int) -> dict[str, list[float]]:
    """Return the seconds for one statement in each interleaved round, by schema; each round starts with empty tables."""
    seconds: dict[str, list[float]] = {schema: [] for schema in _SCHEMAS}
    for _ in range(rounds):
        for schema in _SCHEMAS:
            client.run(f"TRUNCATE {schema}.t")
            for trail in ("plain", "public"):
                client.run(f"TRUNCATE {trail}.audit_changes, {trail}.audit_transactions")
            client.run("CHECKPOINT")
            began = time.perf_counter()
            with client.transaction():
                client.value('SELECT set_config(\'threadline.actor_ref\', \'{"type": "user", "id": "42"}\', true)')
                client.run(f"INSERT INTO {schema}.t (name, value) SELECT 'name', n FROM generate_series(1, {rows}) n")
            seconds[schema].append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure_on_one_server(json.load(sys.stdin))))
