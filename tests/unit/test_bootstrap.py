"""The decisions of bootstrap: the engine, the packages that it needs, and one clear sentence when neither is possible."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec import Struct

from harness import places
from tests.unit.docker_socket import docker_socket

if TYPE_CHECKING:
    from collections.abc import Iterator


def machine(folder: Path, *programs: str) -> dict[str, str]:
    """Return the environment variables of a machine with these programs only."""
    for name in programs:
        # the interpreter itself: the one on PATH may be a shim that needs other programs
        found = Path(sys.executable).resolve() if name == "python3" else shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return {"PATH": str(folder), "HOME": str(folder), "TMPDIR": str(folder)}


def bootstrap(environment: dict[str, str], cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(places.SHIPPED / "bootstrap", cwd)
    return subprocess.run(
        ["/bin/sh", "./bootstrap", *arguments],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    if not (places.SHIPPED / "bootstrap").exists():
        pytest.skip("not a checkout")
    folder = tmp_path / "checkout"
    folder.mkdir()
    return folder


def test_without_python_it_says_so_and_exits_3(tmp_path: Path, checkout: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = bootstrap(machine(tmp_path / "bin", "dirname", "mktemp", "rm", "id", "tail", "sed"), checkout, "report")
    assert done.returncode == 3
    assert done.stderr.strip().splitlines()[-1] == "bootstrap: Python 3.11 or newer is required; none was found on PATH"


def test_without_a_package_index_it_says_so_and_exits_3(tmp_path: Path, checkout: Path) -> None:
    (tmp_path / "bin").mkdir()
    environment = machine(tmp_path / "bin", "dirname", "mktemp", "rm", "id", "tail", "sed", "mkdir", "python3")
    environment |= {
        "PIP_INDEX_URL": "http://127.0.0.1:1/simple",
        "PIP_NO_INDEX": "1",
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": "/dev/null",
    }
    done = bootstrap(environment, checkout, "report")
    assert done.returncode == 3
    assert "cannot install nox with pip" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


# --- a .venv of the user ----------------------------------------------------------------------------------------

_FEW_PROGRAMS = ("dirname", "mktemp", "rm", "id", "tail", "sed", "mkdir", "python3")


def test_a_venv_of_the_user_without_pip_is_kept(tmp_path: Path, checkout: Path) -> None:
    (tmp_path / "bin").mkdir()
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "mine").write_text("")
    done = bootstrap(machine(tmp_path / "bin", *_FEW_PROGRAMS), checkout, "lint")
    assert done.returncode == 3
    assert ".venv has no working pip, and bootstrap did not make it" in done.stderr.strip().splitlines()[-1]
    assert (checkout / ".venv" / "mine").exists()


def test_nox_is_installed_with_the_pip_of_the_users_venv(tmp_path: Path, checkout: Path) -> None:
    (tmp_path / "bin").mkdir()
    (checkout / ".venv" / "bin").mkdir(parents=True)
    script(checkout / ".venv" / "bin" / "python", 'case "$*" in *" install "*) : >installed ;; esac')
    script(checkout / ".venv" / "bin" / "nox", '[ -e installed ] && echo "nox $*"')
    done = bootstrap(machine(tmp_path / "bin", *_FEW_PROGRAMS), checkout, "lint")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "nox --session lint\n"
    assert not (checkout / ".venv" / "made-by-bootstrap").exists()


def test_a_broken_venv_of_bootstrap_is_made_again(tmp_path: Path, checkout: Path) -> None:
    (tmp_path / "bin").mkdir()
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "made-by-bootstrap").write_text("")
    (checkout / ".venv" / "broken").write_text("")
    environment = machine(tmp_path / "bin", *_FEW_PROGRAMS)
    python = (tmp_path / "bin" / "python3").rename(tmp_path / "bin" / "python")
    # an environment with pip takes a second, and the test without a package index makes one
    script(
        tmp_path / "bin" / "python3",
        'case "$*" in *"import pip"*) exit 1 ;; "-m venv .venv") set -- -m venv --without-pip .venv ;; esac\n'
        f'exec "{python}" "$@"',
    )
    done = bootstrap(environment, checkout, "lint")
    assert "cannot install nox with pip" in done.stderr.strip().splitlines()[-1]
    assert not (checkout / ".venv" / "broken").exists()
    assert (checkout / ".venv" / "made-by-bootstrap").exists()


# --- which engine ---------------------------------------------------------------------------------------------

_PROGRAMS = ("cat", "dirname", "env", "grep", "ls", "mktemp", "python3", "rm", "sed", "sh", "tail", "timeout")


class Machine(Struct, frozen=True, kw_only=True):
    """The parts of a machine that bootstrap inspects."""

    #: silent: no Docker engine answers; cached, pullable or empty: the state of its images
    docker: str = "silent"
    postgres: bool = False
    pgbouncer: bool = False
    root: bool = True
    apt: bool = True


class Outcome(Struct, frozen=True, kw_only=True):
    code: int
    messages: str
    #: HARNESS_ENGINE and the arguments of the last nox
    nox: str
    #: the packages of each installation
    packages: list[str]


@contextlib.contextmanager
def answering(docker: str) -> Iterator[str]:
    if docker == "silent":
        yield ""
    else:
        with docker_socket(lambda _: docker == "cached", lambda _: docker == "pullable") as (path, _):
            yield f"unix://{path}"


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def decided(folder: Path, checkout: Path, has: Machine, *arguments: str, **variables: str) -> Outcome:
    """Run bootstrap on a simulated machine, where nox and apt-get only log their arguments."""
    programs = folder / "bin"
    programs.mkdir()
    environment = machine(programs, *_PROGRAMS) | variables
    script(programs / "id", f"echo {0 if has.root else 1000}")
    script(programs / "debootstrap", "")
    script(programs / "apt-get", f'echo "$@" >>"{folder}/apt.log"; exit {0 if has.apt else 100}')
    if has.docker != "silent":
        script(programs / "docker", f'[ "$1" = version ] || echo "unix://{folder}/gone"')
    if has.postgres:
        script(folder / "postgresql" / "17" / "bin" / "postgres", "")
    if has.pgbouncer:
        script(programs / "pgbouncer", "")
    script(checkout / ".venv" / "bin" / "nox", f'echo "${{HARNESS_ENGINE:-unset}}: $*" >>"{folder}/nox.log"')
    for name in ("harness", "topologies"):
        (checkout / name).symlink_to(places.SHIPPED / name)
    text = (places.SHIPPED / "bootstrap").read_text(encoding="utf-8")
    for real, made_up in {
        "/usr/sbin/": f"{folder}/sbin/",
        "/usr/lib/postgresql": f"{folder}/postgresql",
        "/etc/debian_version": str(programs / "apt-get"),
        "/var/run/docker.sock": f"{folder}/docker.sock",
    }.items():
        text = text.replace(real, made_up)
    (checkout / "bootstrap").write_text(text, encoding="utf-8")
    with answering(has.docker) as address:
        done = subprocess.run(
            ["/bin/sh", "./bootstrap", *arguments],
            cwd=checkout,
            env=environment | ({"DOCKER_HOST": address} if address else {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    runs = (folder / "nox.log").read_text().splitlines() if (folder / "nox.log").exists() else []
    runs = [line for line in runs if "--session" in line and "--install-only" not in line]
    installed = (folder / "apt.log").read_text().splitlines() if (folder / "apt.log").exists() else []
    return Outcome(
        code=done.returncode,
        messages=done.stderr,
        nox=runs[-1] if runs else "",
        packages=[line.rpartition("=120 ")[2] for line in installed if line.startswith("install")],
    )


DECISIONS = {
    "no Docker: PgBouncer is installed, PostgreSQL comes from the wheel": (
        Machine(), ["report"], {}, "native: --session report", ["pgbouncer"], "no Docker engine answers",
    ),
    "no Docker, PgBouncer is present": (
        Machine(pgbouncer=True), ["report"], {}, "native: --session report", [], "PostgreSQL 18 from a wheel",
    ),
    "no Docker, PostgreSQL and PgBouncer are present": (
        Machine(pgbouncer=True, postgres=True), ["topology-session"], {}, "native: --session topology-session", [],
        "this machine's PostgreSQL",
    ),
    "no Docker, and the topology has no pooler": (
        Machine(root=False), ["topology-direct"], {}, "native: --session topology-direct", [], "-- --engine docker",
    ),
    "Docker has the images": (
        Machine(docker="cached"), ["report"], {}, "unset: --session report", [], "",
    ),
    "Docker can pull the images": (
        Machine(docker="pullable"), ["report"], {}, "unset: --session report", [], "",
    ),
    "Docker would have to build the images": (
        Machine(docker="empty"), ["report"], {}, "native: --session report", ["pgbouncer"],
        "the image postgres:17 is not cached and cannot be pulled, and building images takes minutes",
    ),
    "an argument names Docker": (
        Machine(docker="empty"), ["report", "--", "--engine", "docker"], {},
        "unset: --session report -- --engine docker", [], "",
    ),
    "an argument names Docker, in one word": (
        Machine(docker="empty"), ["report", "--", "--engine=docker"], {},
        "unset: --session report -- --engine=docker", [], "",
    ),
    "the environment names Docker": (
        Machine(docker="empty"), ["report"], {"HARNESS_ENGINE": "docker"}, "docker: --session report", [], "",
    ),
    "an argument overrides the environment": (
        Machine(docker="cached"), ["report", "--", "--engine", "native"], {"HARNESS_ENGINE": "docker"},
        "native: --session report -- --engine native", ["pgbouncer"], "",
    ),
    "the environment names the native engine": (
        Machine(docker="cached"), ["topology-session"], {"HARNESS_ENGINE": "native"},
        "native: --session topology-session", ["pgbouncer"], "",
    ),
    "the environment names the native engine, for a session that otherwise prefers Docker": (
        Machine(docker="cached", pgbouncer=True), ["prove"], {"HARNESS_ENGINE": "native"},
        "native: --session prove", [], "",
    ),
    "an argument names auto, which HARNESS_ENGINE cannot override": (
        Machine(pgbouncer=True), ["report", "--", "--engine", "auto"], {},
        "native: --session report -- --engine auto --engine native", [], "no Docker engine answers",
    ),
    "an argument names images": (
        Machine(docker="empty"), ["report", "--", "--image-prefix", "mirror/"], {},
        "unset: --session report -- --image-prefix mirror/", [], "",
    ),
    "the report merges evidence of other machines": (
        Machine(root=False), ["report", "--", "--from", "runs"], {}, "unset: --session report -- --from runs", [], "",
    ),
    "prove uses the installed servers": (
        Machine(root=False, postgres=True, pgbouncer=True), ["prove"], {}, "unset: --session prove", [],
        "Docker does not answer, and cannot be installed here; the native engine is used",
    ),
    "the sessions need no engine": (
        Machine(root=False), ["lint", "types", "docs"], {}, "unset: --session lint types docs", [], "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("decision", DECISIONS)
def test_the_engine_is_the_one_that_produces_evidence_sooner(decision: str, tmp_path: Path, checkout: Path) -> None:
    has, arguments, variables, nox, packages, message = DECISIONS[decision]
    outcome = decided(tmp_path, checkout, has, *arguments, **variables)
    assert outcome.code == 0, outcome.messages
    assert outcome.nox == nox
    assert outcome.packages == packages
    assert message in outcome.messages
    assert ("the native engine runs" in outcome.messages) == ("-- --engine docker, which takes" in outcome.messages)


def test_the_project_file_names_the_engine(tmp_path: Path, checkout: Path) -> None:
    (checkout / "harness.toml").write_text('reports = "r"\nengine = "docker"\n[images]\nengine = "native"\n')
    outcome = decided(tmp_path, checkout, Machine(docker="empty"), "report")
    assert (outcome.nox, outcome.packages) == ("unset: --session report", [])


IMPOSSIBLE = {
    "PgBouncer is missing, and the user is not root": (
        Machine(root=False), ["report"], {}, "the native engine requires pgbouncer",
    ),
    "PgBouncer cannot be installed": (Machine(apt=False), ["report"], {}, "cannot install PgBouncer"),
    "the environment names Docker, which is missing": (
        Machine(root=False, postgres=True, pgbouncer=True), ["report"], {"HARNESS_ENGINE": "docker"},
        "Docker was requested, but does not answer",
    ),
    "DOCKER_HOST names an engine that does not answer": (
        Machine(pgbouncer=True), ["prove"], {"DOCKER_HOST": "unix:///gone", "HARNESS_ENGINE": "docker"},
        "Docker was requested, but does not answer",
    ),
    "prove finds no engine": (Machine(root=False), ["prove"], {}, "no engine can run the servers"),
}  # fmt: skip


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_an_impossible_step_is_one_sentence_and_exit_3(case: str, tmp_path: Path, checkout: Path) -> None:
    has, arguments, variables, message = IMPOSSIBLE[case]
    outcome = decided(tmp_path, checkout, has, *arguments, **variables)
    assert outcome.code == 3
    assert outcome.nox == ""
    assert message in outcome.messages.strip().splitlines()[-1]
