"""The store of runs: what is written is read back, whatever happens in between."""

from __future__ import annotations

import errno
import os
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pytest

from harness.errors import StoreError, UsageError
from harness.model import SCHEMA_VERSION, Expectation, Proof, Result, Status
from harness.redaction import Redactor
from harness.store import (
    RunStore,
    StoredRun,
    Verdict,
    kept_runs,
    new_run_id,
    read_run,
    read_runs,
    require_writable,
    write_atomically,
    write_together,
)
from tests.unit.made_up import CHECKS, NAMES, PLAN, mixed, record, result, store_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer


class Disk(NamedTuple):
    total: int
    used: int
    free: int


def test_a_stored_run_is_read_back(tmp_path: Path) -> None:
    run = store_run(tmp_path, mixed())
    assert list(run.results) == mixed()
    assert run.record == record()
    assert (tmp_path / "runs" / "latest").resolve() == run.folder.resolve()


def test_every_planned_row_has_a_result_after_a_crash(tmp_path: Path) -> None:
    run = store_run(tmp_path, [result("direct", CHECKS[0])], record(state="running"))
    answers = run.answers()
    assert [(answer.target, answer.check) for answer in answers] == [(row.target, row.check) for row in PLAN]
    assert answers[0].status is Status.OK
    assert {answer.status for answer in answers[1:]} == {Status.NOT_RUN}
    assert all(answer.reason for answer in answers[1:])


def test_an_incomplete_last_line_of_a_killed_run_is_dropped_and_counted(tmp_path: Path) -> None:
    run = store_run(tmp_path, mixed(), record(state="running"))
    path = run.folder / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-17])
    again = read_run(run.folder)
    assert list(again.results) == mixed()[:-1]
    assert again.torn == 1
    assert again.integrity.verdict is Verdict.UNFINISHED


def test_secrets_do_not_reach_the_disk(tmp_path: Path) -> None:
    redactor = Redactor()
    redactor.learn('c4n"ary\\secret')
    store = RunStore(tmp_path, record(), redactor)
    store.append(
        result("direct", CHECKS[0], Status.ISSUE, 'it said c4n"ary\\secret and password="hunter22" } and more')
    )
    store.write_log("direct", "postgres", "DETAIL: postgresql://u:hunter22@db/x\n")
    store.update(failure='c4n"ary\\secret')
    store.close()
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        text = path.read_text()
        assert "hunter22" not in text
        assert "ary\\secret" not in text.replace("\\\\", "\\")
    assert len(read_run(store.folder).results) == 1  # redacted text is still JSON


def test_a_newer_schema_is_an_error_with_a_hint(tmp_path: Path) -> None:
    run = store_run(tmp_path, [])
    path = run.folder / "run.json"
    raw = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode(raw | {"schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(StoreError, match="newer tool"):
        read_run(run.folder)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"schema_version": 1}', b"\xff\xfe", b'{"schema_version": "1"}']
)
def test_a_damaged_record_is_an_error_and_is_skipped_among_others(tmp_path: Path, damage: bytes) -> None:
    run = store_run(tmp_path, mixed())
    (run.folder / "run.json").write_bytes(damage)
    with pytest.raises(StoreError, match=r"run\.json cannot be read"):
        read_run(run.folder)
    runs, damaged = kept_runs(tmp_path, "f1")
    assert runs == ()
    assert run.folder.name in damaged[0]


def test_run_folders_are_found_at_any_depth_and_read_once(tmp_path: Path) -> None:
    one = store_run(tmp_path / "job1", mixed(), record("20260101T000000Z-00000001"))
    two = store_run(tmp_path / "job2", mixed(), record("20260101T000000Z-00000002"))
    assert [run.record.run_id for run in read_runs([tmp_path, one.folder, two.folder])[0]] == [
        one.record.run_id,
        two.record.run_id,
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="no run folder"):
        read_runs([tmp_path / "empty"])
    with pytest.raises(UsageError, match="no such folder"):
        read_runs([tmp_path / "nowhere"])


def test_a_full_disk_is_a_store_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RunStore(tmp_path, record(), Redactor())
    for check in CHECKS[:2]:
        store.append(result("direct", check))
    path = store.folder / "results.jsonl"
    before = path.read_bytes()

    class Full(FileIO):
        def write(self, _data: Buffer, /) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Short(FileIO):
        def write(self, data: Buffer, /) -> int:
            return super().write(bytes(data)[:-9])

    rows = store._files["results.jsonl"]
    for kind, message in ((Full, "No space left"), (Short, "is the disk full")):
        with kind(path, "a") as full, monkeypatch.context() as patched:
            patched.setattr(rows, "_file", full)
            with pytest.raises(StoreError, match=message):
                store.append(result("direct", CHECKS[2]))
        assert path.read_bytes() == before
    store.append(result("direct", CHECKS[2]))
    store.close()
    run = read_run(store.folder)
    assert [row.check for row in run.results] == list(CHECKS)
    assert run.integrity.verdict is Verdict.WHOLE


def test_an_unwritable_folder_is_a_store_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        require_writable(tmp_path / "file")
    assert "--reports" in str(caught.value)
    with pytest.raises(StoreError):
        write_atomically(tmp_path / "file" / "x.md", "text")


def test_a_disk_that_is_almost_full_is_named_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    almost = Disk(65_536, 0, 65_536)
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: almost)
    with pytest.raises(StoreError, match="64 KiB are free, and a run with its report needs 8 MiB"):
        require_writable(tmp_path)
    assert list((tmp_path / "runs").iterdir()) == []
    without_sizes = almost._replace(total=0, free=0)
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: without_sizes)
    require_writable(tmp_path)


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("harness.store.writing.write_atomically", full)
    with pytest.raises(StoreError, match="No space left"):
        RunStore(tmp_path, record(), str)
    assert list((tmp_path / "runs").iterdir()) == []


def test_replacing_a_file_leaves_no_temporary_file(tmp_path: Path) -> None:
    for text in ("old\n", "new\n"):
        write_atomically(tmp_path / "x.md", text)
    assert [path.name for path in tmp_path.iterdir()] == ["x.md"]
    assert (tmp_path / "x.md").read_text() == "new\n"


def test_run_ids_differ_within_a_second() -> None:
    assert len({new_run_id() for _ in range(50)}) == 50
    assert len(NAMES) == 3


def test_either_all_files_are_replaced_or_none(tmp_path: Path) -> None:
    assert write_together(tmp_path, [("a", ["old"]), ("b", ["ol", "d"])]) == [tmp_path / "a", tmp_path / "b"]

    def pieces() -> Iterator[str]:
        yield "new"
        raise ValueError("a template that cannot be filled")

    with pytest.raises(ValueError, match="template"):
        write_together(tmp_path, [("a", ["new"]), ("b", pieces())])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old", "b": "old"}


def without_chain(run: StoredRun) -> Path:
    """Turn a run into one of an older version, which had no chain, and return its rows."""
    path = run.folder / "run.json"
    raw = msgspec.json.decode(path.read_bytes())
    del raw["seal"]
    path.write_bytes(msgspec.json.encode(raw | {"schema_version": 1}))
    rows = run.folder / "results.jsonl"
    lines = [msgspec.json.decode(line, type=Result) for line in rows.read_bytes().splitlines()]
    rows.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return rows


def test_damaged_lines_between_complete_ones_are_named_and_the_others_count(tmp_path: Path) -> None:
    run = store_run(tmp_path, mixed())
    path = without_chain(run)
    assert read_run(run.folder).integrity.verdict is Verdict.NOT_CHAINED
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join((lines[0], b"\n", b"{damaged}\n", *lines[1:])))
    found = read_run(run.folder)
    assert found.results == run.results
    [sentence] = found.integrity.refused
    assert sentence.startswith("results.jsonl:2: not a row: ")
    assert sentence.endswith(" (and 1 more row)")


def test_rows_keep_their_keys_in_a_stored_run(tmp_path: Path) -> None:
    """Names in the code have changed; runs that were stored before are still read."""
    run = store_run(tmp_path, [])
    without_chain(run)
    for file, row in {
        "results": {"topology": "direct", "check": "capture.insert", "status": "Not run", "reason": "why"},
        "trail": {
            "topology": "direct",
            "name": "capture-off",
            "what": "nothing is captured",
            "tried": 3,
            "turned": ["actor.many-clients", "capture.insert"],
            "stayed": ["capture.update"],
            "beside": ["actor.many-clients"],
        },
    }.items():
        (run.folder / f"{file}.jsonl").write_bytes(msgspec.json.encode(row) + b"\n")
    found = read_run(run.folder)
    assert [(row.target, row.check) for row in found.results] == [("direct", "capture.insert")]
    proof = found.trail_proofs[0]
    assert (proof.caught, proof.missed, proof.unexpected) == (
        ("actor.many-clients", "capture.insert"),
        ("capture.update",),
        ("actor.many-clients",),
    )
    assert not proof.exact
    assert msgspec.json.decode(msgspec.json.encode(proof)).keys() >= {"topology", "turned", "stayed", "beside"}
    assert msgspec.json.decode((run.folder / "run.json").read_bytes())["plan"][0]["topology"] == PLAN[0].target


def test_a_proof_keeps_the_expectations_that_did_not_hold(tmp_path: Path) -> None:
    broken = Expectation(name="rows", expected="1", observed="0", held=False)
    proof = Proof(
        topology="direct",
        check="capture.insert",
        control="capture-off",
        at="rows",
        proven=True,
        applicable=True,
        reason="",
        broken=(broken,),
    )
    store = RunStore(tmp_path, record(), Redactor())
    store.append_proof(proof)
    store.close()
    assert read_run(store.folder).proofs == (proof,)
    without_chain(read_run(store.folder))
    path = store.folder / "proofs.jsonl"
    stored_before = {key: value for key, value in msgspec.json.decode(path.read_bytes()).items() if key != "broken"}
    path.write_bytes(msgspec.json.encode(stored_before) + b"\n")
    assert read_run(store.folder).proofs[0].broken == ()


def test_a_file_that_cannot_be_written_has_a_hint_about_the_option_that_named_it(tmp_path: Path) -> None:
    for words, expected in (({}, "--reports DIR"), ({"instead": "another file"}, "name another file")):
        with pytest.raises(StoreError) as raised:
            write_atomically(tmp_path, "text", **words)
        assert raised.value.hint.endswith(expected)
    for name in ("", ".", "/"):
        with pytest.raises(StoreError, match="Is a directory"):
            write_atomically(Path(name), "text")
