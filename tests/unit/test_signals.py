"""Signals from the first import to the last moment of the process: exit code 130, and never death by signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from threading import Lock

import pytest

from harness import places
from harness.cli.main import main, root
from harness.cli.signals import Signals
from harness.cli.usage import as_started
from harness.errors import InterruptedRunError
from harness.waiting import NotYet, poll

#: runs a short command, and sends a signal to itself at one moment
_SCRIPT = """
import atexit, os, signal, sys, threading
def send():
    os.kill(os.getpid(), signal.{signal})
import harness.__main__ as start
{prepare}
sys.argv = ["harness", "completion", "bash"]
code = start.start()
{after}
raise SystemExit(code)
"""
_AT_THE_COMMAND = "import harness.cli.main as m; run = m._run; m._run = lambda *a: {first} or {second} or run(*a)"
_MOMENTS = {
    "during the command": (_AT_THE_COMMAND.format(first="send()", second="0"), "", {130}),
    "twice, the second while the first is handled": (
        # the teardown of the first signal is a `finally` block
        (
            "import harness.cli.main as m\n"
            "def torn_down(*_):\n    try:\n        send()\n    finally:\n        send()\n        print('torn down')\n"
            "m._run = torn_down"
        ),
        "",
        {130},
    ),
    "while an error is printed": (
        (
            "import harness.cli.main as m\nfrom harness.errors import UsageError\n"
            "m._run = lambda *_: (_ for _ in ()).throw(UsageError('wrong'))\n"
            "close = m.Terminal.close; m.Terminal.close = lambda self: (close(self), send())"
        ),
        "",
        {130},
    ),
    "after the command": ("import harness.cli.main as m; run = m.main; m.main = lambda: (run(), send())[0]", "", {130}),
    "after the start": ("", "send()", {130}),
    "while threads end": (
        "ended = threading.Event(); threading.Thread(target=lambda: (ended.wait(), send())).start()",
        "threading._register_atexit(ended.set)",
        {0, 130},
    ),
    "in an exit function": ("", "atexit.register(send)", {130}),
    "in the last exit function": ("atexit.register(send)", "", {0}),
    "while modules are removed": (
        (
            "class Late:\n    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.{signal}):\n"
            "        kill(pid, number)\nsys.late = Late()"
        ),
        "",
        {0},
    ),
}


@pytest.mark.parametrize(
    ("moment", "name"),
    [
        *((moment, "SIGINT") for moment in _MOMENTS),
        *(("while an error is printed", name) for name in ("SIGTERM", "SIGHUP")),
        *(("while modules are removed", name) for name in ("SIGTERM", "SIGHUP")),
    ],
)
def test_a_signal_at_any_moment_gives_an_exit_code(moment: str, name: str) -> None:
    prepare, after, codes = _MOMENTS[moment]
    script = _SCRIPT.replace("{prepare}", prepare).replace("{after}", after).replace("{signal}", name)
    environment = {**os.environ, "PYTHONPATH": str(places.SHIPPED)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.returncode in codes, done.stderr
    assert "Traceback" not in done.stderr
    assert ("torn down" in done.stdout) == ("twice" in moment)


def test_the_first_signal_raises_the_second_waits_and_the_third_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    signals = Signals(said.append)
    with pytest.raises(InterruptedRunError, match="interrupted by SIGINT"):
        signals._handle(signal.SIGINT, None)
    assert signals.received
    signals._handle(signal.SIGINT, None)
    assert (said, ended) == (["still tearing down; the next signal ends the process at once"], [])
    signals._handle(signal.SIGTERM, None)
    assert ended == [130]


def test_a_run_is_interrupted_by_each_signal_and_never_ended_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    interrupts: list[str] = []
    monkeypatch.setattr(os, "_exit", lambda _: pytest.fail("servers would stay"))
    signals = Signals(said.append)
    signals.teardown = "tearing down in a moment"
    with signals.deferred_to(lambda: interrupts.append("interrupt")):
        for _ in range(4):
            signals._handle(signal.SIGTERM, None)
    poll(lambda: arrived(said, 4), what="four signals", deadline_s=10)
    assert len(interrupts) == 4
    assert sorted(said) == ["SIGTERM: tearing down in a moment", *["still tearing down"] * 3]


def test_a_signal_before_a_run_can_be_interrupted_interrupts_it() -> None:
    """The record of a run is on disk before its servers start: a signal that raised there would leave it without rows."""
    interrupts: list[str] = []
    signals = Signals(lambda _: None)
    with signals.held_back():
        with signals.deferred_to(lambda: interrupts.append("too early")):
            pass
        signals._handle(signal.SIGINT, None)
        with signals.deferred_to(lambda: interrupts.append("interrupt")):
            assert interrupts == ["interrupt"]
        signals._handle(signal.SIGINT, None)
    with pytest.raises(InterruptedRunError):
        Signals(lambda _: None)._handle(signal.SIGINT, None)


def test_a_signal_waits_for_no_lock_of_what_it_interrupts() -> None:
    said: list[str] = []
    held = Lock()
    signals = Signals(said.append)

    def interrupt() -> None:
        with held:
            pass

    with signals.deferred_to(interrupt), held:
        signals._handle(signal.SIGTERM, None)
        signals._handle(signal.SIGTERM, None)
        assert said == []
    poll(lambda: arrived(said, 2), what="two signals", deadline_s=10)


def arrived(said: list[str], count: int) -> None:
    if len(said) < count:
        raise NotYet(f"{len(said)} of {count}")


def test_earlier_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    signals = Signals(lambda _: None)
    signals.install()
    assert signal.getsignal(signal.SIGTERM) == signals._handle
    signals.restore()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("harness reap", "python -m harness reap"),
        (
            "try: docker system df, harness reap, or harness doctor",
            "try: docker system df, python -m harness reap, or python -m harness doctor",
        ),
        ("reproduce: python -m harness verify direct", "reproduce: python -m harness verify direct"),
        ("see pooler-harness reap and /opt/harness reap", "see pooler-harness reap and /opt/harness reap"),
        ("the harness started it, and harness.toml", "the harness started it, and harness.toml"),
    ],
)
def test_hints_name_the_program_as_it_was_started(text: str, shown: str) -> None:
    assert as_started(text, "python -m harness", root.commands) == shown


@pytest.mark.parametrize(("program", "shown"), [("pooler-harness", "pooler-harness"), ("harness", "harness")])
def test_an_error_names_the_program(
    program: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"/usr/bin/{program}"])
    assert main(["report", "--fresh"]) == 2
    assert f"try: {shown} report --complete --fresh" in capsys.readouterr().err
