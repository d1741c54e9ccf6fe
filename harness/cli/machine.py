"""`doctor`, `images`, `reap`: what this machine can run, images in advance, and cleanup."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from typing import TYPE_CHECKING, Any, cast

import click

from harness.checks.scheduler import MOST_TOPOLOGIES
from harness.cli import options
from harness.cli.exit_codes import ExitCode
from harness.cli.invocation import Invocation, command
from harness.cli.named_topologies import require_used
from harness.cli.usage import as_started
from harness.engine.docker_engine import DockerEngine
from harness.engine.docker_reach import Published
from harness.engine.native_engine import NativeEngine
from harness.engine.programs import find_program
from harness.engine.service_user import as_user
from harness.engine.virtual_environments import find_python
from harness.errors import EngineUnavailableError, HarnessError
from harness.host.journal import abandoned
from harness.host.leftovers import about
from harness.ingest.operator_store import reap_store
from harness.job_engines.scratch import reap_scratch_folders
from harness.lab.host import HOST
from harness.lab.links import LINK
from harness.lab.login_files import reap_login_files
from harness.lab.topologies import load_topologies, select, wanted_by, with_versions
from harness.redaction import Redactor
from harness.store import require_writable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from harness.engine.protocol import Origin, Wanted
    from harness.engine.storage import StoragePolicy

_INDENT = " " * 21


@command("doctor", section="This machine", examples=("harness doctor",))
@options.reading
def doctor(invocation: Invocation) -> int:
    """Show what this machine can run, and what prevents the rest.

    Exits with 3 when no engine is usable or the reports folder is not writable.
    """
    settings = invocation.settings
    topologies = load_topologies(settings.topologies)
    wanted = tuple(dict.fromkeys(product for topology in topologies.values() for product in wanted_by(topology)))
    engines = [
        _print_answer("docker", lambda: _docker(settings.storage)),
        _print_answer("native", lambda: _native(wanted, settings.storage)),
    ]
    writable = _print_answer("reports", lambda: _reports(settings.reports))
    sys.stdout.write(f"{'topologies':<12} ok       {', '.join(topologies)}\n")
    if not any(engines):
        sys.stdout.write("\nno engine can run the servers: start Docker, or install postgresql and pgbouncer\n")
    return ExitCode.OK if any(engines) and writable else ExitCode.NOTHING_VERIFIED


def _print_answer(name: str, question: Callable[[], list[str]]) -> bool:
    """Print the answer to a question, or why there is none; return whether it was answered."""
    try:
        answer, *more = question()
    except HarnessError as error:
        root = click.get_current_context().find_root()
        hint = as_started(error.hint, root.info_name or "harness", cast("click.Group", root.command).commands)
        sys.stdout.write(f"{name:<12} missing  {error.what}\n" + (f"{_INDENT} try: {hint}\n" if hint else ""))
        return False
    sys.stdout.write(f"{name:<12} ok       {answer}\n")
    sys.stdout.writelines(f"{_INDENT} {line}\n" for line in more)
    return True


def _docker(storage: StoragePolicy) -> list[str]:
    engine = DockerEngine(storage=storage)
    try:
        at = engine.reach.published
        ports = [f"ports are published on {at.bind} of the engine's machine, and reached at {at.host}"]
        return [
            f"engine {engine.version} at {engine.address}",
            *(ports if at != Published() else []),
            engine.memory.describe(MOST_TOPOLOGIES),
        ]
    finally:
        engine.close()


def _native(wanted: tuple[Wanted, ...], storage: StoragePolicy) -> list[str]:
    """Return the installed programs and the missing ones.

    :raises EngineUnavailableError: when PostgreSQL is missing: no topology can start without it.
    """
    found: dict[tuple[str, str], Origin] = {}
    missing = []
    for product in wanted:
        try:
            origin = find_program(product)
        except EngineUnavailableError as error:
            if product.product == "postgres":
                raise
            missing.append(error.what)
        else:
            found.setdefault((origin.product, origin.version), origin)
    programs = [
        f"{origin.product} {origin.version} ({origin.reference})" + (f": {origin.note}" if origin.note else "")
        for origin in found.values()
    ]
    engine = NativeEngine(storage)
    link = f"link for faults of the network: Python {platform.python_version()} ({sys.executable})"
    return [*programs, *missing, _reference_host(engine), link, engine.memory.describe(MOST_TOPOLOGIES)]


def _reference_host(engine: NativeEngine) -> str:
    """Return the Python that runs the reference host, or why none can."""
    try:
        return f"reference host: {find_python(HOST, as_user(engine.user))}"
    except EngineUnavailableError as error:
        where = f"{error.where}: " if error.where.startswith("HARNESS_PYTHON") else ""
        return f"reference host: missing: {where}{error.what}; try: {error.hint}"


def _reports(folder: Path) -> list[str]:
    require_writable(folder)
    return [f"{folder} is writable, {shutil.disk_usage(folder).free // 2**20} MiB free"]


@command(
    "images",
    section="This machine",
    examples=("harness images", "harness images transaction --set postgres=15 --pull always"),
)
@options.topologies_argument
@options.images
@options.topologies_folder
@options.verbose
def images(invocation: Invocation, topologies: Sequence[str]) -> int:
    """Pull or build the images that topologies need."""
    settings = invocation.settings
    chosen = [
        with_versions(topology, settings.versions)
        for topology in select(load_topologies(settings.topologies), topologies)
    ]
    require_used(settings, chosen)
    products = [product for topology in chosen for product in wanted_by(topology)]
    wanted = tuple(dict.fromkeys((*products, HOST, LINK)))
    engine = DockerEngine(settings.images)
    try:
        engine.prepare(wanted, invocation.terminal)
        for product in wanted:
            tag, origin = engine.origin(product)
            version = origin.version or product.version
            sys.stdout.write(f"{product.product} {version}  {tag}  from {origin.reference}\n")
    finally:
        engine.close()
    return ExitCode.OK


@command("reap", section="This machine", examples=("harness reap", "harness reap --engine docker"))
@options.engine
def reap(invocation: Invocation) -> int:
    """Remove the servers and files that killed runs left behind.

    Resources of a run whose process is alive are never removed. Rows that a killed run left in an environment of
    harness.toml are named with the SQL that deletes them. Objects that runs of this machine left in the store of
    harness.toml are deleted; its variables have to be set.
    """
    chosen = invocation.settings.engine
    engines: list[Any] = [NativeEngine()] if chosen != "docker" else []
    if chosen != "native":
        try:
            engines.append(DockerEngine(invocation.settings.images))
        except EngineUnavailableError as error:
            if chosen == "docker":
                raise
            invocation.terminal.say(f"skipped Docker: {error.what}")
    removed = reap_login_files() + reap_scratch_folders()
    for engine in engines:
        removed += engine.reap()
        engine.close()
    removed += _reaped_in_store(invocation)
    for line in removed:
        sys.stdout.write(f"removed {line}\n")
    left = [about(note) for _, note in abandoned()]
    for sentence in left:
        invocation.terminal.say(sentence)
    if not removed and not left:
        invocation.terminal.say("nothing to remove")
    return ExitCode.OK


def _reaped_in_store(invocation: Invocation) -> list[str]:
    """Delete what killed runs left in the store that harness.toml declares; return one line for each folder."""
    declared, redact = invocation.settings.project_pipeline.store, Redactor()
    try:
        return reap_store(declared, os.environ, redact) if declared else []
    except HarnessError as error:
        invocation.terminal.say(f"skipped the store of [store]: {redact(error.what)}")
        return []
