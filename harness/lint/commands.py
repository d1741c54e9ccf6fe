"""Judges commands: splits a command line into its commands and checks that what they name exists. Runs nothing."""

from __future__ import annotations

import itertools
import re
import shlex
from typing import TYPE_CHECKING

from harness.lint.tools import FILE, TOOLS, judge_files
from harness.lint.verdicts import Pointer, PointerVerdict, missing, unknown

if TYPE_CHECKING:
    from pathlib import Path

    from harness.lint.repository import Repository
    from harness.lint.verdicts import Judgement, PointerScope

#: programs that only run another program, with the number of words before that program
_WRAPPERS = {"env": 1, "time": 1, "sudo": 1, "nice": 1, "uv run": 2, "poetry run": 2, "pipenv run": 2, "hatch run": 2}
_WRAPPERS |= {"bundle exec": 2, "npx": 1, "command": 1, "exec": 1}
#: programs that are installed on the machine, not in the repository
_INSTALLED = re.compile(
    "bash|sh|zsh|psql|pg_dump|pgbench|pgbouncer|docker|podman|kubectl|helm|terraform|ansible-playbook|curl|wget|http|gh|"
    "git|glab|cargo|tox|hatch|poetry|uv|pip|pipx|ruff|mypy|rspec|rake|rails|bundle|just|task|iex|elixir|erl|java|mvn|"
    "gradle|dotnet|php|composer|phpunit|jest|vitest|deno|bun|node|ruby|perl|grep|rg|cat|jq|aws|gcloud|az|flyctl|fly|"
    "heroku|ssh|locust|k6|ab|wrk"
)
#: their first argument is a file that they run
_INTERPRETERS = frozenset({"bash", "sh", "zsh", "node", "ruby", "perl", "elixir", "php", "deno"})
#: words that begin sentences, not commands
_PROSE = re.compile(
    "a|all|an|and|as|by|checked|done|fine|green|it|manual|manually|no|not|ok|passed|passes|see|seen|tested|the|this|"
    "verified|works|working|we|yes"
)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*")


def judge_command(text: str, scope: PointerScope, *, is_code: bool = True) -> tuple[Pointer, ...]:
    """Judge each command of a text that joins commands by `&&`, `||`, `|` or `;`.

    :param is_code: the text is set as code. Otherwise it is a command only if it names something that exists.
    :return: one pointer for each command; none when the text is not a command.
    """
    try:
        commands = _split(text)
    except ValueError:  # an unclosed quote
        return ()
    found: list[Pointer] = []
    folder = scope.repository.root
    for words in commands:
        if words[0] == "cd" and len(words) > 1:
            target = scope.repository.find(words[1], folder)
            if target is None:
                return (Pointer(text, *missing(f"folder {words[1]} not found", "name an existing folder")),)
            folder = target
            continue
        judgement = _judge(words, folder, scope.repository, is_code=is_code)
        if judgement is None:
            return ()
        found.append(Pointer(shlex.join(words), *judgement))
    return tuple(found)


def _split(text: str) -> list[list[str]]:
    """Return the words of each command.

    :raises ValueError: for an unclosed quote.
    """
    lexer = shlex.shlex(text, posix=True, punctuation_chars="&|;")
    lexer.whitespace_split = True
    lexer.commenters = ""
    commands: list[list[str]] = [[]]
    for word in lexer:
        if word and set(word) <= set("&|;"):
            commands.append([])
        else:
            commands[-1].append(word)
    return [unwrapped for words in commands if (unwrapped := _unwrapped(words))]


def _unwrapped(words: list[str]) -> list[str]:
    """Return a command without its prompt, assignments and wrappers."""
    while words:
        if words[0] == "$" or _ASSIGNMENT.fullmatch(words[0]):
            words = words[1:]
            continue
        skipped = _WRAPPERS.get(" ".join(words[:2]), 0) or _WRAPPERS.get(words[0], 0)
        if not skipped or len(words) <= skipped or words[skipped].startswith("-"):
            break
        words = words[skipped:]
    return words


def _judge(words: list[str], folder: Path, repository: Repository, *, is_code: bool) -> Judgement | None:
    """Judge one command; None when it is not a command."""
    program, arguments = words[0], words[1:]
    judge_tool = TOOLS.get(program if program.startswith("./") else program.rpartition("/")[2])
    if judge_tool:
        judgement = judge_tool(arguments, folder, repository)
        return judgement if is_code or judgement.verdict is PointerVerdict.EXISTS else None
    if not is_code:
        return None
    if "/" in program:
        return _judge_script(program, arguments, folder, repository)
    if _INSTALLED.fullmatch(program):
        return _judge_installed(program, arguments, folder, repository)
    return unknown(f"whether {program} does what the row says") if _looks_like_a_command(words) else None


def _judge_script(program: str, arguments: list[str], folder: Path, repository: Repository) -> Judgement | None:
    """Judge a program that is given as a path; None for a route or a path with placeholders."""
    if program.startswith("/") or re.search(r"[<>{}…]|\.\.\.", program):
        return None
    if repository.find(program, folder):
        return judge_files(arguments, folder, repository)
    return missing(f"{program} not found", "name a script of the repository")


def _judge_installed(program: str, arguments: list[str], folder: Path, repository: Repository) -> Judgement:
    """Judge the files of the repository that an installed program is given."""
    if program in _INTERPRETERS and arguments and FILE.fullmatch(arguments[0]):
        return judge_files(arguments[:1], folder, repository)
    files = [value for option, value in itertools.pairwise(arguments) if option in {"-f", "--file"}]
    judgement = judge_files(files, folder, repository)
    if judgement.verdict is PointerVerdict.MISSING:
        return judgement
    return unknown(f"what {program} does outside of the repository")


def _looks_like_a_command(words: list[str]) -> bool:
    if not re.fullmatch(r"[a-z][a-z0-9_.-]*", words[0]) or _PROSE.fullmatch(words[0]) or len(words) == 1:
        return False
    return any(re.match(r"--?[a-z]", word) or "/" in word or "=" in word for word in words[1:])
