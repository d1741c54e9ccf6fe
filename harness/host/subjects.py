"""The identity of a project's commands: the state of their folder, their words, and the files that the words name.

They are commands of other test suites, and migrations.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from harness.host.folder_state import file_state, state_of, tracked_state_of
from harness.model import DECLARATION, Subject

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from harness.host.declarations import CommandDeclaration, MigrationDeclaration
    from harness.host.folder_state import FolderState

    Declared = CommandDeclaration | MigrationDeclaration


#: how the ids of the checks begin whose subject is a command
_OF_COMMANDS = ("command.", "migrations.")


class CommandFolders:
    """The folders of some commands before a run; at its end, the identity of each command."""

    def __init__(self, commands: Iterable[Declared], evidence: Path, written: Mapping[str, Collection[str]]) -> None:
        """Read the folders.

        :param evidence: the reports folder, which is left out.
        :param written: the files that earlier runs wrote, by folder.
        """
        self.commands = tuple(commands)
        self._evidence = evidence
        self._written = {folder: frozenset(files) for folder, files in written.items()}
        self._before = self._states()
        self._named = {command: _named_files(command, self._before[command.folder]) for command in self.commands}

    def subjects(self, *, ended: bool) -> dict[str, Subject]:
        """Return the identity of each command as it was before the run, by the id of its check.

        :param ended: whether the run has ended. Untracked files that differ then were written by the run, so they are
            left out.
        """
        now = self._states() if ended else self._before
        return {
            check: _subject(
                command,
                self._before[command.folder],
                self._named[command],
                self._written.get(command.folder, frozenset())
                | now[command.folder].written_since(self._before[command.folder]),
            )
            for command in self.commands
            for check in command.checks
        }

    def notes(self) -> list[str]:
        """Return a sentence for each folder with files that were too large to be read."""
        states = sorted(self._before.items())
        return [f"{folder or 'this folder'}: {state.too_large}" for folder, state in states if state.too_large]

    def _states(self) -> dict[str, FolderState]:
        folders = {command.folder for command in self.commands}
        return {folder: state_of(Path.cwd() / folder, without=[self._evidence]) for folder in folders}


def subjects_now(
    commands: Iterable[Declared], recorded: Iterable[Mapping[str, Subject]], evidence: Collection[Path]
) -> dict[str, Subject]:
    """Return the identity that each command has now, by the id of its check.

    :param commands: those of harness.toml, with its migrations. Commands of `exec` are known from the evidence only.
    :param recorded: the subjects of stored runs, oldest first.
    :param evidence: folders with evidence, which are left out.
    :return: the identities of all commands whose folder exists here.
    """
    recorded = tuple(recorded)
    written = written_in(recorded)
    declared = {check: command for command in commands for check in command.checks}
    newest = {
        check: subject for subjects in recorded for check, subject in subjects.items() if check.startswith(_OF_COMMANDS)
    }
    folders = {command.folder for command in declared.values()}
    folders |= {subject.folder for check, subject in newest.items() if check not in declared}
    states = {
        folder: state_of(Path.cwd() / folder, without=evidence) for folder in folders if (Path.cwd() / folder).is_dir()
    }
    found = {
        check: _subject(
            command,
            states[command.folder],
            _named_files(command, states[command.folder]),
            written.get(command.folder, frozenset()),
        )
        for check, command in declared.items()
        if command.folder in states
    }
    for check, subject in newest.items():
        if check not in declared and subject.folder in states:
            files = {name: _file_fact(Path(name)) for name in subject.facts if Path(name).is_absolute()}
            facts = states[subject.folder].facts(written.get(subject.folder, frozenset()))
            found[check] = replace(subject, facts={**subject.facts, **facts, **files})
    return found


def written_in(recorded: Iterable[Mapping[str, Subject]]) -> dict[str, frozenset[str]]:
    """Return the files that stored runs wrote into the folders of commands, by folder."""
    written: dict[str, frozenset[str]] = {}
    for subjects in recorded:
        for subject in subjects.values():
            written[subject.folder] = written.get(subject.folder, frozenset()) | frozenset(subject.written)
    return written


def _subject(command: Declared, state: FolderState, named: Mapping[str, str], written: Collection[str]) -> Subject:
    digest = hashlib.sha256(msgspec.json.encode(command, order="deterministic")).hexdigest()[:16]
    return Subject(
        # the digest covers every key; those that have a short value also say what differs
        facts={
            **state.facts(written),
            **named,
            "role": command.login,
            "deadline": f"{command.deadline_s:g} s",
            DECLARATION: digest,
        },
        folder=command.folder,
        written=tuple(sorted(written)),
        covers=state.covers,
    )


def _named_files(command: Declared, state: FolderState) -> dict[str, str]:
    """Return the files outside of the folder that the words of a command name, such as a script somewhere else."""
    folder = Path.cwd() / command.folder
    found: dict[str, str] = {}
    for word in command.words:
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            path = (folder / word).resolve()
            if "/" in word and path.is_file() and not path.is_relative_to(state.top.resolve()):
                found[str(path)] = _file_fact(path)
    return found


def _file_fact(path: Path) -> str:
    """Return a digest of a file, with the state of the repository that tracks it."""
    try:
        digest = file_state(path)
    except OSError:
        return "unreadable"
    return " ".join((digest, *tracked_state_of(path).values()))
