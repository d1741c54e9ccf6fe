"""JUnit XML of several test runners, and of hostile or broken ones."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ConfigError
from harness.host.junit_elements import ElementReader
from harness.host.junit_verdict import LARGEST_BYTES, add_up, find_junit, read_junit, require_patterns
from harness.model import Status

if TYPE_CHECKING:
    from pathlib import Path

PYTEST = """<?xml version="1.0" encoding="utf-8"?>
<testsuites name="pytest tests">
 <testsuite name="pytest" errors="0" failures="1" skipped="1" tests="3" time="1.250" timestamp="2026-01-01T00:00:00">
  <testcase classname="tests.test_a.TestPosts" name="test_write" time="0.1"/>
  <testcase classname="tests.test_a" name="test_read[a|b]" time="0.2"><failure message="no">Traceback</failure></testcase>
  <testcase classname="tests.test_a" name="test_later"><skipped type="pytest.skip" message="later"/></testcase>
 </testsuite>
</testsuites>"""

MIX = """<?xml version="1.0"?>
<testsuites>
  <testsuite errors="0" failures="0" name="Elixir.Demo.PostTest" tests="2" time="0.5">
    <properties><property name="seed" value="0"/></properties>
    <testcase classname="Elixir.Demo.PostTest" name="test a write" time="0.25" file="test/post_test.exs:9"/>
    <testcase classname="Elixir.Demo.PostTest" name="test a job" time="0.25"><skipped message="excluded"/></testcase>
  </testsuite>
</testsuites>"""

GOTESTSUM = """<testsuites tests="1" failures="0" errors="0" time="2.5">
 <testsuite tests="1" failures="0" time="2.0" name="example.org/demo"><properties/>
  <testcase classname="example.org/demo" name="TestWrite/with_actor" time="2.0"></testcase>
 </testsuite></testsuites>"""

SUREFIRE = """<testsuite xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" name="org.demo.PostIT" time="1,234.5"
  tests="3" errors="1" skipped="0" failures="0">
  <testcase name="writes" classname="org.demo.PostIT" time="0.1"><error type="java.lang.E"><![CDATA[<x>]]></error>
    <rerunFailure/></testcase>
  <testcase name="reads" classname="org.demo.PostIT" time="0.1"><flakyFailure message="once"/></testcase>
  <testcase name="ends" classname="org.demo.PostIT" time="0.1"><system-out>a failure</system-out></testcase>
</testsuite>"""

JEST = """<testsuites name="jest tests" tests="2" failures="1" errors="0" time="3.1">
  <testsuite name="posts" errors="0" failures="1" skipped="0" tests="2" time="3">
    <testcase classname="posts writes" name="posts writes" time="0.01"/>
    <testcase classname="posts reads" name="posts reads" time="0.01"><failure>Error</failure></testcase>
  </testsuite></testsuites>"""


def _read(tmp_path: Path, content: str | bytes) -> object:
    path = tmp_path / "junit.xml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_junit(path)


@pytest.mark.parametrize(
    ("content", "counts", "failed", "seconds", "status"),
    [
        (PYTEST, (3, 1, 0, 1), ("tests.test_a.test_read[a|b]",), 1.25, Status.ISSUE),
        (MIX, (2, 0, 0, 1), (), 0.5, Status.OK),
        (GOTESTSUM, (1, 0, 0, 0), (), 2.5, Status.OK),
        (SUREFIRE, (3, 0, 1, 0), ("org.demo.PostIT.writes",), 1234.5, Status.ISSUE),
        (JEST, (2, 1, 0, 0), ("posts reads.posts reads",), 3.1, Status.ISSUE),
    ],
    ids=["pytest", "mix", "gotestsum", "surefire", "jest"],
)
def test_the_formats_of_five_test_runners_are_read(
    tmp_path: Path, content: str, counts: tuple[int, ...], failed: tuple[str, ...], seconds: float, status: Status
) -> None:
    (tmp_path / "junit.xml").write_text(content)
    result = read_junit(tmp_path / "junit.xml")
    assert (result.tests, result.failures, result.errors, result.skipped) == counts
    assert result.failed == failed
    assert result.seconds == pytest.approx(seconds)
    assert result.verdict.status is status
    assert result.verdict.reason


RIGHT = "ERROR: permission denied to create extension"


@pytest.mark.parametrize(
    ("cases", "number"),
    [
        (f"<testcase name='a'><failure message='x'>trace\n{RIGHT}</failure></testcase>", 1),
        (f"<testcase name='a'><error message='{RIGHT}'/></testcase>", 1),
        (f"<testcase name='a'><failure>trace\n{RIGHT}</failure></testcase><testcase name='b'><error/></testcase>", 1),
        (f"<testcase name='a'><failure/><system-out>{RIGHT}</system-out></testcase>", 0),
        (f"<testcase name='a'><skipped>{RIGHT}</skipped></testcase>", 0),
        (f"<failure>{RIGHT}</failure><testcase name='a'/>", 0),
        (f"<testcase name='a'><failure>{'x' * 200_000}\n{RIGHT}</failure></testcase>", 0),
    ],
)
def test_failed_cases_that_show_a_missing_right_are_counted(tmp_path: Path, cases: str, number: int) -> None:
    (tmp_path / "junit.xml").write_text(f"<testsuite>{cases}</testsuite>")
    result = read_junit(tmp_path / "junit.xml")
    assert (result.without_right, result.missing_right) == (number, RIGHT if number else "")
    both = add_up([result, result])
    assert (both.without_right, both.missing_right) == (2 * number, RIGHT if number else "")


def test_a_test_that_passed_only_on_retry_is_noted(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(SUREFIRE)
    assert read_junit(tmp_path / "junit.xml").notes == ("passed only on a retry: org.demo.PostIT.reads",)


@pytest.mark.parametrize("element", ["flakyFailure", "flakyError", "rerunFailure", "rerunError"])
def test_a_suite_that_passes_only_on_a_retry_is_an_issue(tmp_path: Path, element: str) -> None:
    retried = f'<testcase name="a"><{element}/></testcase>'
    (tmp_path / "junit.xml").write_text(f"<testsuite>{retried}<testcase name='b'/></testsuite>")
    result = read_junit(tmp_path / "junit.xml")
    assert (result.passed, result.retried, result.retried_names, result.only_retried) == (2, 1, ("a",), True)
    assert (result.verdict.status, result.verdict.reason) == (
        Status.ISSUE,
        "1 of 2 tests passed only on a retry: a",
    )
    total = add_up([result, result])
    assert (total.retried, total.retried_names, total.verdict.status) == (2, ("a", "a"), Status.ISSUE)


WARNING = (
    '<testcase name="w"><warning type="PHPUnit\\Framework\\Warning">No tests found in class "W".</warning></testcase>'
)


def test_a_warning_in_place_of_a_result_is_not_a_pass(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(f'<testsuite warnings="1">{WARNING}<testcase name="a"/></testsuite>')
    result = read_junit(tmp_path / "junit.xml")
    assert (result.tests, result.passed, result.warned) == (2, 1, 1)
    assert result.notes == ("a warning in place of a result: w",)
    assert result.verdict.reason == "1 tests passed, 1 with a warning in place of a result"
    (tmp_path / "junit.xml").write_text(f'<testsuite>{WARNING}<testcase name="a"><skipped/></testcase></testsuite>')
    verdict = read_junit(tmp_path / "junit.xml").verdict
    assert (verdict.status, verdict.reason) == (
        Status.NOT_RUN,
        "no test passed: 1 skipped, 1 with a warning in place of a result",
    )


@pytest.mark.parametrize(
    "case",
    [
        '<testcase name="a" status="notrun"/>',
        '<testcase name="a" status="disabled"/>',
        '<testcase name="a" result="suppressed"/>',
        '<testcase name="a" result="skipped"/>',
        '<testcase name="a" status="Pending"/>',
        '<testcase name="a"><disabled/></testcase>',
        '<testcase name="a"><ignored/></testcase>',
    ],
)
def test_a_case_that_was_not_run_is_skipped_in_every_dialect(tmp_path: Path, case: str) -> None:
    (tmp_path / "junit.xml").write_text(f"<testsuite>{case}</testsuite>")
    result = read_junit(tmp_path / "junit.xml")
    assert (result.skipped, result.verdict.status) == (1, Status.NOT_RUN)


def test_cases_of_nested_suites_are_counted_once(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(
        '<testsuites><testsuite name="a"><testsuite name="b"><testcase name="x"/></testsuite>'
        '<testcase name="y"><error/></testcase></testsuite></testsuites>'
    )
    result = read_junit(tmp_path / "junit.xml")
    assert (result.tests, result.errors, result.failed) == (2, 1, ("a.y",))
    assert result.notes == ()


def test_a_namespace_and_another_encoding_are_accepted(tmp_path: Path) -> None:
    text = '<?xml version="1.0" encoding="utf-16"?><j:testsuite xmlns:j="urn:x"><j:testcase name="ä"><j:failure/></j:testcase></j:testsuite>'
    (tmp_path / "junit.xml").write_bytes(text.encode("utf-16"))
    assert read_junit(tmp_path / "junit.xml").failed == ("ä",)


@pytest.mark.parametrize("declared", ["7", "-1", "NaN", "", "9" * 5000])
def test_a_count_that_differs_from_the_number_of_cases_is_noted(tmp_path: Path, declared: str) -> None:
    (tmp_path / "junit.xml").write_text(f'<testsuite name="s" tests="{declared}"><testcase name="x"/></testsuite>')
    result = read_junit(tmp_path / "junit.xml")
    assert result.tests == 1
    assert "but its cases show 1" in result.notes[0]
    assert len(result.notes[0]) < 400


def test_a_failure_that_only_a_suite_counts_is_an_issue(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(
        '<testsuites failures="2"><testsuite failures="2"><testcase name="x"/></testsuite></testsuites>'
    )
    result = read_junit(tmp_path / "junit.xml")
    assert result.unlisted_failures == 2
    assert result.verdict.status is Status.ISSUE


@pytest.mark.parametrize(
    "content",
    [
        '<testsuite tests="300" failures="0"><testcase/><testcase/><testcase/></testsuite>',
        '<testsuite tests="-3"><testcase/></testsuite>',
        '<testsuite failures="-1"><testcase/></testsuite>',
        '<testsuite errors="some"><testcase/></testsuite>',
        '<testsuites tests="3"><testsuite tests="2"><testcase/><testcase/></testsuite></testsuites>',
        '<testsuites><testsuite tests="2"><testcase/></testsuite><testsuite><testcase/></testsuite></testsuites>',
        '<testsuite tests="2"><testcase><skipped/></testcase></testsuite>',
    ],
)
def test_contradictory_counts_are_an_issue(tmp_path: Path, content: str) -> None:
    (tmp_path / "junit.xml").write_text(content)
    result = read_junit(tmp_path / "junit.xml")
    for verdict in (result.verdict, add_up([result, result]).verdict):
        assert verdict.status is Status.ISSUE
        assert "inconsistent counts" in verdict.reason


def test_a_suite_without_failures_may_count_more_tests_than_it_lists(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text('<testsuite tests="3" failures="0" errors="0"><testcase/></testsuite>')
    assert read_junit(tmp_path / "junit.xml").verdict.status is Status.OK


def test_a_suite_may_count_fewer_tests_than_it_lists(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text('<testsuite tests="1"><testcase/><testcase/></testsuite>')
    assert read_junit(tmp_path / "junit.xml").verdict.status is Status.OK


@pytest.mark.parametrize("attribute", ["status", "result"])
@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("failed", Status.ISSUE),
        ("Failure", Status.ISSUE),
        (" ERROR ", Status.ISSUE),
        ("run", Status.OK),
        ("completed", Status.OK),
        ("passed", Status.OK),
    ],
)
def test_an_attribute_of_a_case_may_mark_it_as_failed(
    tmp_path: Path, attribute: str, value: str, status: Status
) -> None:
    (tmp_path / "junit.xml").write_text(f'<testsuite><testcase name="x" {attribute}="{value}"/></testsuite>')
    result = read_junit(tmp_path / "junit.xml")
    assert result.verdict.status is status
    assert result.failed == (("x",) if status is Status.ISSUE else ())


def test_an_error_in_the_setup_of_a_suite_is_an_issue(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(
        '<testsuite name="s"><testcase name="x"/><error>no database</error></testsuite>'
    )
    result = read_junit(tmp_path / "junit.xml")
    assert (result.errors, result.failed) == (1, ("s",))
    assert result.verdict.status is Status.ISSUE


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<testsuites/>", "the file contains no test"),
        ('<testsuite tests="9"/>', "the file contains no test"),
        ('<testsuite><testcase name="x"><skipped/></testcase></testsuite>', "all tests were skipped (1)"),
        ('<testsuite><testcase name="x" status="notrun"/></testsuite>', "all tests were skipped (1)"),
    ],
)
def test_no_tests_or_only_skipped_tests_are_not_run(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "junit.xml").write_text(content)
    verdict = read_junit(tmp_path / "junit.xml").verdict
    assert (verdict.status, verdict.reason) == (Status.NOT_RUN, reason)


def test_at_most_ten_names_are_kept_each_short_and_on_one_line(tmp_path: Path) -> None:
    cases = "".join(f'<testcase name="{n}&#10;{"x" * 999}"><failure/></testcase>' for n in range(12))
    (tmp_path / "junit.xml").write_text(f"<testsuite>{cases}</testsuite>")
    result = read_junit(tmp_path / "junit.xml")
    assert (result.failures, len(result.failed)) == (12, 10)
    assert all("\n" not in name and len(name) <= 200 for name in result.failed)
    assert result.verdict.reason.endswith(", and 2 more")


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><testsuite name="&b;"/>'
OUTSIDE = (
    '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]><testsuite><testcase name="x">&a;</testcase></testsuite>'
)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (LAUGHS, "document type"),
        (OUTSIDE, "document type"),
        ('<!DOCTYPE testsuite SYSTEM "http://example.org/x.dtd"><testsuite/>', "document type"),
        (PYTEST[:300], "incomplete XML"),
        ("", "the file is empty"),
        ("all tests passed\n", "incomplete XML"),
        ("<html><body/></html>", "found the root element html, expected testsuites or testsuite"),
        ("<testsuite>" * 200 + "</testsuite>" * 200, "nested more than 100 deep"),
        ('<?xml version="1.0" encoding="klingon"?><testsuite/>', "klingon|unknown encoding"),
        (b"<testsuite name='\xff'/>", "incomplete XML"),
        ("<testsuite/><testsuite/>", "incomplete XML"),
        ("<testsuite>&nbsp;</testsuite>", "undefined entity"),
    ],
    ids=[
        "laughs",
        "external",
        "dtd",
        "truncated",
        "empty",
        "text",
        "html",
        "deep",
        "encoding",
        "bytes",
        "two",
        "entity",
    ],
)
def test_hostile_and_broken_files_are_rejected_with_file_and_line(
    tmp_path: Path, content: str | bytes, what: str
) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        _read(tmp_path, content)
    assert caught.value.where.startswith(f"{tmp_path / 'junit.xml'}:")


def test_missing_special_and_oversized_files_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_junit(tmp_path / "none.xml")
    with pytest.raises(ConfigError, match="expected a regular file"):
        read_junit(tmp_path)
    os.mkfifo(tmp_path / "pipe.xml")
    with pytest.raises(ConfigError, match="expected a regular file"):
        read_junit(tmp_path / "pipe.xml")
    with (tmp_path / "large.xml").open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)
    with pytest.raises(ConfigError, match="larger than 50 MB"):
        read_junit(tmp_path / "large.xml")


@given(
    st.lists(
        st.sampled_from(["", "<failure/>", "<error/>", "<skipped/>", "<warning/>", "<failure/><error/>"]), max_size=30
    )
)
def test_every_case_counts_once_and_a_pass_needs_one_that_passed(
    tmp_path_factory: pytest.TempPathFactory, inner: list[str]
) -> None:
    path = tmp_path_factory.mktemp("junit") / "j.xml"
    path.write_text(
        "<testsuite>" + "".join(f'<testcase name="n">{result}</testcase>' for result in inner) + "</testsuite>"
    )
    found = read_junit(path)
    assert found.tests == len(inner)
    bad = sum("failure" in result or "error" in result for result in inner)
    assert found.failures + found.errors == bad
    assert (found.verdict.status is Status.OK) == (bad == 0 and "" in inner)


def test_several_files_add_up(tmp_path: Path) -> None:
    for name, content in (("a.xml", PYTEST), ("b.xml", SUREFIRE)):
        (tmp_path / name).write_text(content)
    total = add_up([read_junit(tmp_path / "a.xml"), read_junit(tmp_path / "b.xml")])
    assert (total.tests, total.failures, total.errors, total.skipped) == (6, 1, 1, 1)
    assert total.failed == ("tests.test_a.test_read[a|b]", "org.demo.PostIT.writes")
    assert add_up([]).verdict.status is Status.NOT_RUN


# --- finding --------------------------------------------------------------------------------------------


def test_only_files_written_since_are_found(tmp_path: Path) -> None:
    for name, written in (("old.xml", 1000), ("new.xml", 2000), ("deep/er/new.xml", 2001), ("new.txt", 2000)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("<testsuite/>")
        os.utime(path, (written, written))
    found = find_junit(["**/*.xml", "*.xml"], tmp_path, since=2000)
    assert [str(path.relative_to(tmp_path)) for path in found] == ["deep/er/new.xml", "new.xml"]
    assert find_junit(["nothing/*.xml"], tmp_path, since=0) == []


def test_folders_and_links_out_of_the_folder_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "outside.xml").write_text("<testsuite/>")
    inside = tmp_path / "inside"
    (inside / "folder.xml").mkdir(parents=True)
    (inside / "link.xml").symlink_to(tmp_path / "outside.xml")
    (inside / "dangling.xml").symlink_to(inside / "nowhere")
    assert find_junit(["*.xml"], inside, since=0) == []


@pytest.mark.parametrize("pattern", ["../*.xml", "/etc/*.xml", "", "a/../../*.xml", "**.xml"])
def test_invalid_patterns_and_patterns_that_leave_the_folder_are_rejected(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ConfigError, match="pattern"):
        find_junit([pattern], tmp_path, since=0)


@pytest.mark.parametrize("pattern", ["", "  ", "/etc/**/*", "../*.xml", "a/../../b.xml", "..\\x.xml"])
def test_a_pattern_outside_of_the_folder_is_rejected_before_the_command_runs(pattern: str) -> None:
    with pytest.raises(ConfigError, match="expected a glob below the command's folder"):
        require_patterns(["reports/**/*.xml", pattern])


@pytest.mark.parametrize(
    "text",
    [
        '<testsuite><testcase name="{}"/></testsuite>',
        '<testsuite><!--{}--><testcase name="a"/></testsuite>',
        '<testsuite><testcase name="a" {}/></testsuite>',
    ],
)
def test_a_long_tag_is_parsed_a_few_times_only(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser begins a tag anew with each chunk of it."""
    fed: list[int] = []
    feed = ElementReader.feed

    def counted(self: ElementReader, chunk: bytes, *, last: bool = False) -> bool:
        fed.append(len(chunk))
        return feed(self, chunk, last=last)

    monkeypatch.setattr(ElementReader, "feed", counted)
    path = tmp_path / "long.xml"
    long = " ".join(f'a{number}="x"' for number in range(150_000)) if " {}/>" in text else "x" * (12 << 20)
    path.write_text(text.format(long))
    assert read_junit(path).tests == 1
    assert len(fed) < 15
