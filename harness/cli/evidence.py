"""The evidence at hand: what the reports folder or given run folders hold, merged for these settings."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness import places
from harness.checks.execution import accept_known, in_quarantine
from harness.cli.named_topologies import named_topologies
from harness.cli.planning import declared_as, folder_of_topologies, plan_environment, plan_topologies
from harness.errors import ConfigError, UsageError
from harness.host.subjects import subjects_now
from harness.ingest.loading import fingerprint_now as pipeline_now
from harness.job_engines.known import fingerprint_now
from harness.lab.topologies import load_topologies, with_versions
from harness.model import SCHEMA_VERSION, Result, RunRecord, Section, Status
from harness.provenance import fingerprint, of_this_code, provenance
from harness.report.merging import merge, newest_pipeline
from harness.report.scope import outside
from harness.store import kept_runs, read_runs, run_folders_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from harness.checks.registry import Check
    from harness.cli.settings import Settings
    from harness.model import PlannedCheck, Provenance, Quarantine, Subject, Topology
    from harness.report.evidence import Evidence
    from harness.store import StoredRun

#: checks that harness.toml or a command line declares: their claims may change with the same code
_DECLARED = frozenset({Section.COMMANDS, Section.MIGRATIONS, Section.PATHS})
#: the most reasons that a report prints about one run; `report --verify` prints more
_MOST_REASONS = 3


def evidence_here(settings: Settings) -> Evidence:
    """Merge the runs in the reports folder that are of exactly this code and these topology files."""
    code = fingerprint()
    runs, damaged = kept_runs(settings.reports, code)
    whole, edited = without_edited(runs, settings, code)
    ordinary, _ = without_controls(whole)
    merged = merge(
        ordinary,
        expected_rows(settings),
        declared=_declared_topologies(ordinary, settings),
        fingerprint=code,
        target=settings.target.identity,
        left_out=(*damaged, *_of_other_code(settings.reports, len(runs) + len(damaged), code)),
        environments=_declared_environments(settings),
        subjects=_subjects(ordinary, settings, [settings.reports]),
        job_engines=_job_engines_now(ordinary) | _pipelines_now(ordinary, settings),
    )
    on_demand = [name for name, topology in load_topologies(settings.topologies).items() if topology.on_demand]
    return _finished(merged, ordinary, edited, settings, on_demand)


def evidence_from(settings: Settings, folders: Iterable[str]) -> Evidence:
    """Merge run folders, also from other machines. Runs of other code than this checkout's are left out.

    :raises UsageError: for a folder that does not exist.
    :raises StoreError: for a folder without runs.
    """
    folders = tuple(folders)
    code = fingerprint()
    runs, damaged = read_runs([Path(folder) for folder in folders])
    whole, edited = without_edited(runs, settings, code)
    ordinary, left_out = without_controls(whole)
    own = of_this_code((run.record.provenance for run in ordinary), code)
    usable = [run for run in ordinary if run.record.provenance in own]
    here = _code(provenance(code)) if len(usable) < len(ordinary) else ""
    left_out += [
        f"run {run.record.run_id} is left out: it ran other harness code ({_code(run.record.provenance)}) than is here "
        f"({here}); check out that code to read it, or run it again here"
        for run in ordinary
        if run.record.provenance not in own
    ]
    merged = merge(
        usable,
        expected_rows(settings),
        target=settings.target.identity,
        left_out=(*damaged, *left_out),
        environments=_declared_environments(settings),
        subjects=_subjects(usable, settings, [settings.reports, *map(Path, folders)]),
        job_engines=_job_engines_now(usable) | _pipelines_now(usable, settings),
    )
    return _finished(merged, usable, edited, settings)


def expected_rows(settings: Settings) -> tuple[PlannedCheck, ...]:
    """Return the rows that a report owes an answer to."""
    checks = settings.catalogue.checks
    return plan_topologies(named_topologies(settings, []), checks, None, settings) + tuple(
        row for name in settings.environments for row in plan_environment(name, checks, settings)
    )


def _finished(
    merged: Evidence,
    runs: Iterable[StoredRun],
    edited: Iterable[Edited],
    settings: Settings,
    on_demand: Iterable[str] = (),
) -> Evidence:
    """Return merged evidence with what is accepted today, and a sentence about the rows that no run was asked for."""
    evidence = with_acceptance(_without_doubtful(merged, runs, edited), settings)
    rest = outside(evidence, on_demand=on_demand, environments=settings.environments)
    return replace(evidence, left_out=(*evidence.left_out, rest)) if rest else evidence


def _declared_topologies(runs: Iterable[StoredRun], settings: Settings) -> dict[str, Topology]:
    """Return the topologies as they are declared now.

    Each is read from the folder that its newest run read, in the versions that its name says. A file that is missing
    now declares nothing.
    """
    found = {topology.name: topology for topology in named_topologies(settings, [])}
    folders = {name: run.record.topologies_folder for run in runs for name in run.record.topologies}
    loaded = {folder: _loaded(Path(folder) if folder else places.TOPOLOGIES) for folder in set(folders.values())}
    for name, folder in folders.items():
        base, *versions = name.split("+")
        if base in loaded[folder]:
            with contextlib.suppress(UsageError):  # a version that has no recipe any more
                pairs = (version.rpartition("-") for version in versions)
                found[name] = with_versions(loaded[folder][base], {product: version for product, _, version in pairs})
        elif folder != folder_of_topologies(settings):
            found.pop(name, None)
    return found


def _loaded(folder: Path) -> dict[str, Topology]:
    try:
        return load_topologies(folder)
    except ConfigError:
        return {}


def _subjects(runs: Iterable[StoredRun], settings: Settings, evidence: list[Path]) -> dict[str, Subject]:
    """Return the identity that each foreign command, and each declaration of migrations, has now.

    :param evidence: folders with evidence, which are left out although they may be inside of a command's folder.
    """
    return subjects_now((*settings.commands, *settings.migrations), [run.record.subjects for run in runs], evidence)


def _job_engines_now(runs: Iterable[StoredRun]) -> dict[tuple[str, str], str]:
    """Return the digest that the files of job engines have now, by target and check; files that are here count."""
    rows = [row for run in runs for row in run.record.plan if row.job and row.job.file]
    now = {file: fingerprint_now(file) for file in {row.job.file for row in rows if row.job}}
    return {(row.target, row.check): digest for row in rows if row.job and (digest := now[row.job.file])}


def _pipelines_now(runs: Sequence[StoredRun], settings: Settings) -> dict[tuple[str, str], str]:
    """Return the identity that the ingest pipeline of a report has now, by target and check, if its file is here.

    The store of `[store]` belongs to it, also to that of a shipped pipeline.
    """
    newest = name, file = newest_pipeline(runs)
    if not name:
        return {}
    project = settings.project_pipeline
    is_project = newest == (project.name, project.own_file)
    now = project.identity if is_project else pipeline_now(file or name, project.store)
    rows = (row for run in runs for row in run.record.plan if row.ingest and row.ingest.identity == newest)
    return {(row.target, row.check): now for row in rows} if now else {}


def _of_other_code(reports: Path, of_this_code: int, code: str) -> list[str]:
    """Return a sentence about the runs in the reports folder that ran other harness code; none without such runs.

    :param code: the fingerprint of this code.
    """
    others = len(run_folders_in(reports)) - of_this_code
    if others <= 0:
        return []
    runs = "1 run of other harness code is" if others == 1 else f"{others} runs of other harness code are"
    return [f"{runs} left out of {reports / 'runs'}; this code is {_code(provenance(code))}"]


def _code(code: Provenance) -> str:
    """Return what identifies the harness's code, for people."""
    commit = f"commit {code.commit[:12]}{' with uncommitted changes' if code.dirty else ''}" if code.commit else ""
    return ", ".join(filter(None, (f"version {code.tool_version}", commit, f"fingerprint {code.fingerprint}")))


def _declared_environments(settings: Settings) -> dict[str, str]:
    return {name: declared_as(name, settings) for name in settings.environments}


def without_controls(runs: Iterable[StoredRun]) -> tuple[tuple[StoredRun, ...], list[str]]:
    """Return the runs of `verify` and `prove`, and a sentence for each run of `verify --under`.

    A control broke the system under test on purpose, so those rows are not evidence.
    """
    ordinary = tuple(run for run in runs if not run.record.under)
    left_out = [
        f"run {run.record.run_id} is left out: it ran under the control {run.record.under}"
        for run in runs
        if run.record.under
    ]
    return ordinary, left_out


class Edited(Struct, frozen=True):
    """A run that was edited."""

    record: RunRecord
    #: the first ones, in one line
    reasons: str

    @property
    def sentence(self) -> str:
        planned = len(self.record.plan)
        return f"run {self.record.run_id} was edited, so none of its rows counts ({planned} planned): {self.reasons}"


def without_edited(
    runs: Iterable[StoredRun], settings: Settings, code: str = ""
) -> tuple[tuple[StoredRun, ...], list[Edited]]:
    """Return the runs that are as they were written, and the others.

    :param code: the fingerprint of this code, if the caller has it already.
    """
    runs, counted, edited = tuple(runs), [], []
    own = of_this_code((run.record.provenance for run in runs), code)
    checks = {check.id: check for check in settings.catalogue.checks}
    for run in runs:
        contradictions = _contradictions_with_code(run, checks) if run.record.provenance in own else ()
        if reasons := run.integrity.reasons or tuple(contradictions):
            more = "; harness report --verify names more" if len(reasons) > _MOST_REASONS else ""
            edited.append(Edited(run.record, f"{'; '.join(reasons[:_MOST_REASONS])}{more}"))
        else:
            counted.append(run)
    return tuple(counted), edited


def _without_doubtful(evidence: Evidence, runs: Iterable[StoredRun], edited: Iterable[Edited]) -> Evidence:
    """Turn a row to Not run if a newer run of it was edited: an edit that hides an Issue brings no older OK back.

    :param runs: those that were merged.
    :param edited: the runs that were left out, which the evidence names from now on.
    """
    started = {run.record.run_id: run.record.started_at for run in runs}
    newest = {
        (row.target, row.check): run.record
        for run in sorted(edited, key=lambda run: run.record.started_at)
        for row in run.record.plan
    }
    rows = []
    for row in evidence.rows:
        doubt = newest.get((row.planned.target, row.planned.check))
        if doubt and row.status is not Status.ISSUE and started.get(row.run_id, "") <= doubt.started_at:
            result = Result(
                target=row.planned.target,
                check=row.planned.check,
                status=Status.NOT_RUN,
                reason=f"the newest run of this row was edited: {doubt.run_id}",
                reproduce=row.planned.reproduce,
            )
            rows.append(replace(row, result=result, run_id="", runs=()))
        else:
            rows.append(row)
    return replace(evidence, rows=tuple(rows), edited=tuple(run.sentence for run in edited))


def _contradictions_with_code(run: StoredRun, checks: Mapping[str, Check]) -> Iterator[str]:
    """Yield what this code cannot have written: runs without a chain, and plans that change a check."""
    if run.record.schema_version != SCHEMA_VERSION:
        yield f"run.json: schema version {run.record.schema_version}, and this code writes {SCHEMA_VERSION}"
    for row in run.record.plan:
        check = checks.get(row.check)
        # an edited file of a project's own job engine changes the claims, too
        if check is None or row.section in _DECLARED or (row.job and row.declared_as):
            continue
        for name in ("claim", "section", "severity", "area", "feature"):
            if getattr(row, name) != getattr(check, name):
                yield f"run.json: the {name} of {row.check} differs from that of the check"


def with_acceptance(evidence: Evidence, settings: Settings) -> Evidence:
    """Mark the Issues that are accepted today, and the checks in quarantine, whatever applied when they were found."""

    def marked(result: Result) -> Result:
        found = accept_known(replace(result, known=None, quarantine=None), settings.known_issues)
        return in_quarantine(found, settings.quarantine)

    expired = tuple(map(expired_sentence, settings.expired_quarantine))
    return replace(
        evidence,
        rows=tuple(replace(row, result=marked(row.result)) for row in evidence.rows),
        series={
            name: tuple(
                replace(run, results={check: marked(result) for check, result in run.results.items()}) for run in runs
            )
            for name, runs in evidence.series.items()
        },
        left_out=(*evidence.left_out, *expired),
    )


def expired_sentence(entry: Quarantine) -> str:
    """Return a sentence about an entry of the quarantine whose day has passed."""
    return (
        f"the quarantine of {entry.check} expired on {entry.expires}, so it decides the exit code again "
        f"(owner {entry.owner}, {entry.link})"
    )
