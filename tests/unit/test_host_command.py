"""Running a command: its exit code, its output, its environment variables, and ending it with its children."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.database import Endpoint
from harness.errors import UsageError
from harness.host import command
from harness.host.command import CommandResult, run, url, variables
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CHAIN = Endpoint(host="127.0.0.1", port=6432, user="owner", password="p@ss/w:rd%", dbname="shop")
DIRECT = Endpoint(host="127.0.0.1", port=5432, user="owner", password="p@ss/w:rd%", dbname="shop")
#: writes its pid to a file, ignores SIGTERM, and waits
STUBBORN = """
import os, pathlib, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
signal.pause()
"""
#: starts a stubborn process, waits for its pid, and then runs the code appended to it
PARENT = """
import pathlib, subprocess, sys, time
at = pathlib.Path(sys.argv[1])
subprocess.Popen([sys.executable, "-c", sys.argv[2], str(at)])
while not (at.exists() and at.read_text()):
    time.sleep(0.01)
"""


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time between SIGTERM and SIGKILL, which lets a real test suite clean up."""
    monkeypatch.setattr("harness.host.command.GRACE_S", 0.2)


def never() -> bool:
    return False


def ignore(_line: str) -> None:
    pass


def python(
    program: str,
    *arguments: str,
    folder: Path = Path("/"),
    given: Mapping[str, str] | None = None,
    deadline_s: float = 60.0,
    say: Callable[[str], None] = ignore,
    stopped: Callable[[], bool] = never,
) -> CommandResult:
    return run(
        [sys.executable, "-c", program, *arguments],
        folder=folder,
        given=given or {},
        deadline_s=deadline_s,
        say=say,
        stopped=stopped,
    )


def pid_in(path: Path) -> int:
    def probe() -> int:
        if not (path.exists() and (text := path.read_text())):
            raise NotYet("the file is empty")
        return int(text)

    return poll(probe, what="the process to write its pid", deadline_s=20)


def has_begun(path: Path) -> bool:
    return path.exists() and bool(path.read_text())


def wait_gone(pid: int) -> None:
    """Wait until a process has ended. A zombie counts: its parent has not read its exit code yet."""

    def probe() -> None:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state != "Z":
            raise NotYet(f"it runs, in state {state}")

    poll(probe, what=f"process {pid} to be gone", deadline_s=10)


# --- exit code and output -------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 3, 127, 255])
def test_the_exit_code_is_that_of_the_command(code: int) -> None:
    ended = python(f"raise SystemExit({code})")
    assert (ended.exit_code, ended.reason, ended.output) == (code, "", "")
    assert 0 <= ended.seconds < 60


def test_a_signal_gives_a_negative_exit_code() -> None:
    ended = python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert (ended.exit_code, ended.reason) == (-9, "")


def test_stdout_and_stderr_arrive_in_order() -> None:
    lines: list[str] = []
    program = """
import sys
for n in range(50):
    print(f"out {n}", flush=True)
    print(f"err {n}", file=sys.stderr, flush=True)
print("no end of line", end="")
"""
    ended = python(program, say=lines.append)
    expected = [f"{stream} {n}\n" for n in range(50) for stream in ("out", "err")]
    assert lines == [*expected, "no end of line"]
    assert ended.output == "".join(lines)


def test_output_that_is_not_text_is_kept() -> None:
    ended = python(r"import sys; sys.stdout.buffer.write(b'\xff\xfe\x00 whole \x80\n' + bytes(range(256)))")
    assert ended.exit_code == 0
    assert " whole " in ended.output
    ended.output.encode()  # can be stored as UTF-8


def test_every_line_is_reported_and_the_last_ones_are_kept() -> None:
    lines: list[str] = []
    ended = python("for n in range(20_000): print(n)", say=lines.append)
    assert ended.exit_code == 0
    assert len(lines) == 20_000
    assert ended.output.splitlines() == [str(n) for n in range(18_000, 20_000)]


def test_stdin_is_empty() -> None:
    assert python("import sys; print(repr(sys.stdin.read()))").output == "''\n"


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), UnicodeEncodeError("ascii", "é", 0, 1, "no")])
def test_a_failing_listener_does_not_block_the_command(error: Exception) -> None:
    """For example a pager that the user left, or a terminal that cannot show a character."""

    def fail(_line: str) -> None:
        raise error

    # more than a pipe holds
    ended = python("for n in range(30_000): print(n)", say=fail)
    assert (ended.exit_code, ended.reason) == (0, "")
    assert ended.output.endswith("29999\n")


# --- environment variables ------------------------------------------------------------------------------------

PRINT_VARIABLES = """
import json, os
prefixes = ("PG", "DB_", "DATABASE_", "DIRECT_", "KEPT_")
print(json.dumps({name: value for name, value in os.environ.items() if name.startswith(prefixes)}))
"""


def printed(ended: CommandResult) -> dict[str, str]:
    variables_seen: dict[str, str] = json.loads(ended.output)
    return variables_seen


def test_a_command_gets_the_address_of_the_chain_and_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "of-the-shell")
    monkeypatch.setenv("DATABASE_URL", "postgresql://of-the-shell")
    monkeypatch.setenv("KEPT_FROM_THE_SHELL", "kept")
    found = printed(python(PRINT_VARIABLES, given=variables(CHAIN, DIRECT)))
    assert found["KEPT_FROM_THE_SHELL"] == "kept"
    for prefix, port in (("", "6432"), ("DIRECT_", "5432")):
        same = {f"{prefix}{name}": "127.0.0.1" for name in ("PGHOST", "DB_HOST")}
        same |= {f"{prefix}{name}": port for name in ("PGPORT", "DB_PORT")}
        same |= {f"{prefix}{name}": "owner" for name in ("PGUSER", "DB_USER", "DB_USERNAME")}
        same |= {f"{prefix}{name}": "p@ss/w:rd%" for name in ("PGPASSWORD", "DB_PASSWORD")}
        same |= {f"{prefix}{name}": "shop" for name in ("PGDATABASE", "DB_NAME", "DB_DATABASE")}
        assert same.items() <= found.items()
        parts = urlsplit(found[f"{prefix}DATABASE_URL"])
        assert (parts.scheme, parts.hostname, str(parts.port), parts.path) == ("postgresql", "127.0.0.1", port, "/shop")
        assert unquote(parts.password or "") == "p@ss/w:rd%"
    assert found["DIRECT_URL"] == found["DIRECT_DATABASE_URL"]


LEADS_ELSEWHERE = (
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGHOSTADDR",
    "PGPASSFILE",
    "PGOPTIONS",
    "PGSSLMODE",
    "PGCHANNELBINDING",
)


def test_variables_that_lead_to_another_server_are_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LEADS_ELSEWHERE:
        monkeypatch.setenv(name, "of-the-shell")
    assert not printed(python(PRINT_VARIABLES, given=variables(CHAIN, DIRECT))).keys() & set(LEADS_ELSEWHERE)
    assert {os.environ[name] for name in LEADS_ELSEWHERE} == {"of-the-shell"}
    own = dict.fromkeys(LEADS_ELSEWHERE, "given")
    assert own.items() <= printed(python(PRINT_VARIABLES, given=own)).items()


PREVENT_CONNECTING = ("PGTARGETSESSIONATTRS", "PGREQUIREAUTH", "PGGSSENCMODE", "PGSSLNEGOTIATION", "PGSSLROOTCERT")
OF_OTHER_PROGRAMS = ("PGVERSION", "PGQUEUER_PREFIX", "PGDATA", "PG_COLOR", "PGBOUNCER_URL")


def test_of_other_variables_those_that_prevent_connecting_are_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PREVENT_CONNECTING, *OF_OTHER_PROGRAMS):
        monkeypatch.setenv(name, "of-the-shell")
    found = printed(python(PRINT_VARIABLES, given=variables(CHAIN, DIRECT)))
    assert not found.keys() & set(PREVENT_CONNECTING)
    assert dict.fromkeys(OF_OTHER_PROGRAMS, "of-the-shell").items() <= found.items()


def test_an_ipv6_address_is_bracketed_in_a_url() -> None:
    at = Endpoint(host="::1", port=5432, user="a b", password="", dbname="shop")
    assert url(at) == "postgresql://a%20b:@[::1]:5432/shop"


def test_a_command_runs_in_its_folder(tmp_path: Path) -> None:
    assert python("import os; print(os.getcwd())", folder=tmp_path).output == f"{tmp_path.resolve()}\n"


# --- commands and folders that do not exist -------------------------------------------------------------------


def test_an_unknown_command_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        run(["no-such-command-here"], folder=Path("/"), given={}, deadline_s=5, say=ignore, stopped=never)
    assert caught.value.what == "command 'no-such-command-here' not found"
    assert "PATH" in caught.value.hint


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        python("", folder=tmp_path / "nowhere")
    assert caught.value.what == f"folder {tmp_path / 'nowhere'} does not exist"


def test_a_file_that_is_not_executable_is_named(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    with pytest.raises(UsageError) as caught:
        run([str(script)], folder=tmp_path, given={}, deadline_s=5, say=ignore, stopped=never)
    assert caught.value.what == f"command {str(script)!r} cannot be started: Permission denied"


@pytest.mark.parametrize(("argument", "given"), [("a\0b", {}), ("a", {"NAME": "a\0b"})])
def test_a_character_that_no_command_can_hold_is_named(tmp_path: Path, argument: str, given: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        run(["true", argument], folder=tmp_path, given=given, deadline_s=5, say=ignore, stopped=never)
    assert caught.value.what == "command 'true' cannot be started: embedded null byte"


@pytest.mark.parametrize("folder", ["a-file", "a-file/below"])
def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path, folder: str) -> None:
    (tmp_path / "a-file").write_text("")
    with pytest.raises(UsageError) as caught:
        python("", folder=tmp_path / folder)
    assert caught.value.what == f"folder {tmp_path / folder} does not exist"


# --- ending a command -----------------------------------------------------------------------------------------


def test_the_deadline_ends_a_command_and_keeps_its_output() -> None:
    slow = ["sh", "-c", "echo begun; exec sleep 60"]
    ended = run(slow, folder=Path("/"), given={}, deadline_s=1.0, say=ignore, stopped=never)
    assert (ended.exit_code, ended.reason) == (None, "did not end within 1 s, so SIGTERM ended it")
    assert ended.output == "begun\n"
    assert ended.seconds < 60


def test_a_command_gets_sigterm_first() -> None:
    program = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: (print("cleaned up", flush=True), sys.exit(0)))
print("begun", flush=True)
while True: signal.pause()
"""
    lines: list[str] = []
    ended = python(program, say=lines.append, stopped=lambda: "begun\n" in lines)
    assert ended.output == "begun\ncleaned up\n"
    assert ended.exit_code is None


@pytest.mark.usefixtures("short_grace")
def test_a_command_that_ignores_sigterm_gets_sigkill(tmp_path: Path) -> None:
    at = tmp_path / "pid"
    ended = python(STUBBORN, str(at), stopped=lambda: has_begun(at))
    wait_gone(pid_in(at))
    assert (ended.exit_code, ended.reason) == (None, "stopped with the run, so SIGTERM and SIGKILL ended it")


def test_a_command_is_stopped_with_the_run(tmp_path: Path) -> None:
    at = tmp_path / "pid"
    program = STUBBORN.replace("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "")
    ended = python(program, str(at), stopped=at.exists)
    wait_gone(pid_in(at))
    assert (ended.exit_code, ended.reason) == (None, "stopped with the run, so SIGTERM ended it")


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize(
    ("then", "exit_code"), [("raise SystemExit(4)", 4), ("import signal; signal.pause()", None)], ids=["ended", "late"]
)
def test_child_processes_that_ignore_sigterm_are_ended_too(tmp_path: Path, then: str, exit_code: int | None) -> None:
    at = tmp_path / "pid"
    ended = python(PARENT + then, str(at), STUBBORN, stopped=lambda: exit_code is None and has_begun(at))
    wait_gone(pid_in(at))
    assert ended.exit_code == exit_code


@pytest.mark.usefixtures("short_grace")
def test_an_interrupt_of_the_harness_ends_the_command(tmp_path: Path) -> None:
    at = tmp_path / "pid"

    def interrupted() -> bool:
        if at.exists():
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        python(PARENT + "import signal; signal.pause()", str(at), STUBBORN, stopped=interrupted)
    wait_gone(pid_in(at))


HARNESS = """
import sys
from pathlib import Path
from harness.host.command import run
run([sys.executable, "-c", *sys.argv[1:]], folder=Path("/"), given={}, deadline_s=60, say=print, stopped=lambda: False)
"""


#: starts a stubborn process in a session of its own; `double` also ends the process between
DETACHED = {
    "own session": PARENT.replace("str(at)])", "str(at)], start_new_session=True)"),
    "orphan": PARENT.replace(
        "subprocess.Popen([sys.executable, ",
        "subprocess.run(['/bin/sh', '-c', 'setsid \"$@\" >/dev/null 2>&1 &', 'sh', sys.executable, ",
    ),
}


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("start", DETACHED.values(), ids=list(DETACHED))
@pytest.mark.parametrize(
    ("then", "exit_code"), [("print('done', flush=True)", 0), ("import signal; signal.pause()", None)]
)
def test_a_process_in_a_session_of_its_own_is_ended_and_named(
    tmp_path: Path, start: str, then: str, exit_code: int | None
) -> None:
    at = tmp_path / "pid"
    ended = python(start + then, str(at), STUBBORN, stopped=lambda: exit_code is None and has_begun(at))
    wait_gone(pid_in(at))
    assert ended.exit_code == exit_code
    assert ended.left_behind == (f"{Path(sys.executable).name} (process {pid_in(at)})",)


@pytest.mark.usefixtures("short_grace")
def test_a_process_without_the_mark_is_ended_while_its_parent_runs(tmp_path: Path) -> None:
    at = tmp_path / "pid"
    start = PARENT.replace("str(at)])", "str(at)], start_new_session=True, env={})")
    ended = python(f"{start}import signal; signal.pause()", str(at), STUBBORN, stopped=lambda: has_begun(at))
    wait_gone(pid_in(at))
    assert len(ended.left_behind) == 1


def test_processes_of_others_are_not_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) as other:
        assert python("print('done')").left_behind == ()
        assert other.poll() is None
        other.communicate("\n")
    assert other.returncode == 0


def test_killing_the_harness_ends_the_command_and_its_child_processes(tmp_path: Path) -> None:
    """Those that ignore SIGTERM, too, in the session of the command and in one of their own."""
    then = "import os, signal; (at.parent / 'own').write_text(str(os.getpid())); signal.pause()"
    pids, folders = [], [tmp_path / "in-its-session", tmp_path / "in-another-session"]
    with contextlib.ExitStack() as stack:
        started = []
        for folder, start in zip(folders, (PARENT, DETACHED["orphan"]), strict=True):
            folder.mkdir()
            arguments = [sys.executable, "-c", HARNESS, start + then, str(folder / "pid"), STUBBORN]
            started.append(stack.enter_context(subprocess.Popen(arguments)))
        for harness, folder in zip(started, folders, strict=True):
            pids += [pid_in(folder / "pid"), pid_in(folder / "own")]
            harness.kill()
    for pid in pids:
        wait_gone(pid)


@given(st.lists(st.text("ab \n", min_size=1, max_size=30), max_size=60))
def test_the_end_of_an_output_is_kept_and_begins_with_no_part_of_a_word(pieces: list[str]) -> None:
    whole = "".join(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "_KEPT_CHARACTERS", 100)
        kept = command._Tail()
        for piece in pieces:
            kept.add(piece)
    text = kept.text.removeprefix("… ")
    assert whole.endswith(text) or text == "\n"
    assert len(text) <= 100
    if text not in {kept.text, "\n"}:
        assert whole[-len(text) - 1].isspace()
    if len(whole) <= 100:
        assert text == whole
