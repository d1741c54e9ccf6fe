"""Servers that stay up for experiments: the files with their logins."""

from __future__ import annotations

import shlex
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.contract.command_line import command, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.engine.protocol import Engine

pytestmark = pytest.mark.engine


@pytest.fixture
def up(any_engine: Engine, tmp_path: Path) -> Iterator[dict[str, str]]:
    """What `up` exports: the transaction pool with an audit trail, until the test ends."""
    process = subprocess.Popen(
        command("up", "transaction", "--trail", "--audit-target", "session-setting", "--engine", any_engine.name),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        file = next(line for line in iter(process.stdout.readline, "") if line.startswith("ENV_FILE="))
        exported = map(shlex.split, Path(file.rstrip().removeprefix("ENV_FILE=")).read_text().splitlines())
        yield dict(assignment.split("=", 1) for _, assignment in exported)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130


def test_each_session_of_a_script_can_log_in_with_the_password_file(up: dict[str, str]) -> None:
    assert "PGPASSWORD" not in up  # libpq prefers it to the password file
    chain, server = (up["PGHOST"], up["PGPORT"]), (up["DIRECT_PGHOST"], up["DIRECT_PGPORT"])
    sessions = [(chain, up["PGUSER"]), *((server, role) for role in ("harness_app", "harness_owner", "harness_admin"))]
    for (host, port), user in sessions:
        given = {"host": host, "port": port, "user": user, "passfile": up["PGPASSFILE"], "dbname": up["PGDATABASE"]}
        with psycopg.connect(make_conninfo(**given)) as session:
            assert session.execute("SELECT session_user, count(*) FROM public.posts").fetchone() == (user, 0)
