"""`[gates]` in `harness.toml`: what a repository says about its own gates.

Paths are relative to the repository. `docs/gates.md` explains every key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Struct

from harness import config
from harness.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

_Line = Annotated[str, Meta(pattern=r"^[^\r\n\x00]+$", max_length=300)]
_Path = Annotated[str, Meta(pattern=r"^(?!/)(?!(.*/)?\.\.(/|$))[^\r\n\x00]+$", max_length=300)]
_Seconds = Annotated[float, Meta(gt=0, le=86_400)]
#: gates that a repository may omit, each with its reason
Gate = Literal[
    "workflow.lint", "workflow.types", "workflow.unit", "workflow.smoke", "workflow.failures", "smoke.fails",
    "template.fields", "codeowners.patterns", "runbooks.links", "runbooks.commands", "secrets.history",
    "quarantine.entries",
]  # fmt: skip


class Seed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mistake that a check must notice: a patch to apply, a file to write, or a program that fails."""

    #: a patch, as `git diff` prints it
    patch: _Path | Literal[""] = ""
    #: a file to write, with `text`; an existing file is replaced
    file: _Path | Literal[""] = ""
    #: the content of `file`
    text: str = ""
    #: a program, such as `curl`, that a stand-in replaces: it exits with 1
    program: Annotated[str, Meta(pattern=r"^(\w[\w.+-]*)?$", max_length=100)] = ""
    #: a text that the output must then contain: the check fails because of this seed
    expect: str = ""


class SeededCheck(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command of the repository that passes, and fails with its seed."""

    #: its row is `seeded.NAME`
    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,40}$")]
    #: the program and its arguments
    run: Annotated[tuple[_Line, ...], Meta(min_length=1)]
    #: the mistake
    seed: Seed
    #: for each of its two runs
    deadline_s: _Seconds = 300.0


class Steps(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Texts of workflow steps that no rule recognises: a command that contains one of them is of that kind."""

    #: commands that check style
    lint: tuple[_Line, ...] = ()
    #: commands that check types
    types: tuple[_Line, ...] = ()
    #: commands that run unit tests
    unit: tuple[_Line, ...] = ()
    #: commands that start the system and use it
    smoke: tuple[_Line, ...] = ()
    #: commands that check nothing, so that their failure may be ignored
    other: tuple[_Line, ...] = ()


class Secrets(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Secrets that are none, and the bounds of a look at the history."""

    #: values that are documented development defaults, such as the password of a local database
    defaults: tuple[_Line, ...] = ()
    #: files that contain made-up secrets, such as tests of a redactor
    files: tuple[_Line, ...] = ()
    #: how long the history is read
    history_s: _Seconds = 60.0
    #: how much of the history is read, in megabytes of patches
    history_mb: Annotated[int, Meta(ge=1, le=100_000)] = 200


class GatesDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gates]`; every key is optional."""

    #: fields that the template of pull requests has, as headings or labels
    template_fields: Annotated[tuple[_Line, ...], Meta(min_length=1)] = ("Plan", "Tests", "Acceptance Criteria")
    #: patterns of runbooks, for example `docs/runbooks/**/*.md`; by default, files and folders named so
    runbooks: tuple[_Path, ...] = ()
    #: deadline of one block of commands in a runbook
    runbook_deadline_s: _Seconds = 120.0
    #: files that list tests in quarantine: TOML, YAML or JSON; by default, files with that name
    quarantine: tuple[_Path, ...] = ()
    #: files and folders that git ignores and commands need, such as `node_modules`: they are copied, too
    also_copy: tuple[_Path, ...] = ()
    #: gates that do not apply here, each with its reason; their rows are N/A
    omit: dict[Gate, Annotated[str, Meta(min_length=10, max_length=300)]] = {}
    #: steps of workflows that no rule recognises
    steps: Steps = Steps()
    #: what is not a secret, and how much of the history is read
    secrets: Secrets = Secrets()
    #: checks with a mistake that each must notice
    checks: tuple[SeededCheck, ...] = ()


class _File(Struct, frozen=True):
    """The file; its other tables belong to other commands."""

    gates: GatesDeclaration = GatesDeclaration()


def load_declaration(root: Path, file: Path | None) -> GatesDeclaration:
    """Read `[gates]` of a file, by default of the repository's `harness.toml`.

    :raises ConfigError: for a mistake in the file.
    :raises UsageError: when the default file leads out of the repository.
    """
    path = file or root / "harness.toml"
    if file is None:
        if not path.exists() and not path.is_symlink():
            return GatesDeclaration()
        if not path.resolve().is_relative_to(root.resolve()):
            raise UsageError("harness.toml leads out of the repository", where=str(path), hint="name a file: --config")
    declared = config.load(path, _File).gates
    require_sound(declared, path)
    return declared


def require_sound(declared: GatesDeclaration, path: Path) -> None:
    """Reject seeds without a mistake, and names that are used twice.

    :raises ConfigError: for the first of them.
    """
    names = [check.name for check in declared.checks]
    for check in declared.checks:
        if names.count(check.name) > 1:
            raise ConfigError(f"gates.checks: {check.name} is declared twice, expected one", where=str(path))
        found = [key for key in ("patch", "file", "program") if getattr(check.seed, key)]
        if len(found) != 1:
            raise ConfigError(
                f"gates.checks: {check.name}.seed: found {' and '.join(found) or 'none'} of patch, file and program, "
                "expected one of them",
                where=str(path),
                hint='write seed = { file = "src/seed.py", text = "import os\\n" }',
            )
        if not check.seed.file and check.seed.text:
            raise ConfigError(
                f"gates.checks: {check.name}.seed: text belongs to file, not to {found[0]}", where=str(path)
            )
