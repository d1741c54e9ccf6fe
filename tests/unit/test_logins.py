"""Logins in the logs of PostgreSQL and PgBouncer, and the logins that foreign commands get."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.lab import logins
from harness.lab.credentials import COMMAND_ROLES, random_roles
from harness.lab.logins import Login, LoginLog

SERVER_17 = """
2026-11-28 11:45:20.60 GMT [21] [unknown]@[unknown] 0 LOG:  connection received: host=172.17.0.1 port=40112
2026-11-28 11:45:20.62 GMT [21] ada@postgres 0 LOG:  connection authenticated: identity="ada" method=scram-sha-256
2026-11-28 11:45:20.62 GMT [21] ada@postgres 0 LOG:  connection authorized: user=ada database=postgres
2026-11-28 11:45:20.74 GMT [22] a b@c d 0 LOG:  connection authorized: user=a b database=c d application_name=psql
2026-11-28 11:45:20.78 GMT [24] eve@mine 0 LOG:  connection authorized: user=eve database=mine SSL enabled (protocol=x)
2026-11-28 11:45:20.79 GMT [25] mallory@mine 0 FATAL:  password authentication failed for user "mallory"
"""
POOLER = """
2026-11-28 11:45:36.13 UTC [1] LOG C-0x55: postgres/(nouser)@172.21.0.1:43804 login failed: db=mine
2026-11-28 11:45:36.13 UTC [1] LOG C-0x55: mine/ada@172.21.0.1:43816 login attempt: db=mine user=ada tls=no
2026-11-28 11:45:36.14 UTC [1] LOG C-0x56: c d/a b@172.21.0.1:43817 login attempt: db=c d user=a b tls=no replication=no
2026-11-28 11:45:36.14 UTC [1] LOG S-0x58: mine/eve@172.21.0.2:5432 new connection to server (from 172.21.0.3:47622)
"""


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a lab whose servers have logged something before."""
    monkeypatch.setattr(LoginLog, "_start_logging", lambda _self: None)
    server, pooler = (SimpleNamespace(text=text, logs=None) for text in (SERVER_17, POOLER))
    for service in (server, pooler):
        service.logs = lambda service=service: service.text
    topology = SimpleNamespace(pooler=SimpleNamespace(product="pgbouncer"))
    return SimpleNamespace(postgres=server, outermost=pooler, topology=topology)


def test_only_successful_logins_since_the_start_count(lab: Any) -> None:
    log = LoginLog(lab)
    assert (log.at_server(), log.at_pooler()) == (frozenset(), frozenset())
    lab.postgres.text += SERVER_17
    lab.outermost.text += POOLER
    assert log.at_server() == {Login("ada", "postgres"), Login("a b", "c d"), Login("eve", "mine")}
    assert log.at_pooler() == {Login("ada", "mine"), Login("a b", "c d")}


def test_a_log_that_began_anew_counts_as_a_whole(lab: Any) -> None:
    log = LoginLog(lab)
    lab.postgres.text = SERVER_17.strip()
    assert Login("ada", "postgres") in log.at_server()


@pytest.mark.parametrize("pooler", [None, SimpleNamespace(product="pgpool"), SimpleNamespace(product="pgagroal")])
def test_without_pgbouncer_no_pooler_logs_who_logs_in(lab: Any, pooler: Any) -> None:
    lab.topology.pooler = pooler
    log = logins.LoginLog(lab)
    lab.outermost.text += POOLER
    assert (log.pooler_logs, log.at_pooler()) == (False, frozenset())


def test_the_login_of_a_command_uses_as_many_iterations_as_drivers_demand() -> None:
    roles = random_roles()
    assert tuple(roles.commands) == COMMAND_ROLES
    for role in roles.commands.values():
        assert role.verifier.startswith("SCRAM-SHA-256$4096:")
    secrets = set(roles.secrets())
    assert {role.password for role in (*roles.commands.values(), roles.lookup)} <= secrets
