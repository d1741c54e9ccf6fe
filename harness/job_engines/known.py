"""The job engines that a command knows: the shipped ones, those of `harness.toml`, and those that an option names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness import config
from harness.errors import ConfigError, HarnessError, UsageError
from harness.job_engines.loading import JobEngine, load, shipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from harness.model import JobLabel

_SUFFIX = ".toml"


class KnownJobEngines(Struct, frozen=True, kw_only=True):
    """The job engines of a project, and those that a command is about."""

    #: of `harness.toml`: their rows are planned as those of the suites are
    declared: tuple[JobEngine, ...] = ()
    #: files that an option names, by the path as it was written: their rows run for this command only
    given: dict[str, JobEngine] = {}
    #: the names of those that the command is about; all when empty
    chosen: frozenset[str] = frozenset()
    #: the names of the variants that the command is about; all when empty
    variants: frozenset[str] = frozenset()

    @property
    def own(self) -> tuple[JobEngine, ...]:
        """Those that do not ship with the harness."""
        return (*self.declared, *self.given.values())

    def fingerprint_of(self, name: str) -> str:
        """Return the digest of the files of a project's own job engine; "" for a shipped one: it is harness code."""
        return next((engine.fingerprint for engine in self.own if engine.name == name), "")

    def option_for(self, name: str) -> tuple[str, ...]:
        """Return the option without which a command does not know a job engine; none for one that it always knows."""
        return next((("--job-engine", path) for path, engine in self.given.items() if engine.name == name), ())

    def selects(self, label: JobLabel) -> bool:
        """Return whether the command is about the job engine and the variant of a check."""
        return (not self.chosen or label.engine in self.chosen) and (
            not self.variants or label.variant in self.variants
        )

    def find(self, name: str) -> JobEngine:
        """Return a job engine by its name, or by the path of its file.

        :raises UsageError: for an unknown name, or a file whose name another job engine has.
        :raises ConfigError: with file, line and key, when the file is invalid.
        """
        if name.endswith(_SUFFIX):
            return _read(Path(name), self.own, where="")
        engines = {engine.name: engine for engine in (*shipped(), *self.own)}
        if name not in engines:
            hint = f"{config.nearest(name, engines)}; name one of your own by the path of its file, which ends in .toml"
            raise UsageError(f"unknown job engine {name!r}", hint=hint)
        return engines[name]

    def choose(self, names: Iterable[str], variants: Iterable[str] = ()) -> KnownJobEngines:
        """Return the same job engines for a command that is about some of them.

        :param names: names, or paths of files.
        :param variants: names of variants of these job engines; all when empty.
        :raises UsageError: as :meth:`find`, for a variant that none of them has, and for a job engine that has none of
            the variants.
        :raises ConfigError: as :meth:`find`.
        """
        known, engines = self, dict[str, JobEngine]()
        for name in names:
            engine = known.find(name)
            engines[engine.name] = engine
            is_new = not engine.shipped and engine not in known.own
            known = KnownJobEngines(
                declared=self.declared,
                given=known.given | ({name: engine} if is_new else {}),
                chosen=known.chosen | {engine.name},
            )
        named_variants = dict.fromkeys(variants)
        if named_variants:
            _require_variants(engines, named_variants)
        return replace(known, variants=frozenset(named_variants))


def _require_variants(engines: Mapping[str, JobEngine], variants: Iterable[str]) -> None:
    """Reject a variant that no job engine has, and a job engine without any of the variants: it would have no rows."""
    if not engines:
        raise UsageError("found --variant without --job-engine", hint="name the job engine: --job-engine NAME")
    has = dict.fromkeys(variant for engine in engines.values() for variant in engine.file.variants)
    for variant in variants:
        if variant not in has:
            whose = f"--job-engine {' and '.join(sorted(engines))}"
            raise UsageError(f"unknown variant {variant!r} of {whose}", hint=config.nearest(variant, has))
    for engine in engines.values():
        if engine.file.variants.keys().isdisjoint(variants):
            raise UsageError(
                f"the job engine {engine.name} has none of the variants {', '.join(variants)}",
                hint=f"it has {', '.join(engine.file.variants)}; name one of these too, or leave the job engine out",
            )


def declared_job_engines(paths: Iterable[str], where: str) -> tuple[JobEngine, ...]:
    """Return the job engines that a project file declares.

    :param paths: of their files, from the folder of the project file.
    :param where: the name of the project file, for errors about it.
    :raises ConfigError: for a path that does not end in .toml, a file that is missing or invalid, or a name that
        another job engine has.
    """
    found: tuple[JobEngine, ...] = ()
    for path in paths:
        if not path.endswith(_SUFFIX):
            raise ConfigError(
                f"job_engines: found {path!r}, expected the path of a file that ends in {_SUFFIX}",
                where=where,
                hint="the shipped ones need no entry" if path in _shipped_names() else "",
            )
        engine = _read(Path(path), found, where=where)
        if engine.shipped or engine in found:
            which = "ships with the harness" if engine.shipped else "is declared twice"
            raise ConfigError(f"job_engines: {path} {which}, so its entry adds nothing", where=where, hint="remove it")
        found += (engine,)
    return found


def fingerprint_now(path: str) -> str:
    """Return the digest that the files of a job engine have now; "" if its file is not here.

    :param path: of a file that was valid when its checks ran.
    """
    try:
        return load(Path(path)).fingerprint
    except ConfigError:
        return "invalid" if Path(path).exists() else ""


def _read(path: Path, others: Iterable[JobEngine], *, where: str) -> JobEngine:
    """Read a file; a name stands for one job engine, because the ids of its checks contain it.

    :param where: the file that names the path; "" for a command line.
    """
    engine = load(path)
    same = next((other for other in others if other.name == engine.name), None)
    if same is not None and same.folder.resolve() == engine.folder.resolve():
        return same
    if same is None and (engine.shipped or engine.name not in _shipped_names()):
        return engine
    whose = "a job engine that ships with the harness" if same is None else f"the job engine in {same.folder}"
    error: type[HarnessError] = ConfigError if where else UsageError
    raise error(
        f"{path}: {engine.name!r} is the name of {whose}, expected another name",
        where=where,
        hint=f"rename the file, such as {path.with_name(f'my-{path.name}')}",
    )


def _shipped_names() -> list[str]:
    return [engine.name for engine in shipped()]
