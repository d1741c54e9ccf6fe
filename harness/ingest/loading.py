"""Load the pipeline under test: a shipped one, a file, or the table `[ingest]` of `harness.toml`."""

from __future__ import annotations

import re
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from harness import config
from harness.errors import ConfigError, UsageError
from harness.host.placeholders import braced, filled, placeholders_in
from harness.host.program_files import named_files, program_digest
from harness.ingest.operator_store import StoreDeclaration
from harness.ingest.pipeline_file import Pipeline, Status
from harness.job_engines.loading import wrong_packages

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.host.declarations import Step
    from harness.job_engines.target_file import Packages

SHIPPED = Path(__file__).resolve().parent / "pipelines"
#: the shipped pipeline that has all properties
REFERENCE = "reference"
#: the name of the pipeline that `[ingest]` of harness.toml describes
PROJECT = "project"
_SUFFIX = ".toml"
_PROJECT_FILE, _TABLE = "harness.toml", "ingest"
#: keys that no other table of `harness.toml` has
_ONLY_OF_PIPELINES = ("presign", "statuses", "sql")
_NAME = re.compile(r"^[a-z][a-z0-9-]{0,39}$")
_OF_COMMANDS = ("folder", "python")
_OF_STEPS = ("filename", "project", "content_type", "correlation", "unique", "actor.type", "actor.id")
#: what the answer to a request for an address has to hold
_KEPT = ("id", "url", "key")
#: the key, the problem, and what to try
_Problem = tuple[str, str, str]


class LoadedPipeline(Struct, frozen=True, kw_only=True):
    """The pipeline under test."""

    name: str
    #: the absolute folder of its file
    folder: Path
    file: Pipeline
    #: the path of its file, as it was named; "" for a shipped one, whose files are harness code
    own_file: str
    #: a digest of the file and of the programs that its commands name; see :mod:`harness.host.program_files`
    fingerprint: str
    #: the operator's store that it is tried with; None for the one of the lab
    store: StoreDeclaration | None = None

    @property
    def title(self) -> str:
        return self.file.title

    @property
    def packages(self) -> Packages:
        return self.file.packages

    @property
    def not_run(self) -> str:
        return ""

    def at(self, key: str) -> str:
        """Return a key of the description with its file and line, such as `shop.toml:14: presign.keep`."""
        if not self.own_file:
            return f"pipeline {self.name}: {key}"
        return f"{config.at_key(self.own_file, key)}: {'ingest.' if self.name == PROJECT else ''}{key}"

    @property
    def identity(self) -> str:
        """Return the key of evidence about this pipeline: name, fingerprint, and that of a store of one's own."""
        return " ".join(filter(None, (self.name, self.fingerprint, self.store.identity if self.store else "")))

    def command(self, which: str, python: str) -> tuple[str, ...]:
        """Return the program and the arguments of a command.

        :param which: `migrate`, `api` or `worker`.
        :param python: the program that the packages were installed for.
        """
        return filled(getattr(self.file.commands, which), {"folder": self.folder, "python": python})

    def uses(self, placeholder: str) -> bool:
        """Return whether a command names a placeholder, such as `python`."""
        return any(placeholder in placeholders_in(arguments) for _, arguments in _commands(self.file))

    def status_of(self, word: str) -> Status:
        """Return the state that the pipeline's own word stands for; a word that it does not declare is pending."""
        return next((status for status, words in self.file.statuses.items() if word in words), Status.PENDING)

    def names_state(self, word: str) -> bool:
        """Return whether the description names a state."""
        return any(word in words for words in self.file.statuses.values())


@cache
def shipped() -> tuple[LoadedPipeline, ...]:
    """Return the pipelines that ship with the harness, by name; their files are read once."""
    return tuple(load(path) for path in sorted(SHIPPED.glob(f"*{_SUFFIX}")))


def find(name: str, store: StoreDeclaration | None = None) -> LoadedPipeline:
    """Return a pipeline by the name of a shipped one, or by the path of its file.

    :param store: the operator's store that it is tried with; None for the one of the lab.
    :raises UsageError: for an unknown name.
    :raises ConfigError: with file, line and key, when the file is invalid.
    """
    if name.endswith(_SUFFIX):
        return msgspec.structs.replace(load(Path(name)), store=store)
    found = {pipeline.name: pipeline for pipeline in shipped()}
    if name not in found:
        hint = f"{config.nearest(name, found)}; name one of your own by the path of its file, which ends in {_SUFFIX}"
        raise UsageError(f"unknown pipeline {name!r}", hint=hint)
    return msgspec.structs.replace(found[name], store=store) if store else found[name]


def load(path: Path) -> LoadedPipeline:
    """Return the pipeline that a TOML file describes.

    :raises ConfigError: with file, line and key.
    """
    if not _NAME.match(path.stem):
        raise ConfigError(
            f"invalid name {path.stem!r} of a pipeline",
            where=str(path),
            hint="rename the file: lower-case letters, digits and dashes, a letter first",
        )
    file = config.load(path, Pipeline, elsewhere=partial(_of_project_file, path.name))
    try:
        is_shipped = path.resolve().parent == SHIPPED
    except (OSError, RuntimeError) as error:  # a loop of symbolic links
        raise ConfigError(f"the file of a pipeline cannot be read: {error}", where=str(path)) from None
    return _loaded(path.stem, file, path, path.read_bytes(), own_file="" if is_shipped else str(path))


def _of_project_file(name: str, raw: Mapping[str, object]) -> _Problem | None:
    """Return the mistake of a file of its own that is written like `harness.toml`; None if it is not."""
    if _TABLE not in raw:
        return None
    if name == _PROJECT_FILE:
        hint = f"every command reads [{_TABLE}] of {_PROJECT_FILE}, so leave --pipeline out"
    else:
        hint = f"write [presign] in place of [{_TABLE}.presign], and the keys of [{_TABLE}] above the first table"
    return _TABLE, "a file of its own describes one pipeline, and has its keys at the top level", hint


def of_pipeline_file(raw: Mapping[str, object]) -> _Problem | None:
    """Return the mistake of a `harness.toml` that is written like the file of a pipeline; None if it is not."""
    if key := next((key for key in _ONLY_OF_PIPELINES if key in raw), ""):
        hint = f"write [{_TABLE}.{key}] in place of [{key}], and keys such as title below [{_TABLE}]"
        return (
            key,
            f"a key of a pipeline, which belongs to the table [{_TABLE}]",
            f"{hint}; or name the file by --pipeline",
        )
    return None


def of_project(file: Pipeline, project_file: Path) -> LoadedPipeline:
    """Return the pipeline that the table `[ingest]` of `harness.toml` describes.

    :raises ConfigError: with the key.
    """
    declared = msgspec.json.encode(file, order="deterministic")
    return _loaded(PROJECT, file, project_file, declared, own_file=str(project_file))


def fingerprint_now(name: str, store: StoreDeclaration | None = None) -> str:
    """Return the identity that a pipeline has now; "" if it is not here.

    :param name: of a shipped one, or the path of a file that was valid when its checks ran; not `harness.toml`, whose
        pipeline the settings have.
    :param store: the operator's store that it is tried with now.
    """
    try:
        return find(name, store).identity
    except UsageError:
        return ""
    except ConfigError:
        return "invalid" if Path(name).exists() else ""


def _loaded(name: str, file: Pipeline, path: Path, declared: bytes, *, own_file: str) -> LoadedPipeline:
    folder = path.absolute().parent
    for key, problem, hint in (
        *wrong_packages(file.packages),
        *_wrong_commands(file, folder),
        *_wrong_requests(file),
        *_wrong_statuses(file),
    ):
        raise ConfigError(f"{key}: {problem}", where=config.at_key(str(path), key), hint=hint)
    arguments = [word for _, words in _commands(file) for word in words]
    # shipped files are the same with and without the repository of the harness
    digest = program_digest(declared, arguments, folder=folder, where=str(path), ask_git=bool(own_file))
    return LoadedPipeline(name=name, folder=folder, file=file, own_file=own_file, fingerprint=digest)


# --- mistakes -----------------------------------------------------------------------------------------------


def _wrong_commands(file: Pipeline, folder: Path) -> Iterator[_Problem]:
    for name, arguments in _commands(file):
        key = f"commands.{name}"
        for placeholder in placeholders_in(arguments):
            if placeholder not in _OF_COMMANDS:
                yield (
                    key,
                    f"unknown placeholder {{{placeholder}}}; allowed here: {braced(_OF_COMMANDS)}",
                    "addresses and settings are in the environment of the program",
                )
        for program in named_files(arguments, folder):
            if not program.exists():
                yield key, f"no such file {program}", "{folder} is the folder of the pipeline's file"


def _wrong_requests(file: Pipeline) -> Iterator[_Problem]:
    if missing := [name for name in _KEPT if name not in file.presign.keep]:
        yield (
            "presign.keep",
            f"needs {', '.join(missing)}, found {', '.join(file.presign.keep) or 'nothing'}",
            'name the paths in the answer: keep = { id = "uploadId", url = "url", key = "objectKey" }',
        )
    yield from _wrong_placeholders("presign", file.presign, _OF_STEPS)
    if "Content-Type" not in file.upload_headers and any(
        "content_type" in placeholders_in((value,)) for value in file.upload_headers.values()
    ):
        yield "upload_headers", "{content_type} is in another header than Content-Type", "name the header Content-Type"


def _wrong_placeholders(key: str, step: Step, allowed: tuple[str, ...]) -> Iterator[_Problem]:
    texts = (step.path, *step.headers.values(), msgspec.json.encode(step.json).decode(), *step.form.values())
    for placeholder in placeholders_in(texts):
        if placeholder not in allowed:
            yield (
                key,
                f"unknown placeholder {{{placeholder}}}; allowed here: {braced(allowed)}",
                config.close_to(placeholder, allowed),
            )


def _wrong_statuses(file: Pipeline) -> Iterator[_Problem]:
    for status in (Status.INDEXED, Status.FAILED):
        if not file.statuses.get(status):
            yield "statuses", f"needs the pipeline's own word for {status}", f'add {status} = ["WORD"]'
    words = [word for words in file.statuses.values() for word in words]
    for word in words:
        if words.count(word) > 1:
            yield "statuses", f"{word!r} stands for two states, expected one", "name each word once"


# --- what its commands name ---------------------------------------------------------------------------------


def _commands(file: Pipeline) -> list[tuple[str, tuple[str, ...]]]:
    return [(name, getattr(file.commands, name)) for name in ("migrate", "api", "worker")]
