"""The evidence about the topologies of a run, written to its record as it is found."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.model import OwnServers, TopologyEvidence

if TYPE_CHECKING:
    from harness.lab.lab import Lab
    from harness.store import RunStore


class TopologyRecords:
    """Writes what is known about topologies. Threads share it."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._lock = Lock()

    def write(self, evidence: TopologyEvidence) -> None:
        """Write what a topology is, in place of what was written before."""
        with self._lock:
            self._write(evidence)

    def add_own_servers(self, lab: Lab) -> None:
        """Add the servers of checks that crash servers. Those that replace equal ones are written once."""
        found = lab.evidence
        own = OwnServers(services=found.services, storage=found.storage, linked=lab.server_link is not None)
        with self._lock:
            written = self._store.record.topologies[lab.topology.name]
            if own not in written.own_servers:
                self._write(replace(written, own_servers=(*written.own_servers, own)))

    def add_beside(self, lab: Lab) -> None:
        """Add the services next to the chain that checks used. Equal ones of several labs are written once."""
        with self._lock:
            written = self._store.record.topologies[lab.topology.name]
            if new := tuple(found for found in lab.evidence_beside.values() if found not in written.beside):
                self._write(replace(written, beside=(*written.beside, *new)))

    def _write(self, evidence: TopologyEvidence) -> None:
        self._store.update(topologies={**self._store.record.topologies, evidence.declared.name: evidence})
