"""List the shipped job engines, and load one from its TOML file."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from packaging.requirements import InvalidRequirement, Requirement

from harness import config
from harness.errors import ConfigError, UsageError
from harness.host.placeholders import braced, filled, placeholders_in
from harness.host.program_files import named_files, program_digest
from harness.job_engines.target_file import NEEDS, Documented, JobEngineFile, JobFeature, Packages, Settings, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator

SHIPPED = Path(__file__).resolve().parent / "targets"
#: the name of a job engine becomes part of the ids of its checks
_NAME = re.compile(r"^[a-z][a-z0-9-]{0,39}$")
_NPM = re.compile(r"^(?:@[a-z0-9][\w.-]*/)?[a-z0-9][\w.-]*@\d+\.\d+\.\d+(?:[-+][\w.-]+)?$", re.ASCII)
#: placeholders of every command
_EVERYWHERE = ("folder", "python", "node")
#: placeholders of one command: each of them has to be there
_KEYS: dict[str, tuple[str, ...]] = {
    "install": (),
    "enqueue": ("first", "last"),
    "work": (),
    "cancel": ("key",),
    "waiting": ("key",),
    "approve": ("key",),
    "schedule": ("key",),
    "fork": ("key", "new"),
    "children": ("key", "first", "last"),
    "in_transaction": ("key", "new"),
}
#: the commands of a feature; the other features need none
_COMMANDS: dict[JobFeature, tuple[str, ...]] = {
    JobFeature.CANCEL: ("cancel",),
    JobFeature.APPROVE: ("waiting", "approve"),
    JobFeature.CRON: ("schedule",),
    JobFeature.FORK: ("fork",),
    JobFeature.CHILDREN: ("children",),
    JobFeature.TRANSACTION: ("in_transaction",),
}


class JobEngine(Struct, frozen=True, kw_only=True):
    """A job engine under test."""

    name: str
    #: the absolute folder of its file
    folder: Path
    file: JobEngineFile
    #: whether it ships with the harness
    shipped: bool
    #: a digest of the file and of its programs; see :mod:`harness.host.program_files`
    fingerprint: str

    @property
    def title(self) -> str:
        return self.file.title

    @property
    def packages(self) -> Packages:
        return self.file.packages

    @property
    def not_run(self) -> str:
        return self.file.not_run

    @property
    def identity(self) -> str:
        """Return the key of evidence about this job engine: its name, version and fingerprint."""
        return f"{self.name} {self.file.version} {self.fingerprint}"

    @property
    def own_file(self) -> str:
        """Return the path of its file, from the current folder if it is below; "" if it ships with the harness."""
        path, here = self.folder / f"{self.name}.toml", Path.cwd()
        return "" if self.shipped else str(path.relative_to(here) if path.is_relative_to(here) else path)

    def variant(self, name: str) -> Variant:
        """Return a variant.

        :raises UsageError: for an unknown name.
        """
        if (found := self.file.variants.get(name)) is None:
            raise UsageError(
                f"unknown variant {name!r} of the job engine {self.name}", hint=config.nearest(name, self.file.variants)
            )
        return found

    def settings_of(self, variant: str) -> Settings:
        """Return the settings of a variant: those of the engine, and its own in their place."""
        return msgspec.convert(_merged(self.file, self.variant(variant)), Settings)

    def has(self, command: str) -> bool:
        """Return whether the target has a command, such as `cancel`."""
        return bool(getattr(self.file.commands, command))

    def command(self, which: str, **placeholders: object) -> tuple[str, ...]:
        """Return the program and the arguments of a command, with its placeholders filled.

        :param which: the name of the command, such as `enqueue`.
        :param placeholders: `python` and `node` as installed, and the keys of the command, such as `first` and `last`.
        :raises KeyError: when the command names a placeholder that has no value.
        """
        values = {"folder": self.folder, **placeholders}
        return filled(getattr(self.file.commands, which), values)

    def uses(self, placeholder: str) -> bool:
        """Return whether a command names a placeholder, such as `node`."""
        return any(placeholder in placeholders_in(arguments) for _, arguments in _commands(self.file))


@cache
def shipped() -> tuple[JobEngine, ...]:
    """Return the job engines that ship with the harness, by name; their files are read once."""
    return tuple(_load(path, shipped=True) for path in sorted(SHIPPED.glob("*.toml")))


class _DocumentedFile(Struct, frozen=True, forbid_unknown_fields=True):
    documented: tuple[Documented, ...]


@cache
def documented_for_all() -> tuple[Documented, ...]:
    """Return what is documented about every job engine behind a pooler."""
    return config.load(SHIPPED.parent / "documented.toml", _DocumentedFile).documented


def load(path: Path) -> JobEngine:
    """Return the job engine that a TOML file describes.

    :raises ConfigError: with file, line and key.
    """
    try:
        folder = path.resolve().parent
    except (OSError, RuntimeError) as error:  # a loop of symbolic links
        raise ConfigError(f"the file of a job engine cannot be read: {error}", where=str(path)) from None
    return _load(path, shipped=folder == SHIPPED)


def _load(path: Path, *, shipped: bool) -> JobEngine:
    name = path.stem
    if not _NAME.match(name):
        raise ConfigError(
            f"invalid name {name!r} of a job engine: the ids of its checks contain it",
            where=str(path),
            hint="rename the file: lower-case letters, digits and dashes, a letter first",
        )
    file = config.load(path, JobEngineFile)
    folder = path.absolute().parent
    for key, problem, hint in (
        *wrong_packages(file.packages),
        *_wrong_commands(file, folder),
        *_wrong_claims(file),
        *_wrong_settings(file),
        *_wrong_documented(file),
    ):
        # the line of a key is found by its last word, which is not unique in variants and in documented outcomes
        where = config.at_key(str(path), key) if key.startswith(("packages", "commands", "claims")) else str(path)
        raise ConfigError(f"{key}: {problem}", where=where, hint=hint)
    digest = _digest(path, file, folder, shipped=shipped)
    return JobEngine(name=name, folder=folder, file=file, shipped=shipped, fingerprint=digest)


#: the key, the problem, and what to try
_Problem = tuple[str, str, str]


def wrong_packages(packages: Packages) -> Iterator[_Problem]:
    """Yield packages without an exact version: an installation is kept, and evidence is about one version."""
    for text in packages.python:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            yield "packages.python", f"{text!r} is not a requirement", "write NAME==VERSION, such as dbos==3.4.0"
            continue
        pins = [pin for pin in requirement.specifier if pin.operator == "==" and not pin.version.endswith(".*")]
        if requirement.url or len(pins) != 1:
            yield "packages.python", f"{text!r} names no exact version", f"write {requirement.name}==VERSION"
    for text in packages.npm:
        if not _NPM.match(text):
            yield "packages.npm", f"{text!r} names no exact version", "write NAME@VERSION, such as pg-boss@12.38.0"


def _wrong_commands(file: JobEngineFile, folder: Path) -> Iterator[_Problem]:
    for name, arguments in _commands(file):
        key, allowed, found = f"commands.{name}", (*_EVERYWHERE, *_KEYS[name]), placeholders_in(arguments)
        for placeholder in found:
            if placeholder not in allowed:
                yield (
                    key,
                    f"unknown placeholder {{{placeholder}}}; allowed here: {braced(allowed)}",
                    config.close_to(placeholder, allowed)
                    or "move code with a word in braces into a program next to the target file",
                )
        if missing := [placeholder for placeholder in _KEYS[name] if placeholder not in found]:
            yield key, f"needs {braced(missing)}, which no argument contains", f"add {braced(missing)} as an argument"
        for program in named_files(arguments, folder):
            if not file.not_run and not program.is_file():
                yield key, f"no such file {program}", "{folder} is the folder of the target file"


def _wrong_claims(file: JobEngineFile) -> Iterator[_Problem]:
    for feature, commands in _COMMANDS.items():
        for name in commands:
            has = bool(getattr(file.commands, name))
            if feature in file.claims and not has:
                yield (
                    "claims",
                    f"{feature} requires commands.{name}, which is missing",
                    f"add commands.{name}, or remove {feature}: its checks are then N/A",
                )
            elif has and feature not in file.claims:
                yield f"commands.{name}", f"nothing runs it, because claims lack {feature}", f"add {feature} to claims"
    if JobFeature.HEARTBEAT in file.claims and JobFeature.LEASE not in file.claims:
        yield "claims", "heartbeat requires lease, which is missing", "add lease: a heartbeat renews it"
    if JobFeature.LEASE in file.claims and not any(
        _merged(file, variant)["lease_s"] for variant in file.variants.values()
    ):
        yield "claims", "lease requires settings.lease_s, which no variant has", "add settings.lease_s, in seconds"


def _wrong_settings(file: JobEngineFile) -> Iterator[_Problem]:
    for name, variant in file.variants.items():
        try:
            config.convert(_merged(file, variant), Settings, where="")
        except ConfigError as error:
            yield f"variants.{name}.settings.{error.what.partition(':')[0]}", error.what.partition(": ")[2], error.hint


def _wrong_documented(file: JobEngineFile) -> Iterator[_Problem]:
    for number, entry in enumerate(file.documented):
        key = f"documented[{number}]"
        for variant in entry.variants:
            if variant not in file.variants:
                yield f"{key}.variants", f"unknown variant {variant!r}", config.nearest(variant, file.variants)
        for case in entry.cases:
            needed = NEEDS.get(case)
            if needed is not None and needed not in file.claims:
                yield f"{key}.cases", f"{case} does not run, because claims lack {needed}", f"add {needed} to claims"


def _merged(file: JobEngineFile, variant: Variant) -> dict[str, Any]:
    return {**msgspec.to_builtins(file.settings), **variant.settings}


def _commands(file: JobEngineFile) -> list[tuple[str, tuple[str, ...]]]:
    """Return the commands that the file has, by name."""
    return [(name, arguments) for name in _KEYS if (arguments := getattr(file.commands, name))]


def _digest(path: Path, file: JobEngineFile, folder: Path, *, shipped: bool) -> str:
    try:
        declared = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", where=str(path)) from None
    arguments = (argument for _, arguments in _commands(file) for argument in arguments)
    # shipped files are the same with and without the repository of the harness
    return program_digest(declared, arguments, folder=folder, where=str(path), ask_git=not shipped)
