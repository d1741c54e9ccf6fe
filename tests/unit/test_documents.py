"""Commands that need no server: filling and judging a team's document, and deciding on a workflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.cli.main import main
from harness.report.building import build_report
from harness.report.merging import merge
from harness.report.render import fragments
from harness.report.splice import NAMES

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT = """# Adoption\r
\r
What we think of it.\r
\r
<!-- pooler-harness: stg-02 -->\r
<!-- pooler-harness: end -->\r
\r
The end, without a line break"""

WORKFLOW = """
[[workflows]]
name = "publishing"
release = "0.1.0"
checks = ["actor"]

[[readiness]]
area = "attribution"
checks = ["actor"]
host_responsibility = "set the actor in the transaction of the write"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_tables_are_spliced_between_their_markers_and_nothing_else_changes(folder: Path) -> None:
    document = folder / "adoption.md"
    document.write_bytes(DOCUMENT.encode())
    assert main(["report", "--into", "adoption.md", "--check"]) == 1
    assert document.read_bytes() == DOCUMENT.encode()
    assert not (folder / "reports" / "report.md").exists()
    main(["report", "--into", "adoption.md"])
    filled = document.read_bytes()
    assert filled.startswith(DOCUMENT.encode()[:60])
    assert filled.endswith(b"The end, without a line break")
    assert b"| Not run |" in filled
    assert b"\r\n" in filled
    assert filled.count(b"\n") == filled.count(b"\r\n")
    assert main(["report", "--into", "adoption.md", "--check"]) == 0
    main(["report", "--into", "adoption.md"])
    assert document.read_bytes() == filled


def test_a_filled_document_passes_the_linter(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = folder / "adoption.md"
    names = ("stg-01", "stg-02", "checklist", "issues")
    document.write_text("\n".join(f"<!-- pooler-harness: {name} -->\n<!-- pooler-harness: end -->\n" for name in names))
    main(["report", "--into", "adoption.md"])
    capsys.readouterr()
    code = main(["lint", "adoption.md"])
    assert code == 0, capsys.readouterr().out


def test_every_table_has_a_marker(tmp_path: Path) -> None:
    assert set(fragments(build_report(merge([], []), tmp_path))) == set(NAMES)


def test_the_error_about_a_document_without_markers_shows_a_marker(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "adoption.md").write_text("nothing here")
    assert main(["report", "--into", "adoption.md"]) == 2
    assert "<!-- pooler-harness: stg-01 -->" in capsys.readouterr().err
    assert main(["report", "--check"]) == 2


def test_a_workflow_without_evidence_is_not_ready(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "harness.toml").write_text(WORKFLOW)
    assert main(["decide"]) == 1
    output = capsys.readouterr().out
    assert output.startswith("publishing on 0.1.0: not yet\n")
    assert output.count("missing") >= 3
    assert main(["decide", "publising"]) == 2
    assert "did you mean publishing?" in capsys.readouterr().err


def test_an_unknown_name_in_the_configuration_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "harness.toml").write_text(WORKFLOW.replace('checks = ["actor"]', 'checks = ["actr"]'))
    assert main(["decide"]) == 2
    assert "did you mean actor" in capsys.readouterr().err


def test_deciding_without_a_declared_workflow_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decide"]) == 2
    assert "[[workflows]]" in capsys.readouterr().err
