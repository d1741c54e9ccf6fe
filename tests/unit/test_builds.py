"""Unfinished builds name their owner, and a failed build gives its cause in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from threading import Event, Thread

import msgspec
import pytest
from msgspec.structs import replace

from harness.engine import debian
from harness.engine.build_failures import build_failure
from harness.engine.builds import with_labels
from harness.engine.owner import Owner, process_started
from harness.errors import ImageUnavailableError
from harness.waiting import NotYet, poll
from tests.tables import each_row

DOCKERFILE = """\
# FROM a comment
ARG BASE
from ${BASE} AS first
RUN psql -c 'SELECT 1 \\
# FROM a comment between lines

  FROM pg_class'
FROM \\
  ${BASE}
COPY --from=first /a /b
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap needs root")


def test_only_the_stages_begin_with_the_labels() -> None:
    lines = with_labels(DOCKERFILE, {"a": "1", "b": "two"}).splitlines()
    label = 'LABEL a="1" b="two"'
    assert [lines[index - 1] for index, line in enumerate(lines) if line == label] == [
        "from ${BASE} AS first",
        "  ${BASE}",
    ]
    assert [line for line in lines if line != label] == DOCKERFILE.splitlines()


@each_row(
    ("printed", "reason"),
    [
        ("tar: root: Cannot write: No space left on device\nE: failed", "the disk is full"),
        ("Err:1 http://mirror Temporary failure resolving 'mirror'\nE: Unable to locate package", "no network"),
        ("E: Failed getting release file http://mirror/dists/trixie/Release", "no network"),
        ("Could not connect to proxy:3128 (10.0.0.1), connection timed out", "no network"),
        (
            "E: No such script: /usr/share/debootstrap/scripts/forky",
            "the installed debootstrap is older than the suite",
        ),
        (
            "E: Release file for http://mirror/dists/forky/InRelease is expired (invalid since 2d). Updates are off.",
            "the package index of the mirror is not valid at this machine's date",
        ),
        ("E: Release signed by unknown key (key id 78DBA3BC47EF2265)", "does not know the key that signs the suite"),
        (
            "http://m/dists/x/Release:\n2026-11-28 11:30:50 ERROR 404: Not Found.\nE: Failed getting release file http://m",
            "the mirror has no such suite",
        ),
        ("The command '/bin/sh -c false' returned a non-zero code: 1", "exit code 1"),
    ],
)
def test_a_failure_names_its_cause_in_one_sentence(printed: str, reason: str) -> None:
    error = build_failure("the build of a:1 failed", printed, otherwise="exit code 1")
    assert error.what.startswith("the build of a:1 failed: ")
    assert reason in error.what
    assert "\n" not in error.what
    assert error.detail == printed


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set a cache and a folder of programs for this test, and return the latter."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def debootstrap(programs: Path, script: str) -> None:
    path = programs / "debootstrap"
    path.write_text(f"#!/bin/sh\nset -e\n{script}\n")
    path.chmod(0o755)


#: its debootstraps are found by this name: tests of another process must not end them
RUN = f"build-{os.getpid()}"


def owner() -> Owner:
    return Owner.me(RUN)


@needs_root
def test_a_system_is_archived_without_manuals_and_caches(programs: Path, tmp_path: Path) -> None:
    debootstrap(programs, 'mkdir -p "$3/usr/share/doc/a" "$3/usr/bin"; echo "$@" > "$3/usr/bin/arguments"')
    with debian.bare_system("trixie", owner(), Event(), nullcontext()) as root:
        data = b"".join(debian.archive(root))
        arguments = (root / "usr/bin/arguments").read_text().split()
    assert arguments[0] == "--variant=minbase"
    listed = subprocess.run(["tar", "-t"], input=data, capture_output=True, check=True).stdout.decode().split()
    assert "./usr/bin/arguments" in listed
    assert "./etc/dpkg/dpkg.cfg.d/pooler-harness" in listed
    assert "./usr/share/doc/a/" not in listed
    assert list((tmp_path / "cache/pooler-harness/builds").iterdir()) == []


@needs_root
def test_a_suite_without_a_script_of_debootstrap_uses_the_script_of_sid(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = tmp_path / "debootstrap/scripts"
    scripts.mkdir(parents=True)
    for name in ("sid", "bookworm"):
        (scripts / name).touch()
    monkeypatch.setenv("DEBOOTSTRAP_DIR", str(scripts.parent))
    debootstrap(programs, 'echo "$@" > "$3/arguments"')
    seen = {}
    for suite in ("bookworm", "forky"):
        with debian.bare_system(suite, owner(), Event(), nullcontext()) as root:
            seen[suite] = (root / "arguments").read_text().split()[-1]
    assert seen["forky"] == "sid"
    assert seen["bookworm"].startswith("http")


@needs_root
def test_a_failed_debootstrap_gives_the_reason_and_leaves_no_files(programs: Path, tmp_path: Path) -> None:
    debootstrap(programs, "echo 'I: Retrieving'; echo 'E: Couldn'\\''t download packages: base'; exit 1")
    with (
        pytest.raises(
            ImageUnavailableError, match=r"could not make Debian trixie from http.*: Couldn't download"
        ) as caught,
        debian.bare_system("trixie", owner(), Event(), nullcontext()),
    ):
        pytest.fail("debootstrap failed, so no system exists")
    assert "I: Retrieving" in caught.value.detail
    assert list((tmp_path / "cache/pooler-harness/builds").iterdir()) == []


@needs_root
def test_a_cancelled_debootstrap_is_ended_and_leaves_no_files(programs: Path, tmp_path: Path) -> None:
    debootstrap(programs, 'echo $$ > "$3/pid"; while :; do (sleep 600 & true); /bin/true; done')
    cancelled, caught = Event(), []
    builds = tmp_path / "cache/pooler-harness/builds"

    def make() -> None:
        try:
            with debian.bare_system("trixie", owner(), cancelled, nullcontext()):
                pass
        except ImageUnavailableError as error:
            caught.append(error.what)

    thread = Thread(target=make)
    thread.start()
    pid = poll(lambda: _pid_in(builds), what="debootstrap to run", deadline_s=30)
    cancelled.set()
    thread.join(30)
    assert caught == ["the build of Debian trixie was interrupted; nothing was kept"]
    assert process_started(pid) is None
    assert list(builds.iterdir()) == []
    programs_left = [path for path in Path("/proc").glob("[0-9]*/environ") if str(tmp_path) in _text_of(path)]
    assert [path for path in programs_left if path.parent.name != str(os.getpid())] == []


def test_without_root_debootstrap_is_not_started(monkeypatch: pytest.MonkeyPatch, programs: Path) -> None:
    debootstrap(programs, "true")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with (
        pytest.raises(ImageUnavailableError, match="cannot be built: debootstrap needs root"),
        debian.bare_system("trixie", owner(), Event(), nullcontext()),
    ):
        pytest.fail("only root can make a system")


@needs_root
def test_leftovers_of_a_killed_debootstrap_are_reaped_with_their_mounts(programs: Path, tmp_path: Path) -> None:
    # a container without privileges refuses the mount; the rest of the test is valid there, too
    debootstrap(programs, 'mkdir -p "$3/proc"; mount -t tmpfs none "$3/proc" || true; echo $$ > "$3/pid"; sleep 600')
    script = (
        "from contextlib import nullcontext\nfrom threading import Event\n"
        "from harness.engine import debian\nfrom harness.engine.owner import Owner\n"
        f"with debian.bare_system('trixie', Owner.me('{RUN}'), Event(), nullcontext()): pass\n"
    )
    builds = tmp_path / "cache/pooler-harness/builds"
    with subprocess.Popen([sys.executable, "-c", script]) as process:

        def ready() -> None:
            if process.poll() is not None:
                pytest.fail(f"the exit code is {process.poll()}")
            _pid_in(builds)

        try:
            poll(ready, what="debootstrap to run", deadline_s=30)
            assert debian.reap() == []  # its owner is running
        finally:
            process.kill()
    pid = _pid_in(builds)
    assert process_started(pid)
    folder = builds / f"trixie-{RUN}"
    assert debian.reap() == [f"2 processes of debootstrap in {folder}", f"folder {folder}"]
    assert process_started(pid) is None
    assert list(builds.iterdir()) == []
    assert str(builds) not in Path("/proc/self/mountinfo").read_text()


def test_a_folder_of_another_host_is_kept(programs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache/pooler-harness/builds/trixie-elsewhere"
    folder.mkdir(parents=True)
    (folder / "owner.json").write_bytes(msgspec.json.encode(replace(owner(), host="another/host", pid=1)))
    assert debian.reap() == []
    assert folder.exists()


def _pid_in(builds: Path) -> int:
    for path in builds.glob("*/root/pid"):
        if text := path.read_text():
            return int(text)
    raise NotYet("debootstrap is not running")


def _text_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # the process ended
        return ""


def test_a_quoted_step_is_shortened_in_the_reason() -> None:
    quoted = 'building at STEP "RUN ' + "apt-get install x && " * 100 + '": while running runtime: exit status 1'
    error = build_failure("the build of a:1 failed", quoted, otherwise=quoted)
    assert error.what.startswith('the build of a:1 failed: building at STEP "RUN apt-get')
    assert error.what.endswith("while running runtime: exit status 1")
    assert len(error.what) < 300


@pytest.mark.parametrize(("age_s", "reaped"), [(3600, True), (1, False)], ids=["old", "new"])
def test_a_folder_whose_build_was_killed_before_it_named_its_owner_is_reaped(
    age_s: int, reaped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian, "_builds", lambda: tmp_path)
    folder, other = tmp_path / "trixie-build-1", tmp_path / "somebody-elses"
    for made in (folder, other):
        made.mkdir()
    (other / "file").touch()
    for made in (folder, other):
        os.utime(made, (time.time() - age_s,) * 2)
    assert debian.reap() == ([f"folder {folder}"] if reaped else [])
    assert folder.exists() != reaped
    assert other.exists()
