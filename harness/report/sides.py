"""The two pieces of evidence of a comparison: what identifies each, and which of their targets belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.report.factors import code_in_words
from harness.report.topology_rows import titled

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
            yield titled(service)
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


# --- targets that belong together ------------------------------------------------------------------------


def newer_than(before: Evidence, report: Evidence) -> Evidence:
    """Return the evidence of a report without the topologies that ran again in another version.

    A report also holds older runs. If `before` is one of them, its own rows of such a topology would be compared with
    themselves.
    """
    runs = {row.run_id for row in before.rows}
    again = {row.planned.target for row in report.rows if row.run_id and row.run_id not in runs}
    bases = {_base(name) for name in again}
    return replace(
        report,
        rows=tuple(
            row
            for row in report.rows
            if row.run_id not in runs or row.planned.target in again or _base(row.planned.target) not in bases
        ),
    )


def pairs_of(before: Evidence, after: Evidence) -> dict[str, str]:
    """Return the name of each target after that both have, with its name before."""
    then, now = before.names(), after.names()
    pairs = {name: name for name in now if name in then}
    rest_before, rest_after = ([name for name in names if name not in pairs] for names in (then, now))
    for name in rest_after:
        same = [[other for other in rest if _base(other) == _base(name)] for rest in (rest_before, rest_after)]
        if len(same[0]) == 1 and len(same[1]) == 1:
            pairs[name] = same[0][0]
    return pairs


def _base(name: str) -> str:
    """Return the name of a topology without the versions that `--set` appends to it."""
    return name.partition("+")[0]
