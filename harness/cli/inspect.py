"""`list`, `matrix`, `images`, `doctor`, `reap`: looking, and cleaning up."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from harness.audit.target_loading import shipped_targets
from harness.config import nearest
from harness.engine.docker_engine import DockerEngine
from harness.engine.native_engine import NativeEngine
from harness.engine.programs import find_program
from harness.errors import EngineUnavailableError, HarnessError, UsageError
from harness.lab.host import HOST
from harness.lab.topologies import load_topologies, select, wanted_by, with_versions
from harness.store import require_writable
from harness.suites.catalogue import catalogue

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from harness.cli.context import Context
    from harness.engine.protocol import Origin
    from harness.engine.storage import StoragePolicy


def list_things(context: Context, arguments: Namespace) -> int:
    """Print topologies, suites, checks or audit targets; all of them when none is named."""
    kinds = {"topologies": _topologies, "suites": _suites, "checks": _checks, "targets": _targets}
    if arguments.what and arguments.what not in kinds:
        raise UsageError(f"there is no list of {arguments.what!r}", hint=nearest(arguments.what, kinds))
    chosen = [arguments.what] if arguments.what else list(kinds)
    found = {kind: kinds[kind](context) for kind in chosen}
    if arguments.json:
        _print_json(found if not arguments.what else found[arguments.what])
        return 0
    for kind in chosen:
        if not arguments.what:
            sys.stdout.write(f"{kind}:\n")
        for each in found[kind]:
            extra = f"  {each['severity']}" if "severity" in each else ""
            sys.stdout.write(f"  {each['name']:<34}{extra}  {each['summary']}\n")
    return 0


def _topologies(context: Context) -> list[dict[str, Any]]:
    return [
        {
            "name": each.name,
            "summary": each.summary,
            "on_demand": each.on_demand,
            "postgres": each.postgres.version,
            "pooler": msgspec.to_builtins(each.pooler),
        }
        for each in load_topologies(context.settings.topologies).values()
    ]


def _suites(_context: Context) -> list[dict[str, Any]]:
    checks = catalogue().checks
    return [
        {"name": suite, "summary": f"{sum(each.id.startswith(suite + '.') for each in checks)} checks"}
        for suite in catalogue().suites()
    ]


def _targets(_context: Context) -> list[dict[str, Any]]:
    return [{"name": name, "summary": summary} for name, summary in shipped_targets().items()]


def _checks(_context: Context) -> list[dict[str, Any]]:
    return [
        {
            "name": each.id,
            "summary": each.claim,
            "severity": each.severity.value,
            "section": each.section.value,
            "needs": [need.name for need in each.needs],
            "claims": [claim.value for claim in each.claims],
            "controls": [{"name": control.name, "at": control.at} for control in catalogue().controls_of(each.id)],
        }
        for each in catalogue().checks
    ]


def matrix(context: Context, arguments: Namespace) -> int:
    """Print the CI matrix: one job for each topology, and for each of the versions that are asked for."""
    topologies = load_topologies(context.settings.topologies)
    axes = [[(product, version) for version in versions] for product, versions in _axes(arguments.axis).items()]
    jobs: dict[str, dict[str, str]] = {}
    for name, declared in topologies.items():
        if declared.on_demand and not arguments.all:
            continue
        for versions in itertools.product(*axes):
            each = with_versions(declared, dict(versions))
            pooler = each.pooler
            asked = [
                f"--set {product}={version}"
                for product, version in versions
                if product == "postgres" or (pooler and pooler.product == product)
            ]
            jobs.setdefault(
                each.name,
                {
                    "topology": name,
                    "environment": each.name,
                    "session": f"topology-{name}",
                    "arguments": " ".join(asked),
                    "postgres": each.postgres.version,
                    "pooler": f"{pooler.product} {pooler.version}" if pooler else "none",
                },
            )
    _print_json({"include": list(jobs.values())})
    return 0


def _axes(values: list[str] | None) -> dict[str, list[str]]:
    """Return product to versions; `postgres=15,17` and the option repeated are the same."""
    axes: dict[str, list[str]] = {}
    for each in values or []:
        product, found, versions = each.partition("=")
        if not found or not product or not all(versions.split(",")):
            raise UsageError(f"--set: found {each!r}, needed PRODUCT=VERSION[,VERSION]", hint="--set postgres=15,17")
        axes.setdefault(product, []).extend(versions.split(","))
    return axes


def images(context: Context, arguments: Namespace) -> int:
    """Make every image ready that the named topologies need."""
    settings = context.settings
    known = {
        name: with_versions(each, settings.versions) for name, each in load_topologies(settings.topologies).items()
    }
    wanted = dict.fromkeys(each for topology in select(known, arguments.topologies) for each in wanted_by(topology))
    wanted[HOST] = None
    engine = DockerEngine(settings.images)
    try:
        engine.prepare(tuple(wanted), context.terminal)
        for each in wanted:
            tag, origin = engine.origin(each)
            sys.stdout.write(f"{each.product} {origin.version or each.version}  {tag}  from {origin.reference}\n")
    finally:
        engine.close()
    return 0


def doctor(context: Context, _arguments: Namespace) -> int:
    """Say what this machine can run, and what is in the way."""
    settings = context.settings
    topologies = load_topologies(settings.topologies)
    wanted = tuple(dict.fromkeys(each for topology in topologies.values() for each in wanted_by(topology)))
    usable = [
        _ask("docker", lambda: _docker(settings.storage)),
        _ask("native", lambda: _native(wanted, settings.storage)),
    ]
    writable = _ask("reports", lambda: _reports(context))
    sys.stdout.write(f"{'topologies':<12} ok       {', '.join(topologies)}\n")
    if not any(usable):
        sys.stdout.write("\nnothing can run the servers: start Docker, or install postgresql and pgbouncer\n")
    return 0 if any(usable) and writable else 3


def _ask(name: str, question: Callable[[], list[str]]) -> bool:
    try:
        answer, *more = question()
    except HarnessError as error:
        sys.stdout.write(
            f"{name:<12} missing  {error.what}\n" + (f"{'':<12}          try: {error.hint}\n" if error.hint else "")
        )
        return False
    sys.stdout.write(f"{name:<12} ok       {answer}\n")
    sys.stdout.writelines(f"{'':<21} {line}\n" for line in more)
    return True


def _docker(storage: StoragePolicy) -> list[str]:
    engine = DockerEngine(storage=storage)
    try:
        return [f"engine {engine.version} at {engine.address}", engine.memory.describe()]
    finally:
        engine.close()


def _native(wanted: tuple[Any, ...], storage: StoragePolicy) -> list[str]:
    found: dict[tuple[str, str], Origin] = {}
    missing = []
    for each in wanted:
        try:
            origin = find_program(each)
        except EngineUnavailableError as error:
            if each.product == "postgres":  # without it nothing stands
                raise
            missing.append(error.what)
        else:
            found.setdefault((origin.product, origin.version), origin)
    programs = [
        f"{each.product} {each.version} ({each.reference})" + (f": {each.note}" if each.note else "")
        for each in found.values()
    ]
    return [*programs, *missing, NativeEngine(storage).memory.describe()]


def _reports(context: Context) -> list[str]:
    folder = context.settings.reports
    require_writable(folder)
    return [f"{folder} is writable, {shutil.disk_usage(folder).free // 2**20} MiB free"]


def reap(context: Context, _arguments: Namespace) -> int:
    """Remove what killed runs left; never what belongs to a run that is alive."""
    engines: list[Any] = [NativeEngine()] if context.settings.engine != "docker" else []
    if context.settings.engine != "native":
        try:
            engines.append(DockerEngine(context.settings.images))
        except EngineUnavailableError as error:
            if context.settings.engine == "docker":
                raise
            context.terminal.say(f"Docker was not asked: {error.what}")
    removed = []
    for engine in engines:
        removed += engine.reap()
        engine.close()
    for line in removed:
        sys.stdout.write(f"removed {line}\n")
    if not removed:
        context.terminal.say("nothing was left over")
    return 0


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
