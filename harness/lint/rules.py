"""The rules of honest evidence, R1 to R19: what each asks for, what judges it, and what no machine can judge of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct

from harness.lint import statuses, text, topology
from harness.lint.findings import LintFinding, Page


class Rule(Struct, frozen=True):
    """A rule. Without a judge it is for people; `left` is what stays for people anyway."""

    number: str
    sentence: str
    judge: Callable[[Page], Iterator[LintFinding]] | None = None
    left: str = ""


RULES = (
    Rule("R1", "A status is OK, Issue, N/A or Not run, and nothing else.", statuses.r1_four_words),
    Rule(
        "R2",
        "What is in scope and was not exercised yet is Not run; N/A is never used for it.",
        statuses.r2_not_run_is_not_na,
        "what is in scope",
    ),
    Rule(
        "R3",
        "N/A gives an objective reason in one line; that something is not relevant is none.",
        statuses.r3_na_has_a_reason,
        "whether the reason of an N/A is true, and follows from the written scope",
    ),
    Rule(
        "R4",
        "OK carries a pointer that others can follow: a command, a test, a file, a link, a ticket or steps.",
        statuses.r4_ok_points_to_something,
        "whether a pointer shows what its row says: only that it leads somewhere",
    ),
    Rule(
        "R5",
        "An Issue has an owner, a ticket or a next step.",
        statuses.r5_issues_are_tracked,
        "whether an Issue is taken up in exactly one place",
    ),
    Rule(
        "R6",
        "Evidence of paths says whether it is CI-class or host-class.",
        topology.r6_class_is_labelled,
        "whether a label of CI-class or host-class is the right one",
    ),
    Rule("R7", "Every environment is of class CI or host.", topology.r7_class_is_one_of_two),
    Rule(
        "R8",
        "Matches prod is yes, no or partial alone; partial has a paragraph below; class CI is never yes.",
        topology.r8_matches_prod,
        "whether an environment matches production",
    ),
    Rule("R9", "A pooler stands with its mode: session, transaction or statement.", topology.r9_pooler_has_a_mode),
    Rule(
        "R10",
        "The sandbox note says that the sandbox is for tests, and no claim about production rests on it.",
        topology.r10_sandbox_is_for_tests,
    ),
    Rule(
        "R11",
        "No secret, connection string or address inside a network stands in the file.",
        text.r11_no_secrets,
        "whether a secret of an unknown shape stands in the file",
    ),
    Rule(
        "R12",
        "Evidence of a host names versions or commits.",
        topology.r12_versions,
        "whether a screenshot shows its versions",
    ),
    Rule(
        "R13",
        "The rubric has a path over HTTP and one of a job, or says why there is none.",
        statuses.r13_both_kinds_of_path,
    ),
    Rule(
        "R14",
        "Issues have unique ids that begin with AP-SECTION, PL or PATH, and priorities from P0 to P2.",
        statuses.r14_ids_and_priorities,
        "whether a priority fits its symptom, and whether an id is what it was last time",
    ),
    Rule(
        "R15",
        "Those who run an environment attest it; whoever reviews looks at modesty, redaction and links only.",
        left="who attests an environment",
    ),
    Rule(
        "R16",
        "An environment without a pooler is not the only one.",
        topology.r16_not_only_direct,
        "whether an environment has a real job runner, and more than one long-lived session",
    ),
    Rule(
        "R17",
        "Where the pooler's mode cannot match production, the table says so and implies no parity.",
        topology.r17_no_parity_is_implied,
        "which pool mode production has",
    ),
    Rule("R18", "Every item of the walkthrough has evidence.", statuses.r18_every_item_has_evidence),
    Rule(
        "R19",
        "No count of tests is proof, and a version of the package that is named is its own.",
        text.r19_no_stale_counts,
        "whether other counts and versions are still true",
    ),
)


def judge(page: Page) -> list[LintFinding]:
    """Judge a page by every rule that a machine can judge; each finding once, by line."""
    found = {finding for rule in RULES if rule.judge for finding in rule.judge(page)}
    return sorted(found, key=lambda each: (each.line, int(each.rule[1:]), each.what))
