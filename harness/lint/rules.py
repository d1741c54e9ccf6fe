"""The rules of honest evidence, R1 to R19. Each has its sentence, its judge, and what it leaves to people."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct

from harness.lint import statuses, text, topology
from harness.lint.findings import LintFinding, Page


class Rule(Struct, frozen=True):
    """A rule. `left` is what people have to judge; without a `judge`, that is the whole rule."""

    number: str
    sentence: str
    judge: Callable[[Page], Iterator[LintFinding]] | None = None
    left: str = ""


RULES = (
    Rule("R1", "A status is exactly OK, Issue, N/A or Not run.", statuses.r1_one_of_four_statuses),
    Rule(
        "R2",
        "An item in scope that was not exercised yet is Not run, never N/A.",
        statuses.r2_not_run_is_not_na,
        "whether an item is in scope",
    ),
    Rule(
        "R3",
        'N/A has an objective reason in one line; "not relevant" is not a reason.',
        statuses.r3_na_has_a_reason,
        "whether the reason of an N/A is true and follows from the written scope",
    ),
    Rule(
        "R4",
        "OK has a pointer that others can follow: a command, a test, a file, a link, a ticket or steps.",
        statuses.r4_ok_points_to_something,
        "whether a pointer shows what its row says; only its existence is checked",
    ),
    Rule(
        "R5",
        "An Issue has an owner, a ticket or a next step.",
        statuses.r5_issues_are_tracked,
        "whether an Issue is tracked in exactly one place",
    ),
    Rule(
        "R6",
        "Evidence for a path says whether it is CI-class or host-class.",
        topology.r6_class_is_labelled,
        "whether a label CI-class or host-class is correct",
    ),
    Rule("R7", "The class of every environment is CI or host.", topology.r7_class_is_one_of_two),
    Rule(
        "R8",
        "Matches prod is exactly yes, no or partial; partial has a paragraph below the table; class CI is never yes.",
        topology.r8_matches_prod,
        "whether an environment matches production",
    ),
    Rule("R9", "Every pooler has its pool mode: session, transaction or statement.", topology.r9_pooler_has_a_mode),
    Rule(
        "R10",
        "The sandbox note says that the sandbox is for tests, and no claim about production depends on it.",
        topology.r10_sandbox_is_for_tests,
    ),
    Rule(
        "R11",
        "The file contains no secret, connection string or internal network address.",
        text.r11_no_secrets,
        "whether the file contains a secret of an unknown form",
    ),
    Rule(
        "R12",
        "Evidence from a host names versions or commits.",
        topology.r12_versions,
        "whether a screenshot shows the versions",
    ),
    Rule(
        "R13",
        "The rubric has an HTTP path and a job path, or a reason why one is missing.",
        statuses.r13_both_kinds_of_path,
    ),
    Rule(
        "R14",
        "Issues have unique ids that begin with AP-SECTION, PL or PATH, and priorities from P0 to P2.",
        statuses.r14_ids_and_priorities,
        "whether a priority fits the symptom, and whether an id is unchanged since last time",
    ),
    Rule(
        "R15",
        "The operators of an environment attest it; reviewers check modesty, redaction and links only.",
        left="who attests an environment",
    ),
    Rule(
        "R16",
        "An environment without a pooler is not the only environment.",
        topology.r16_not_only_direct,
        "whether an environment has a real job runner and more than one long-lived session",
    ),
    Rule(
        "R17",
        "If an environment cannot match production's pool mode, the table says so and does not imply parity.",
        topology.r17_no_parity_is_implied,
        "what production's pool mode is",
    ),
    Rule("R18", "Every item of the walkthrough has evidence.", statuses.r18_every_item_has_evidence),
    Rule(
        "R19",
        "A test count is not evidence, and a version that is named for the package is its current version.",
        text.r19_no_stale_counts,
        "whether other counts and versions are still correct",
    ),
)


def judge(page: Page) -> list[LintFinding]:
    """Return the findings of all rules that have a judge, without duplicates, sorted by line."""
    found = {finding for rule in RULES if rule.judge for finding in rule.judge(page)}
    return sorted(found, key=lambda finding: (finding.line, int(finding.rule[1:]), finding.problem))
