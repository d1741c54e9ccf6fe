"""Which runs belong together: the same declaration, servers, environment and subject."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import DECLARATION, Topology

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.model import EnvironmentEvidence, RunRecord, Subject

#: the services that decide every result; the reference host is started only for checks of audited paths
_STACK = ("postgres", "pooler")

#: the facts that identify an environment: if one of them changes, older evidence is about another environment
_CHAIN = ("pooler", "product", "pool_mode", "server_version")

#: characters of a commit or a digest that identify it for people
_SHORT = 12


class Newest(Struct, frozen=True, kw_only=True):
    """What the newest evidence is about. Older evidence is merged with it only if it is about the same."""

    #: the topologies as they are declared now, by name
    topologies: Mapping[str, Topology]
    #: the newest servers of each topology, as :func:`stack_of` describes them
    stacks: Mapping[str, str]
    #: a digest of each environment's declaration in harness.toml now
    environments: Mapping[str, str]
    #: the newest chain of each environment, as :func:`chain_of` describes it
    chains: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(
        cls,
        runs: Iterable[RunRecord],
        *,
        topologies: Mapping[str, Topology],
        environments: Mapping[str, str],
        audit_target: str | None,
    ) -> Newest:
        """Return what the newest of some runs are about.

        :param runs: oldest first.
        :param topologies: the topologies as they are declared now; for another topology, the newest run decides.
        :param audit_target: only runs of this audit target decide which servers are the newest; all runs if None.
        """
        runs = tuple(runs)
        in_runs = {name: topology.declared for record in runs for name, topology in record.topologies.items()}
        topologies = {**in_runs, **topologies}
        stacks: dict[str, str] = {}
        chains: dict[str, Mapping[str, str]] = {}
        for record in runs:
            chains |= {name: chain_of(found) for name, found in record.environments.items() if found.reached}
            if audit_target not in {None, record.audit_target}:
                continue
            for name, topology in record.topologies.items():
                if topology.stood and topologies.get(name, topology.declared) == topology.declared:
                    stacks[name] = stack_of(record, name)
        return cls(topologies=topologies, stacks=stacks, environments=environments, chains=chains)

    def has_servers_of(self, record: RunRecord, topology: str) -> bool:
        """Return whether a run used a topology's newest servers; also true if no run has started the topology."""
        return topology not in self.stacks or stack_of(record, topology) == self.stacks[topology]

    def differences(self, record: RunRecord) -> dict[str, str]:
        """Return the topologies and environments whose evidence in a run is out of date, each with the reason."""
        return self._other_stacks(record) | self._other_chains(record)

    def _other_stacks(self, record: RunRecord) -> dict[str, str]:
        found = {}
        for name, topology in record.topologies.items():
            if self.topologies.get(name, topology.declared) != topology.declared:
                found[name] = "its topology file has changed since, or a newer run read another one"
            elif topology.stood and stack_of(record, name) != self.stacks.get(name, ""):
                found[name] = f"a newer run used other servers; this run used {stack_of(record, name)}"
        return found

    def _other_chains(self, record: RunRecord) -> dict[str, str]:
        found = {}
        for name, environment in record.environments.items():
            chain, now = chain_of(environment), self.chains.get(name, {})
            changed = [fact for fact in chain if fact in now and chain[fact] != now[fact]]
            if environment.reached and changed:
                found[name] = f"the environment has changed since: {', '.join(changed)}"
            elif self.environments.get(name, environment.declared_as) != environment.declared_as:
                found[name] = "its declaration in harness.toml has changed since"
        return found


def stack_of(record: RunRecord, name: str) -> str:
    """Return the engine and servers of a topology in one line; "" if the run did not start it."""
    topology = record.topologies.get(name)
    if topology is None or not topology.stood:
        return ""
    return f"{record.engine}: " + ", ".join(
        f"{service.product} {service.version} from {service.origin}"
        for service in topology.services
        if service.name in _STACK
    )


def chain_of(environment: EnvironmentEvidence) -> dict[str, str]:
    """Return the facts that identify an environment, as far as they were found, and the versions that it runs."""
    chain = {fact: found.value for fact in _CHAIN if (found := environment.found(fact))}
    # another server or another database behind the same chain
    chain |= {"the database": environment.database} if environment.database else {}
    return chain | {f"the version of {name}": version for name, version in environment.versions.items()}


def difference(then: Subject, now: Subject) -> str:
    """Return how two identities differ, in one line; "" if they are the same. An unknown one equals none."""
    names = [name for name in {**then.facts, **now.facts} if then.facts.get(name) != now.facts.get(name)]
    differs = "; ".join(
        f"{name} {_shortened(then.facts.get(name, 'none'))}, now {_shortened(now.facts.get(name, 'none'))}"
        for name in names
        if name != DECLARATION  # a digest, which means nothing to people
    )
    if DECLARATION in names and not differs:
        differs = "another command line, title, JUnit pattern or topology is declared now"
    unknown = (value for value in (*then.facts.values(), *now.facts.values()) if value.startswith("unknown"))
    return differs or next(unknown, "")


def _shortened(value: str) -> str:
    return value[:_SHORT] if value.isalnum() else value
