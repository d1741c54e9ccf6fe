"""The evidence of one run, or of a folder of runs, by the name that a user gives it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.cli.evidence import with_acceptance, without_controls, without_edited
from harness.config import close_to
from harness.errors import StoreError, UsageError
from harness.model import Status
from harness.report.merging import merge
from harness.store import StoredRun, history_files, is_under_control, read_run, read_runs, run_folders_in
from harness.store.chain import RECORD, RESULTS

if TYPE_CHECKING:
    from harness.cli.settings import Settings
    from harness.report.evidence import Evidence

#: the files that only a run folder has: its record and its rows
_KINDS = (RECORD, RESULTS)
LATEST, PREVIOUS = "latest", "previous"
#: the subfolder of the reports folder for runs of `verify --under`, which are not evidence
UNDER_FOLDER = "under"
#: the most names that an error lists
_MOST_NAMES = 5
ACCEPTED = "latest, previous, the id of a run or a part of it, a run folder, or a folder of runs"


def evidence_of(settings: Settings, name: str) -> Evidence:
    """Return the evidence that a name leads to, whatever code it is of.

    :param name: `latest`, `previous` (the newest earlier run that ran a row of the latest one), the id of a run in the
        reports folder or a part that only one id has, a run folder, or a folder of runs such as another machine's
        reports folder. Its runs are merged; those of other code than the newest are left out.
    :raises UsageError: for a name that leads nowhere, or to several runs.
    :raises StoreError: for a run that cannot be read.
    """
    found = _run_folder(settings, name)
    if found is not None:
        return _of_run(read_run(found), settings)
    runs, damaged = read_runs(_run_folders(settings, name))
    whole, edited = without_edited(runs, settings)
    ordinary, left_out = without_controls(whole)
    merged = replace(merge(ordinary, (), left_out=(*damaged, *left_out)), edited=tuple(run.sentence for run in edited))
    return with_acceptance(merged, settings)


def runs_of(settings: Settings, name: str) -> tuple[StoredRun, ...]:
    """Return the runs that a name leads to, oldest first, as they were stored.

    :param name: as for :func:`evidence_of`.
    :raises UsageError: for a name that leads nowhere, or to several runs.
    :raises StoreError: for a run that cannot be read.
    """
    found = _run_folder(settings, name)
    if found is not None:
        return (read_run(found),)
    runs, damaged = read_runs(_run_folders(settings, name))
    if damaged:
        raise StoreError(damaged[0], hint="leave out this folder")
    return runs


class JudgedRuns(Struct, frozen=True, kw_only=True):
    """The runs whose histories are judged."""

    runs: tuple[StoredRun, ...]
    #: the folders of all runs here, newest first
    kept: tuple[Path, ...]
    #: whether the histories under controls are judged
    under: bool

    def with_histories(self) -> tuple[str, ...]:
        """Return the ids of all runs with such histories, newest first. This searches the folder of every run."""
        return tuple(folder.name for folder in self.kept if _has_histories(folder, under=self.under))


def runs_to_judge(settings: Settings, name: str | None, *, under: bool) -> JudgedRuns:
    """Return the runs that a name leads to. The id of a run under a control is found as well.

    :param name: as for :func:`evidence_of`; None for the newest run with histories.
    :param under: whether the histories under controls are judged: `latest` then means the newest run of all, also of
        those under a control.
    :raises UsageError: for a name that leads nowhere, or to several runs.
    :raises StoreError: for a run that cannot be read.
    """
    ordinary, apart = (set(run_folders_in(folder)) for folder in (settings.reports, settings.reports / UNDER_FOLDER))
    folders = {folder.name: folder for folder in sorted(ordinary | apart, key=lambda path: path.name, reverse=True)}
    chosen = LATEST if name is None else name
    newest = (run_id for run_id, folder in folders.items() if _has_histories(folder, under=under))
    if name is None and (found := next(newest, "")):
        chosen = found
    elif chosen == LATEST and under and folders:
        chosen = next(iter(folders))
    named = [chosen] if chosen in folders else [run_id for run_id in folders if chosen and chosen in run_id]
    if not any(folders[run_id] in apart for run_id in named):
        runs = runs_of(settings, chosen)
    elif len(named) > 1:
        raise UsageError(_ambiguous(chosen, named), hint="name one of them")
    else:
        runs = (read_run(folders[named[0]]),)
    return JudgedRuns(runs=runs, kept=tuple(folders.values()), under=under)


def _has_histories(run: Path, *, under: bool) -> bool:
    return any(is_under_control(path) == under for path in history_files(run))


def _of_run(run: StoredRun, settings: Settings) -> Evidence:
    """Return the evidence of one run. Of an edited one, too: the user named it, and the comparison names the edit."""
    _, edited = without_edited([run], settings)
    sentences = tuple(f"run {found.record.run_id} was edited: {found.reasons}" for found in edited)
    under = run.record.under
    notes = (f"run {run.record.run_id} ran under the control {under}, which breaks its system",) if under else ()
    return with_acceptance(replace(merge([run], (), left_out=notes), edited=sentences), settings)


def run_names(reports: Path) -> list[str]:
    """Return the ids of the runs in a reports folder, newest first."""
    return sorted((folder.name for folder in run_folders_in(reports)), reverse=True)


def _run_folder(settings: Settings, name: str) -> Path | None:
    """Return the folder of the run that a name means; None if the name is that of a folder of runs."""
    if not name:
        raise UsageError("found an empty name of a run", hint=f"expected {ACCEPTED}")
    runs = settings.reports / "runs"
    ids = run_names(settings.reports)
    if name == LATEST:
        if not ids:
            raise UsageError("no run here", where=str(runs), hint="harness verify makes one")
        return _latest(runs, ids)
    if name == PREVIOUS:
        return _previous(runs, ids)
    if name in ids:
        return runs / name
    path = Path(name)
    with suppress(OSError, ValueError):  # such as a name that is too long
        if path.is_file() and path.name == RECORD:
            return path.parent
        if path.exists():
            return path if (path / RECORD).is_file() else None
    matching = [run_id for run_id in ids if name in run_id]
    if len(matching) > 1:
        raise UsageError(_ambiguous(name, matching), hint="name one of them")
    if matching:
        return runs / matching[0]
    near = close_to(name[:80], (LATEST, PREVIOUS, *ids))
    newest = f"the newest runs: {', '.join(ids[:_MOST_NAMES])}" if ids else f"{runs} has no run"
    raise UsageError(f"no run or folder {name[:80]!r}, expected {ACCEPTED}", hint=near or newest)


def _ambiguous(name: str, matching: list[str]) -> str:
    more = f" and {len(matching) - _MOST_NAMES} more" if len(matching) > _MOST_NAMES else ""
    return f"{name[:80]!r} is a part of {len(matching)} runs: {', '.join(matching[:_MOST_NAMES])}{more}"


def _latest(runs: Path, ids: list[str]) -> Path:
    latest = runs / LATEST
    return latest.resolve() if (latest / RECORD).is_file() else runs / ids[0]


def _previous(runs: Path, ids: list[str]) -> Path:
    """Return the newest run before the latest one that ran one of its rows, without a control; else the newest one.

    Runs of other commands, such as `exec` after `verify`, have no row in common with it.
    """
    latest = _latest(runs, ids) if ids else runs
    earlier = [run_id for run_id in ids if run_id < latest.name]
    if not earlier:
        raise UsageError("no run before the latest one here", where=str(runs))
    rows = _rows_that_ran(latest)
    if not rows:
        return runs / earlier[0]
    return runs / next((run_id for run_id in earlier if rows & _rows_that_ran(runs / run_id)), earlier[0])


def _rows_that_ran(folder: Path) -> set[tuple[str, str]]:
    """Return target and check of each row that a run exercised; nothing of a damaged run, or of one under a control."""
    try:
        run = read_run(folder)
    except StoreError:
        return set()
    if run.record.under:
        return set()
    return {(result.target, result.check) for result in run.results if result.status is not Status.NOT_RUN}


#: where a folder of runs has its run folders: itself, as a reports folder, or in a folder for each of several machines
_PLACES = ("*", "runs/*", "*/*", "*/runs/*", "*/reports/runs/*")


def _run_folders(settings: Settings, name: str) -> list[Path]:
    """Return the run folders of the folder that a name leads to. Only the usual places are searched, not a whole disk.

    :raises UsageError: for a folder without a run, and for a file.
    :raises StoreError: for a report without its runs.
    """
    path = _folder(settings, name)
    try:
        # a run that lost its record has rows still, and is then named
        found = {file.parent for place in _PLACES for kind in _KINDS for file in path.glob(f"{place}/{kind}")}
    except OSError as error:
        raise UsageError(f"the folder cannot be read: {error.strerror}", where=name[:80]) from None
    if not found:
        raise UsageError(
            "neither a run folder nor a folder of runs",
            where=str(path)[:200],
            hint=f"a run folder has the file {_KINDS[0]}; a folder of runs has run folders, or a folder runs of them",
        )
    return sorted(found)


def _folder(settings: Settings, name: str) -> Path:
    """Return the folder that a name leads to; that of its runs for a report."""
    path = Path(name)
    if path.is_dir():
        return path
    runs = path.parent / "runs"
    if path.name == "report.json" and runs.is_dir():
        return runs
    if path.name == "report.json":
        raise StoreError(
            "a report alone does not have what its rows depend on, such as settings and image digests",
            where=str(path),
            hint=f"the folder of its runs; {runs} is missing",
        )
    raise UsageError(
        f"found the file {path.name[:80]}, expected {ACCEPTED}", where=str(settings.reports / "runs"), hint=""
    )
