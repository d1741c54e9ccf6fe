"""`mutants`: how many faulty variants of sound audit trails the checks notice."""

from __future__ import annotations

import sys
from threading import Event
from typing import TYPE_CHECKING

import click
import msgspec
from msgspec.structs import replace

from harness.checks.broken_trails import BrokenTrails, Judged, JudgedTrail, JudgedVariant, Outcome
from harness.cli import completion, options
from harness.cli.exit_codes import ExitCode
from harness.cli.invocation import Invocation, command
from harness.cli.named_topologies import named_topologies, require_used
from harness.cli.running import derived_jobs
from harness.cli.standing import require_transactions, standing
from harness.engine.owner import Owner
from harness.errors import HarnessError, InterruptedRunError
from harness.mutants.variants import chosen, noticed_by
from harness.printable import one_line
from harness.store import new_run_id, require_writable, write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


#: where no topology is named
_TOPOLOGIES = ("direct", "transaction")
#: a line of progress after so many variants
_A_LINE = 20
_FILE = "mutants-of-trails.json"


@command(
    "mutants",
    section="Evidence",
    examples=(
        "harness mutants",
        "harness mutants transaction --only values --only redaction",
        "harness mutants direct --only row-json/actor-id-trimmed",
    ),
    exit_codes=(
        ("0", "every fault was noticed, except those that are known to survive, and the sound trails have no Issue"),
        ("1", "a variant survived, or a sound trail has an Issue"),
        ("2", "invalid usage or configuration, such as an unknown variant"),
        ("3", "nothing was tried: servers or a topology are not available"),
    ),
)
@click.argument(
    "topologies",
    nargs=-1,
    metavar="[TOPOLOGY]...",
    shell_complete=completion.topology_names,
    help="names from `harness list topologies`; direct and transaction by default",
)
@options.option(
    "--only",
    multiple=True,
    metavar="NAME",
    section="Selection",
    shell_complete=completion.mutant_names,
    help="judge only this variant, or this kind of variants; may be repeated",
)
@options.judging_variants
def mutants(invocation: Invocation, topologies: Sequence[str], only: tuple[str, ...]) -> int:
    """Judge faulty variants of two sound audit trails, and count how many the checks notice.

    Each variant is a sound trail with one fault, which a check of the trail suites has to notice. The sound trails are
    judged first, and must have no Issue. It prints the rate of each topology, that of the variants which were written
    without having read the checks, and the survivors by name.

    Writes mutants-of-trails.json to the folder of reports: a later call begins with the checks that noticed a variant.
    """
    settings = invocation.settings
    selected = chosen(only)
    named = named_topologies(settings, topologies or _TOPOLOGIES)
    require_used(settings, named)
    require_transactions(named)
    require_writable(settings.reports)  # before minutes of work
    file = settings.reports / _FILE
    found = _Found(invocation, len(selected), file)
    jobs, stop = settings.jobs or derived_jobs(), Event()
    try:
        for topology in named:
            with standing(invocation, topology, Owner.me(new_run_id()), stop) as lab:
                trails = BrokenTrails(settings.catalogue, lab, stop, found.add, jobs=jobs, earlier=found.earlier)
                try:
                    trails.judge(selected)
                except HarnessError:
                    if not stop.is_set():
                        raise
            if stop.is_set():
                break
    finally:
        if found.judged != Judged():  # a call that judged nothing leaves the findings of the one before
            found.write()
    if stop.is_set():
        raise InterruptedRunError("interrupted: the servers are removed; the counts are of the variants so far")
    return ExitCode.ISSUE if is_wrong(found.judged) else ExitCode.OK


class _Found:
    """What was found so far, shown and kept."""

    def __init__(self, invocation: Invocation, count: int, file: Path) -> None:
        self._redact, self._terminal = invocation.redactor, invocation.terminal
        self._count = count
        self._file = file
        self.judged = Judged()
        #: by the full name of a variant: the check that noticed it before
        self.earlier = noticed_by() | {found.full_name: found.check for found in _read(file).variants if found.check}

    def add(self, found: JudgedTrail | JudgedVariant) -> None:
        """Keep a finding, and show it if something is wrong with it."""
        if isinstance(found, JudgedTrail):
            self.judged = replace(self.judged, sound=(*self.judged.sound, found))
            counts = f"ok={found.ok} issue={len(found.issues)} not_run={len(found.not_run)}"
            self._terminal.say(f"{found.topology}: sound {found.trail}: {counts}")
            for line in lines_of(Judged(sound=(found,))):
                self._terminal.say(self._redact(line))
            return
        self.judged = replace(self.judged, variants=(*self.judged.variants, found))
        done = [variant for variant in self.judged.variants if variant.topology == found.topology]
        if found.outcome is not Outcome.NOTICED or self._terminal.verbose:
            self._terminal.say(self._redact(_line(found)))
        if len(done) % _A_LINE == 0:
            self._terminal.say(f"{found.topology}: {len(done)} of {self._count} variants, {_rate(done)} noticed")

    def write(self) -> None:
        """Print all findings, and write them to a file."""
        sys.stdout.write("".join(f"{one_line(self._redact(line))}\n" for line in lines_of(self.judged)))
        text = msgspec.json.format(msgspec.json.encode(self.judged), indent=2).decode()
        write_atomically(self._file, f"{self._redact(text)}\n")
        self._terminal.say(f"evidence: {self._file}")


def lines_of(judged: Judged) -> list[str]:
    """Return the Issues of sound trails, the survivors by name, and the rates of each topology."""
    lines = [
        f"ISSUE {trail.topology}: {trail.trail} is sound, and {check} says: {reason}"
        for trail in judged.sound
        for check, reason in sorted(trail.issues.items())
    ]
    lines += [_line(variant) for variant in judged.variants if variant.outcome is not Outcome.NOTICED]
    lines += [
        f"NOTE {variant.topology}: {variant.full_name} is noticed by {variant.check}, and its entry says that"
        f" it survives"
        for variant in judged.variants
        if variant.outcome is Outcome.NOTICED and variant.survives
    ]
    for topology in dict.fromkeys(variant.topology for variant in judged.variants):
        done = [variant for variant in judged.variants if variant.topology == topology]
        blind = [variant for variant in done if variant.blind]
        lines.append(f"{topology}: noticed {_rate(done)}; written without the checks: {_rate(blind)}")
    return lines


def is_wrong(judged: Judged) -> bool:
    """Return whether a sound trail has an Issue, or a variant is unusable or survived without being known to."""
    return any(trail.issues for trail in judged.sound) or any(
        variant.outcome is Outcome.UNUSABLE or (variant.outcome is Outcome.SURVIVED and not variant.survives)
        for variant in judged.variants
    )


def _line(variant: JudgedVariant) -> str:
    if variant.outcome is Outcome.NOTICED:
        why = f"{variant.check}: {variant.reason}"
    elif variant.outcome is Outcome.SURVIVED and variant.survives:
        why = f"known: {variant.survives}"
    else:
        why = variant.reason
    word = variant.outcome.upper()
    return f"{word} {variant.topology}: {variant.full_name} ({variant.kind}): {variant.fault} ({why})"


def _rate(found: Sequence[JudgedVariant]) -> str:
    usable = [variant for variant in found if variant.outcome is not Outcome.UNUSABLE]
    noticed = sum(variant.outcome is Outcome.NOTICED for variant in usable)
    return f"{noticed} of {len(usable)} ({100 * noticed / len(usable):.1f} %)" if usable else "none"


def _read(file: Path) -> Judged:
    """Return the findings of an earlier call; none when there is no file of this version."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Judged)
    except (OSError, msgspec.DecodeError):
        return Judged()
