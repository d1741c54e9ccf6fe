from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest

from harness.database import Endpoint
from harness.errors import UsageError
from harness.host.command import Ended, run, url, variables
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CHAIN = Endpoint(host="127.0.0.1", port=6432, user="owner", password="p@ss/w:rd%", dbname="shop")
DIRECT = Endpoint(host="127.0.0.1", port=5432, user="owner", password="p@ss/w:rd%", dbname="shop")
#: says that it is there, ignores being asked to end, and waits
STUBBORN = """
import os, pathlib, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
signal.pause()
"""
#: starts a stubborn one, waits until it is there, then does what it is told
PARENT = """
import pathlib, subprocess, sys, time
at = pathlib.Path(sys.argv[1])
subprocess.Popen([sys.executable, "-c", sys.argv[2], str(at)])
while not (at.exists() and at.read_text()):
    time.sleep(0.01)
"""


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ignores being asked is waited for; here not as long as somebody's test suite may need to put away."""
    monkeypatch.setattr("harness.host.command._GRACE_S", 0.5)


def never() -> bool:
    return False


def unheard(_line: str) -> None:
    pass


def python(
    program: str,
    *arguments: str,
    folder: Path = Path("/"),
    given: Mapping[str, str] | None = None,
    deadline_s: float = 60.0,
    say: Callable[[str], None] = unheard,
    stopped: Callable[[], bool] = never,
) -> Ended:
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
        if not (path.exists() and (told := path.read_text())):
            raise NotYet("nobody wrote it")
        return int(told)

    return poll(probe, what="the process to say who it is", deadline_s=20)


def wait_gone(pid: int) -> None:
    """Wait until a process is not there, or is but a name that nobody has asked about."""

    def probe() -> None:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state != "Z":
            raise NotYet(f"it is there, in state {state}")

    poll(probe, what=f"process {pid} to be gone", deadline_s=10)


# --- how it ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 3, 127, 255])
def test_the_exit_code_is_that_of_the_command(code: int) -> None:
    ended = python(f"raise SystemExit({code})")
    assert (ended.exit_code, ended.reason, ended.output) == (code, "", "")
    assert 0 <= ended.seconds < 60


def test_a_command_that_is_ended_by_a_signal_has_not_succeeded() -> None:
    ended = python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert (ended.exit_code, ended.reason) == (-9, "")


def test_what_it_says_comes_in_its_order_from_both_streams() -> None:
    heard: list[str] = []
    program = """
import sys
for n in range(50):
    print(f"out {n}", flush=True)
    print(f"err {n}", file=sys.stderr, flush=True)
print("no end of line", end="")
"""
    ended = python(program, say=heard.append)
    lines = [f"{stream} {n}\n" for n in range(50) for stream in ("out", "err")]
    assert heard == [*lines, "no end of line"]
    assert ended.output == "".join(heard)


def test_what_is_no_text_is_said_all_the_same() -> None:
    ended = python(r"import sys; sys.stdout.buffer.write(b'\xff\xfe\x00 whole \x80\n' + bytes(range(256)))")
    assert ended.exit_code == 0
    assert " whole " in ended.output
    ended.output.encode()  # it can be kept


def test_much_output_is_heard_whole_and_its_end_is_kept() -> None:
    heard: list[str] = []
    ended = python("for n in range(100_000): print(n)", say=heard.append)
    assert ended.exit_code == 0
    assert len(heard) == 100_000
    assert ended.output.splitlines() == [str(n) for n in range(98_000, 100_000)]


def test_there_is_nothing_to_read_from() -> None:
    assert python("import sys; print(repr(sys.stdin.read()))").output == "''\n"


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), UnicodeEncodeError("ascii", "é", 0, 1, "no")])
def test_a_listener_that_has_gone_does_not_hold_the_command_up(error: Exception) -> None:
    """As when its output goes into a pager that is left, or to a terminal that has no such character."""

    def leaves(_line: str) -> None:
        raise error

    ended = python("for n in range(100_000): print(n)", say=leaves, deadline_s=5)
    assert (ended.exit_code, ended.reason) == (0, "")
    assert ended.output.endswith("99999\n")


# --- what it is given ---------------------------------------------------------------------------------------

TELL = """
import json, os
prefixes = ("PG", "DB_", "DATABASE_", "DIRECT_", "KEPT_")
print(json.dumps({name: value for name, value in os.environ.items() if name.startswith(prefixes)}))
"""


def told(ended: Ended) -> dict[str, str]:
    found: dict[str, str] = json.loads(ended.output)
    return found


def test_it_finds_the_chain_and_the_server_past_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "of-the-shell")
    monkeypatch.setenv("DATABASE_URL", "postgresql://of-the-shell")
    monkeypatch.setenv("KEPT_FROM_THE_SHELL", "kept")
    found = told(python(TELL, given=variables(CHAIN, DIRECT)))
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


@pytest.mark.parametrize("name", LEADS_ELSEWHERE)
def test_what_would_lead_it_elsewhere_is_not_inherited(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "of-the-shell")
    assert name not in told(python(TELL, given=variables(CHAIN, DIRECT)))
    assert os.environ[name] == "of-the-shell"
    assert told(python(TELL, given={name: "given"}))[name] == "given"


@pytest.mark.parametrize(
    "name", ["PGTARGETSESSIONATTRS", "PGREQUIREAUTH", "PGGSSENCMODE", "PGSSLNEGOTIATION", "PGSSLROOTCERT"]
)
def test_what_would_keep_it_from_connecting_is_not_inherited(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "of-the-shell")
    assert name not in told(python(TELL, given=variables(CHAIN, DIRECT)))


def test_an_address_of_version_six_is_spelt_as_urls_spell_it() -> None:
    at = Endpoint(host="::1", port=5432, user="a b", password="", dbname="shop")
    assert url(at) == "postgresql://a%20b:@[::1]:5432/shop"


def test_it_runs_where_it_is_told_to(tmp_path: Path) -> None:
    assert python("import os; print(os.getcwd())", folder=tmp_path).output == f"{tmp_path.resolve()}\n"


# --- what is not there --------------------------------------------------------------------------------------


def test_a_command_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        run(["no-such-command-here"], folder=Path("/"), given={}, deadline_s=5, say=unheard, stopped=never)
    assert caught.value.what == "there is no command 'no-such-command-here'"
    assert "PATH" in caught.value.hint


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        python("", folder=tmp_path / "nowhere")
    assert caught.value.what == f"there is no folder {tmp_path / 'nowhere'}"


def test_what_cannot_be_run_is_named(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    with pytest.raises(UsageError) as caught:
        run([str(script)], folder=tmp_path, given={}, deadline_s=5, say=unheard, stopped=never)
    assert caught.value.what == f"{str(script)!r} cannot be run: Permission denied"


@pytest.mark.parametrize("folder", ["a-file", "a-file/below"])
def test_a_file_is_no_folder(tmp_path: Path, folder: str) -> None:
    (tmp_path / "a-file").write_text("")
    with pytest.raises(UsageError) as caught:
        python("", folder=tmp_path / folder)
    assert caught.value.what == f"there is no folder {tmp_path / folder}"


# --- being ended --------------------------------------------------------------------------------------------


def test_the_deadline_ends_it_and_keeps_what_it_said() -> None:
    ended = python("import signal; print('begun', flush=True); signal.pause()", deadline_s=1.0)
    assert (ended.exit_code, ended.reason) == (None, "it did not end within 1 s")
    assert ended.output == "begun\n"
    assert ended.seconds < 5


def test_it_is_asked_before_it_is_made_to_end() -> None:
    program = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: (print("put away", flush=True), sys.exit(0)))
print("begun", flush=True)
while True: signal.pause()
"""
    ended = python(program, deadline_s=1.0)
    assert ended.output == "begun\nput away\n"
    assert ended.exit_code is None


@pytest.mark.usefixtures("short_grace")
def test_a_command_that_ignores_being_asked_is_made_to_end(tmp_path: Path) -> None:
    at = tmp_path / "pid"
    ended = python(STUBBORN, str(at), deadline_s=1.0)
    wait_gone(pid_in(at))
    assert (ended.exit_code, ended.reason) == (None, "it did not end within 1 s")
    assert ended.seconds < 10


def test_it_is_stopped_with_the_run(tmp_path: Path) -> None:
    at = tmp_path / "pid"
    program = STUBBORN.replace("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "")
    ended = python(program, str(at), stopped=at.exists)
    wait_gone(pid_in(at))
    assert (ended.exit_code, ended.reason) == (None, "it was stopped with the run")


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize(
    ("then", "exit_code"), [("raise SystemExit(4)", 4), ("import signal; signal.pause()", None)], ids=["ended", "late"]
)
def test_what_it_started_and_what_ignores_being_asked_is_gone_afterwards(
    tmp_path: Path, then: str, exit_code: int | None
) -> None:
    at = tmp_path / "pid"
    ended = python(PARENT + then, str(at), STUBBORN, deadline_s=3.0)
    wait_gone(pid_in(at))
    assert ended.exit_code == exit_code


@pytest.mark.usefixtures("short_grace")
def test_an_interrupt_of_the_harness_ends_it_too(tmp_path: Path) -> None:
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


def test_a_harness_that_is_killed_takes_it_along(tmp_path: Path) -> None:
    """With all that it started, and though it ignores being asked."""
    at = tmp_path / "pid"
    then = "(at.parent / 'own').write_text(str(os.getpid())); import signal; signal.pause()"
    with subprocess.Popen([sys.executable, "-c", HARNESS, f"import os{PARENT}{then}", str(at), STUBBORN]) as harness:
        pids = [pid_in(at), pid_in(tmp_path / "own")]
        harness.kill()
    for pid in pids:
        wait_gone(pid)


@pytest.mark.usefixtures("short_grace")
def test_what_left_for_a_session_of_its_own_does_not_hold_it_up(tmp_path: Path) -> None:
    """A daemon that the command starts keeps its output open; that is waited for a moment, and no longer."""
    at = tmp_path / "pid"
    apart = PARENT.replace("str(at)])", "str(at)], start_new_session=True)")
    ended = python(apart + "print('done', flush=True)", str(at), STUBBORN)
    try:
        assert (ended.exit_code, ended.output) == (0, "done\n")
        assert ended.seconds < 20
    finally:
        os.kill(pid_in(at), 9)
