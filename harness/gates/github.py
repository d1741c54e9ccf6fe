"""GitHub Actions: the steps of workflows that run for pull requests.

Keys and default shells: https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.gates.expansion import Expansion, Source
from harness.gates.github_filters import filters_of
from harness.gates.programs import Kind
from harness.gates.rows import Place
from harness.gates.shell_rules import Fate
from harness.gates.shell_words import UnreadableScriptError
from harness.gates.steps import Executed, Workflows
from harness.gates.yaml_nodes import LARGEST, Node, read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.gates.tree import Tree

_FOLDER = ".github/workflows/"
_DEEPEST = 4
_LONGEST_REASON = 200
#: owners of actions that prepare a job, build or upload; none of them checks
_PREPARES = frozenset(
    {
        *("actions", "docker", "aws-actions", "azure", "google-github-actions", "codecov", "hashicorp", "softprops"),
        *("ruby", "erlef", "dtolnay", "swatinem", "gradle", "denoland", "oven-sh", "pnpm", "snok", "mamba-org"),
        *("github", "shivammathur", "peter-evans", "dorny", "step-security", "pypa", "webfactory", "taiki-e"),
    }
)
_ACTIONS = (
    (Kind.LINT, re.compile(r"(?i)lint|ruff|pre-commit|psf/black|rustfmt|clippy|shellcheck|prettier|zizmor|codeql")),
    (Kind.TYPES, re.compile(r"(?i)pyright|mypy|typecheck")),
    (Kind.SMOKE, re.compile(r"(?i)cypress|smoke|e2e|playwright")),
)
_NEVER = re.compile(
    r"false|failure\(\)|cancelled\(\)|.*github\.event_name\s*==\s*'(?!pull_request'|merge_group').*"
    r"|.*github\.event_name\s*!=\s*'pull_request'.*|.*github\.ref\s*==\s*'refs/(?:heads|tags)/.*"
    r"|.*startsWith\(\s*github\.ref\s*,\s*'refs/(?:heads|tags)/.*",
    re.DOTALL,
)
_ALWAYS = re.compile(
    r"|true|always\(\)|!\s*cancelled\(\)|success\(\)|success\(\) \|\| failure\(\)"
    r"|github\.event_name\s*==\s*'pull_request'"
    r"|(?:github\.event_name\s*==\s*'pull_request'\s*&&\s*)?"
    r"(?:!\s*github\.event\.pull_request\.draft|github\.event\.pull_request\.draft\s*==\s*false)"
    r"|github\.event_name\s*!=\s*'(?!pull_request')[^']*'"
    r"|!\s*\(?\s*github\.event_name\s*==\s*'(?!pull_request')[^']*'\s*\)?"
    r"|!\s*startsWith\(\s*github\.ref\s*,\s*'refs/(?:heads|tags)/[^']*'\s*\)"
)
#: with these, a part of a condition says nothing about the whole
_OPEN = re.compile(r"\|\||!(?!=)|\$\{\{|==\s*false|!=\s*true")
_EVEN_AFTER_FAILURES = re.compile(r"always\(\)|!\s*cancelled\(\)|success\(\)\s*\|\|\s*failure\(\)")
#: a job whose name says that it stands for others
_SUMMARY = re.compile(
    r"(?i)(?:.*[^a-z])?(?:ok|all|gate|ci|required|status|passed|success|done|green|complete|check|checks)(?:[^a-z].*)?"
)


#: a line that cannot fail
_PRINTS = re.compile(r"\s*(?:(?:echo|printf)\b(?!.*(?:[;|&]|\$\().*).*|true|:|exit 0)\s*")
_MATRIX = re.compile(r"\$\{\{\s*matrix\.([\w-]+)\s*\}\}")
_CHOICE = re.compile(r"matrix\.([\w-]+)(?:\s*==\s*'([^']*)')?")


class _Around(Struct, frozen=True, kw_only=True):
    """What the workflow and the job say about a step."""

    fate: Fate = Fate()
    never: str = ""
    #: why the job may be skipped
    may_skip: str = ""
    shell: str = ""
    folder: str = ""
    windows: bool = False
    #: the values of the job's matrix, by their names
    matrix: dict[str, tuple[str, ...]] = {}


def github_workflows(tree: Tree, expansion: Expansion) -> Iterator[Workflows]:
    """Return what each workflow executes for pull requests."""
    for path in tree.files:
        if path.startswith(_FOLDER) and "/" not in path.removeprefix(_FOLDER) and path.endswith((".yml", ".yaml")):
            yield _File(tree, expansion, path).read()


class _File:
    """One workflow, with the reusable workflows and composite actions of the repository that it uses."""

    def __init__(self, tree: Tree, expansion: Expansion, path: str) -> None:
        self._tree = tree
        self._expansion = expansion
        self._path = path
        self._broken: list[Place] = []
        self._unread: list[Place] = []

    def read(self) -> Workflows:
        text = self._tree.text(self._path, LARGEST)
        root = read_yaml(text) if text is not None else "it cannot be read: a link, too large, or binary"
        if isinstance(root, str):
            place = Place(self._path, 0, root)
            return Workflows(broken=(place,)) if root.startswith("invalid") else Workflows(unread=(place,))
        triggers = root["on"]
        if not root["jobs"].is_table or not triggers.exists:
            what = "not a workflow: `on` or `jobs` is missing"
            return Workflows(broken=(Place(self._path, root.line, what),))
        event = next((value for name, value in triggers.items() if name == "pull_request"), None)
        if event is None and "pull_request" not in triggers.words():
            return Workflows(elsewhere=(Place(self._path, triggers.line, f"on: {', '.join(triggers.words())}"),))
        filters = filters_of(event or Node(), self._tree)
        what = f"on pull_request, {filters.shown}" if filters.shown else "on pull_request"
        place = Place(self._path, triggers.line, filters.never or filters.unclear or what)
        around = _Around(never=filters.never, fate=Fate(unclear=filters.unclear))
        executed = [replace(step, excluded=filters.excluded) for step in self._jobs(root, self._path, around, 0)]
        return Workflows(
            triggers=() if filters.never or filters.unclear else (place,),
            excluded=() if filters.never or filters.unclear else (filters.excluded,),
            doubtful=(place,) if filters.unclear else (),
            elsewhere=(place,) if filters.never else (),
            executed=tuple(executed),
            broken=tuple(self._broken),
            unread=tuple(self._unread),
        )

    def _jobs(self, root: Node, path: str, around: _Around, depth: int) -> Iterator[Executed]:
        default = root["defaults"]["run"]
        jobs = dict(root["jobs"].items())
        inner = _with_needs(jobs, {name: _around(job, around, default) for name, job in jobs.items()})
        for name, job in jobs.items():
            self._judge_summary(name, job, path, jobs)
            if job["uses"].exists:
                yield from self._reused(job["uses"], path, inner[name], depth)
            later = job.all_text()
            for step in job["steps"].entries():
                is_seen = bool(step["id"].text) and f"steps.{step['id'].text}.outcome" in later
                yield from self._step(step, path, inner[name], depth, is_seen=is_seen)

    def _judge_summary(self, name: str, job: Node, path: str, jobs: dict[str, Node]) -> None:
        """A job that runs after failures, and looks at no result, is green when the checks that it needs are red."""
        needs = job["needs"].words()
        if not needs or not _EVEN_AFTER_FAILURES.search(job["if"].text):
            return
        if not (_SUMMARY.fullmatch(name) or _SUMMARY.fullmatch(job["name"].text or "-")):
            return
        lines = [line for step in job["steps"].entries() for line in step["run"].text.splitlines() if line.strip()]
        uses = job["uses"].exists or any(step["uses"].exists for step in job["steps"].entries())
        if all(_PRINTS.fullmatch(line) for line in lines) and not uses and "needs." not in job["if"].text:
            what = (
                f"job {name} runs after failures of {', '.join(needs)} (`if: {job['if'].text}`), and checks no result"
            )
            self._broken.append(Place(path, job["if"].line, what))
        elif "'failure'" in (text := job.all_text()) and not re.search(r"'(?:success|skipped)'", text):
            self._judge_skipped(name, needs, jobs, Place(path, job["if"].line, ""))

    def _judge_skipped(self, name: str, needs: list[str], jobs: dict[str, Node], place: Place) -> None:
        """A job whose needed job failed is skipped, so that a summary of failures alone is green."""
        for needed in needs:
            behind = [other for other in jobs.get(needed, Node())["needs"].words() if other not in needs]
            if behind:
                what = f"job {name} looks for failures only: if {behind[0]} fails, {needed} is skipped, and it is green"
                self._unread.append(replace(place, what=what))

    def _reused(self, uses: Node, path: str, around: _Around, depth: int) -> Iterator[Executed]:
        target = uses.text.removeprefix("./")
        text = self._tree.text(target, LARGEST) if uses.text.startswith("./") and depth < _DEEPEST else None
        root = read_yaml(text) if text is not None else ""
        if isinstance(root, str):
            what = f"the reusable workflow {uses.text} is not read" if not root else f"{uses.text}: {root}"
            self._unread.append(Place(path, uses.line, what))
            return
        yield from self._jobs(root, target, around, depth + 1)

    def _step(self, step: Node, path: str, around: _Around, depth: int, *, is_seen: bool = False) -> Iterator[Executed]:
        """Yield what a step executes.

        :param is_seen: whether another step looks at its outcome.
        """
        inner = _around(step, around, Node())
        if is_seen and inner.fate.lost and not around.fate.lost:
            inner = replace(inner, fate=Fate(unclear="another step looks at its outcome").within(around.fate))
        if step["run"].text:
            yield from self._run(step, path, inner)
        elif step["uses"].text.startswith("./"):
            yield from self._composite(step["uses"], path, inner, depth)
        elif step["uses"].text:
            yield from self._action(step["uses"], path, inner)

    def _run(self, step: Node, path: str, around: _Around) -> Iterator[Executed]:
        run = step["run"]
        shell = step["shell"].text or around.shell
        options = _shell_options(shell, windows=around.windows)
        if options is None:
            self._unread.append(Place(path, run.line, f"a step in {shell or 'PowerShell'} is not read"))
            return
        errexit, pipefail = options
        source = Source(
            text=_MATRIX.sub(lambda match: "-".join(around.matrix.get(match[1], ())) or match[0], run.text),
            path=path,
            line=run.first_line,
            errexit=errexit,
            pipefail=pipefail,
            folder=step["working-directory"].text or around.folder,
            fate=around.fate,
            never=around.never,
        )
        try:
            yield from self._expansion.executed(source)
        except UnreadableScriptError as error:
            self._unread.append(Place(path, run.line, f"a script that is not read: {error}"))

    def _composite(self, uses: Node, path: str, around: _Around, depth: int) -> Iterator[Executed]:
        folder = uses.text.removeprefix("./").rstrip("/")
        found = ((name, self._tree.text(name, LARGEST)) for name in (f"{folder}/action.yml", f"{folder}/action.yaml"))
        name, text = next(((name, text) for name, text in found if text is not None), ("", None))
        root = read_yaml(text) if text is not None and depth < _DEEPEST else ""
        if isinstance(root, str) or not root["runs"]["steps"].exists:
            self._unread.append(Place(path, uses.line, f"the action {uses.text} is not read"))
            return
        for step in root["runs"]["steps"].entries():
            yield from self._step(step, name, around, depth + 1)

    def _action(self, uses: Node, path: str, around: _Around) -> Iterator[Executed]:
        name = uses.text.partition("@")[0]
        owner = name.partition("/")[0].lower()
        kinds = frozenset(kind for kind, pattern in _ACTIONS if pattern.search(name))
        yield Executed(
            text=f"`{name}`",
            path=path,
            line=uses.line,
            kinds=kinds if owner not in _PREPARES or owner == "github" else frozenset(),
            unseen=not kinds and owner not in _PREPARES,
            lost=around.fate.lost,
            unclear=around.fate.unclear,
            never=around.never,
        )


def _around(node: Node, outer: _Around, default: Node) -> _Around:
    """Return what a job or a step adds to what is around it."""
    fate, never, may_skip = Fate(), outer.never, ""
    tolerated = node["continue-on-error"]
    if tolerated.text.lower() == "true":
        fate = Fate(lost="`continue-on-error: true` hides its failure")
    elif tolerated.exists and tolerated.text.lower() != "false":
        fate = Fate(unclear=f"`continue-on-error: {tolerated.text}` is not evaluated")
    condition = " ".join(re.sub(r"^\s*\$\{\{(.*)\}\}\s*$", r"\1", node["if"].text, flags=re.DOTALL).split())
    if _NEVER.fullmatch(condition) and not _OPEN.search(condition):
        never = never or f"`if: {condition}` excludes pull requests"
    elif not _ALWAYS.fullmatch(condition) and not _is_of_matrix(condition, outer.matrix):
        may_skip = f"whether `if: {condition[:60]}` holds is not evaluated"
        fate = fate.within(Fate(unclear=may_skip))
    own = node["defaults"]["run"]
    return _Around(
        fate=fate.within(outer.fate),
        never=never,
        may_skip=may_skip,
        shell=own["shell"].text or default["shell"].text or outer.shell,
        folder=own["working-directory"].text or default["working-directory"].text or outer.folder,
        matrix=outer.matrix or _matrix(node["strategy"]["matrix"]),
        windows=outer.windows or "windows" in node["runs-on"].all_text().lower(),
    )


def _with_needs(jobs: dict[str, Node], around: dict[str, _Around]) -> dict[str, _Around]:
    """Return the jobs, each skipped with a job that it needs, unless its `if` lets it run."""
    dependents: dict[str, list[str]] = {}
    for name, job in jobs.items():
        if not _EVEN_AFTER_FAILURES.search(job["if"].text):
            for needed in job["needs"].words():
                dependents.setdefault(needed, []).append(name)
    found = dict(around)
    waiting = [name for name, job in found.items() if job.never or job.may_skip]
    while waiting:
        needed = waiting.pop()
        why = f"it needs the job {needed}: {found[needed].never or found[needed].may_skip}"[:_LONGEST_REASON]
        for name in dependents.get(needed, ()):
            dependent = found[name]
            if found[needed].never and not dependent.never:
                found[name] = replace(dependent, never=why)
            elif found[needed].may_skip and not (dependent.never or dependent.may_skip):
                found[name] = replace(dependent, may_skip=why, fate=Fate(unclear=why).within(dependent.fate))
            else:
                continue
            waiting.append(name)
    return found


def _matrix(node: Node) -> dict[str, tuple[str, ...]]:
    """Return the values of a matrix that are plain words, by their names."""
    found: dict[str, list[str]] = {}
    for name, values in node.items():
        pairs = [(name, value.text) for value in values.entries()]
        if name == "include":
            pairs = [(key, value.text) for entry in values.entries() for key, value in entry.items()]
        for key, text in pairs:
            if re.fullmatch(r"[\w.:-]+", text):
                found.setdefault(key, []).append(text)
    return {name: tuple(dict.fromkeys(values)) for name, values in found.items()}


def _is_of_matrix(condition: str, matrix: dict[str, tuple[str, ...]]) -> bool:
    """Say whether a condition selects one of the values of the matrix, so that one of its jobs runs the step."""
    match = _CHOICE.fullmatch(condition)
    values = matrix.get(match[1], ()) if match else ()
    # without a comparison, any value counts that is not false
    return match is not None and (match[2] in values if match[2] is not None else bool({*values} - {"false", "0"}))


def _shell_options(shell: str, *, windows: bool) -> tuple[bool, bool] | None:
    """Return whether a shell starts with errexit and with pipefail; None for a shell that is not read."""
    if not shell:
        return None if windows else (True, False)
    if shell == "bash":
        return True, True
    if shell == "sh":
        return True, False
    program = shell.split(maxsplit=1)[0].rpartition("/")[2]
    if program not in {"bash", "sh", "dash"}:
        return None
    return bool(re.search(r"\s-[a-z]*e", shell)), "pipefail" in shell
