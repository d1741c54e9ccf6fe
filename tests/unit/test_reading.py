"""Runs that somebody else wrote: whatever is on disk is an error or a verdict, and the other runs are still read."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.cli.exit_codes import ExitCode
from harness.cli.main import main
from harness.errors import StoreError
from harness.model import EndedBy, Expectation, KnownIssue, Limit, Result, Severity, Status
from harness.store import Integrity, StoredRun, Verdict, kept_runs, read_run, read_runs
from harness.store.rules import RowRules
from tests.unit.forging import sealed_run
from tests.unit.made_up import CHECKS, NAMES, record, store_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DIGITS = b"9" * 5000
DEEP = b"[" * 100_000
FILES = ("run.json", "results.jsonl", "proofs.jsonl", "trail.jsonl", "logs/direct/postgres.log")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that ended; tests edit copies of it."""
    return sealed_run(tmp_path_factory.mktemp("whole"))


def replaced(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def record_with(old: bytes, new: bytes) -> Callable[[Path], None]:
    return lambda folder: replaced(folder / "run.json", old, new)


def row_with(old: bytes, new: bytes) -> Callable[[Path], None]:
    return lambda folder: replaced(folder / "results.jsonl", old, new)


def instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Put something else in the place of a file."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


#: name, what is on disk, what is said about it
ODD: tuple[tuple[str, Callable[[Path], None], str], ...] = (
    (
        "digits without end in run.json",
        record_with(b'"ready_ms": 700.0', b'"ready_ms": ' + DIGITS),
        "run.json cannot be read",
    ),
    ("an unknown whole number in run.json", record_with(b"{", b'{"x": ' + DIGITS + b","), "run.json"),
    ("deep nesting in run.json", record_with(b"{", b'{"x": ' + DEEP + b","), "run.json cannot be read"),
    ("deep objects in run.json", record_with(b"{", b'{"x": ' + b'{"a":' * 100_000), "run.json cannot be read"),
    ("a start that is no time", record_with(b'"2026-01-01T00:00:00.000Z"', b'"today"'), "started_at is 'today'"),
    (
        "a start without a zone",
        record_with(b'00:00:00.000Z"', b'00:00:00.000"'),
        "started_at is '2026-01-01T00:00:00.000'",
    ),
    (
        "an end on day 32",
        record_with(b'"2026-01-01T00:00:09.000Z"', b'"2026-01-32T00:00:09Z"'),
        "ended_at is '2026-01-32",
    ),
    ("NUL bytes in run.json", record_with(b"{", b"\0\0{"), "run.json cannot be read"),
    ("invalid UTF-8 in run.json", record_with(b'"argv": [', b'"argv": ["\xff\xfe",'), "run.json cannot be read"),
    ("a lone surrogate in run.json", record_with(b'"argv": [', b'"argv": ["\\ud800",'), "run.json"),
    ("a list in run.json", instead("run.json", lambda path: path.write_text("[]")), "run.json cannot be read"),
    ("run.json is removed", lambda folder: (folder / "run.json").unlink(), "not a run folder: run.json is missing"),
    (
        "run.json as a link to itself",
        instead("run.json", lambda path: path.symlink_to("run.json")),
        "run.json cannot be read",
    ),
    ("run.json as a folder", instead("run.json", Path.mkdir), "expected a regular file"),
    ("run.json as a FIFO", instead("run.json", os.mkfifo), "expected a regular file"),
    ("run.json as a device", instead("run.json", lambda path: path.symlink_to("/dev/zero")), "expected a regular file"),
    ("digits without end in a row", row_with(b'"duration_ms":12.5', b'"duration_ms":' + DIGITS), "results.jsonl:2: "),
    ("an unknown whole number in a row", row_with(b'"facts":{', b'"x":' + DIGITS + b',"facts":{'), "results.jsonl:2: "),
    ("deep nesting in a row", row_with(b'"facts":{', b'"x":' + DEEP + b',"facts":{'), "results.jsonl:2: "),
    ("a start of a row that is no time", row_with(b"2026-01-01T00:00:01.000Z", b"soon"), "results.jsonl:2: "),
    ("NUL bytes in a row", row_with(b'"facts":{', b'\0"facts":{'), "results.jsonl:2: "),
    ("invalid UTF-8 in a row", row_with(b'"reason":"', b'"reason":"\xff'), "results.jsonl:2: "),
    ("no line ends", lambda folder: replaced(folder / "results.jsonl", b"\n", b" "), "results.jsonl:1: "),
    ("a row of 17 MB", row_with(b'"reason":"', b'"reason":"' + b"x" * (17 << 20)), "results.jsonl:1: "),
    (
        "rows as a FIFO",
        instead("results.jsonl", os.mkfifo),
        "results.jsonl: it cannot be read: found another type of file",
    ),
    ("rows as a folder", instead("results.jsonl", Path.mkdir), "results.jsonl: it cannot be read: found another type"),
    (
        "rows as a device",
        instead("results.jsonl", lambda path: path.symlink_to("/dev/zero")),
        "results.jsonl: it cannot be read",
    ),
    (
        "rows as a link to itself",
        instead("results.jsonl", lambda path: path.symlink_to(path.name)),
        "results.jsonl: it cannot",
    ),
    ("a log as a FIFO", instead("logs/direct/postgres.log", os.mkfifo), "logs/direct/postgres.log: it was changed"),
    ("a link in a circle", lambda folder: (folder / "logs" / "loop").symlink_to(folder), "logs/loop: it was added"),
)


@pytest.mark.parametrize(("name", "change", "sentence"), ODD, ids=[name for name, _, _ in ODD])
def test_an_odd_run_is_named_and_the_others_are_read(
    name: str, change: Callable[[Path], None], sentence: str, whole: Path, tmp_path: Path
) -> None:
    odd, sound = tmp_path / "runs" / "odd", tmp_path / "runs" / "sound"
    shutil.copytree(whole, odd)
    shutil.copytree(whole, sound)
    change(odd)
    for runs, damaged in (read_runs([tmp_path]), kept_runs(tmp_path)):
        by_folder = {run.folder: run for run in runs}
        assert by_folder[sound].integrity.verdict is Verdict.WHOLE, name
        said = by_folder[odd].integrity.breaks[0] if odd in by_folder else damaged[0]
        assert sentence in said
        assert (odd in by_folder) != bool(damaged)


def test_an_artifact_is_no_run_folder(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    artifacts = tmp_path / "run" / "artifacts" / "direct" / "command.x"
    artifacts.mkdir(parents=True)
    (artifacts / "results.jsonl").write_text("")
    runs, damaged = read_runs([tmp_path])
    assert damaged == ()
    assert runs[0].integrity.breaks == ("artifacts/direct/command.x/results.jsonl: it was added",)


@pytest.mark.parametrize("folder", ["missing", "file", "x" * 5000])
def test_a_folder_that_cannot_be_read_is_a_mistake_of_the_command_line(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for arguments in (["report", "--from"], ["report", "--verify", "--from"]):
        assert main([*arguments, str(tmp_path / folder)]) == ExitCode.USAGE
        assert "Traceback" not in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["report", "--from", str(tmp_path / "empty")]) == ExitCode.NOTHING_VERIFIED


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"_type": "https://in-toto.io/Statement/v0.1"}', "[" * 99_999]
)
def test_what_is_no_statement_is_an_error_with_a_hint(
    content: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "statement.json"
    path.write_text(content)
    assert main(["report", "--verify", "--statement", str(path), "--from", str(whole)]) == ExitCode.USAGE
    assert "not a statement about runs" in capsys.readouterr().err


def read_or_error(folder: Path) -> StoredRun | None:
    try:
        return read_run(folder)
    except StoreError:
        return None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=st.sampled_from(FILES[:4]), data=st.binary(max_size=200))
def test_any_bytes_are_an_error_or_edited(file: str, data: bytes, whole: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        shutil.copytree(whole, folder)
        before = (folder / file).read_bytes()
        (folder / file).write_bytes(data)
        run = read_or_error(folder)
        assert run is None or (run.integrity.verdict is Verdict.EDITED) == (data != before)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    file=st.sampled_from(FILES), at=st.floats(0, 1, exclude_max=True), byte=st.binary(max_size=3), cut=st.integers(0, 3)
)
def test_an_edit_of_any_bytes_is_noticed(file: str, at: float, byte: bytes, cut: int, whole: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        shutil.copytree(whole, folder)
        path = folder / file
        before = path.read_bytes()
        place = int(at * len(before))
        after = before[:place] + byte + before[place + cut :]
        path.write_bytes(after)
        run = read_or_error(folder)
        # the record is hashed without its blanks, so an edit of these says nothing else
        same = after == before or (file == "run.json" and decoded(after) == decoded(before))
        assert run is None or run.integrity.verdict is (Verdict.WHOLE if same else Verdict.EDITED)


def decoded(data: bytes) -> object:
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return data


def test_rows_are_read_while_they_are_appended(whole: Path, tmp_path: Path) -> None:
    run = store_run(tmp_path, [], record(state="running"))
    path = run.folder / "results.jsonl"
    sound = store_run(tmp_path / "other", [made(Status.OK), made(Status.NA)], record(state="running"))
    data = (sound.folder / "results.jsonl").read_bytes()
    for end in range(0, len(data), 7):
        path.write_bytes(data[:end])
        found = read_run(run.folder)
        assert found.integrity == Integrity(verdict=Verdict.UNFINISHED)
        assert len(found.results) == data[:end].count(b"\n")
        assert found.torn == (not data[:end].endswith(b"\n") and end > 0)
    assert read_run(whole).torn == 0


# --- rows that the writer makes ----------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)


def made(status: Status, **fields: Any) -> Result:
    """Return a row as the writer makes it."""
    held = Expectation(name="rows", expected="1", observed="1", held=True)
    broken = replace(held, observed="0", held=False)
    row = Result(
        target="direct",
        check=CHECKS[{Status.OK: 0, Status.ISSUE: 1}.get(status, 2)],
        status=status,
        reason="" if status is Status.OK else "rows: expected 1, observed 0",
        expectations={Status.OK: (held,), Status.ISSUE: (held, broken)}.get(status, ()),
        started_at="2026-01-01T00:00:01.000Z",
        duration_ms=5.0,
    )
    return replace(row, **fields)


@st.composite
def rows(draw: st.DrawFn) -> Result:
    """Draw a row of any status, with everything that the writer may add to it."""
    status = draw(st.sampled_from(Status))
    row = made(status, target=draw(st.sampled_from(NAMES)), check=draw(st.sampled_from(CHECKS)))
    held = st.builds(Expectation, name=TEXTS, expected=TEXTS, observed=TEXTS, held=st.just(True))
    row = replace(
        row,
        facts=draw(st.dictionaries(TEXTS, TEXTS, max_size=2)),
        expectations=row.expectations + tuple(draw(st.lists(held, max_size=2))),
        duration_ms=draw(st.floats(0, 5000)),
    )
    if status is Status.OK:
        return replace(row, limit=draw(st.none() | st.builds(Limit, outcome=TEXTS, source=TEXTS)))
    row = replace(row, reason=draw(TEXTS))
    if status is Status.ISSUE:
        known = KnownIssue(check=row.check, link="https://example.org/1", owner="ada", expires="")
        return replace(
            row,
            severity=draw(st.none() | st.sampled_from(Severity)),
            known=draw(st.sampled_from([None, known])),
            ended_by=draw(st.none() | st.sampled_from(EndedBy)),
        )
    if status is Status.NOT_RUN:
        after = replace(row.expectations[0], held=False, counts=False) if row.expectations else None
        return replace(row, ended_by=draw(st.none() | st.sampled_from(EndedBy)), expectations=(after,) if after else ())
    return row


def single_edits(row: Result) -> Iterator[Result]:
    """Yield every row that differs in one field and contradicts the others."""
    held = Expectation(name="rows", expected="1", observed="1", held=True)
    broken = replace(held, held=False)
    for status in Status:
        judged_by_expectations = {status, row.status} <= {Status.OK, Status.ISSUE}
        if status is not row.status and (judged_by_expectations or Status.OK in {status, row.status}):
            yield replace(row, status=status)
    yield replace(row, reason="why" if row.status is Status.OK else " ")
    yield replace(row, duration_ms=-1.0)
    yield replace(row, started_at="2026-01-01 00:00")
    yield replace(row, started_at="2020-01-01T00:00:00.000Z")
    yield replace(row, check="another")
    if row.status is not Status.ISSUE:
        yield replace(row, severity=Severity.P2)
        yield replace(row, known=KnownIssue(check=row.check, link="https://example.org/1", owner="a", expires=""))
    if row.status is not Status.OK:
        yield replace(row, limit=Limit(outcome="x", source="y"))
    if row.status is not Status.ISSUE:
        yield replace(row, expectations=(*row.expectations, broken))
    if row.status is Status.OK:
        yield replace(row, expectations=())
        yield replace(row, expectations=(*row.expectations, replace(held, counts=False)))
        yield replace(row, ended_by=EndedBy.TIME_LIMIT)
    if row.status is Status.ISSUE:
        yield replace(row, expectations=(held,))


@given(row=rows())
def test_the_reader_accepts_what_the_writer_makes_and_refuses_any_single_edit(row: Result) -> None:
    written = record()
    assert RowRules(written).of_result(row, written) == ""
    for edited in single_edits(row):
        assert RowRules(written).of_result(edited, written), edited
    rules = RowRules(written)
    rules.accept(row)
    assert rules.of_result(row, written).startswith("more than one row")
