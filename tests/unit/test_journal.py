"""The journal of writes in environments: a note exists exactly from before a write until after its cleanup."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from harness import places
from harness.host.journal import Journal, Note, Write, abandoned
from harness.host.leftovers import about, described

ROWS = Write(kind="rows", name="public.canary", column="note", mark="harness-0123456789ab")
TABLE = Write(kind="table", name="scratch.harness_canary_01234567", grantee="app")
PATH = Write(kind="path", name="new-post", mark="h0123", values={"unique": "h0123", "post_id": 7}, jobs=(3, 4))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def files(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.rglob("*.json"))


def killed(environment: str, place: str, *writes: Write) -> None:
    """Make the notes of a process that has ended."""
    script = (
        "import sys\n"
        "from msgspec import json\n"
        "from harness.host.journal import Journal, Write\n"
        "journal = Journal(sys.argv[1], sys.argv[2], 'run-1')\n"
        "for text in sys.argv[3:]:\n"
        "    journal.begin(json.decode(text, type=Write))\n"
    )
    texts = [msgspec.json.encode(write).decode() for write in writes]
    given = {**os.environ, "PYTHONPATH": str(places.SHIPPED)}
    subprocess.run([sys.executable, "-c", script, environment, place, *texts], env=given, check=True)


@pytest.mark.parametrize("write", [ROWS, TABLE, PATH], ids=["rows", "table", "path"])
def test_a_write_is_noted_until_it_is_cleaned_up(write: Write, tmp_path: Path) -> None:
    journal = Journal("staging", "here", "run-1")
    journal.begin(write)
    journal.begin(write)  # with more values
    [file] = files(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert journal.abandoned() == []  # its owner is running
    assert journal.marks(write.kind) == {write.mark or write.name}
    journal.end(write.kind, write.name, write.mark)
    assert files(tmp_path) == []


def test_the_notes_of_an_ended_process_are_found_where_it_wrote(tmp_path: Path) -> None:
    killed("staging", "here", ROWS, TABLE, PATH)
    assert [write for _, write in Journal("staging", "here", "run-2").abandoned()].count(PATH) == 1
    assert len(Journal("staging", "here", "run-2").abandoned()) == 3
    assert Journal("staging", "elsewhere", "run-2").abandoned() == []  # another project's staging
    assert Journal("prod", "here", "run-2").abandoned() == []
    assert len(abandoned()) == 3


def test_a_damaged_note_is_ignored(tmp_path: Path) -> None:
    killed("staging", "here", ROWS)
    [file] = files(tmp_path)
    file.write_text("{")
    assert abandoned() == []


def test_a_folder_that_cannot_be_written_to_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / "pooler-harness").mkdir()
    (tmp_path / "pooler-harness" / "environments").write_text("a file in place of the folder")
    journal = Journal("staging", "here", "run-1")
    journal.begin(ROWS)
    journal.end("rows", ROWS.name, ROWS.mark)
    assert abandoned() == []


@pytest.mark.parametrize(
    ("write", "statement"),
    [
        (ROWS, """DELETE FROM "public"."canary" WHERE starts_with("note", 'harness-0123456789ab');"""),
        (
            TABLE,
            'DROP TABLE IF EXISTS "scratch"."harness_canary_01234567"; REVOKE USAGE ON SCHEMA "scratch" FROM "app";',
        ),
        (PATH, "rows of the path new-post that hold h0123 and the jobs 3, 4"),
    ],
    ids=["rows", "table", "path"],
)
def test_a_leftover_is_named_with_the_sql_that_removes_it(write: Write, statement: str) -> None:
    killed("staging", "here", write)
    [(_, note)] = abandoned()
    assert isinstance(note, Note)
    assert statement in described(write)
    assert about(note).startswith(f"environment staging of {Path.cwd()}: the killed run run-1 left ")
    assert "`verify --environment staging` there clears it" in about(note)


def test_a_note_of_an_earlier_version_names_no_project() -> None:
    killed("staging", "here", ROWS)
    [(path, note)] = abandoned()
    earlier = {name: value for name, value in msgspec.to_builtins(note).items() if name != "project"}
    path.write_bytes(msgspec.json.encode(earlier))
    [(_, note)] = abandoned()
    assert about(note).startswith("environment staging: the killed run run-1 left ")
    assert "`verify --environment staging` in its project clears it" in about(note)
