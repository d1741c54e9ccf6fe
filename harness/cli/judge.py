"""`judge`: the judges of a stored run, run again from its histories. Starts nothing and writes no file."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from harness.checks.execution import accept_known, in_quarantine
from harness.checks.rejudging import Judged, Judgement, judged_again
from harness.cli import completion, options
from harness.cli.evidence import without_edited
from harness.cli.exit_codes import ExitCode
from harness.cli.invocation import Invocation, command
from harness.cli.run_evidence import ACCEPTED, runs_to_judge
from harness.model import Result, Status
from harness.printable import one_line
from harness.suites.judges import JUDGES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from harness.cli.settings import Settings
    from harness.model.history import Outcome

#: the judge ran, and its verdict counts
_DECIDED = {Judgement.HOLDS, Judgement.ISSUE}
#: ids of runs that a sentence names
_MOST_RUNS = 3
_WIDTH = max(map(len, Judgement))
_OUTCOMES: tuple[tuple[Outcome, str], ...] = (("ok", "acknowledged"), ("fail", "failed"), ("unknown", "unknown"))


@command(
    "judge",
    section="Evidence",
    examples=(
        "harness judge",
        "harness judge latest --topology transaction",
        "harness judge 1a2b3c4d --check resilience.server-killed",
        "harness judge latest --under",
    ),
    exit_codes=(
        ("0", "every expectation holds, as the stored rows say; --under: each is an Issue as its control expects"),
        ("1", "an expectation does not hold, and the Issue is neither known nor in quarantine; --under: one does hold"),
        ("2", "invalid usage, such as a run that does not exist"),
        (
            "3",
            (
                "no history could be judged, the run was edited, or a judge says something else than the stored row; "
                "--under: this version has none of the controls"
            ),
        ),
    ),
)
@click.argument(
    "run",
    metavar="[RUN]",
    required=False,
    default=None,
    shell_complete=completion.run_names,
    help=f"the run whose histories are judged: {ACCEPTED} (default: the newest run with histories)",
)
@options.option(
    "--topology",
    "topologies",
    multiple=True,
    metavar="TOPOLOGY",
    section="Selection",
    shell_complete=completion.topology_names,
    help="only the histories of this topology; may be repeated",
)
@options.option(
    "--check",
    "checks",
    multiple=True,
    metavar="CHECK",
    section="Selection",
    shell_complete=completion.check_names,
    help="only the histories of this check; may be repeated",
)
@options.option(
    "--under",
    is_flag=True,
    section="Selection",
    help="judge the histories of checks under their controls instead, also those of verify --under: each control broke "
    "something on purpose, so an Issue is the wanted result",
)
@options.option("--json", "as_json", is_flag=True, section="Output", help="print what the judges say as JSON")
@options.reading
def judge(
    invocation: Invocation,
    run: str | None,
    topologies: Sequence[str],
    checks: Sequence[str],
    *,
    under: bool,
    as_json: bool,
) -> int:
    """Judge the stored histories of a run again, and compare with its rows.

    A history holds each operation of a check under load or faults. Its judge decides from the history and the final
    state alone, so the result is the same years later. It is printed with the expectations that do not hold.
    """
    settings, say = invocation.settings, invocation.terminal.say
    chosen = runs_to_judge(settings, run, under=under)
    runs, named = chosen.runs, tuple(one.record.run_id for one in chosen.runs)
    if run is None and (with_histories := chosen.with_histories()):
        others = _without(with_histories, named)
        say(f"run {named[0]}: the newest run with histories{'; others: ' if others else ''}{_few(others)}")
    whole, edited = without_edited(runs, settings)
    for sentence in (one.sentence for one in edited):
        say(one_line(f"not judged: {sentence}"))
    for unfinished in (one for one in whole if one.record.state == "running"):
        say(f"note: run {unfinished.record.run_id} did not finish: it was killed, or is still running")
    found = [
        (stored, judged)
        for stored in whole
        for judged in judged_again(stored, JUDGES, topologies=topologies, checks=checks, under=under)
    ]
    if as_json:
        rows = [{"run": stored.record.run_id, **msgspec.to_builtins(judged)} for stored, judged in found]
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(rows), indent=1).decode() + "\n")
    else:
        sys.stdout.writelines(f"{one_line(line)}\n" for line in _lines((judged for _, judged in found), settings))
    if not edited:  # an edited run may have it
        for name in _unmatched((judged for _, judged in found), topologies, checks):
            say(one_line(f"note: no history of {name}{' under a control' if under else ''}"))
    if not found and whole:
        others = _without(chosen.with_histories(), named)
        say(_nothing(named, others, under=under, chosen=bool(topologies or checks)))
    return _exit_code([judged for _, judged in found], settings, edited=bool(edited))


def _lines(found: Iterable[Judged], settings: Settings) -> Iterator[str]:
    found = list(found)
    width = max((len(judged.topology) for judged in found), default=0)
    for judged in found:
        name = f"{judged.check} under {judged.control}" if judged.control else judged.check or judged.file
        name += f", attempt {judged.attempt}" if judged.attempt > 1 else ""
        yield f"{judged.topology:<{width}}  {judged.verdict:<{_WIDTH}}  {'; '.join((name, *_counted(judged)))}"
        if judged.reason:
            yield f"    {judged.reason}"
        if judged.control and judged.verdict in _DECIDED:
            yield f"    {_as_controlled(judged, settings)}"
        for expectation in judged.broken:
            yield f"    {expectation.name}: expected {expectation.expected}, observed {expectation.observed}"
    if found:
        counts = Counter(judged.verdict for judged in found)
        shown = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Judgement if counts[verdict])
        yield f"{len(found)} histor{'y' if len(found) == 1 else 'ies'}: {shown}"


def _unmatched(found: Iterable[Judged], topologies: Iterable[str], checks: Iterable[str]) -> Iterator[str]:
    """Yield each topology and each check of the selection that has no history, if any history was found."""
    found = list(found)
    if found:
        # the name of a file says what an unreadable history is about
        yield from _without(topologies, {Path(judged.file).parent.name for judged in found})
        unreadable = [Path(judged.file).name for judged in found if not judged.check]
        for check in _without(checks, {judged.check for judged in found}):
            if not any(name.startswith(f"{check}.") for name in unreadable):
                yield check


def _counted(judged: Judged) -> Iterator[str]:
    """Yield the size of a history in words."""
    counts = [f"{judged.operations.get(outcome, 0)} {word}" for outcome, word in _OUTCOMES]
    if judged.compared:
        yield f"{judged.samples} samples; {judged.compared}"
    elif judged.samples:
        yield f"{judged.samples} samples; recorded one by one: {', '.join(counts[1:])}"
    elif judged.operations:
        yield f"operations: {', '.join(counts)}"
    if judged.faults:
        yield f"{judged.faults} fault{'s' if judged.faults > 1 else ''}"


def _nothing(runs: Sequence[str], others: Sequence[str], *, under: bool, chosen: bool) -> str:
    which = "a history under a control" if under else "a history"
    if chosen:
        hint = "try it without --topology and --check"
    elif others:
        hint = f"runs with {which}: {_few(others)}"
    elif under:
        hint = "harness verify TOPOLOGY --check resilience.server-killed --under CONTROL makes one"
    else:
        hint = "harness verify transaction --suite resilience makes some"
    return f"nothing to judge: {_few(runs)} does not have {which}{' of this selection' if chosen else ''}; {hint}"


def _without(names: Iterable[str], others: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in dict.fromkeys(names) if name not in others)


def _few(run_ids: Sequence[str]) -> str:
    more = f" and {len(run_ids) - _MOST_RUNS} more" if len(run_ids) > _MOST_RUNS else ""
    return f"{', '.join(run_ids[:_MOST_RUNS])}{more}"


def _as_controlled(judged: Judged, settings: Settings) -> str:
    """Return whether a history under a control is an Issue where its control expects it, in words."""
    at = _expected_at(judged, settings)
    if not at:
        return f"this version has no control {judged.control!r} of this check, so it expects nothing"
    if _is_as_controlled(judged, settings):
        return f"as its control expects: an Issue at {at!r}"
    seen = "an Issue elsewhere" if judged.broken else "no Issue"
    return f"its control expects an Issue at {at!r}, and the judge finds {seen}"


def _is_as_controlled(judged: Judged, settings: Settings) -> bool:
    return _expected_at(judged, settings) in {expectation.name for expectation in judged.broken}


def _expected_at(judged: Judged, settings: Settings) -> str:
    """Return the expectation that the control of a history breaks; "" if this version does not have the control."""
    controls = settings.catalogue.controls_of(judged.check)
    return next((control.at for control in controls if control.name == judged.control), "")


def _exit_code(found: Sequence[Judged], settings: Settings, *, edited: bool) -> ExitCode:
    decided = any(_is_decided(judged, settings) for judged in found)
    if edited or not decided or any(judged.verdict is Judgement.DIFFERS for judged in found):
        return ExitCode.NOTHING_VERIFIED
    return ExitCode.ISSUE if any(_counts(judged, settings) for judged in found) else ExitCode.OK


def _is_decided(judged: Judged, settings: Settings) -> bool:
    """Return whether a verdict counts: not that under a control which this version lacks, since nothing is expected."""
    return judged.verdict in _DECIDED and (not judged.control or bool(_expected_at(judged, settings)))


def _counts(judged: Judged, settings: Settings) -> bool:
    """Return whether a history fails the command: it is an Issue that nobody accepts; with a control, it is none."""
    if judged.control:
        return _is_decided(judged, settings) and not _is_as_controlled(judged, settings)
    if judged.verdict is not Judgement.ISSUE:
        return False
    row = Result(target=judged.topology, check=judged.check, status=Status.ISSUE, reason=judged.broken[0].name)
    return in_quarantine(accept_known(row, settings.known_issues), settings.quarantine).gates
