"""Output for the pages of a CI service: bounded whatever the report has, and escaped as GitHub documents it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model import Severity
from harness.report.issue_groups import IssueGroup
from harness.report.job_summary import MOST_ANNOTATIONS, MOST_BYTES, summary, workflow_commands

REPORT = "# Title\n\nheader\n\n## Verdicts\n\n- good\n\n## STG-01\n\n| a |\n|---|\n| b |\n"
MARKDOWN = st.lists(
    st.sampled_from(("# Title\n", "## One\n", "## Two\n", "text\n", "é" * 40 + "\n", "no line end", "\n"))
).map("".join)


def group(number: int, *, accepted: str = "", symptom: str = "rows: expected 1, observed 0") -> IssueGroup:
    return IssueGroup(
        severity=Severity.P0,
        checks=(f"capture.check-{number}",),
        topologies=("session", "transaction"),
        number=2,
        symptoms=(symptom,),
        about="a claim",
        link="https://example.org/1" if accepted else "",
        accepted=accepted,
        command="harness verify session",
    )


# --- the summary -------------------------------------------------------------------------------------------


@given(MARKDOWN, st.integers(min_value=0, max_value=400))
def test_a_summary_is_never_larger_than_its_bound(markdown: str, most_bytes: int) -> None:
    assert len(summary(markdown, most_bytes).encode()) <= most_bytes


@given(MARKDOWN)
def test_a_report_that_fits_is_its_own_summary(markdown: str) -> None:
    assert summary(markdown) == markdown


@pytest.mark.parametrize(
    ("large", "missing"),
    [("STG-01", "STG-01"), ("Verdicts", "Verdicts")],
)
def test_a_section_that_does_not_fit_is_left_out_whole_and_named(large: str, missing: str) -> None:
    found = summary(REPORT.replace(f"## {large}\n", f"## {large}\n" + "x" * 500 + "\n"), 400)
    assert f"## {large}" not in found
    assert found.endswith(f"**Left out, because a job summary is small:** {missing}. `report.md` has all of it.\n")
    assert [name for name in ("Verdicts", "STG-01") if f"## {name}" in found] == sorted(
        {"Verdicts", "STG-01"} - {large}, reverse=True
    )


def test_a_first_section_that_does_not_fit_ends_with_a_whole_line() -> None:
    found = summary("# Title\n" + "a line\n" * 100 + "## Verdicts\n", 300)
    assert found.startswith("# Title\na line\n")
    assert set(found.partition("\n**Left out")[0].strip().splitlines()[1:]) == {"a line"}
    assert "the end of the first section" in found


def test_links_to_files_that_a_summary_lacks_are_text() -> None:
    text = "[run](runs/r/run.json), [a \\[b\\]](./a.md), [known](https://example.org/1), `[x](./y)` and ``[`](z)``"
    assert summary(text) == "run, a \\[b\\], [known](https://example.org/1), `[x](./y)` and ``[`](z)``"


# --- annotations -------------------------------------------------------------------------------------------


def test_each_group_of_issues_is_one_error_and_known_issues_are_one_notice() -> None:
    lines = list(workflow_commands([group(1), group(2), group(3, accepted="known")]))
    rest = "on session, transaction: a claim: rows: expected 1, observed 0. Reproduce: harness verify session"
    assert lines == [
        f"::error title=Issue P0 capture.check-1::capture.check-1 {rest}",
        f"::error title=Issue P0 capture.check-2::capture.check-2 {rest}",
        "::notice title=2 known Issues::capture.check-3",
    ]


@pytest.mark.parametrize(
    ("accepted", "title"),
    [
        (("known", "known"), "4 known Issues"),
        (("quarantined",), "2 quarantined Issues"),
        (("known", "quarantined"), "4 known or quarantined Issues"),
    ],
)
def test_an_issue_in_quarantine_is_not_called_known(accepted: tuple[str, ...], title: str) -> None:
    [line] = workflow_commands([group(number, accepted=kind) for number, kind in enumerate(accepted)])
    assert line.startswith(f"::notice title={title}::capture.check-0")


@pytest.mark.parametrize("number", [0, 1, MOST_ANNOTATIONS, MOST_ANNOTATIONS + 1, 40])
def test_there_are_at_most_ten_errors_and_each_group_is_named(number: int) -> None:
    lines = list(workflow_commands([group(n) for n in range(number)]))
    assert len(lines) == min(number, MOST_ANNOTATIONS)
    assert "".join(lines).count("check-") >= number


@given(st.text())
def test_a_text_from_outside_cannot_end_its_command(symptom: str) -> None:
    (line,) = workflow_commands([group(1, symptom=symptom)])
    assert "\n" not in line
    assert "\r" not in line
    assert line.startswith("::error title=Issue P0 capture.check-1::")
    assert len(line) < 4000


def test_what_github_would_decode_is_escaped() -> None:
    (line,) = workflow_commands([group(1, symptom="100%0A\n::warning::x")])
    assert "100%250A%0A::warning::x" in line


def test_the_bound_is_far_below_the_limit_of_github() -> None:
    assert MOST_BYTES * 4 < 1024 * 1024
