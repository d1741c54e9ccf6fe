"""What a lab's chain is found to be, beside what its topology declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.database import SqlError, create_database, describe, drop_database
from harness.engine.images import load_product
from harness.errors import HarnessError
from harness.model import Prepare, Topology, TopologyEvidence
from harness.recognition.contradictions import contradictions
from harness.recognition.recognise import recognise

if TYPE_CHECKING:
    from harness.lab.lab import Lab

_DATABASE = "harness_recognised"
_DEADLINE_S = 8.0


def recognised(lab: Lab) -> TopologyEvidence:
    """Look at the chain as a client does who knows nothing of it but its address and the server's.

    In a database of its own: some poolers do not pool connections to `postgres`, and nobody else is to be connected.
    What cannot be found is noted, and never stops a run.
    """
    try:
        with lab.connect_admin() as admin:
            create_database(admin, _DATABASE, owner=lab.roles.owner.name)
            found = recognise(lab.chain(_DATABASE), direct=lab.direct(_DATABASE), deadline_s=_DEADLINE_S)
            drop_database(admin, _DATABASE)
    except SqlError as error:
        why = describe(error)
    except HarnessError as error:
        why = error.what
    else:
        wrong = contradictions(found, declared_facts(lab.topology, lab.evidence))
        return replace(lab.evidence, findings=found.findings, contradictions=wrong)
    note = f"the chain could not be looked at from outside: {why}"
    return replace(lab.evidence, notes=(*lab.evidence.notes, note))


def declared_facts(topology: Topology, evidence: TopologyEvidence) -> dict[str, str]:
    """Return what a topology declares, by the names of recognition's facts.

    Versions are those that really run: the native engine says itself where they are others than declared.
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
    if pooler.instances == 1:
        facts["pool_size"] = str(pooler.default_pool_size)
    if pooler.pool_mode != "session":
        facts["prepared_statements"] = "tracked" if evidence.prepare is Prepare.NAMED else "untracked"
    return facts


def _numbers(version: str) -> str:
    return version.partition(" ")[0]
