"""What differs between the code, servers, settings and subjects of two pieces of evidence: the possible causes.

A difference that follows from another one is left out: a newer PgBouncer comes from another image and has other
defaults, so its version alone is named.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from harness.model import DECLARATION, Subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from harness.model import EnvironmentEvidence, Provenance, RunRecord, ServiceEvidence, Topology, TopologyEvidence
    from harness.report.evidence import Evidence

#: begins the reference of an image that the harness built; its tag names the recipe, its digest only the build
_BUILT_HERE = "pooler-harness/"
#: characters of a commit or a digest that identify it for people
_SHORT = 12
#: the most settings that one difference names
_MOST_VALUES = 4
ABSENT = "absent"


class Factor(StrEnum):
    """The kinds of things that decide a result."""

    HARNESS = "harness code"
    CLIENT = "Python and psycopg"
    SUBJECT = "subject"
    ENGINE = "engine"
    STORAGE = "storage"
    DECLARATION = "declaration"
    SERVER = "server version"
    POOLER = "pooler version"
    SERVICE = "version"
    BUILD = "image or binary"
    SETTINGS = "settings"


class Difference(Struct, frozen=True, kw_only=True):
    """One thing that differs between two pieces of evidence."""

    factor: Factor
    #: what differs: a product, a setting's owner, a subject; "" when the factor says it
    name: str = ""
    before: str
    after: str
    #: the topologies and environments that it concerns
    targets: tuple[str, ...] = ()
    #: the checks that it concerns; all of the targets when empty
    checks: tuple[str, ...] = ()

    def concerns(self, target: str, check: str) -> bool:
        """Return whether it may decide a row."""
        return target in self.targets and (not self.checks or check in self.checks)

    @property
    def text(self) -> str:
        """The difference in one line."""
        return f"{self.factor}{f' of {self.name}' if self.name else ''}: {self.before} → {self.after}"


def differences(before: Evidence, after: Evidence, pairs: Mapping[str, str]) -> tuple[Difference, ...]:
    """Return what differs, each difference once with all the targets that it concerns.

    :param pairs: the name of each target after, and its name before.
    """
    found: dict[Difference, list[str]] = {}
    for name, name_before in pairs.items():
        then, now = before.records.get(name_before), after.records.get(name)
        if then is None or now is None or then.run_id == now.run_id:
            continue
        for difference in (
            *_of_runs(then, now),
            *_of_topologies(before.topologies.get(name_before), after.topologies.get(name), then, now),
            *_of_environments(before.environments.get(name_before), after.environments.get(name), then, now),
        ):
            found.setdefault(difference, []).append(name)
    return tuple(replace(difference, targets=tuple(targets)) for difference, targets in found.items())


# --- code and subjects -----------------------------------------------------------------------------------


def _of_runs(then: RunRecord, now: RunRecord) -> Iterator[Difference]:
    yield from _of_code(then.provenance, now.provenance)
    if then.audit_target != now.audit_target:
        before, after = then.audit_target, now.audit_target
        yield Difference(factor=Factor.SUBJECT, name="the audit trail", before=before, after=after)
    for name in dict.fromkeys((*then.subjects, *now.subjects)):
        if name.startswith("command."):
            yield from _of_subject(name, then.subjects.get(name), now.subjects.get(name), checks=(name,))
    yield from _of_job_engines(then, now)
    yield from _of_pipeline(then, now)


def _of_job_engines(then: RunRecord, now: RunRecord) -> Iterator[Difference]:
    """Yield the job engines of a project's own whose files were edited; those that ship are harness code."""
    digests = [{row.job.engine: row.declared_as for row in record.plan if row.job} for record in (then, now)]
    for name in sorted(digests[0].keys() & digests[1].keys()):
        before, after = digests[0][name], digests[1][name]
        if before != after:
            yield Difference(
                factor=Factor.SUBJECT,
                name=f"the job engine {name}",
                before=f"digest {_shortened(before)}" if before else ABSENT,
                after=f"digest {_shortened(after)}" if after else ABSENT,
                checks=tuple(dict.fromkeys(row.check for row in now.plan if row.job and row.job.engine == name)),
            )


def _of_pipeline(then: RunRecord, now: RunRecord) -> Iterator[Difference]:
    """Yield the ingest pipeline under test if it is another one, or if its files were edited."""
    identities = [next((row.declared_as for row in record.plan if row.ingest), "") for record in (then, now)]
    if all(identities) and identities[0] != identities[1]:
        yield Difference(
            factor=Factor.SUBJECT,
            name="the ingest pipeline",
            before=identities[0],
            after=identities[1],
            checks=tuple(dict.fromkeys(row.check for row in now.plan if row.ingest)),
        )


def _of_code(then: Provenance, now: Provenance) -> Iterator[Difference]:
    runtimes = [f"Python {code.python}, psycopg {code.psycopg}" for code in (then, now)]
    other_runtime = runtimes[0] != runtimes[1]
    # a fingerprint covers Python and psycopg, too
    same_checkout = bool(then.commit) and then.commit == now.commit and not then.dirty and not now.dirty
    if then.fingerprint != now.fingerprint and not (other_runtime and same_checkout):
        names = [code_in_words(then), code_in_words(now)]
        if names[0] == names[1]:
            names = [f"{code_in_words(code)}, fingerprint {code.fingerprint}" for code in (then, now)]
        yield Difference(factor=Factor.HARNESS, before=names[0], after=names[1])
    if other_runtime:
        yield Difference(factor=Factor.CLIENT, before=runtimes[0], after=runtimes[1])


def code_in_words(code: Provenance) -> str:
    """Return what identifies the harness's code, for people."""
    if not code.commit:
        return f"version {code.tool_version}"
    return f"commit {code.commit[:_SHORT]}{' with uncommitted changes' if code.dirty else ''}"


def _of_subject(
    name: str, then: Subject | None, now: Subject | None, checks: tuple[str, ...] = ()
) -> Iterator[Difference]:
    """Yield how two identities differ. An unknown identity equals none."""
    before, after = ({} if subject is None else subject.facts for subject in (then, now))
    changed = [
        fact
        for fact in dict.fromkeys((*before, *after))
        if before.get(fact) != after.get(fact) or before.get(fact, "").startswith("unknown")
    ]
    # a digest of the declaration means nothing to people
    shown = [fact for fact in changed if fact != DECLARATION]
    if changed:
        yield Difference(
            factor=Factor.SUBJECT if shown or then is None or now is None else Factor.DECLARATION,
            name=name,
            before=_facts(before, shown) if then else ABSENT,
            after=_facts(after, shown) if now else ABSENT,
            checks=checks,
        )


def _facts(facts: Mapping[str, str], names: Iterable[str]) -> str:
    shown = (f"{name} {_shortened(facts.get(name, ABSENT))}" for name in names)
    return ", ".join(shown) or f"digest {_shortened(facts.get(DECLARATION, ABSENT))}"


def _shortened(value: str) -> str:
    return value[:_SHORT] if value.isalnum() else value


# --- topologies ------------------------------------------------------------------------------------------


def _of_topologies(
    before: TopologyEvidence | None, after: TopologyEvidence | None, then: RunRecord, now: RunRecord
) -> Iterator[Difference]:
    if before is None or after is None:
        return
    engines = [record.ran_on for record in (then, now)]
    if engines[0] != engines[1]:
        yield Difference(factor=Factor.ENGINE, before=engines[0], after=engines[1])
    storages = [topology.storage.partition(",")[0] for topology in (before, after)]
    if all(storages) and storages[0] != storages[1]:
        yield Difference(factor=Factor.STORAGE, before=storages[0], after=storages[1])
    declared = list(_declared(before.declared, after.declared))
    yield from declared
    upstream = bool(declared) or then.engine != now.engine or storages[0] != storages[1]
    services = [{service.name: service for service in topology.services} for topology in (before, after)]
    if not before.services or not after.services:
        yield from _declared_versions(before.declared, after.declared)
    for name, service in services[0].items():
        if name in services[1]:
            yield from _of_service(service, services[1][name], same_engine=then.engine == now.engine, upstream=upstream)


def _declared(then: Topology, now: Topology) -> Iterator[Difference]:
    """Yield the declared values that differ, except versions: the servers report those themselves."""
    before, after = _values(then), _values(now)
    changed = [key for key in dict.fromkeys((*before, *after)) if before.get(key) != after.get(key)]
    if changed:
        yield Difference(
            factor=Factor.DECLARATION, before=_shown(before, changed), after=_shown(after, changed), name="the topology"
        )


def _values(topology: Topology) -> dict[str, str]:
    found: dict[str, str] = {}
    document: dict[str, Any] = msgspec.to_builtins(topology)
    for part in ("postgres", "pooler", "client", "host"):
        _flatten(part, document[part] or {}, found)
    return {key: value for key, value in found.items() if key not in {"postgres.version", "pooler.version"}}


def _flatten(prefix: str, values: Mapping[str, Any], found: dict[str, str]) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _flatten(f"{prefix}.{key}", value, found)
        else:
            found[f"{prefix}.{key}"] = str(value)


def _declared_versions(then: Topology, now: Topology) -> Iterator[Difference]:
    """Yield the declared versions that differ, of a topology that did not start."""
    if then.postgres.version != now.postgres.version:
        before, after = then.postgres.version, now.postgres.version
        yield Difference(factor=Factor.SERVER, name="PostgreSQL", before=before, after=after)
    if then.pooler and now.pooler and then.pooler.version != now.pooler.version:
        before, after = then.pooler.version, now.pooler.version
        yield Difference(factor=Factor.POOLER, name=now.pooler.product, before=before, after=after)


def _of_service(
    then: ServiceEvidence, now: ServiceEvidence, *, same_engine: bool, upstream: bool
) -> Iterator[Difference]:
    """Yield how a service differs.

    :param upstream: whether something else differs that decides its settings.
    """
    title = now.title or now.product
    if (then.product, then.version) != (now.product, now.version):
        factor = {"postgres": Factor.SERVER, "pooler": Factor.POOLER}.get(now.name, Factor.SERVICE)
        before, after = _versions(then, now)
        yield Difference(factor=factor, name=title, before=before, after=after)
        return
    if same_engine and _build(then.origin) != _build(now.origin):
        yield Difference(factor=Factor.BUILD, name=title, before=then.origin, after=now.origin)
    if not upstream:
        yield from _of_settings(title, then.settings, now.settings)


def _versions(then: ServiceEvidence, now: ServiceEvidence) -> tuple[str, str]:
    """Return both versions as short as they can be distinguished."""
    short = then.version.partition(" ")[0], now.version.partition(" ")[0]
    before, after = short if short[0] != short[1] else (then.version, now.version)
    if then.product != now.product:
        return f"{then.title or then.product} {before}", f"{now.title or now.product} {after}"
    return before, after


def _build(origin: str) -> str:
    return origin.partition("@")[0] if origin.startswith(_BUILT_HERE) else origin


def _of_settings(owner: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Difference]:
    changed = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    if changed:
        yield Difference(
            factor=Factor.SETTINGS, name=owner, before=_shown(before, changed), after=_shown(after, changed)
        )


def _shown(values: Mapping[str, str], names: list[str]) -> str:
    more = f" and {len(names) - _MOST_VALUES} more" if len(names) > _MOST_VALUES else ""
    return ", ".join(f"{name} = {values.get(name, ABSENT)}" for name in names[:_MOST_VALUES]) + more


# --- environments ----------------------------------------------------------------------------------------

#: the facts of an environment that are versions
_VERSIONS = {"server_version": Factor.SERVER, "product": Factor.POOLER, "version": Factor.POOLER}


def _of_environments(
    before: EnvironmentEvidence | None, after: EnvironmentEvidence | None, then: RunRecord, now: RunRecord
) -> Iterator[Difference]:
    if before is None or after is None:
        return
    found = [{finding.fact: finding.value for finding in environment.findings} for environment in (before, after)]
    for fact in dict.fromkeys((*found[0], *found[1])):
        values = found[0].get(fact, ""), found[1].get(fact, "")
        if values[0] != values[1]:
            factor = _VERSIONS.get(fact, Factor.SETTINGS)
            yield Difference(factor=factor, name=fact, before=values[0] or "unknown", after=values[1] or "unknown")
    for name in dict.fromkeys((*before.versions, *after.versions)):
        values = before.versions.get(name, ABSENT), after.versions.get(name, ABSENT)
        if values[0] != values[1]:
            yield Difference(factor=Factor.SUBJECT, name=name, before=values[0], after=values[1])
    if before.database != after.database:
        yield Difference(
            factor=Factor.SUBJECT,
            name="the database",
            before=_shortened(before.database) or "unknown",
            after=_shortened(after.database) or "unknown",
        )
    if before.declared_as != after.declared_as:
        digests = [_shortened(environment.declared_as) or "unknown" for environment in (before, after)]
        yield Difference(factor=Factor.DECLARATION, name="the environment", before=digests[0], after=digests[1])
    if "server_version" not in found[0] or found[0]["server_version"] == found[1].get("server_version"):
        yield from _of_settings("the server", before.settings, after.settings)
    yield from _of_subject(after.name, then.subjects.get(before.name), now.subjects.get(after.name))
