"""What capture costs over a bare insert: ours beside the contract's plain trigger, in one run."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness.audit.target_loading import reference_target
from harness.database import Client, connect, create_database, run_files

if TYPE_CHECKING:
    from harness.lab.lab import Lab

_WHICH = ("bare", "plain", "ours")
_ROUNDS, _TRANSACTIONS = 30, 600
_BULK_ROUNDS, _ROWS = 5, 100_000
BOUND_BULK, BOUND_SINGLE = 0.35, 0.75


def measure(lab: Lab) -> None:
    """Print extra time and ratio for single-row transactions and for one bulk statement."""
    with lab.connect_admin() as admin:
        create_database(admin, "bench", owner="harness_admin")
    with connect(lab.admin("bench")) as client:
        target = reference_target()
        target.install_in(client)
        run_files(client, [Path(__file__).parent / "plain.sql"])
        target.attach(client, "ours.t")
        print(f"\ncapture, extra time over a bare insert (PostgreSQL {client.value('SHOW server_version')})")
        _print("single-row transaction", _single(client), 1e6, "µs", BOUND_SINGLE)
        _print(f"{_ROWS:,} rows in one statement", _bulk(client), 1, "s ", BOUND_BULK)


def _single(client: Client) -> dict[str, float]:
    """Return seconds for one transaction: the median over interleaved rounds."""
    seconds: dict[str, list[float]] = {each: [] for each in _WHICH}
    for warm_up in (True, False):
        for _ in range(2 if warm_up else _ROUNDS):
            for which in _WHICH:
                began = time.perf_counter()
                client.run(f"CALL {which}.single({_TRANSACTIONS})")
                if not warm_up:
                    seconds[which].append((time.perf_counter() - began) / _TRANSACTIONS)
    return {which: statistics.median(each) for which, each in seconds.items()}


def _bulk(client: Client) -> dict[str, float]:
    """Return seconds for one statement: the median over interleaved rounds, each into empty tables."""
    seconds: dict[str, list[float]] = {each: [] for each in _WHICH}
    for _ in range(_BULK_ROUNDS):
        for which in _WHICH:
            client.run(f"TRUNCATE {which}.t")
            for schema in ("plain", "public"):
                client.run(f"TRUNCATE {schema}.audit_changes, {schema}.audit_transactions")
            client.run("CHECKPOINT")
            began = time.perf_counter()
            with client.transaction():
                client.value('SELECT set_config(\'threadline.actor_ref\', \'{"type": "user", "id": "42"}\', true)')
                client.run(f"INSERT INTO {which}.t (name, value) SELECT 'name', n FROM generate_series(1, {_ROWS}) n")
            seconds[which].append(time.perf_counter() - began)
    return {which: statistics.median(each) for which, each in seconds.items()}


def _print(what: str, seconds: dict[str, float], scale: float, unit: str, bound: float) -> None:
    plain, ours = seconds["plain"] - seconds["bare"], seconds["ours"] - seconds["bare"]
    verdict = "within" if ours / plain <= bound else "OVER"
    print(
        f"  {what:<32} bare {seconds['bare'] * scale:7.2f} {unit}  plain +{plain * scale:6.2f} {unit}  "
        f"ours +{ours * scale:6.2f} {unit}  ratio {ours / plain:.3f} ({verdict} {bound})"
    )
