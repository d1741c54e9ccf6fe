"""Documented configurations of PgBouncer next to the shipped topologies: no false Issue, and no false OK.

`configurations.toml` lists them. A small set runs here, all of them with `nox -s configurations`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec import Struct

from harness import config
from harness.model import PoolMode, Result, Status
from harness.store import read_run
from tests.conftest import require_engine
from tests.contract.command_line import harness_here

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.engine, pytest.mark.long]

#: the servers that distributions ship with a version of PgBouncer
_SERVERS = {"1.18": "15", "1.24": "17", "1.26": "18"}
#: run at the same time
_AT_A_TIME = 4


class Configuration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row of the table."""

    name: str
    pgbouncer: str = "1.24"
    #: by default the version that belongs to that of PgBouncer
    postgres: str = ""
    pool_mode: PoolMode
    default_pool_size: int = 4
    max_prepared_statements: int = 200
    settings: dict[str, str] = {}
    database: dict[str, str] = {}
    user: dict[str, str] = {}
    postgres_settings: dict[str, str] = {}
    #: by check, without its suite
    outcomes: dict[str, str]
    #: most rows that may be Not run
    not_run: int = 2
    ci: bool = False

    def topology(self) -> str:
        """Return the text of its topology file."""
        return "\n".join(
            [
                f'summary = "{self.name}"',
                'verify = ["pooling"]',
                "[postgres]",
                f'version = "{self.postgres or _SERVERS[self.pgbouncer]}"',
                f"settings = {_inline(self.postgres_settings)}",
                "[pooler]",
                'product = "pgbouncer"',
                f'version = "{self.pgbouncer}"',
                f'pool_mode = "{self.pool_mode}"',
                f"default_pool_size = {self.default_pool_size}",
                f"max_prepared_statements = {self.max_prepared_statements}",
                f"settings = {_inline(self.settings)}",
                f"database = {_inline(self.database)}",
                f"user = {_inline(self.user)}",
            ]
        )


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`configurations.toml`."""

    configuration: tuple[Configuration, ...]


def _inline(values: dict[str, str]) -> str:
    return "{ " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in values.items()) + " }"


def chosen() -> list[tuple[Configuration, ...]]:
    """Return the configurations to run, some at a time: all of them, those named, or those for CI."""
    table = config.load(Path(__file__).with_name("configurations.toml"), Table).configuration
    names = os.environ.get("CONFIGURATIONS", "").split()
    rows = [row for row in table if names == ["all"] or row.name in names or (not names and row.ci)]
    return [tuple(rows[start : start + _AT_A_TIME]) for start in range(0, len(rows), _AT_A_TIME)]


@pytest.mark.parametrize("rows", chosen(), ids=lambda rows: "+".join(row.name for row in rows))
def test_a_documented_configuration_gives_neither_a_false_issue_nor_a_false_ok(
    rows: tuple[Configuration, ...], tmp_path: Path
) -> None:
    require_engine("docker")
    folder = tmp_path / "topologies"
    folder.mkdir()
    for row in rows:
        (folder / f"{row.name}.toml").write_text(row.topology())
    done = harness_here(
        tmp_path, "verify", "--suite", "pooling", "--topologies-folder", str(folder), "--engine", "docker"
    )
    results = read_run(tmp_path / "reports" / "runs" / "latest").answers()
    problems = [problem for row in rows for problem in _problems(row, _of(results, row))]
    assert not problems, "\n".join(problems) + done.stderr[-2000:]


def _of(results: tuple[Result, ...], row: Configuration) -> dict[str, Result]:
    return {result.check.removeprefix("pooling."): result for result in results if result.target == row.name}


def _problems(row: Configuration, results: dict[str, Result]) -> Iterator[str]:
    """Return what is wrong with the results of a configuration, in one line each."""
    if not any(result.status is Status.OK for result in results.values()):
        yield f"{row.name}: nothing is OK: {next((result.reason for result in results.values()), 'no results')}"
    for check, result in results.items():
        if result.status is Status.ISSUE and not result.known:
            yield f"{row.name} {check}: {result.reason}"
    not_run = [f"{check} ({result.reason})" for check, result in results.items() if result.status is Status.NOT_RUN]
    if len(not_run) > row.not_run:
        yield f"{row.name}: {len(not_run)} rows are Not run, at most {row.not_run} may be: {'; '.join(not_run)}"
    for check, expected in row.outcomes.items():
        feature = results[check].feature
        observed = str(feature.observed) if feature else f"{results[check].status}: {results[check].reason}"
        if observed != expected:
            yield f"{row.name} {check}: expected {expected}, observed {observed}"
