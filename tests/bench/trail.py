"""Export and purge of the audit trail: time compared with COPY and one DELETE, and peak memory.

Every export and the purge run in separate processes, so that the peak of memory belongs to one operation.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from harness import places
from harness.audit.export import FORMATS, Format, export
from harness.audit.retention import Policy, purge
from harness.audit.target_loading import reference_target
from harness.audit.telemetry import Telemetry
from harness.database import Client, Endpoint, connect, create_database
from harness.lab.lab import stand_up
from harness.redaction import Redactor
from tests.bench.figures import Table
from tests.bench.trees import run_child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.setting import Scale, Setting

_TENTH = 10
_PAGE, _BATCH = 2000, 5000
#: the rows and columns of an export as one COPY statement, which is the lower limit of its time
_SAME_AS_EXPORT = """
COPY (SELECT c.*, t.occurred_at, t.actor_ref, a.correlation_id FROM public.audit_changes c
      LEFT JOIN public.audit_transactions t ON t.id = c.transaction_id
      LEFT JOIN public.audit_actions a ON a.id = t.action_id
      ORDER BY c.captured_at DESC, c.id DESC) TO STDOUT (FORMAT csv)
"""


def measure(setting: Setting, scale: Scale) -> Iterator[Table]:
    """Yield seconds, the ratio to COPY or to one DELETE, and peaks of memory."""
    lab = stand_up(setting.engine, setting.topologies(scale)[0], setting.owner, Redactor())
    try:
        with lab.connect_admin() as admin:
            create_database(admin, "trail", owner="harness_admin")
        yield _measured(lab.admin("trail"), scale.rows, setting)
    finally:
        lab.close()


def _measured(endpoint: Endpoint, changes: int, setting: Setting) -> Table:
    with connect(endpoint) as client:
        setting.say(f"trail: write {changes:,} changes")
        _fill(client, changes)
        version = client.value("SHOW server_version")
        copied = _copy(client)
        rows: list[tuple[str, ...]] = [("COPY of the same rows", f"{copied:.2f} s", "1", "", "", "")]
        for kind in FORMATS:
            setting.say(f"trail: export as {kind}")
            rows.append(_row(f"export as {kind}, pages of {_PAGE}", _child(endpoint, kind, changes), copied))
        tenth = changes // _TENTH
        rows.append(_row("export of a tenth as ndjson", _child(endpoint, "ndjson", tenth), copied / _TENTH))
        setting.say("trail: purge")
        deleted = _delete(client)
        rows.append(("one DELETE, rolled back", f"{deleted:.2f} s", "1", "", "", ""))
        rows.append(_row(f"purge, batches of {_BATCH}", _child(endpoint, "purge", changes), deleted))
        left = client.value("SELECT count(*) FROM public.audit_changes")
    return Table(
        title="trail: export and purge",
        columns=(
            "Operation",
            "Once",
            "Ratio to COPY or DELETE",
            "Rows/s",
            "Peak of the client",
            "Peak of its server process",
        ),
        rows=tuple(rows),
        notes=(
            (
                f"{changes:,} changes, PostgreSQL {version}. The peak of a server process includes shared buffers. It is empty "
                f"where the process is not visible from here. Changes left after the purge: {left}."
            ),
        ),
    )


def _row(operation: str, measured: dict[str, Any], limit: float) -> tuple[str, ...]:
    return (
        operation,
        f"{measured['seconds']:.2f} s",
        f"{measured['seconds'] / limit:.1f}",
        f"{measured['rows'] / measured['seconds']:,.0f}",
        f"{measured['peak_mb']:.0f} MB",
        f"{measured['server_mb']:.0f} MB" if measured["server_mb"] else "",
    )


def _fill(client: Client, changes: int) -> None:
    """Write rows with capture on, a hundred per transaction, then age their audit rows by 90 days."""
    target = reference_target()
    target.install_in(client)
    client.run(
        "CREATE TABLE public.t (id bigserial PRIMARY KEY, name text NOT NULL, value integer, at timestamptz DEFAULT now())"
    )
    target.attach(client, "public.t")
    client.run(
        "CREATE PROCEDURE public.fill(n integer) LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..n LOOP "
        """PERFORM set_config('threadline.actor_ref', '{"type": "user", "id": "42"}', true); """
        "INSERT INTO public.t (name, value) SELECT 'name', i FROM generate_series(1, 100); COMMIT; END LOOP; END $$"
    )
    client.run(f"CALL public.fill({changes // 100})")
    client.execute(target.statements.age, {"age": "90 days"})
    client.run("VACUUM ANALYZE public.audit_changes, public.audit_transactions")


def _copy(client: Client) -> float:
    began = time.perf_counter()
    with client.cursor() as cursor, cursor.copy(_SAME_AS_EXPORT) as copy, Path(os.devnull).open("wb") as sink:
        sink.writelines(copy)
    return time.perf_counter() - began


def _delete(client: Client) -> float:
    began = time.perf_counter()
    with client.transaction(force_rollback=True):
        client.run("DELETE FROM public.audit_transactions WHERE occurred_at < now() - interval '30 days'")
        took = time.perf_counter() - began
    client.run("VACUUM public.audit_changes, public.audit_transactions")
    return took


def _child(endpoint: Endpoint, operation: str, rows: int) -> dict[str, Any]:
    at = replace(endpoint, closing=None)  # an event of this process
    request = msgspec.json.encode({"endpoint": msgspec.to_builtins(at), "operation": operation, "rows": rows})
    child = run_child(
        [sys.executable, "-m", "tests.bench.trail"], folder=places.SHIPPED, environment=os.environ, stdin=request
    )
    measured: dict[str, Any] = json.loads(child.stdout)
    return measured


def _run(request: dict[str, Any]) -> dict[str, Any]:
    with connect(msgspec.convert(request["endpoint"], Endpoint)) as client, Path(os.devnull).open("w") as sink:
        pid = client.server_pid()
        began = time.perf_counter()
        if request["operation"] == "purge":
            policy = Policy(enabled=True, keep_days=30)
            rows = purge(client, policy, batch_size=_BATCH, to=Telemetry()).deleted_changes
        else:
            kind: Format = request["operation"]
            rows = export(client, sink, kind, max_rows=request["rows"], page_size=_PAGE, to=Telemetry()).returned_count
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"seconds": seconds, "rows": rows, "peak_mb": peak, "server_mb": _server_peak_mb(pid)}


def _server_peak_mb(pid: int) -> float | None:
    """Return the peak resident size of a server process in MB, shared buffers included; None if it is not visible."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except (OSError, ValueError):
            continue
        # a process in a container has several pids; the last one is its pid inside the container
        if lines.get("Name", "").strip() == "postgres" and lines.get("NSpid", "").split()[-1:] == [str(pid)]:
            return int(lines["VmHWM"].split()[0]) / 1024
    return None


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_run(json.load(sys.stdin))))
