"""The settings of one run."""

from __future__ import annotations

from msgspec import Struct

from harness.audit.target import AuditTarget
from harness.checks.collection import Catalogue
from harness.checks.load import LoadSettings
from harness.model import KnownIssue, PlannedCheck, Quarantine, Topology


class RunSettings(Struct, frozen=True, kw_only=True):
    """The settings of one run."""

    topologies: tuple[Topology, ...]
    #: one row for each check in each topology
    plan: tuple[PlannedCheck, ...]
    #: holds all checks of the plan
    catalogue: Catalogue
    target: AuditTarget
    #: checks at the same time in each topology
    jobs: int
    #: checks at the same time in all topologies; a topology that ends leaves its share to the others
    at_a_time: int
    #: Issues that their owners accept
    known: tuple[KnownIssue, ...] = ()
    #: checks that do not decide the exit code
    quarantine: tuple[Quarantine, ...] = ()
    #: whether every check also runs under its controls
    proving: bool = False
    #: the topologies in which the rows that checks read from the trail are mutated; see `proving`
    observed_in: frozenset[str] = frozenset()
    #: of checks under load or faults
    load: LoadSettings = LoadSettings()
    #: run every check under its control of this name instead, to show what the control turns
    under: str = ""
