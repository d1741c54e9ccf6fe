"""Recognition of a lab's chain from outside, and the facts that its topology declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.database import SqlError, create_database, describe, drop_database
from harness.engine.recipes import load_product
from harness.errors import HarnessError
from harness.lab.effective import are_used_once, effective_limits, tracks_statements
from harness.recognition.contradictions import contradictions
from harness.recognition.recognise import recognise

if TYPE_CHECKING:
    from harness.lab.lab import Lab
    from harness.model import Topology, TopologyEvidence

_DATABASE = "harness_recognised"
_DEADLINE_S = 8.0


def recognised(lab: Lab) -> TopologyEvidence:
    """Return the lab's evidence with findings about the chain. Its client knows only the two addresses.

    The client uses a database of its own: some poolers do not pool connections to `postgres`, and no other client may
    be connected. A failure becomes a note in the evidence, and never stops a run.
    """
    try:
        with lab.connect_admin() as admin:
            create_database(admin, _DATABASE, owner=lab.roles.owner.name, durable=lab.topology.postgres.durable)
            chain, direct = lab.chain(_DATABASE), lab.direct(_DATABASE)
            found = recognise(chain, direct=direct, deadline_s=_DEADLINE_S, cancelled=lab.closing)
            drop_database(admin, _DATABASE)
    except SqlError as error:
        cause = describe(error)
    except HarnessError as error:
        cause = error.what
    else:
        wrong = contradictions(found, declared_facts(lab.topology, lab.evidence))
        return replace(lab.evidence, findings=found.findings, contradictions=wrong)
    note = f"the chain could not be recognised from outside: {cause}"
    return replace(lab.evidence, notes=(*lab.evidence.notes, note))


def declared_facts(topology: Topology, evidence: TopologyEvidence) -> dict[str, str]:
    """Return the declared facts of a topology, by the names that recognition uses.

    Versions are those that run. The native engine may run others than the declared ones, and its notes say so.
    """
    server, pooler = evidence.service("postgres"), topology.pooler
    facts = {"server_version": _numbers(server.version), "direct": "yes", "same_server": "yes"}
    if pooler is None:
        return facts | {"pooler": "no", "product": load_product("postgres").title, "pool_mode": "none"}
    facts |= {
        "pooler": "yes",
        "product": load_product(pooler.product).title,
        "version": _numbers(evidence.service("pooler").version),
        "pool_mode": str(pooler.pool_mode),
    }
    limits = effective_limits(evidence)
    # with a reserve, the size depends on how long clients wait; connections that are used once do not show it
    is_fixed = limits is None or (limits.size == limits.largest and not are_used_once(evidence))
    if pooler.instances == 1 and is_fixed:
        facts["pool_size"] = str(limits.size if limits else pooler.default_pool_size)
    if pooler.pool_mode != "session" and pooler.product == "pgbouncer":
        running = evidence.service("pooler")
        tracks = tracks_statements(running.version, running.settings)
        facts["prepared_statements"] = "tracked" if tracks else "untracked"
    return facts


def _numbers(version: str) -> str:
    return version.partition(" ")[0]
