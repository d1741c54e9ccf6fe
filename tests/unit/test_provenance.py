"""The commit of the harness itself: never that of a project that holds a copy of it."""

from __future__ import annotations

import subprocess
from importlib import metadata
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness import places, provenance
from harness.provenance import fingerprint, of_this_code

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def git(at: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=ada", "-c", "user.email=ada@example.org")
    done = subprocess.run(["git", *identity, "-C", str(at), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "one")
    return tmp_path


def installed(text: str | None) -> Callable[[str], SimpleNamespace]:
    """Return a look-up of distributions whose `direct_url.json` has this text."""
    return lambda _name: SimpleNamespace(version="0.1.0", read_text=lambda _file: text)


def test_a_checkout_has_its_own_commit(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SHIPPED", repository)
    found = provenance.provenance()
    assert (found.commit, found.dirty) == (git(repository, "rev-parse", "HEAD"), False)
    (repository / "new.py").write_text("1")
    assert provenance.provenance().dirty


def test_a_copy_within_another_repository_has_no_commit(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = repository / "vendor" / "harness"
    inside.mkdir(parents=True)
    monkeypatch.setattr(places, "SHIPPED", inside)
    monkeypatch.setattr(metadata, "distribution", installed(None))
    found = provenance.provenance()
    assert (found.commit, found.dirty) == ("", False)


@pytest.mark.parametrize(
    ("text", "commit"),
    [
        ('{"url": "https://example.org/h.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}', "c0ffee"),
        ('{"url": "file:///h", "dir_info": {}}', ""),
        ("not JSON", ""),
        ('{"vcs_info": {"commit_id": 1}}', ""),
        ("", ""),
    ],
)
def test_an_installation_from_a_repository_has_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, commit: str
) -> None:
    monkeypatch.setattr(places, "SHIPPED", tmp_path)
    monkeypatch.setattr(metadata, "distribution", installed(text))
    assert provenance.provenance().commit == commit


def test_evidence_is_of_this_code_whatever_python_it_ran_on() -> None:
    here = provenance.provenance()
    there = replace(here, python="3.99.1", psycopg="3.98", fingerprint=fingerprint("3.99.1", "3.98"))
    other = replace(there, fingerprint=here.fingerprint)
    assert there.fingerprint != here.fingerprint
    assert of_this_code([here, there, other]) == {here, there}
