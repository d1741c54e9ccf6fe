"""Recognition without a server: errors are one clear message, in time, without a secret; declared values are compared."""

from __future__ import annotations

import json
import socket
import time
from io import StringIO
from threading import Event
from typing import TYPE_CHECKING

import pytest

from harness.cli import identify as command
from harness.cli.invocation import Services
from harness.cli.main import root
from harness.cli.signals import Signals
from harness.cli.terminal import Terminal
from harness.database import Endpoint
from harness.errors import ConfigError, HarnessError, UsageError
from harness.host.declarations import EnvironmentDeclaration
from harness.host.environment import look_at, resolve
from harness.model import Confidence, Finding
from harness.recognition.contradictions import contradictions, doubts
from harness.recognition.findings import FACTS, Findings, Recognition
from harness.recognition.recognise import recognise
from harness.recognition.server import ServedSession, judge_pooler
from harness.redaction import Redactor
from tests.tables import each_row
from tests.unit.test_wire import closes, garbage, http, refuses, serving, silent

if TYPE_CHECKING:
    from collections.abc import Callable


SECRET = "a-secret-of-the-test"


def found(fact: str, value: str, confidence: Confidence = Confidence.CERTAIN) -> Recognition:
    return Recognition(findings=(Finding(fact=fact, value=value, how="seen", confidence=confidence),))


@pytest.mark.parametrize(
    ("handle", "text", "deadline_s"),
    [
        (http, "not PostgreSQL", 60.0),
        (garbage, "not PostgreSQL", 60.0),
        (closes, "closed before the login", 60.0),
        (silent, "no login before the deadline", 0.2),
        (refuses, "too many clients", 60.0),
    ],
)
def test_an_invalid_server_gives_one_clear_error(
    handle: Callable[[socket.socket], None], text: str, deadline_s: float
) -> None:
    """Only the silent server uses up its deadline, so a slow machine changes no error."""
    with serving(handle) as address, pytest.raises(HarnessError) as caught:
        recognise(f"postgresql://app:{SECRET}@127.0.0.1:{address.port}/db?gssencmode=disable", deadline_s=deadline_s)
    assert text in str(caught.value).replace("\n", " ")
    assert SECRET not in str(caught.value)
    assert caught.value.exit_code == 3


def test_an_interruption_ends_the_wait_for_a_login() -> None:
    interrupted = Event()

    def handle(client: socket.socket) -> None:
        interrupted.set()
        silent(client)

    with serving(handle) as address:
        dsn = f"postgresql://app:{SECRET}@127.0.0.1:{address.port}/db?gssencmode=disable"
        declared = EnvironmentDeclaration(dsn="env:DSN", deadline_s=600)
        environment = resolve("staging", declared, {"DSN": dsn}, Redactor())
        evidence = look_at(environment, Redactor(), interrupted=interrupted)
    assert (evidence.reached, evidence.reason) == (False, "the run was interrupted")


def test_a_closed_port_an_unknown_host_and_an_invalid_connection_string_give_errors_without_the_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    closed = Endpoint(host="127.0.0.1", port=port, user="app", password=SECRET, dbname="db")
    with pytest.raises(HarnessError, match="Connection refused") as caught:
        recognise(closed, deadline_s=2)
    assert caught.value.exit_code == 3
    with pytest.raises(HarnessError) as caught:
        recognise(f"host=no-such-host.invalid password={SECRET} dbname=db", deadline_s=2)
    assert caught.value.exit_code == 3
    with pytest.raises(ConfigError) as malformed:
        recognise(f"postgresql://app:{SECRET}@[half", deadline_s=2)
    assert SECRET not in str(malformed.value)
    with pytest.raises(HarnessError, match="cannot connect"):
        recognise(f"host=/no/such/folder dbname=db password={SECRET}", deadline_s=2)


def test_limits_that_allow_no_recognition_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 3"):
        recognise("", most_connections=2)


@each_row(
    ("fact", "declared", "value", "is_contradicted"),
    [
        ("pool_mode", "transaction", "transaction", False),
        ("pool_mode", "Transaction", "transaction", False),
        ("pool_mode", "session", "transaction", True),
        ("pool_size", "20", "at least 12", False),
        ("pool_size", "8", "at least 12", True),
        ("pool_size", "8", "4", True),
        ("version", "1.24", "1.24.1", False),
        ("version", "1.24", ">= 1.23", False),
        ("version", "1.18", ">= 1.20, < 1.23", True),
        ("version", "1.25.1", ">= 1.25", False),
        ("version", "1.25.1", "< 1.25", True),
        ("server_version", "17", "17.11", False),
        ("server_version", "15", "17.11", True),
        ("pooler", "true", "yes", False),
        ("pooler", "no", "yes", True),
        ("version", "8.0.2", "v=8.0.2", False),
        ("version", "1.26", "PgBouncer 1.26.1", False),
        ("product", "PgBouncer", "PgBouncer and Pgpool-II", False),
        ("product", "Odyssey", "PgBouncer and Pgpool-II", True),
    ],
)
def test_a_declared_value_is_contradicted_by_a_finding_that_excludes_it(
    fact: str, declared: str, value: str, is_contradicted: bool
) -> None:
    sentences = contradictions(found(fact, value), {fact: declared})
    assert bool(sentences) is is_contradicted
    assert all(fact in sentence and value in sentence for sentence in sentences)


def test_an_unknown_finding_contradicts_nothing_and_an_unknown_fact_is_refused() -> None:
    assert contradictions(found("pool_mode", "", Confidence.UNKNOWN), {"pool_mode": "session"}) == ()
    assert contradictions(Recognition(findings=()), {"pool_mode": "session"}) == ()
    with pytest.raises(UsageError, match="unknown fact 'mode'"):
        contradictions(Recognition(findings=()), {"mode": "session"})


@pytest.mark.parametrize("confidence", list(Confidence))
def test_only_a_certain_finding_contradicts_a_declaration(confidence: Confidence) -> None:
    recognition = found("pool_mode", "" if confidence is Confidence.UNKNOWN else "session", confidence)
    declared = {"pool_mode": "transaction"}
    assert bool(contradictions(recognition, declared)) is (confidence is Confidence.CERTAIN)
    assert bool(doubts(recognition, declared)) is (confidence is Confidence.LIKELY)


def test_the_more_certain_finding_is_kept_and_secrets_are_redacted() -> None:
    redactor = Redactor()
    redactor.learn(SECRET)
    findings = Findings(redactor)
    findings.unknown("pool_mode", "nothing")
    findings.likely("pool_mode", "session", f"said {SECRET}")
    findings.likely("pool_mode", "transaction", "later")
    completed = findings.completed("not tried")
    (pool_mode,) = [finding for finding in completed if finding.fact == "pool_mode"]
    assert (pool_mode.value, pool_mode.how) == ("session", "said [redacted]")
    assert [finding.fact for finding in completed] == [fact for fact in FACTS if fact in findings._found]


def served(
    pid: int, announced: int | None, *, own: bool = False, backend: int | None = 50, now: int = 10
) -> ServedSession:
    return ServedSession(
        announced_pid=announced,
        pid=pid,
        postmaster_start_us=1,
        now_us=now,
        backend_start_us=backend,
        in_recovery=False,
        version="17",
        isolation="read committed",
        is_own_socket=own,
        tls="f",
    )


@pytest.mark.parametrize(
    ("sessions", "judged", "is_certain"),
    [
        ([served(7, 9), served(8, 10)], "yes", True),
        ([served(7, 7), served(7, 7)], "yes", True),
        ([served(7, 7, now=99), served(8, 8, backend=98)], "yes", True),
        ([served(7, 7), served(8, 8)], "no", False),
        ([served(7, 7, own=True), served(8, 8, own=True)], "no", True),
        ([served(7, None), served(8, None)], "", False),
    ],
)
def test_a_pooler_is_judged_by_pids_ages_and_ports(
    sessions: list[ServedSession], judged: str, is_certain: bool
) -> None:
    assert judge_pooler(sessions)[:2] == (judged, is_certain)


# --- the command ----------------------------------------------------------------------------------


def run(stderr: StringIO, *arguments: str) -> int:
    """Run `identify` as the command line does, without its handling of errors."""
    redactor = Redactor()
    terminal = Terminal(redactor, stderr)
    services = Services(terminal, redactor, Signals(terminal.say))
    with root.make_context("harness", ["identify", *arguments], obj=services) as ctx:
        code: int = root.invoke(ctx)
    return code


def test_the_command_prints_a_table_or_json_and_compares_declared_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    targets: list[object] = []

    def recognise(chain: str, **_: object) -> Recognition:
        targets.append(chain)
        return found("pool_mode", "transaction")

    monkeypatch.setattr(command, "recognise", recognise)
    monkeypatch.setenv("STAGING_DSN", "host=staging")
    stderr = StringIO()
    assert run(stderr, "env:STAGING_DSN", "--declared", "pool_mode=transaction") == 0
    assert targets == ["host=staging"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["fact", "value", "confidence", "how"]
    assert printed[1].split() == ["pool_mode", "transaction", "certain", "seen"]
    assert run(stderr, "env:STAGING_DSN", "--declared", "pool_mode=session", "--json") == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["value"] == "transaction"
    assert "contradicted: pool_mode is declared as 'session'" in stderr.getvalue()


@pytest.mark.parametrize(
    "arguments",
    [
        ("env:NO_SUCH_VARIABLE_ANYWHERE",),
        ("host=x", "--declared", "pool_mode"),
        ("host=x", "--declared", "mode=session"),
        ("host=x", "--declared", "pool_mode=session", "--declared", "pool_mode=statement"),
        ("host=x", "--console", "env:NO_SUCH_VARIABLE_ANYWHERE"),
    ],
)
def test_invalid_arguments_are_a_usage_error(arguments: tuple[str, ...]) -> None:
    with pytest.raises(HarnessError) as caught:
        run(StringIO(), *arguments)
    assert caught.value.exit_code == 2


def test_the_deadline_of_the_command_line_is_kept() -> None:
    began = time.monotonic()
    with serving(silent) as address, pytest.raises(HarnessError) as caught:
        run(StringIO(), f"postgresql://app:{SECRET}@127.0.0.1:{address.port}/db", "--deadline", "0.5")
    assert time.monotonic() - began < 5
    assert caught.value.exit_code == 3
    assert SECRET not in str(caught.value)
