"""Shell completion: names of topologies, suites, checks and controls, and the scripts for bash, zsh and fish."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, get_completion_class, shell_complete

from harness.cli.parser import Command, OneOf
from harness.cli.settings_options import SettingsOptions
from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.cli.settings import Settings
    from harness.job_engines.loading import JobEngine

#: the console scripts in pyproject.toml
SCRIPTS = ("harness", "pooler-harness")
SHELLS = ("bash", "zsh", "fish")

_ENABLE = """\
bash   add to ~/.bashrc:                    eval "$({script} completion bash)"
zsh    add to ~/.zshrc, after compinit:     eval "$({script} completion zsh)"
fish   add to ~/.config/fish/config.fish:   {script} completion fish | source

Each line completes both `harness` and `pooler-harness`. bash must be 4.4 or newer.
`python -m harness` is not completed: a shell completes the program, which is python there.
"""


@click.command(
    "completion",
    cls=Command,
    section="This machine",
    examples=("harness completion", 'eval "$(harness completion bash)"', "harness completion fish | source"),
)
@click.argument("shell", metavar="[bash|zsh|fish]", type=OneOf(SHELLS), required=False, help="the shell to complete in")
def completion(shell: str | None) -> int:
    """Print the completion script of a shell; without the name of one, say how to enable it."""
    if shell is None:
        click.echo(_ENABLE.format(script=SCRIPTS[0]), nl=False)
        return 0
    kind = get_completion_class(shell)
    root = click.get_current_context().find_root().command
    if kind is not None:
        for script in SCRIPTS:
            click.echo(kind(root, {}, script, _variable(script)).source())
    return 0


def answer_shell(root: click.Command, script: str) -> int | None:
    """Answer the request of a completion script; None when the environment holds none.

    :param script: name under which the process was started.
    :return: the exit code.
    """
    variable = _variable(script)
    instruction = os.environ.get(variable)
    return shell_complete(root, {}, script, variable, instruction) if instruction else None


def _variable(script: str) -> str:
    """Return click's name of the variable in which a completion script asks."""
    return f"_{script.replace('-', '_')}_COMPLETE".upper()


def topology_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from harness.lab.topologies import load_topologies  # noqa: PLC0415 -- for shells only

    settings = _settings(ctx)
    if settings is None:
        return []
    try:
        found = load_topologies(settings.topologies)
    except HarnessError:
        return []
    return _items({name: topology.summary for name, topology in found.items()}, incomplete)


def suite_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    settings = _settings(ctx)
    return _items(dict.fromkeys(settings.catalogue.suites(), ""), incomplete) if settings else []


def check_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    settings = _settings(ctx)
    return _items({check.id: check.claim for check in settings.catalogue.checks}, incomplete) if settings else []


def control_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the controls of the checks that are named before the option; of all checks when none is."""
    settings = _settings(ctx)
    if settings is None:
        return []
    checks = ctx.params.get("checks") or ()
    controls = [control for control in settings.catalogue.controls if not checks or control.check in checks]
    return _items({control.name: f"{control.check}, at {control.at}" for control in controls}, incomplete)


def environment_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    settings = _settings(ctx)
    return _items(dict.fromkeys(settings.environments, ""), incomplete) if settings else []


def workflow_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    settings = _settings(ctx)
    return _items({flow.name: flow.release for flow in settings.workflows}, incomplete) if settings else []


def target_names(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the shipped audit targets, and files."""
    from harness.audit.target_loading import shipped_targets  # noqa: PLC0415 -- for shells only

    return _items(shipped_targets(), incomplete) or [CompletionItem(incomplete, type="file")]


def mutant_names(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the faulty variants of the sound trails."""
    from harness.mutants.variants import variants  # noqa: PLC0415 -- for shells only

    return _items({variant.full_name: variant.fault for variant in variants()}, incomplete)


def job_engine_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the job engines of harness.toml and the shipped ones, and files."""
    items = _items({engine.name: engine.file.summary for engine in _job_engines(ctx)}, incomplete)
    return items or [CompletionItem(incomplete, type="file")]


def pipeline_names(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the shipped ingest pipelines, and files."""
    from harness.ingest.loading import shipped  # noqa: PLC0415 -- for shells only

    items = _items({pipeline.name: pipeline.file.summary for pipeline in shipped()}, incomplete)
    return items or [CompletionItem(incomplete, type="file")]


def variant_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the variants of the job engines that are named before the option; of all when none is."""
    named = {*(ctx.params.get("job_engines") or ()), ctx.params.get("job_engine")}
    engines = _job_engines(ctx)
    chosen = [engine for engine in engines if engine.name in named] or engines
    return _items({variant: "" for engine in chosen for variant in engine.file.variants}, incomplete)


def run_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the ids of runs, newest first, and folders."""
    from harness.cli.run_evidence import LATEST, run_names  # noqa: PLC0415 -- for shells only

    settings = _settings(ctx)
    names = dict.fromkeys((LATEST, *run_names(settings.reports)), "") if settings else {}
    return _items(names, incomplete) or [CompletionItem(incomplete, type="dir")]


def folder_names(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="dir")]


def file_names(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


def _job_engines(ctx: click.Context) -> Sequence[JobEngine]:
    """Return the job engines of harness.toml and the shipped ones."""
    from harness.job_engines.loading import shipped  # noqa: PLC0415 -- for shells only

    settings = _settings(ctx)
    return (*(settings.job_engines.declared if settings else ()), *shipped())


def _settings(ctx: click.Context) -> Settings | None:
    """Return the settings; None when harness.toml is invalid, which a completion cannot report."""
    from harness.cli.settings import read_settings  # noqa: PLC0415 -- for shells only; it imports all suites

    folder, reports = (ctx.params.get(name) or None for name in ("topologies_folder", "reports"))
    with contextlib.suppress(HarnessError):
        return read_settings(SettingsOptions(topologies_folder=folder, reports=reports))
    return None


def _items(summaries: dict[str, str], incomplete: str) -> list[CompletionItem]:
    return [
        CompletionItem(name, help=summary or None) for name, summary in summaries.items() if name.startswith(incomplete)
    ]
