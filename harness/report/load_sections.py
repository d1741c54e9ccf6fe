"""The sections about the three questions, faults and load, and repetition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.report import load_columns
from harness.report.job_rows import jobs_in_words
from harness.report.listings import Paper, Part, Section
from harness.report.load_rows import faults_in_words, loads_in_words
from harness.report.section_words import numbered, one_table, statuses_in_words, worst_first
from harness.report.trials import ASKS, Trial

if TYPE_CHECKING:
    from harness.report.tables import Report


def trials(report: Report) -> Section:
    rows = report.trials
    answers = [(trial, statuses_in_words([getattr(row, trial) for row in rows])) for trial in Trial]
    return Section(
        anchor="trials",
        title="Three questions: smoke, resilience, soak",
        short="Three questions",
        result="; ".join(f"{trial}: {statuses}" for trial, statuses in answers) if rows else "",
        intro=("trials", (ASKS,)),
        missing=("no_verdicts", ()),
        listings=one_table("Three questions about each topology and environment", load_columns.TRIALS, rows),
    )


def faults(report: Report) -> Section:
    jobs = one_table("Jobs by topology", load_columns.JOBS, worst_first(report.jobs))
    return Section(
        anchor="resilience",
        title="Resilience: acknowledged writes under faults",
        short="Resilience",
        result="; ".join(filter(None, (faults_in_words(report.faults), jobs_in_words(report.jobs)))),
        intro=("resilience", ()),
        paper=Paper.OPEN,
        missing=("no_resilience", ()),
        listings=one_table("Faults by topology", load_columns.FAULTS, worst_first(report.faults)),
        parts=(Part(title="Jobs of the reference host", intro=("jobs", ()), listings=jobs),) if report.jobs else (),
    )


def loads(report: Report) -> Section:
    return Section(
        anchor="soak",
        title="Soak: judged work under load",
        short="Soak",
        result=loads_in_words(report.loads),
        intro=("soak", ()),
        missing=("no_soak", ()),
        listings=one_table("Loads by topology", load_columns.LOADS, worst_first(report.loads)),
    )


def repetition(report: Report) -> Section:
    flaky = sum(row.counts.flaky for row in report.repeated)
    repeated = sum(row.number for row in report.repeated)
    said = (
        f"Three consecutive runs of a topology: {statuses_in_words(report.consecutive)}" if report.consecutive else "",
        f"{flaky} flaky of {repeated} repeated row{'' if repeated == 1 else 's'}" if report.repeated else "",
        f"{numbered(report.quarantine, 'check')} in quarantine" if report.quarantine else "",
    )
    attempts = (
        *one_table("Repeated rows, flaky ones first", load_columns.REPEATED, report.repeated),
        *one_table("Checks in quarantine", load_columns.QUARANTINE, report.quarantine),
    )
    return Section(
        anchor="repetition",
        title="Repetition: which verdicts are reliable",
        short="Repetition",
        result="; ".join(filter(None, said)),
        intro=("repetition", ()),
        missing=("no_verdicts", ()),
        listings=(
            *one_table("Three consecutive runs", load_columns.CONSECUTIVE, worst_first(report.consecutive)),
            *(listing for listing in attempts if listing.number),
        ),
    )
