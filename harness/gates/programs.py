"""What a command checks: style, types, units, or the system as a whole. By its program, or by the words of a task."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.gates.shell_rules import succeeds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.gates.declaration import Steps


class Kind(StrEnum):
    LINT = "lint"
    TYPES = "types"
    UNIT = "unit"
    SMOKE = "smoke"


#: the beginnings of commands
_COMMANDS = {
    Kind.LINT: (
        "ruff", "flake8", "pylint", "black --check", "isort --check", "eslint", "biome", "oxlint", "prettier --check",
        "prettier -c", "stylelint", "standard", "rubocop", "standardrb", "golangci-lint", "go vet", "staticcheck",
        "shellcheck", "hadolint", "yamllint", "markdownlint", "cargo clippy", "cargo fmt --check", "mix credo",
        "mix format --check-formatted", "pre-commit run", "ktlint", "checkstyle", "phpcs", "actionlint", "zizmor",
        "sqlfluff lint", "deno lint", "deno fmt --check", "lint-imports", "gofmt", "terraform fmt -check",
        "trunk check",
        "clang-format", "clang-tidy", "dotnet format --verify-no-changes", "swiftlint", "swiftformat --lint",
        "pint --test", "php-cs-fixer", "hatch fmt --check",
    ),
    Kind.TYPES: (
        "mypy", "dmypy", "pyright", "basedpyright", "pytype", "pyre", "ty check", "tsc", "vue-tsc", "flow check",
        "mix dialyzer", "mix compile --warnings-as-errors", "srb tc", "phpstan", "psalm", "cargo check", "cargo build",
        "go build", "deno check", "steep check", "dotnet build", "mvn compile", "gradle build", "gradlew build",
        # tests and linters that compile first
        "cargo test", "cargo nextest", "cargo clippy", "go test", "go vet", "mvn test", "mvn verify", "gradle test",
        "gradlew test", "gradle check", "gradlew check", "dotnet test",
    ),
    Kind.UNIT: (
        "pytest", "py.test", "unittest", "nose2", "jest", "vitest", "mocha", "ava", "tap", "node --test", "go test",
        "cargo test", "cargo nextest", "mix test", "rspec", "minitest", "phpunit", "pest", "mvn test", "mvn verify",
        "gradle test", "gradle check", "gradlew test", "gradlew check", "dotnet test", "deno test", "bun test",
        "ctest", "bats", "prove", "rails test", "php artisan test", "swift test", "flutter test", "dart test",
        "cabal test", "stack test", "meson test", "zig build test", "cmake test", "ginkgo", "gotestsum", "R CMD check",
    ),
    Kind.SMOKE: ("playwright test", "cypress run", "newman run", "k6 run", "hurl"),
}  # fmt: skip
_WORDS = {
    Kind.LINT: re.compile(r"lint\w*|style|format-check|check-format\w*"),
    Kind.TYPES: re.compile(r"types?|typecheck\w*|typing|mypy|tsc|dialyzer"),
    Kind.UNIT: re.compile(r"tests?|unit\w*|spec|specs|pytest"),
    Kind.SMOKE: re.compile(r"smoke\w*|e2e|endtoend|acceptance"),
}
#: parts of names of tasks that prepare or follow a check, and check nothing
_PREPARES = frozenset(
    {
        *("should", "install", "setup", "prepare", "build", "deploy", "upload", "download", "wait", "create", "start"),
        *("stop", "generate", "publish", "deps", "dependencies", "bootstrap", "clean", "cleanup", "teardown", "seed"),
    }
)
#: programs that run a task by its name
RUNNERS = re.compile(
    r"npm|pnpm|yarn|bun|make|gmake|just|task|nox|tox|rake|poe|hatch|pdm|invoke|inv|composer|mise|turbo|nx|lerna|mage"
    r"|gradle|gradlew|bazel|earthly|dagger|moon|sbt|lein"
)
#: task runners, without what they run by default or install
_NOT_TASKS = re.compile(
    r"install|add|update|upgrade|audit|cache|config|login|publish|pack|prune|clean|version|--version|--help|-[vV]"
)
#: wrappers, each with the number of words before the command that it runs
_WRAPPERS = {
    "npx": 1, "bunx": 1, "uvx": 1, "sudo": 1, "time": 1, "env": 1, "exec": 1, "command": 1, "nice": 1, "xvfb-run": 1,
    "timeout": 2, "poetry run": 2, "uv run": 2, "pipenv run": 2, "pdm run": 2, "rye run": 2, "hatch run": 2,
    "pnpm exec": 2, "pnpm dlx": 2, "npm exec": 2, "yarn exec": 2, "bundle exec": 2, "coverage run": 2,
    "python -m": 2, "python3 -m": 2, "coverage run -m": 3, "mix do": 2, "doppler run": 2,
}  # fmt: skip
#: programs that run a command which is an argument of theirs: at once, or after a word such as `run`
_RUN_OTHERS = frozenset({"uvx", "ssh", "nix-shell", "xargs", "retry", "unbuffer", "script", "chronic", "yarn", "pnpm"})
_RUN_AFTER = frozenset({"run", "exec", "shell", "develop"})
_RUNNERS_OF_OTHERS = frozenset(
    {
        *("docker", "podman", "docker-compose", "kubectl", "uv", "poetry", "pipenv", "rye", "pixi", "hatch", "pdm"),
        *("conda", "mamba", "micromamba", "nix", "direnv", "devbox", "mise", "dotenv", "doppler", "op"),
    }
)
#: what they do with the names after it, in place of running them
_INSTALLS = frozenset(
    {"install", "add", "pip", "sync", "lock", "build", "pull", "push", "remove", "update", "create", "cp"}
)
#: how the wrappers of two build tools are called
_WRAPPED = {"./gradlew": "gradle", "gradlew": "gradle", "./mvnw": "mvn", "mvnw": "mvn"}
#: options with which a check prints something, and checks nothing
_ASKS = frozenset({"--help", "--version", "--collect-only", "--list-tests"})
#: they run what a file of theirs says, or a text in another language
_UNREAD = frozenset({"nix", "julia", "Rscript"})
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
#: options with which a check succeeds whatever it finds
_ALWAYS_ZERO = re.compile(
    r"--exit-zero|--issues-exit-code[= ]0|--exit-code[= ]0|--no-fail|gofmt -[ld]"
)
#: a command by a variable, or by an expression of the workflow, of which only the length is left
_VARIABLE = re.compile(r"\$|_{8}")
_SHELLS = frozenset({"bash", "sh", "zsh"})
_HARMLESS = frozenset(
    {
        "sleep",
        "set",
        "export",
        "local",
        "declare",
        "readonly",
        "unset",
        "trap",
        "shopt",
        "umask",
        "date",
        "break",
        "continue",
    }
)
#: lines that cannot fail: comments, outputs, and ends with the exit code 0
_PRINTS = re.compile(
    r"\s*(?:(?:#|//|/\*|\*).*|import (?:sys|os)"
    r"|(?:print|puts|console\.log|echo|IO\.puts)\b *\(?(?:\"[^\"$`{#]*\"|'[^']*')?\)?"
    r"|(?:sys\.|process\.|os\._)?exit\b *\(?0?\)?|pass)?[;\s]*"
)
_LONGEST_IDLE = 20_000
_LONGEST_QUOTE = 80


def unwrapped(words: Sequence[str]) -> list[str]:
    """Return a command without assignments and wrappers: `timeout 60 npx jest` is `jest`."""
    rest = list(words)
    while rest:
        if _ASSIGNMENT.fullmatch(rest[0]):
            rest = rest[1:]
            continue
        rest[0] = re.sub(r"\A\$\{\w+\}(?=\w)", "", rest[0])  # ${PREFIX}ruff
        rest[0] = re.sub(r"\A(?:python|pypy)3?(?:\.\d+)?\Z", "python", rest[0])
        rest[0] = rest[0].rpartition("/")[2] if re.fullmatch(r"(\S*/)?(bin|\.bin)/[\w.-]+", rest[0]) else rest[0]
        count = next((_WRAPPERS[key] for n in (3, 2, 1) if (key := " ".join(rest[:n])) in _WRAPPERS), 0)
        options = count
        while count and options < len(rest) and rest[options].startswith("-") and rest[options] != "--":
            options += 1
        options += count > 0 and options < len(rest) and rest[options] == "--"
        if not count or options >= len(rest) or rest[:2] in (["command", "-v"], ["command", "-V"]):
            break
        rest = rest[options:]
    return rest


def kinds_of(words: Sequence[str], declared: Steps) -> frozenset[Kind]:
    """Return what a command checks; nothing for an installation, an output or an unknown program."""
    text = " ".join(words)
    named = {kind for kind in Kind if declares(getattr(declared, kind.value), text)}
    if named:
        return frozenset(named)
    if declares(declared.other, text):
        return frozenset()
    command = unwrapped(words)
    if not command or _ASKS & {*command}:
        return frozenset()
    program = [_WRAPPED.get(command[0], command[0]), *command[1:]]
    found = {kind for kind, beginnings in _COMMANDS.items() if _begins(program, beginnings)}
    if found & {Kind.UNIT} and _said(Kind.SMOKE, command[1:]):
        found = found - {Kind.UNIT} | {Kind.SMOKE}
    return frozenset(found or _task_kinds(command) or _task_kinds(list(words)))


def kinds_inside(words: Sequence[str], declared: Steps) -> frozenset[Kind]:
    """Return what a command checks that another program runs, such as one in a container; otherwise nothing."""
    found: frozenset[Kind] = frozenset()
    begins = 1 if words[0] in _RUN_OTHERS else len(words)
    if words[0] in _RUNNERS_OF_OTHERS:
        begins = next((at for at, word in enumerate(words) if word in _RUN_AFTER), begins) + 1
    for at in range(begins, min(len(words), 40)):
        if words[at] in _INSTALLS:
            break
        # an option, or the path that is its value
        if not words[at].startswith("-") and not (words[at - 1].startswith("-") and "/" in words[at]):
            found |= kinds_of(words[at:], declared)
    return found


def declares(declared: Sequence[str], text: str) -> bool:
    """Say whether one of the declared texts is in a command, whose words have no quotes."""
    return any(re.sub(r"[\"']", "", part) in text for part in declared)


def _begins(command: list[str], beginnings: Sequence[str]) -> bool:
    return any(
        command[0] == words[0] and all(word in command[1:] for word in words[1:])
        for words in map(str.split, beginnings)
    )


def _said(kind: Kind, words: Sequence[str]) -> bool:
    names = (set(re.split(r"[^a-z0-9]+", word.lower())) for word in words)
    return any(_WORDS[kind].fullmatch(piece) for pieces in names if not pieces & _PREPARES for piece in pieces)


def _task_kinds(command: list[str]) -> set[Kind]:
    """Return the kinds that the name of a task, or of a script of the repository, says."""
    if RUNNERS.fullmatch(command[0].removeprefix("./")):
        words = _tasks(command)
        if not words:
            return set()
    elif not (words := own_script(command)):
        return set()
    found = {kind for kind in Kind if _said(kind, words)}
    return found - {Kind.UNIT} if Kind.SMOKE in found else found


def _tasks(command: list[str]) -> list[str]:
    """Return the tasks of a task runner, and its options; nothing for an installation."""
    words = [word for word in command[1:] if word != "run"]
    is_installation = not words or _NOT_TASKS.fullmatch(words[0]) or command[:2] in (["npm", "ci"], ["npm", "i"])
    return [] if is_installation or command[:2] == ["pnpm", "i"] else words


def own_script(command: Sequence[str]) -> list[str]:
    """Return a script of the repository with its arguments; nothing for any other program."""
    if command[0] in {"bash", "sh", "zsh", "python", "python3", "node", "ruby", "source", "."}:
        rest = list(command[1:])
        ends = {"-c"} if command[0] in _SHELLS else {"-c", "-m", "-e"}
        while rest and rest[0].startswith("-") and rest[0] not in ends:
            rest.pop(0)
        return rest if rest and not rest[0].startswith("-") and re.search(r"[/.]", rest[0]) else []
    return list(command) if "/" in command[0] and not command[0].startswith(("/", "$", "~")) else []


def is_unseen(words: Sequence[str]) -> bool:
    """Say whether a command runs a task or a script whose content decides what it checks."""
    command = unwrapped(words) if list(words[:1]) not in (["hatch"], ["pdm"]) else list(words)
    if not command:
        return False
    if RUNNERS.fullmatch(command[0].removeprefix("./")):
        return len(command) == 1 or bool(_tasks(command))
    is_container = command[:2] in (["docker", "compose"], ["docker", "run"])
    return bool(own_script(command)) or bool(_VARIABLE.match(command[0])) or is_container or command[0] in _UNREAD


def is_harmless(words: Sequence[str]) -> bool:
    """Say whether a command succeeds whatever it finds."""
    return words[0] in _HARMLESS or succeeds(tuple(words)) or words == ("wait",)


def only_prints(text: str) -> bool:
    """Say whether a script in any language has comments and outputs only."""
    return len(text) < _LONGEST_IDLE and all(_PRINTS.fullmatch(line) for line in text.splitlines())


def always_zero(words: Sequence[str]) -> str:
    """Return the option with which a check never fails; "" without one."""
    match = re.search(rf"(?<!\S)(?:{_ALWAYS_ZERO.pattern})(?!\S)", " ".join(words))
    return match[0] if match else ""


def quoted(words: Sequence[str]) -> str:
    text = " ".join(" ".join(words).split())
    return f"`{text[: _LONGEST_QUOTE - 1]}…`" if len(text) > _LONGEST_QUOTE else f"`{text}`"
