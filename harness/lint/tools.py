"""Judges the arguments of each build tool: its sessions, targets, scripts, tasks, modules and files. Runs nothing."""

from __future__ import annotations

import itertools
import re
import sys
from typing import TYPE_CHECKING

from harness.config import nearest
from harness.lint.verdicts import EXISTS, missing, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from harness.lint.repository import Repository
    from harness.lint.verdicts import Judgement

#: Mix tasks, or their first parts, that come with Mix and with common dependencies
_MIX_TASK = re.compile(
    "app|archive|clean|cmd|compile|credo|coveralls|deps|dialyzer|docs|ecto|eval|format|gettext|help|hex|igniter|local|"
    "loadconfig|new|oban|phx|profile|release|run|sobelow|test|xref|do"
)
#: a file by its extension
FILE = re.compile(r"[\w./@+-]*\.(?:py|exs?|rb|ts|tsx|js|mjs|go|rs|sh|sql|java|kt|cs|php|feature|toml|ya?ml|md|json)")
#: the ids of an application's own checks begin with these; the catalogue of suites does not have them
_HOST_CHECKS = ("path", "command", "environment")
_OF_THIS_REPOSITORY = "use a command of this repository"
_OR_NAME_THE_FOLDER = f"{_OF_THIS_REPOSITORY}, or name its folder: cd DIR && …"


def judge_files(arguments: Iterable[str], folder: Path, repository: Repository) -> Judgement:
    """Judge the arguments that are files, folders or tests. Each of them must exist."""
    for argument in arguments:
        path = re.sub(r":\d+(?::\d+)*$", "", argument.partition("::")[0].partition("[")[0])
        is_path = "/" in argument or FILE.fullmatch(path)
        if argument.startswith("-") or not is_path or re.search(r"[*$<>{}=]|://", argument):
            continue
        found = repository.find(path.removesuffix("/..."), folder)
        if found is None:
            return missing(f"{path} not found", "name a file of the repository")
        for name in argument.split("::")[1:]:
            if not has_test(repository.text(found) or "", name):
                return missing(f"{path} has no test {name}", "name an existing test")
    return EXISTS


def has_test(text: str, name: str) -> bool:
    """Say whether a test file mentions a test. Parameters such as `[session-1]` are ignored."""
    name = name.partition("[")[0]
    return not name or re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", text) is not None


def _nox(arguments: list[str], folder: Path, repository: Repository) -> Judgement:
    options, session_arguments = _split_at_dashes(["-s" if word in {"-rs", "-Rs"} else word for word in arguments])
    file = next((value for option, value in itertools.pairwise(options) if option in {"-f", "--noxfile"}), "")
    sessions = repository.sessions(folder / (file or "noxfile.py"))
    if sessions is None:
        return missing("noxfile.py not found", _OR_NAME_THE_FOLDER)
    generated = ""
    for name in _values(options, "-s", "--session", "--sessions", "-e"):
        exists = sessions.knows(name)
        if exists is False:
            return missing(f"noxfile.py has no session {name}", nearest(name, sessions.names))
        generated = generated or ("" if exists else name)
    judgement = _harness(session_arguments, folder, repository) if repository.is_this_project else EXISTS
    if generated and judgement == EXISTS:
        return unknown(f"whether noxfile.py generates the session {generated}")
    return judgement


def _harness(arguments: list[str], _folder: Path, _repository: Repository) -> Judgement:
    """Judge the checks and suites that are passed to this harness."""
    from harness.suites.catalogue import catalogue  # noqa: PLC0415 -- it imports all suites; few documents name a check

    checks = {check.id for check in catalogue().checks}
    for name in _values(arguments, "--check", most=1):
        if name not in checks and name.partition(".")[0] not in _HOST_CHECKS:
            return missing(f"unknown check '{name}'", nearest(name, checks))
    suites = {*catalogue().suites(), *_HOST_CHECKS}
    for name in _values(arguments, "--suite", most=1):
        if name not in suites:
            return missing(f"unknown suite '{name}'", nearest(name, suites))
    return EXISTS


def _make(arguments: list[str], folder: Path, repository: Repository) -> Judgement:
    for option, value in itertools.pairwise(arguments):
        if option == "-C":
            folder = folder / value
            arguments = [word for word in arguments if word not in {option, value}]
    targets = repository.make_targets(folder)
    if targets is None:
        return missing("Makefile not found", _OF_THIS_REPOSITORY)
    for word in arguments:
        if word.startswith("-") or "=" in word or word.isdecimal() or word in targets:
            continue
        if "%" in targets:
            return unknown(f"whether a pattern rule makes {word}")
        return missing(f"the Makefile has no target {word}", nearest(word, targets))
    return EXISTS


def _npm(arguments: list[str], folder: Path, repository: Repository) -> Judgement:
    words = [word for word in _split_at_dashes(arguments)[0] if not word.startswith("-")]
    scripts = repository.scripts(folder)
    if scripts is None:
        return missing("package.json not found", _OR_NAME_THE_FOLDER)
    if words[:1] in (["run"], ["run-script"]):
        words = words[1:]
    elif words[:1] not in (["test"], ["start"]):
        return unknown("what the package manager does")
    if words and words[0] not in scripts:
        return missing(f"package.json has no script {words[0]}", nearest(words[0], scripts))
    return EXISTS


def _mix(arguments: list[str], folder: Path, repository: Repository) -> Judgement:
    if repository.find("mix.exs", folder) is None:
        return missing("mix.exs not found", _OR_NAME_THE_FOLDER)
    task = next((word.rstrip(",") for word in arguments if not word.startswith("-")), "")
    exists = repository.mix_task(task, folder) if task else None
    if task == "test" or exists:
        return judge_files(arguments[1:], folder, repository)
    if _MIX_TASK.fullmatch(task.partition(".")[0]) or exists is None:
        return unknown(f"whether a dependency provides mix {task}")
    return missing(f"neither mix.exs nor lib/mix/tasks defines the task {task}", "name an existing alias or task")


def _go(arguments: list[str], folder: Path, repository: Repository) -> Judgement:
    return judge_files([word for word in arguments if word.startswith("./")], folder, repository)


def _python(arguments: list[str], folder: Path, repository: Repository) -> Judgement:
    if arguments[:1] != ["-m"]:
        return judge_files(arguments[:1], folder, repository)
    module, rest = next(iter(arguments[1:]), ""), arguments[2:]
    if module in {"pytest", "nox", "harness"}:
        return TOOLS[module](rest, folder, repository)
    package, path = module.partition(".")[0], module.replace(".", "/")
    for base in (folder, folder / "src"):
        if repository.find(f"{path}.py", base) or repository.find(f"{path}/__init__.py", base):
            return EXISTS
        if repository.find(f"{package}/__init__.py", base):
            return missing(f"module {module} not found", "name a module of the repository")
    return EXISTS if package in sys.stdlib_module_names else unknown(f"whether {module} is installed")


#: by the name of a program, the function that judges its arguments in a folder of the repository
TOOLS: dict[str, Callable[[list[str], Path, Repository], Judgement]] = {
    "nox": _nox,
    "harness": _harness,
    "pytest": judge_files,
    "py.test": judge_files,
    "make": _make,
    "gmake": _make,
    "npm": _npm,
    "pnpm": _npm,
    "yarn": _npm,
    "mix": _mix,
    "go": _go,
    "python": _python,
    "python3": _python,
}


def _split_at_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the arguments before and after `--`."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def _values(arguments: list[str], *options: str, most: int = 1000) -> list[str]:
    """Return the values of options: `--o a b`, `--o=a`, and `-oa` for options of one letter.

    :param most: how many values follow an option at most.
    """
    found: list[str] = []
    remaining = 0
    for word in arguments:
        name, equals, value = word.partition("=")
        if word in options:
            remaining = most
        elif equals and name in options:
            found.append(value)
            remaining = 0
        elif short := next((option for option in options if len(option) == len("-s") and word.startswith(option)), ""):
            found.append(word.removeprefix(short))
            remaining = 0
        elif word.startswith("-") or not remaining:
            remaining = 0
        else:
            found.append(word)
            remaining -= 1
    return found
