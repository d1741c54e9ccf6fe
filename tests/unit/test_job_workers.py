"""Workers as processes: ended in every state, within a bounded time, with a bounded output, and restarted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engine.owner import process_started
from harness.engine.processes import is_stopped
from harness.errors import ServiceFailedError, UsageError
from harness.job_engines.sqlstates import sqlstates_in
from harness.job_engines.worker_output import KEPT_LINES, LONGEST_LINE, WorkerOutput
from harness.job_engines.workers import Supervisor, Worker
from harness.redaction import MASK, Redactor
from harness.waiting import NotYet, poll
from tests.tables import each_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: restarts in these tests
RESTARTS = 2
#: bytes that a worker prints which does not stop to print: many times what is kept
PRINTED = 2_000_000
SECRET = "correct-horse-battery"


def ignore(_line: str) -> None:
    pass


def unchanged(text: str) -> str:
    return text


def until(condition: Callable[[], object], what: str) -> None:
    def probe() -> None:
        if not condition():
            raise NotYet("not so")

    poll(probe, what=what, deadline_s=30)


class Workshop:
    """Describes workers in a folder, and ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workers: list[Worker] = []
        self.said: list[str] = []
        # whoever reads from it waits until a signal arrives
        os.mkfifo(folder / "pipe")

    def command(
        self, *command: str, redact: Callable[[str], str] = unchanged, hurry: Event | None = None
    ) -> Worker:
        name, say = "ABC"[len(self.workers)], self.said.append
        worker = Worker(name, command, self.folder, {"FROM_THE_SUITE": name}, say, redact=redact, hurry=hurry)
        self.workers.append(worker)
        return worker

    def shell(self, program: str, *arguments: str, redact: Callable[[str], str] = unchanged) -> Worker:
        return self.command("/bin/sh", "-c", program, "worker", *arguments, redact=redact)

    def lasting(self, before: str = "", hurry: Event | None = None) -> Worker:
        """Start a worker that writes `begun`, and wait for that."""
        program = f"{before}\necho begun > begun; read -r _ < pipe"
        worker = self.command("/bin/sh", "-c", program, "worker", hurry=hurry)
        worker.start()
        until(self.written("begun"), "the worker to begin")
        return worker

    def written(self, name: str) -> Callable[[], bool]:
        return lambda: (self.folder / name).exists() and bool((self.folder / name).read_text().strip())

    def number(self, name: str) -> int:
        until(self.written(name), f"a pid in {name}")
        return int((self.folder / name).read_text())


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    made = Workshop(tmp_path)
    yield made
    pids = [pid for worker in made.workers for pid in worker.pids]
    for worker in made.workers:
        worker.kill()
    assert [pid for pid in pids if process_started(pid) is not None] == []


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.job_engines.workers.RESTART_PAUSE_S", 0.0)
    monkeypatch.setattr("harness.job_engines.workers.MOST_RESTARTS", RESTARTS)


def ended(pids: Sequence[int]) -> bool:
    return all(process_started(pid) is None for pid in pids)


# --- starting -------------------------------------------------------------------------------------------------


def test_a_worker_gets_its_folder_and_its_variables(workshop: Workshop) -> None:
    worker = workshop.shell('echo "$FROM_THE_SUITE $PWD"; exit 7')
    assert (worker.exit_code, worker.is_running, worker.pids, worker.output) == (None, False, (), "")
    worker.start()
    until(lambda: worker.exit_code is not None, "the worker to end")
    assert worker.exit_code == 7
    [exited] = worker.take_exits()
    assert (exited.exit_code, exited.last_line, exited.left_behind) == (7, f"A {workshop.folder}", ())
    assert worker.take_exits() == []
    assert worker.output == f"A {workshop.folder}"


def test_a_program_that_does_not_exist_is_named(workshop: Workshop) -> None:
    worker = workshop.command("no-such-engine", "work")
    with pytest.raises(UsageError, match="command 'no-such-engine' not found"):
        worker.start()
    assert (worker.is_running, worker.exit_code, worker.take_exits(), worker.stop()) == (False, None, [], ())


def test_a_program_that_is_not_executable_is_named(workshop: Workshop) -> None:
    (workshop.folder / "work").write_text("#!/bin/sh\n")
    worker = workshop.command("./work")
    with pytest.raises(UsageError, match="cannot be started: Permission denied"):
        worker.start()
    worker.kill()
    assert (worker.is_running, worker.take_exits()) == (False, [])


def test_a_worker_that_runs_is_not_started_twice(workshop: Workshop) -> None:
    worker = workshop.lasting()
    before = worker.pids
    worker.start()
    assert worker.pids == before != ()


def test_a_worker_without_its_guard_is_ended(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def fail(pid: int, _mark: str) -> None:
        started.append(pid)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("harness.host.guarded_process.start_guard", fail)
    worker = workshop.shell("read -r _ < pipe")
    with pytest.raises(ServiceFailedError, match="the guard of '/bin/sh' cannot be started"):
        worker.start()
    assert ended(started)
    assert len(started) == 1
    assert (worker.pids, worker.take_exits()) == ((), [])


# --- ending ---------------------------------------------------------------------------------------------------


def test_a_kill_is_not_an_exit_of_the_worker(workshop: Workshop) -> None:
    worker = workshop.lasting("sh -c 'read -r _ < pipe' &")
    pids = worker.pids
    assert len(pids) >= 2
    worker.kill()
    assert ended(pids)
    assert (worker.exit_code, worker.take_exits(), worker.pids) == (-signal.SIGKILL, [], ())


def test_a_worker_that_exited_before_the_kill_has_exited_by_itself(workshop: Workshop) -> None:
    worker = workshop.shell("echo gone; exit 5")
    worker.start()
    until(lambda: worker.exit_code is not None, "the worker to end")
    worker.kill()
    assert [(exited.exit_code, exited.last_line) for exited in worker.take_exits()] == [(5, "gone")]


def test_a_signal_of_others_is_an_exit_of_the_worker(workshop: Workshop) -> None:
    worker = workshop.lasting()
    os.kill(worker.pids[0], signal.SIGKILL)
    until(lambda: worker.exit_code is not None, "the worker to end")
    assert [exited.exit_code for exited in worker.take_exits()] == [-signal.SIGKILL]


def test_a_worker_may_clean_up_on_sigterm(workshop: Workshop) -> None:
    worker = workshop.lasting("trap 'echo cleaned up; exit 0' TERM")
    assert worker.stop(20) == ("SIGTERM",)
    assert (worker.exit_code, worker.output.split("\n")[-1], worker.take_exits()) == (0, "cleaned up", [])
    assert worker.ignored_sigterm_s == 0.0


def test_a_worker_that_ignores_sigterm_is_recorded(workshop: Workshop) -> None:
    worker = workshop.lasting("trap '' TERM")
    pids = worker.pids
    assert worker.stop(0.2) == ("SIGTERM", "SIGKILL")
    assert ended(pids)
    assert (worker.exit_code, worker.ignored_sigterm_s, worker.take_exits()) == (-signal.SIGKILL, 0.2, [])


def test_a_worker_of_an_interrupted_check_gets_no_time_to_end(workshop: Workshop) -> None:
    interrupted = Event()
    worker = workshop.lasting("trap '' TERM", hurry=interrupted)
    pids = worker.pids
    interrupted.set()
    assert worker.stop(600) == ("SIGTERM", "SIGKILL")
    assert ended(pids)


DETACHED = "setsid sh -c '{program}' worker {at} > /dev/null 2>&1 &"
#: ignores SIGTERM, and writes its pid to the file $1
STAYS = """trap "" TERM; echo $$ > $1; read -r _ < pipe"""


def test_a_worker_is_frozen_while_it_starts_a_program(workshop: Workshop) -> None:
    """A shell waits in vfork(2) until its child runs the program: a child that is frozen before that keeps it there."""
    worker = workshop.shell("while :; do /bin/true; done")
    worker.start()
    for _ in range(40):
        assert worker.freeze()
        assert [pid for pid in worker.pids if not is_stopped(pid)] == []
        assert worker.thaw()


@pytest.mark.parametrize("end", [Worker.kill, lambda worker: worker.stop(0.2)], ids=["kill", "stop"])
def test_a_process_in_a_session_of_its_own_ends_with_the_worker(
    workshop: Workshop, end: Callable[[Worker], object]
) -> None:
    worker = workshop.lasting(DETACHED.format(program=STAYS, at="detached"))
    pid = workshop.number("detached")
    assert pid in worker.pids
    end(worker)
    assert ended([pid])


def test_processes_that_a_worker_left_get_no_time_either(workshop: Workshop) -> None:
    interrupted = Event()
    worker = workshop.lasting(DETACHED.format(program=STAYS, at="detached"), hurry=interrupted)
    pid = workshop.number("detached")
    interrupted.set()
    worker.stop(600)
    assert ended([pid])


def test_a_worker_that_forks_into_the_background_has_exited(workshop: Workshop) -> None:
    worker = workshop.shell(DETACHED.format(program=STAYS, at="detached") + "\nuntil [ -s detached ]; do :; done")
    worker.start()
    pid = workshop.number("detached")
    until(lambda: worker.exit_code is not None, "the worker to end")
    [exited] = worker.take_exits()
    assert (exited.exit_code, exited.left_behind) == (0, (f"sh (process {pid})",))
    assert worker.left_behind == exited.left_behind
    assert ended([pid])


# --- freezing -------------------------------------------------------------------------------------------------


def test_all_processes_of_a_frozen_worker_are_stopped(workshop: Workshop) -> None:
    worker = workshop.lasting("sh -c 'read -r _ < pipe' &\n" + DETACHED.format(program=STAYS, at="detached"))
    detached = workshop.number("detached")
    pids = worker.pids
    assert worker.freeze()
    assert len(pids) >= 3
    assert detached in pids
    assert [pid for pid in pids if not is_stopped(pid) or process_started(pid) is None] == []
    assert worker.exit_code is None
    assert worker.thaw()
    assert [pid for pid in pids if is_stopped(pid)] == []


def test_all_threads_of_a_frozen_worker_are_stopped(workshop: Workshop) -> None:
    program = "import threading\nfor _ in range(8): threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()"
    worker = workshop.command(sys.executable, "-c", f"{program}\nprint('begun', flush=True)")
    worker.start()
    until(lambda: worker.output, "the worker to begin")
    assert worker.freeze()
    tasks = [*Path(f"/proc/{worker.pids[0]}/task").glob("*/stat")]
    assert {path.read_text().rpartition(")")[2].split()[0] for path in tasks} == {"T"}
    assert len(tasks) == 9


@pytest.mark.parametrize("end", [Worker.kill, lambda worker: worker.stop(20)], ids=["kill", "stop"])
def test_a_frozen_worker_is_ended(workshop: Workshop, end: Callable[[Worker], object]) -> None:
    worker = workshop.lasting()
    pids = worker.pids
    worker.freeze()
    end(worker)
    assert ended(pids)
    assert (worker.thaw(), worker.freeze(), worker.ignored_sigterm_s) == (False, False, 0.0)


def test_a_worker_that_dies_while_it_is_frozen_has_exited(workshop: Workshop) -> None:
    worker = workshop.lasting(DETACHED.format(program=STAYS, at="detached"))
    detached = workshop.number("detached")
    worker.freeze()
    os.kill(min(pid for pid in worker.pids if pid != detached), signal.SIGKILL)
    until(lambda: worker.exit_code is not None, "the worker to end")
    assert not worker.thaw()
    [exited] = worker.take_exits()
    assert (exited.exit_code, exited.left_behind) == (-signal.SIGKILL, (f"sh (process {detached})",))
    assert ended([detached])


def test_a_worker_that_does_not_run_cannot_be_frozen(workshop: Workshop) -> None:
    worker = workshop.shell("exit 0")
    assert not worker.freeze()
    worker.start()
    until(lambda: worker.exit_code is not None, "the worker to end")
    assert not worker.freeze()


# --- supervision ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_pause")
def test_a_worker_in_a_crash_loop_is_given_up(workshop: Workshop) -> None:
    said = 'psycopg.errors.DuplicatePreparedStatement: prepared statement "_pg3_0" already exists'
    worker = workshop.shell(f"echo $$; echo '{said}'; exit 1")
    with Supervisor(worker) as supervisor:
        worker.start()
        until(lambda: supervisor.given_up, "the supervisor to give up")
        exits = supervisor.exits
    assert supervisor.exits == exits
    assert len(exits) == RESTARTS + 1
    assert {(exited.worker, exited.exit_code, exited.last_line, exited.sqlstates) for exited in exits} == {
        ("A", 1, said, ("42P05",))
    }
    assert [exited.seconds for exited in exits] == sorted(exited.seconds for exited in exits)
    assert len(set(worker.output.splitlines())) == len(exits) + 1  # each start has a pid of its own


@pytest.mark.usefixtures("no_pause")
def test_the_sqlstates_of_an_exit_are_those_of_its_own_start(workshop: Workshop) -> None:
    worker = workshop.shell(
        "if mkdir second; then echo FATAL: 57P01: x; exit 1; fi; echo well; read -r _ < pipe; exit 2"
    )
    with Supervisor(worker) as supervisor:
        worker.start()
        until(lambda: "well" in worker.output, "the worker to be restarted")
        (workshop.folder / "pipe").write_text("go on\n")
        until(lambda: len(supervisor.exits) >= 2, "two exits")
    codes = [(exited.exit_code, exited.sqlstates) for exited in supervisor.exits]
    assert codes[:2] == [(1, ("57P01",)), (2, ())]
    assert supervisor.given_up == ()


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("end", [Worker.kill, Worker.stop], ids=["kill", "stop"])
def test_a_worker_that_a_case_ends_stays_down_until_the_case_starts_it(
    workshop: Workshop, end: Callable[[Worker], object]
) -> None:
    worker, other = workshop.lasting(), workshop.shell("exit 3")
    with Supervisor(worker, other) as supervisor:
        end(worker)
        other.start()
        until(lambda: supervisor.given_up == ("B",), "the supervisor to give up the other one")
        assert sorted(worker.pids) == []
        worker.start()
        assert len(worker.pids) >= 1
    assert {exited.worker for exited in supervisor.exits} == {"B"}


@pytest.mark.usefixtures("no_pause")
def test_a_worker_that_cannot_be_started_again_is_recorded(workshop: Workshop) -> None:
    program = workshop.folder / "work"
    program.write_text('#!/bin/sh\nrm "$0"; exit 1\n')
    program.chmod(0o755)
    worker = workshop.command(str(program))
    with Supervisor(worker) as supervisor:
        worker.start()
        until(lambda: supervisor.given_up, "the supervisor to give up")
    assert [exited.exit_code for exited in supervisor.exits] == [1] + RESTARTS * [None]
    assert supervisor.exits[-1].last_line == f"command {str(program)!r} not found"


def test_closing_ends_workers_in_any_state(workshop: Workshop) -> None:
    frozen = workshop.lasting(DETACHED.format(program=STAYS, at="detached"))
    detached = workshop.number("detached")
    stubborn, gone = workshop.shell("trap '' TERM; echo up; read -r _ < pipe"), workshop.shell("exit 0")
    with Supervisor(frozen, stubborn, gone) as supervisor:
        stubborn.start()
        gone.start()
        until(lambda: stubborn.output, "the worker to ignore SIGTERM")
        until(lambda: supervisor.exits, "the worker to exit")
        frozen.freeze()
        pids = [*frozen.pids, *stubborn.pids]
        assert supervisor.close(0.5) == (f"A: sh (process {detached})",)
        assert supervisor.close(0.5) == (f"A: sh (process {detached})",)
    assert ended(pids)
    assert (frozen.ignored_sigterm_s, stubborn.ignored_sigterm_s) == (0.0, 0.5)
    assert {exited.worker for exited in supervisor.exits} == {"C"}


def test_actions_of_several_threads_leave_nothing_behind(workshop: Workshop) -> None:
    workers = [workshop.shell("sh -c 'read -r _ < pipe' & read -r _ < pipe") for _ in range(2)]
    actions: list[Callable[[Worker], object]] = [
        *(Worker.start, Worker.freeze, Worker.kill, Worker.thaw, Worker.restart),
        *(Worker.take_exits, lambda worker: worker.pids, lambda worker: worker.stop(2.0)),
    ]
    seen: set[int] = set()

    def act(number: int) -> None:
        for step in range(6):
            worker = workers[(number + step) % 2]
            actions[(number * 5 + step * 3) % len(actions)](worker)
            seen.update(worker.pids)

    with Supervisor(*workers) as supervisor, ThreadPoolExecutor(4) as pool:
        list(pool.map(act, range(8)))
    assert ended([*seen])
    assert supervisor.exits == []


HARNESS = """
import sys
from pathlib import Path
from harness.job_engines.workers import Supervisor, Worker
folder = Path(sys.argv[1])
workers = [Worker(name, ["/bin/sh", "-c", sys.argv[2], name], folder, {}, print, redact=str) for name in "AB"]
with Supervisor(*workers):
    for worker in workers:
        worker.start()
        while not (folder / f"begun-{worker.name}").exists(): pass
    workers[1].freeze()
    (folder / "pids").write_text(" ".join(str(pid) for worker in workers for pid in worker.pids))
    open(folder / "pipe").read()
"""


def test_killing_the_harness_ends_its_workers(workshop: Workshop) -> None:
    detached = DETACHED.format(program=STAYS, at="detached-$0")
    program = f"{detached}\nuntil [ -s detached-$0 ]; do :; done; echo > begun-$0; read -r _ < pipe"
    with subprocess.Popen([sys.executable, "-c", HARNESS, workshop.folder, program]) as harness:
        until(workshop.written("pids"), "the workers to begin")
        pids = [int(pid) for pid in (workshop.folder / "pids").read_text().split()]
        harness.kill()
    assert len(pids) >= 4
    assert {workshop.number("detached-A"), workshop.number("detached-B")} < set(pids)
    until(lambda: ended(pids), "the workers to end")


# --- output ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "program",
    ["yes", "yes $(head -c 5000 /dev/zero | tr '\\0' x)", "tr '\\0' x < /dev/zero", "cat /dev/urandom"],
    ids=["lines", "long lines", "one line", "not text"],
)
def test_a_worker_that_prints_without_end_is_bounded(workshop: Workshop, program: str) -> None:
    worker = workshop.shell(f"{program} | head -c {PRINTED}; echo; echo now the end; read -r _ < pipe")
    worker.start()
    until(lambda: worker.output.endswith("\nnow the end"), "all of it to be read")
    lines = worker.output.split("\n")
    assert len(lines) <= KEPT_LINES
    assert max(map(len, lines)) <= LONGEST_LINE
    assert len(workshop.said) <= 1000
    worker.output.encode()
    worker.kill()


def read_all(printed: bytes, redact: Callable[[str], str] = unchanged) -> WorkerOutput:
    output = WorkerOutput(ignore, redact)
    with tempfile.TemporaryFile() as file:
        file.write(printed)
        file.flush()
        file.seek(0)
        output.read(os.fdopen(os.dup(file.fileno()), "rb"))
    return output


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=40),
        min_size=1,
        max_size=400,
    ),
    st.integers(1, 300),
)
def test_the_last_lines_are_kept_as_printed(lines: list[str], times: int) -> None:
    lines = [line * times for line in lines]
    printed = "\n".join(lines)[-300_000:]
    expected = printed.removesuffix("\n").split("\n")[-KEPT_LINES:]
    kept = read_all(printed.encode()).tail.split("\n")
    assert len(kept) == len(expected)
    for line, wanted in zip(kept, expected, strict=True):
        if len(wanted) <= LONGEST_LINE:
            assert line == wanted
        else:
            assert line == wanted[: LONGEST_LINE - 1] + "…"


@settings(max_examples=20)
@given(st.binary(max_size=2000), st.integers(1, 400))
def test_any_bytes_give_a_bounded_text(printed: bytes, times: int) -> None:
    output = read_all(printed * times)
    lines = output.tail.split("\n")
    assert len(lines) <= KEPT_LINES
    assert max(map(len, lines)) <= LONGEST_LINE
    (output.tail + output.last_line).encode()  # can be stored as UTF-8


def test_secrets_are_neither_kept_nor_said(workshop: Workshop) -> None:
    redact = Redactor()
    redact.learn(SECRET)
    worker = workshop.shell(
        f'echo "up with {SECRET}"; echo postgresql://owner:hunter2hunter2@h/d; exit 1', redact=redact
    )
    worker.start()
    until(lambda: worker.exit_code is not None, "the worker to end")
    [exited] = worker.take_exits()
    for text in (worker.output, exited.last_line, "\n".join(workshop.said)):
        assert SECRET not in text
        assert "hunter2" not in text
        assert MASK in text


@pytest.mark.parametrize("before", [LONGEST_LINE - 10, 4 * LONGEST_LINE - 10, 65_536 - 10])
def test_no_part_of_a_secret_is_kept_where_a_line_is_cut(before: int) -> None:
    redact = Redactor()
    redact.learn(SECRET)
    output = read_all(b"x" * before + SECRET.encode() * 40 + b"\n", redact)
    assert SECRET[:8] not in output.tail + output.last_line


def test_a_secret_of_several_lines_is_not_kept() -> None:
    redact = Redactor()
    redact.learn("first-part\nno\nlast-part")
    assert read_all(b"key: first-part\nno\nlast-part\nend\n", redact).tail == f"key: {MASK}\nend"


@each_row(
    ("printed", "last"),
    [
        (b"throw e\nError: stopped\n    at main {\n  code: '42P05'\n}\n\nNode.js v24.19.0\n", "Error: stopped"),
        (b"  File x\npsycopg.OperationalError: gone\n  code\n", "psycopg.OperationalError: gone"),
        (b"  only this\n\n", "only this"),
        (b"x.UndefinedTable: no nadia\nLINE 1: INSERT\n    ^\nHINT:  look\n", "x.UndefinedTable: no nadia"),
        (b"a\n---\n\n", "a"),
        (b"\n\n", ""),
        (b"", ""),
        (b"no end of line", "no end of line"),
    ],
)
def test_the_last_line_is_one_that_may_name_an_error(printed: bytes, last: str) -> None:
    assert read_all(printed).last_line == last


SQLSTATES_PRINTED = {
    'psycopg.errors.DuplicatePreparedStatement: prepared statement "_pg3_0" already exists': ("42P05",),
    "asyncpg.exceptions.DuplicatePreparedStatementError: x": ("42P05",),
    "asyncpg.exceptions._base.UndefinedTableError: x": ("42P01",),
    "sqlalchemy.exc.ProgrammingError: (psycopg.errors.UndefinedTable) relation": ("42P01",),
    'error: prepared statement "complete_job/graphile_worker" already exists': ("42P05",),
    "  code: '26000',": ("26000",),
    '{"severity":"ERROR","code":"25P02"}': ("25P02",),
    '** (Postgrex.Error) ERROR 42P05 (duplicate_prepared_statement) prepared statement "ecto_1" already': ("42P05",),
    'ERROR:  08P01: bind message supplies 1 parameters, but prepared statement "" requires 2': ("08P01",),
    "ERROR: unnamed prepared statement does not exist (SQLSTATE 26000)": ("26000",),
    "SQLSTATE[08006] [7] connection refused": ("08006",),
    "Db { code: SqlState(E42P05) }": ("42P05",),
    "FATAL:  transaction blocks not allowed in statement pooling mode": ("08P01",),
    "terminating connection due to administrator command, then 42P05 and 57P01": ("57P01", "42P05"),
    # not of a server
    "code: 'EPIPE'": (),
    'code: "12345"': (),
    "took 42000 ms, 26000 rows": (),
    "job 8f42P05a1 done": (),
    "id=1-42P05-7": (),
    "SyntaxError: invalid syntax": (),
    "psycopg.errors.NoSuchClass": (),
}


@each_row(("printed", "expected"), SQLSTATES_PRINTED.items(), ids=range(len(SQLSTATES_PRINTED)))
def test_sqlstates_are_recognised_as_drivers_print_them(printed: str, expected: tuple[str, ...]) -> None:
    assert sqlstates_in(printed) == expected
    assert read_all(f"before\n{printed}\nafter".encode()).sqlstates == expected


@settings(max_examples=25)
@given(st.text())
def test_any_text_gives_each_sqlstate_once(text: str) -> None:
    found = sqlstates_in(text)
    assert len(set(found)) == len(found)
    assert all(len(sqlstate) == 5 for sqlstate in found)
