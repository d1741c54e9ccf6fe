"""The two pieces of evidence of a comparison: when they were made, with which code, servers and topologies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.report.factors import code_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harness.report.evidence import Evidence

#: the name of the newer evidence in a report, which prints its remarks itself
THIS_REPORT = "this report"
#: the most runs, topologies or versions that one line names
_MOST = 6
#: facts about an environment that are versions; the product of a pooler is a fact of its own
_SERVER_VERSION, _PRODUCT, _POOLER_VERSION = "server_version", "product", "version"


class Side(Struct, frozen=True, kw_only=True):
    """One of the two pieces of evidence."""

    #: as the user named it
    name: str
    runs: tuple[str, ...]
    #: the starts of the first and of the last run, as one time if they are the same
    started: str = ""
    #: the harness code of the runs
    code: tuple[str, ...] = ()
    #: topologies and environments
    targets: tuple[str, ...] = ()
    #: of the servers, as they reported it: `PostgreSQL 17.11`
    versions: tuple[str, ...] = ()
    #: one sentence for each run that was edited: nothing follows from it
    edited: tuple[str, ...] = ()
    #: why runs or rows were left out
    notes: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """The runs, their time, code, topologies and versions in one line."""
        if not self.runs:
            return "no run with a row that counts"
        runs = f"run {self.runs[0]}, " if len(self.runs) == 1 else f"{len(self.runs)} runs, "
        if self.runs == (self.name,):  # the line begins with it
            runs = ""
        parts = (self.code, self.targets, self.versions)
        return "; ".join((f"{runs}{self.started}", *(listed for part in parts if (listed := _listed(part)))))


def side_of(evidence: Evidence, name: str) -> Side:
    """Return what identifies one side of a comparison.

    :param name: what the user calls it.
    """
    return Side(
        name=name,
        runs=tuple(record.run_id for record in evidence.shown),
        started=_span([_minute(record.started_at) for record in evidence.shown]),
        code=_once(code_in_words(record.provenance) for record in evidence.shown),
        targets=_once(row.planned.target for row in evidence.rows if row.run_id),
        versions=_once(_versions(evidence)),
        edited=evidence.edited,
        notes=() if name == THIS_REPORT else evidence.left_out,
    )


def _minute(time: str) -> str:
    return f"{time[:16].replace('T', ' ')} UTC"


def _span(times: Sequence[str]) -> str:
    first, last = min(times, default=""), max(times, default="")
    return first if first == last else f"{first} to {last}"


def _versions(evidence: Evidence) -> Iterator[str]:
    for topology in evidence.topologies.values():
        for service in topology.services:
            yield f"{service.title or service.product} {service.version.partition(' ')[0]}"
    for environment in evidence.environments.values():
        facts = {finding.fact: finding.value for finding in environment.findings}
        if version := facts.get(_SERVER_VERSION):
            yield f"PostgreSQL {version.partition(' ')[0]}"
        if (product := facts.get(_PRODUCT)) and (version := facts.get(_POOLER_VERSION)):
            yield f"{product} {version}"


def _once(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _listed(values: Sequence[str]) -> str:
    more = f" and {len(values) - _MOST} more" if len(values) > _MOST else ""
    return ", ".join(values[:_MOST]) + more
