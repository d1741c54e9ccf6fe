"""Whether a command is one of a repository: its session, target, script, task and files are looked up, never run."""

from __future__ import annotations

import itertools
import re
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.config import nearest
from harness.lint.repository import Repository
from harness.suites.catalogue import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class PointerVerdict(StrEnum):
    EXISTS = "exists"
    MISSING = "missing"
    #: it counts as a pointer, and nobody looked whether it leads anywhere
    UNKNOWN = "unknown"


class Pointer(Struct, frozen=True):
    """What a cell points to. `what` says what is missing, or why it cannot be judged; `mend` what to do."""

    text: str
    verdict: PointerVerdict
    what: str = ""
    mend: str = ""


class PointerScope(Struct, frozen=True):
    """Where pointers are looked up: in a repository, from the document's folder."""

    repository: Repository
    folder: Path


Judgement = tuple[PointerVerdict, str, str]
_EXISTS: Judgement = (PointerVerdict.EXISTS, "", "")

#: programs that only run another one
_WRAPPERS = {"env": 1, "time": 1, "sudo": 1, "nice": 1, "uv run": 2, "poetry run": 2, "pipenv run": 2, "hatch run": 2}
_WRAPPERS |= {"bundle exec": 2, "npx": 1, "command": 1, "exec": 1}
#: programs that are there or not, whatever the repository holds
_PROGRAM = re.compile(
    "bash|sh|zsh|psql|pg_dump|pgbench|pgbouncer|docker|podman|kubectl|helm|terraform|ansible-playbook|curl|wget|http|gh|"
    "git|glab|cargo|tox|hatch|poetry|uv|pip|pipx|ruff|mypy|rspec|rake|rails|bundle|just|task|iex|elixir|erl|java|mvn|"
    "gradle|dotnet|php|composer|phpunit|jest|vitest|deno|bun|node|ruby|perl|grep|rg|cat|jq|aws|gcloud|az|flyctl|fly|"
    "heroku|ssh|locust|k6|ab|wrk"
)
#: their first argument is a file that they run
_INTERPRETERS = frozenset({"bash", "sh", "zsh", "node", "ruby", "perl", "elixir", "php", "deno"})
#: tasks, or what they begin with, that come with Mix and with what most projects depend on
_MIX_TASK = re.compile(
    "app|archive|clean|cmd|compile|credo|coveralls|deps|dialyzer|docs|ecto|eval|format|gettext|help|hex|igniter|local|"
    "loadconfig|new|oban|phx|profile|release|run|sobelow|test|xref|do"
)
#: words that begin sentences, and no command
_PROSE = re.compile(
    "a|all|an|and|as|by|checked|done|fine|green|it|manual|manually|no|not|ok|passed|passes|see|seen|tested|the|this|"
    "verified|works|working|we|yes"
)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*")
_FILE = re.compile(r"[\w./@+-]*\.(?:py|exs?|rb|ts|tsx|js|mjs|go|rs|sh|sql|java|kt|cs|php|feature|toml|ya?ml|md|json)")
#: ids of the harness's checks of an application begin with these; they are not in the catalogue of suites
_HOST_CHECKS = ("path", "command", "environment")


def judge_command(text: str, place: PointerScope, *, sure: bool = True) -> tuple[Pointer, ...]:
    """Judge each of the commands that a text joins by `&&`, `||`, `|` or `;`.

    :param sure: the text is set as code; else it counts only if it names something that is there.
    :return: nothing when the text is no command.
    """
    try:
        parts = _split(text)
    except ValueError:  # a quote without its end
        return ()
    found: list[Pointer] = []
    folder = place.repository.root
    for words in parts:
        if words[0] == "cd" and len(words) > 1:
            there = place.repository.find(words[1], folder)
            if there is None:
                return (
                    Pointer(text, PointerVerdict.MISSING, f"there is no folder {words[1]}", "name an existing folder"),
                )
            folder = there
            continue
        judged = _judge(words, folder, place, sure=sure)
        if judged is None:
            return ()
        found.append(Pointer(shlex.join(words), *judged))
    return tuple(found)


def _split(text: str) -> list[list[str]]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars="&|;")
    lexer.whitespace_split = True
    lexer.commenters = ""
    parts: list[list[str]] = [[]]
    for word in lexer:
        if word and set(word) <= set("&|;"):
            parts.append([])
        else:
            parts[-1].append(word)
    return [unwrapped for words in parts if (unwrapped := _unwrapped(words))]


def _unwrapped(words: list[str]) -> list[str]:
    """Return a command without the prompt, the assignments and the programs that stand before it."""
    while words:
        if words[0] == "$" or _ASSIGNMENT.fullmatch(words[0]):
            words = words[1:]
            continue
        skipped = _WRAPPERS.get(" ".join(words[:2]), 0) or _WRAPPERS.get(words[0], 0)
        if not skipped or len(words) <= skipped or words[skipped].startswith("-"):
            break
        words = words[skipped:]
    return words


def _judge(words: list[str], folder: Path, place: PointerScope, *, sure: bool) -> Judgement | None:
    program, arguments = words[0], words[1:]
    judge = _JUDGES.get(program if program.startswith("./") else program.rpartition("/")[2])
    if judge:
        judged = judge(arguments, folder, place.repository)
        return judged if sure or judged[0] is PointerVerdict.EXISTS else None
    if not sure:
        return None
    if "/" in program:
        return _script(program, arguments, folder, place.repository)
    if _PROGRAM.fullmatch(program):
        return _known_program(program, arguments, folder, place.repository)
    return _unknown(f"whether {program} does what the row says") if _looks_like_a_command(words) else None


def _script(program: str, arguments: list[str], folder: Path, repository: Repository) -> Judgement | None:
    """Judge a program that is given as a path; None for what is a route or has gaps."""
    if program.startswith("/") or re.search(r"[<>{}…]|\.\.\.", program):
        return None
    if repository.find(program, folder):
        return _files(arguments, folder, repository)
    return _missing(f"there is no {program}", "name a script that is in the repository")


def _looks_like_a_command(words: list[str]) -> bool:
    if not re.fullmatch(r"[a-z][a-z0-9_.-]*", words[0]) or _PROSE.fullmatch(words[0]) or len(words) == 1:
        return False
    return any(re.match(r"--?[a-z]", each) or "/" in each or "=" in each for each in words[1:])


def _known_program(program: str, arguments: list[str], folder: Path, repository: Repository) -> Judgement:
    if program in _INTERPRETERS and arguments and _FILE.fullmatch(arguments[0]):
        return _files(arguments[:1], folder, repository)
    files = [after for before, after in itertools.pairwise(arguments) if before in {"-f", "--file"}]
    judged = _files(files, folder, repository)
    return judged if judged[0] is PointerVerdict.MISSING else _unknown(f"what {program} is told elsewhere")


def _files(arguments: Iterable[str], folder: Path, repository: Repository) -> Judgement:
    """Judge the arguments that are files or folders of tests: each has to be there."""
    for each in arguments:
        path = re.sub(r":\d+(?::\d+)*$", "", each.partition("::")[0].partition("[")[0])
        named = path.removesuffix("/...")
        if each.startswith("-") or not ("/" in each or _FILE.fullmatch(path)) or re.search(r"[*$<>{}=]|://", each):
            continue
        found = repository.find(named, folder)
        if found is None:
            return _missing(f"there is no {path}", "name a file that is in the repository")
        for name in each.split("::")[1:]:
            if not has_test(repository.text(found) or "", name):
                return _missing(f"{path} has no {name}", "name a test that is there")
    return _EXISTS


def has_test(text: str, name: str) -> bool:
    """Say whether a file of tests has one of that name, without its parameters."""
    name = name.partition("[")[0]
    return not name or re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", text) is not None


def _pytest(arguments: list[str], folder: Path, repository: Repository) -> Judgement:
    return _files(arguments, folder, repository)


def _nox(arguments: list[str], folder: Path, repository: Repository) -> Judgement:
    options, own = _until_dashes(["-s" if each in {"-rs", "-Rs"} else each for each in arguments])
    file = next((after for before, after in itertools.pairwise(options) if before in {"-f", "--noxfile"}), "")
    sessions = repository.sessions(folder / (file or "noxfile.py"))
    if sessions is None:
        return _missing("there is no noxfile.py", "name a command of this repository, or give the folder: cd DIR && …")
    unsure = ""
    for name in _values(options, "-s", "--session", "--sessions", "-e"):
        known = sessions.knows(name)
        if known is False:
            return _missing(f"noxfile.py has no session {name}", nearest(name, sessions.names))
        unsure = unsure or ("" if known else name)
    judged = _harness(own, folder, repository) if repository.is_this_project else _EXISTS
    return _unknown(f"whether noxfile.py makes a session {unsure}") if unsure and judged == _EXISTS else judged


def _harness(arguments: list[str], _folder: Path, _repository: Repository) -> Judgement:
    """Judge the checks and suites that are named to this harness."""
    checks = {each.id for each in catalogue().checks}
    for name in _values(arguments, "--check", most=1):
        if name not in checks and name.partition(".")[0] not in _HOST_CHECKS:
            return _missing(f"the harness has no check {name}", nearest(name, checks))
    suites = {*catalogue().suites(), *_HOST_CHECKS}
    for name in _values(arguments, "--suite", most=1):
        if name not in suites:
            return _missing(f"the harness has no suite {name}", nearest(name, suites))
    return _EXISTS


def _make(arguments: list[str], folder: Path, repository: Repository) -> Judgement:
    for before, after in itertools.pairwise(arguments):
        if before == "-C":
            folder = folder / after
            arguments = [each for each in arguments if each not in {before, after}]
    targets = repository.make_targets(folder)
    if targets is None:
        return _missing("there is no Makefile", "name a command of this repository")
    for each in arguments:
        if each.startswith("-") or "=" in each or each.isdecimal() or each in targets:
            continue
        if "%" in targets:
            return _unknown(f"whether a rule makes {each}")
        return _missing(f"the Makefile has no target {each}", nearest(each, targets))
    return _EXISTS


def _npm(arguments: list[str], folder: Path, repository: Repository) -> Judgement:
    words = [each for each in _until_dashes(arguments)[0] if not each.startswith("-")]
    scripts = repository.scripts(folder)
    if scripts is None:
        return _missing(
            "there is no package.json", "name a command of this repository, or give the folder: cd DIR && …"
        )
    if words[:1] in (["run"], ["run-script"]):
        words = words[1:]
    elif words[:1] not in (["test"], ["start"]):
        return _unknown("what the package manager does")
    if words and words[0] not in scripts:
        return _missing(f"package.json has no script {words[0]}", nearest(words[0], scripts))
    return _EXISTS


def _mix(arguments: list[str], folder: Path, repository: Repository) -> Judgement:
    if repository.find("mix.exs", folder) is None:
        return _missing("there is no mix.exs", "name a command of this repository, or give the folder: cd DIR && …")
    task = next((each.rstrip(",") for each in arguments if not each.startswith("-")), "")
    known = repository.mix_task(task, folder) if task else None
    if task == "test" or known:
        return _files(arguments[1:], folder, repository)
    if _MIX_TASK.fullmatch(task.partition(".")[0]) or known is None:
        return _unknown(f"whether mix {task} comes with a dependency")
    return _missing(f"mix.exs has no alias {task}, and lib/mix/tasks no such task", "name one that is there")


def _go(arguments: list[str], folder: Path, repository: Repository) -> Judgement:
    return _files([each for each in arguments if each.startswith("./")], folder, repository)


def _python(arguments: list[str], folder: Path, repository: Repository) -> Judgement:
    if arguments[:1] != ["-m"]:
        return _files(arguments[:1], folder, repository)
    module, rest = next(iter(arguments[1:]), ""), arguments[2:]
    if module in {"pytest", "nox", "harness"}:
        return _JUDGES[module](rest, folder, repository)
    top, path = module.partition(".")[0], module.replace(".", "/")
    for base in (folder, folder / "src"):
        if repository.find(f"{path}.py", base) or repository.find(f"{path}/__init__.py", base):
            return _EXISTS
        if repository.find(f"{top}/__init__.py", base):
            return _missing(f"there is no module {module}", "name one that is in the repository")
    return _EXISTS if top in sys.stdlib_module_names else _unknown(f"whether {module} is installed")


_JUDGES: dict[str, Callable[[list[str], Path, Repository], Judgement]] = {
    "nox": _nox,
    "harness": _harness,
    "pytest": _pytest,
    "py.test": _pytest,
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


def _until_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def _values(arguments: list[str], *options: str, most: int = 1000) -> list[str]:
    """Return what options are given: `--o a b`, `--o=a`, and `-oa` for those of one letter."""
    found: list[str] = []
    room = 0
    for each in arguments:
        name, equals, value = each.partition("=")
        if each in options:
            room = most
        elif equals and name in options:
            found.append(value)
            room = 0
        elif short := next((o for o in options if len(o) == len("-s") and each.startswith(o)), ""):
            found.append(each.removeprefix(short))
            room = 0
        elif each.startswith("-") or not room:
            room = 0
        else:
            found.append(each)
            room -= 1
    return found


def _missing(what: str, mend: str) -> Judgement:
    return PointerVerdict.MISSING, what, mend


def _unknown(why: str) -> Judgement:
    return PointerVerdict.UNKNOWN, why, ""
