"""The distribution preflight: versions, requirements, manifests, tags, READMEs and lock files."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from harness.errors import ConfigError
from harness.model import Status
from harness.preflight.declaration import GateResult, PreflightDeclaration
from harness.preflight.elixir_source import dependency_tuples, masked
from harness.preflight.elixir_version import ElixirVersion, admits, is_requirement, parse_version
from harness.preflight.gates import LOCK, MANIFEST, README, TAG, preflight
from harness.preflight.project_files import Folder
from harness.preflight.python_readme import documented
from harness.preflight.release_tags import releases
from tests.tables import each_row

if TYPE_CHECKING:
    from pathlib import Path

# --- versions and requirements of Elixir ------------------------------------------------------------------


def _version(text: str) -> ElixirVersion:
    found = parse_version(text)
    assert found is not None, text
    return found


ASCENDING = (
    "0.9.10",
    "1.0.0-0",
    "1.0.0-2",
    "1.0.0-10",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.1.0",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc-1",
    "1.0.0-rc1",
    "1.0.0",
    "1.0.1-dev",
    "1.0.10",
    "1.9.0",
    "1.10.0",
)


def test_versions_have_the_order_of_elixir() -> None:
    for index, lower in enumerate(ASCENDING):
        for higher in ASCENDING[index + 1 :]:
            assert _version(lower) < _version(higher), (lower, higher)
            assert not _version(higher) < _version(lower)
            assert _version(lower) != _version(higher)


def test_the_order_ignores_the_build() -> None:
    assert _version("2.0.1+build0") == _version("2.0.1")
    assert _version("1.0.0-rc.1+7.x") == _version("1.0.0-rc.1")


@each_row(
    "text",
    ["", "1", "1.0", "1.0.0.0", "01.0.0", "1.00.0", "1.0.0-", "1.0.0-01", "1.0.0-a..b", "1.0.0+", "v1.0.0", "1.0.0-ä",
     "1.0.0\n", " 1.0.0", "1.0.x", "-1.0.0", "٣.0.0", "1.0.0+a+b", "1." + "9" * 9000 + ".0"],
)  # fmt: skip
def test_an_invalid_version_is_rejected(text: str) -> None:
    assert parse_version(text) is None


@each_row(
    ("requirement", "version", "allow_pre", "admitted"),
    [
        ("~> 2.0", "2.1.0", True, True),
        ("~> 2.0", "3.0.0", True, False),
        ("~> 2.0.0", "2.0.1", True, True),
        ("~> 2.0.0", "2.1.0", True, False),
        ("~> 2.1.2", "2.1.3-dev", True, True),
        ("~> 2.1.2", "2.1.3-dev", False, False),
        ("~> 2.1-dev", "2.2.0-dev", False, True),
        ("~> 2.1.2-dev", "2.1.3-dev", False, True),
        (">= 2.1.0", "2.2.0-dev", False, False),
        (">= 2.1.0-dev", "2.2.6-dev", True, True),
        ("~> 2.0", "3.0.0-rc.1", True, False),
        ("~> 2.0", "3.0.0-0", True, False),
        ("~> 2.0.0", "2.1.0-dev", True, False),
        ("~> 0.2", "0.3.0", True, True),
        ("~> 0.2.0", "0.3.0", True, False),
        ("2.0.0", "2.0.0", True, True),
        ("2.0.0", "2.0.1", True, False),
        ("!= 2.0.0", "2.0.1", True, True),
        (">2.0.0", "2.0.1", True, True),
        ("> 2.0.0", "2.0.0", True, False),
        ("<= 2.0.0", "2.0.0-rc.1", False, True),
        ("< 2.0.0", "2.0.0-rc.1", False, True),
        (">= 0.2.0 and < 0.4.0", "0.3.9", True, True),
        (">= 0.2.0 and < 0.4.0", "0.4.0", True, False),
        ("~> 1.0 or ~> 2.0", "2.5.0", True, True),
        ("~> 1.0 or ~> 2.0", "3.0.0", True, False),
        # from left to right: (a or b) and c
        ("1.0.0 or 2.0.0 and < 1.5.0", "1.0.0", True, True),
        ("1.0.0 or 2.0.0 and > 1.5.0", "1.0.0", True, False),
    ],
)
def test_requirements_admit_the_same_versions_as_in_elixir(
    requirement: str, version: str, allow_pre: bool, admitted: bool
) -> None:
    assert admits(requirement, _version(version), allow_pre=allow_pre) is admitted


@each_row(
    "requirement",
    ["", " ", "~>", ">= 1.0", "1.0", "== == 1.0.0", ">= 1.0.0, < 2.0.0", "> 1.0.0 and", "and 1.0.0", "1.0.0 1.0.0",
     "~> x.y", "~> 1", "^1.0.0", "=1.0.0", "> 1.0.0 && < 2.0.0", ">= 1.0.0 and\n< 2.0.0", "1.0.0 or or 2.0.0"],
)  # fmt: skip
def test_an_invalid_requirement_is_rejected(requirement: str) -> None:
    assert not is_requirement(requirement)
    with pytest.raises(ValueError, match="invalid Elixir requirement"):
        admits(requirement, _version("1.0.0"))


_NUMBER = st.integers(min_value=0, max_value=12)
_PRE = st.lists(st.one_of(_NUMBER, st.from_regex(r"\A[a-z][a-z0-9-]{0,2}\Z")), max_size=3).map(tuple)
_VERSIONS = st.builds(
    lambda a, b, c, pre: ElixirVersion(major=a, minor=b, patch=c, pre=pre), _NUMBER, _NUMBER, _NUMBER, _PRE
)


def _written(version: ElixirVersion) -> str:
    pre = f"-{'.'.join(map(str, version.pre))}" if version.pre else ""
    return f"{version.major}.{version.minor}.{version.patch}{pre}"


@given(_VERSIONS)
def test_parsing_reverses_writing(version: ElixirVersion) -> None:
    assert parse_version(_written(version)) == version
    assert hash(_version(_written(version))) == hash(version)


@given(_VERSIONS, _VERSIONS, _VERSIONS)
def test_the_order_is_total_and_pre_releases_come_before_their_release(
    a: ElixirVersion, b: ElixirVersion, c: ElixirVersion
) -> None:
    assert (a < b) + (a == b) + (b < a) == 1
    if a <= b <= c:
        assert a <= c
    if a.pre:
        assert a < ElixirVersion(major=a.major, minor=a.minor, patch=a.patch)


@given(_VERSIONS, _VERSIONS, st.booleans())
def test_comparisons_are_consistent(wanted: ElixirVersion, version: ElixirVersion, allow_pre: bool) -> None:
    def holds(sign: str) -> bool:
        return admits(f"{sign} {_written(wanted)}", version, allow_pre=allow_pre)

    assert holds("==") != holds("!=")
    assert holds("==") == (version == wanted)
    assert holds("<=") == (version <= wanted)
    if holds("~>"):
        assert holds(">=")
        assert (version.major, version.minor) == (wanted.major, wanted.minor)
    if allow_pre:
        assert holds(">") != holds("<=")
        assert holds(">=") != holds("<")
    joined = f">= {_written(wanted)} and < {wanted.major}.{wanted.minor + 1}.0-0"
    assert holds("~>") == admits(joined, version, allow_pre=allow_pre)


# --- Elixir source ----------------------------------------------------------------------------------------


def test_comments_strings_and_sigils_are_masked_in_place() -> None:
    text = 'a "x{" # {:no, "1"}\nb ~s({) \'[\' ?{ """\n{\n""" "#{f("}")}" {:yes, "1"}\n'
    blank = masked(text)
    assert len(blank) == len(text)
    assert [blank.count(bracket) for bracket in "{}[]"] == [1, 1, 0, 0]
    assert [dependency.name for dependency in dependency_tuples(text)] == ["yes"]


@given(st.text(alphabet="{}[]():\"'#~sS\\\n ?ab,@", max_size=60))
def test_masking_keeps_all_positions(text: str) -> None:
    blank = masked(text)
    assert len(blank) == len(text)
    for position, character in enumerate(text):
        assert (blank[position] == "\n") == (character == "\n")
    assert list(dependency_tuples("{:a, " * 50 + text))


# --- all gates --------------------------------------------------------------------------------------------


def _write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def _repository(root: Path, *tags: str) -> None:
    clean = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")} | clean
        subprocess.run(
            ["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True, env=environment
        )

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "all")
    for tag in tags:
        git("tag", tag)


def _results(root: Path, **declared: str) -> dict[str, GateResult]:
    rows = preflight(PreflightDeclaration(**declared), root)
    assert [row.item for row in rows] == [MANIFEST, TAG, README, LOCK]
    for row in rows:
        assert row.evidence if row.status is Status.OK else row.notes
        assert str(root) not in row.evidence + row.notes
    return {row.item: row for row in rows}


PYPROJECT = (
    '[build-system]\nrequires = []\n[tool.other]\nversion = "9"\n[project]\nname = "Thread_Line"\nversion = "0.4.0"\n'
)
UV_LOCK = """version = 1

[[package]]
name = "psycopg"
version = "3.2.4"
source = { registry = "https://example.org/simple" }

[[package]]
name = "thread-line"
version = "0.4.0"
source = { registry = "https://example.org/simple" }
dependencies = [
    { name = "psycopg" },
]
"""
PYTHON = {
    "lib/pyproject.toml": PYPROJECT,
    "lib/README.md": '# It\n\n```sh\npip install "thread-line>=0.4,<0.5"\n```\n',
    "app/pyproject.toml": '[project]\nname = "app"\ndependencies = ["thread-line>=0.4"]\n',
    "app/uv.lock": UV_LOCK,
}

MIX = """defmodule Threadline.MixProject do
  use Mix.Project

  @version "0.2.0"
  # @version "0.1.0"

  def project do
    [
      app: :threadline,
      docs: [source_ref: "v#{@version}", version: "9.9.9"],
      version: @version, # the one
      deps: deps()
    ]
  end

  defp deps, do: [{:ecto_sql, "~> 3.10"}]
end
"""
MIX_LOCK = """%{
  "ecto": {:hex, :ecto, "3.12.1", "ab", [:mix], [{:decimal, "~> 2.0", [hex: :decimal, repo: "hexpm", optional: false]}], "hexpm", "cd"},
  "threadline": {:hex, :threadline, "0.2.0", "ab", [:mix], [{:ecto, "~> 3.10", [hex: :ecto, repo: "hexpm", optional: false]}], "hexpm", "cd"},
}
"""
ELIXIR = {
    "lib/mix.exs": MIX,
    "lib/README.md": '# It\'s this\n\n```elixir\ndef deps do\n  [\n    {:threadline, "~> 0.2"}\n  ]\nend\n```\n',
    "app/mix.exs": 'defp deps do\n  [\n    {:threadline, "~> 0.2"},\n    {:ecto, "~> 3.12"}\n  ]\nend\n',
    "app/mix.lock": MIX_LOCK,
}


def test_a_consistent_python_release_passes_all_gates(tmp_path: Path) -> None:
    _write(tmp_path, PYTHON)
    _repository(tmp_path, "v0.10.0-nightly", "v0.9.0-nightly", "v0.3.9", "v0.4.0", "unrelated")
    rows = _results(tmp_path, project="lib", consumer="app")
    assert {row.status for row in rows.values()} == {Status.OK}
    assert rows[MANIFEST].evidence == "lib/pyproject.toml:7"
    assert rows[TAG].evidence == "git -C lib for-each-ref '--format=%(refname:strip=2)' refs/tags"
    assert rows[README].evidence == "lib/README.md:4"
    assert rows[LOCK].evidence == "app/uv.lock:9"


def test_a_consistent_elixir_release_passes_all_gates(tmp_path: Path) -> None:
    _write(tmp_path, ELIXIR)
    _repository(tmp_path, "v0.2.0", "v0.2.0-rc.1", "0.1.10", "0.1.9")
    rows = _results(tmp_path, project="lib", consumer="app")
    assert {row.status for row in rows.values()} == {Status.OK}
    assert (rows[MANIFEST].evidence, rows[MANIFEST].notes) == ("lib/mix.exs:4", "threadline 0.2.0")
    assert rows[TAG].notes == "the newest of 4 is v0.2.0"
    assert rows[README].evidence == "lib/README.md:6"
    assert rows[LOCK].evidence == "app/mix.lock:3"


def test_a_manifest_alone_leaves_the_other_gates_not_run(tmp_path: Path) -> None:
    _write(tmp_path, {"pyproject.toml": PYPROJECT})
    rows = _results(tmp_path)
    assert [row.status for row in rows.values()] == [Status.OK, Status.NOT_RUN, Status.NOT_RUN, Status.NOT_RUN]


# --- manifests


@pytest.mark.parametrize(
    ("files", "status", "message"),
    [
        ({"pyproject.toml": '[project]\nname = "x"\nversion = "one"\n'}, Status.ISSUE, "invalid version 'one', expected the format of PEP 440"),
        ({"pyproject.toml": "[project\n"}, Status.ISSUE, "invalid TOML"),
        ({"pyproject.toml": '[tool.poetry]\nname = "x"\nversion = "1.2.3"\n'}, Status.OK, "x 1.2.3"),
        (
            {"pyproject.toml": '[build-system]\nrequires = ["hatchling", "hatch-vcs"]\n[project]\nname = "x"\ndynamic = ["version"]\n[tool.hatch.version]\nsource = "vcs"\n'},
            Status.NOT_RUN,
            "hatch-vcs",
        ),
        (
            {"pyproject.toml": '[build-system]\nrequires = ["setuptools_scm>=8"]\n[project]\nname = "x"\ndynamic = ["version"]\n'},
            Status.NOT_RUN,
            "setuptools_scm",
        ),
        (
            {
                "pyproject.toml": '[project]\nname = "x"\ndynamic = ["version"]\n[tool.hatch.version]\npath = "x/about.py"\n',
                "x/about.py": '"""About."""\n__version__ = "1.2.3"\n',
            },
            Status.OK,
            "x 1.2.3",
        ),
        (
            {"pyproject.toml": '[project]\nname = "x"\ndynamic = ["version"]\n[tool.hatch.version]\npath = "../about.py"\n'},
            Status.NOT_RUN,
            "does not set it exactly once",
        ),
        (
            {"pyproject.toml": '[project]\nname = "x"\ndynamic = ["version"]\n[tool.setuptools.dynamic]\nversion = {attr = "x.__version__"}\n'},
            Status.NOT_RUN,
            "the build computes the version",
        ),
        (
            {"pyproject.toml": '[project]\nname = "x"\ndynamic = ["version"]\n[tool.setuptools.dynamic]\nversion = {file = "VERSION"}\n', "VERSION": "1.2.3\n"},
            Status.OK,
            "x 1.2.3",
        ),
        ({"setup.cfg": "[metadata]\nname = x\nversion = 1.2.3\n"}, Status.OK, "x 1.2.3"),
        ({"setup.cfg": "[metadata]\nname = x\nversion = attr: x.version\n"}, Status.NOT_RUN, "the build computes the version"),
        ({"setup.py": 'from setuptools import setup\nV = "1.2.3"\nsetup(name="x", version=V)\n'}, Status.OK, "x 1.2.3"),
        ({"setup.py": 'import os\nfrom setuptools import setup\nsetup(name="x", version=os.environ["V"])\n'}, Status.NOT_RUN, "not executed"),
        ({"setup.py": 'V = "1"\nV = "2"\nsetup(name="x", version=V)\n'}, Status.NOT_RUN, "not executed"),
        ({"setup.py": 'setup(name="x", use_scm_version=True)\n'}, Status.NOT_RUN, "setuptools-scm"),
        ({"setup.py": "not python at all(\n"}, Status.NOT_RUN, "not executed"),
        ({"mix.exs": MIX.replace('@version "0.2.0"', '@version File.read!("VERSION")')}, Status.NOT_RUN, "not executed"),
        ({"mix.exs": MIX.replace("version: @version", 'version: "0.3.0"')}, Status.OK, "threadline 0.3.0"),
        ({"mix.exs": MIX.replace("version: @version", "version: version()")}, Status.NOT_RUN, "not executed"),
        ({"mix.exs": MIX.replace("version: @version", 'version: "0.3.#{n()}"')}, Status.NOT_RUN, "not executed"),
        ({"mix.exs": MIX.replace('  # @version "0.1.0"', '  @version "0.1.0"')}, Status.NOT_RUN, "set 2 times"),
        ({"mix.exs": MIX.replace("def project do", "def project do\n    base()\n  end\n  def other do")}, Status.NOT_RUN, "no readable key version:"),
        ({"mix.exs": MIX.replace('"0.2.0"', '"0.2"')}, Status.ISSUE, "invalid version '0.2', expected the format of Elixir's Version"),
    ],
)  # fmt: skip
def test_the_version_is_read_or_reported_as_unknown(
    tmp_path: Path, files: dict[str, str], status: Status, message: str
) -> None:
    _write(tmp_path, files)
    row = _results(tmp_path)[MANIFEST]
    assert row.status is status, row
    assert message in row.notes


def test_no_code_of_the_project_is_executed(tmp_path: Path) -> None:
    _write(tmp_path, {"setup.py": f'open({str(tmp_path / "ran")!r}, "w")\nsetup(name="x", version="1.0")\n'})
    assert _results(tmp_path)[MANIFEST].status is Status.OK
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 100_000])
def test_numbers_without_end_and_deep_nesting_are_invalid_toml(tmp_path: Path, value: str) -> None:
    _write(tmp_path, {"pyproject.toml": f"version = {value}"})
    with pytest.raises(ConfigError, match="invalid TOML"):
        Folder(path=tmp_path, root=tmp_path).toml("pyproject.toml")
    assert _results(tmp_path)[MANIFEST].status is Status.ISSUE


def test_missing_folders_and_other_projects_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="project: folder 'lib' does not exist"):
        preflight(PreflightDeclaration(project="lib"), tmp_path)
    with pytest.raises(ConfigError, match="no Python or Elixir project"):
        preflight(PreflightDeclaration(), tmp_path)
    _write(tmp_path, {"mix.exs": MIX, "pyproject.toml": PYPROJECT})
    with pytest.raises(ConfigError, match="several languages"):
        preflight(PreflightDeclaration(), tmp_path)
    assert _results(tmp_path, package="threadline")[MANIFEST].evidence == "mix.exs:4"
    with pytest.raises(ConfigError, match="consumer: folder 'app' does not exist"):
        preflight(PreflightDeclaration(package="threadline", consumer="app"), tmp_path)


# --- tags


@pytest.mark.parametrize(
    ("tags", "status", "message"),
    [
        ((), Status.NOT_RUN, "no tag names a version"),
        (("latest", "release"), Status.NOT_RUN, "no tag names a version"),
        (("0.4.0", "v0.3.10", "v0.3.9"), Status.OK, "the newest of 3 is 0.4.0"),
        (("v0.4.0rc1", "v0.4.0"), Status.OK, "the newest of 2 is v0.4.0"),
        (("v0.3.10", "v0.3.9"), Status.ISSUE, "not tagged yet: the newest tag is v0.3.10, and no tag names it"),
        (
            ("v0.4.0", "v0.4.1rc1"),
            Status.ISSUE,
            "older than the newest tag: the newest tag is v0.4.1rc1, and its tag is v0.4.0",
        ),
        (("v9.0.0", "thread-line-v0.4.0"), Status.OK, "the newest of 1 is thread-line-v0.4.0"),
    ],
)
def test_the_newest_tag_is_the_highest_version(
    tmp_path: Path, tags: tuple[str, ...], status: Status, message: str
) -> None:
    _write(tmp_path, {"pyproject.toml": PYPROJECT})
    _repository(tmp_path, *tags)
    row = _results(tmp_path)[TAG]
    assert row.status is status, row
    assert message in row.notes


def test_an_untracked_library_does_not_use_the_tags_of_its_repository(tmp_path: Path) -> None:
    _write(tmp_path, {"mix.exs": MIX, ".gitignore": "deps\n"})
    _repository(tmp_path, "v0.4.0")
    _write(tmp_path, {"deps/lib/pyproject.toml": PYPROJECT})
    row = _results(tmp_path, project="deps/lib")[TAG]
    assert row.status is Status.NOT_RUN
    assert "git does not track" in row.notes


@given(st.permutations([f"v{a}.{b}.{c}" for a in (0, 10) for b in (2, 9, 10) for c in (0, 11)]))
def test_tags_are_sorted_by_version(names: list[str]) -> None:
    assert releases(tuple(names), "x", Version)[-1].tag == "v10.10.11"


# --- README


@each_row(
    ("line", "version", "admitted"),
    [
        ('pip install "demo>=1.2,<2"', "1.4.0", True),
        ("$ python -m pip install demo~=1.2", "2.0", False),
        ("uv add demo", "1.4.0", True),
        ("`uv pip install 'demo[pg]==1.4.0'`", "1.4.0", True),
        ("poetry add demo@^1.2", "1.4.0", True),
        ("poetry add demo@^0.2", "0.3.0", False),
        ('demo = "^0.2.1"', "0.2.9", True),
        ('demo = "^0.0.3"', "0.0.4", False),
        ('demo = "~1.2"', "1.3.0", False),
        ('demo = "1.2.*"', "1.2.9", True),
        ('demo = "1.2"', "1.2.0", True),
        ('demo = "^1.0 || ^2.0"', "2.1", True),
        ('demo = { version = ">=1.0 <2.0", extras = ["pg"] }', "1.5", True),
        ('dependencies = ["demo >= 1.2", "other"]', "1.1", False),
        ("demo==1.4.0 ; python_version > '3.10'", "1.4.0", True),
        ("- `demo>=1.0`", "1.4.0", True),
        ("pip install demo", "1.0rc1", False),
        ("pip install --pre demo", "1.0rc1", True),
        ("pip install demo>=1.0rc1", "1.0rc2", True),
        ("pip install demo==X.Y.Z", "1.0", None),
        ("pip install demo-extras==1.0 other", "1.0", "none"),
        ("pip install git+https://example.org/demo", "1.0", "none"),
        ("demo 1.0 is old, and demo_tools>=3 is another", "1.0", "none"),
        ('log = logging.getLogger("demo")', "1.0", "none"),
        ("Demo is > 1.0 years old", "0.9", "none"),
    ],
)
def test_documented_constraints_are_found(tmp_path: Path, line: str, version: str, admitted: object) -> None:
    _write(tmp_path, {"README.md": f"# Demo\n\n{line}\n"})
    found = documented(Folder(path=tmp_path, root=tmp_path), "demo", version)
    assert [constraint.admits for constraint in found] == ([] if admitted == "none" else [admitted])
    assert all(constraint.at == "README.md:3" for constraint in found)


@pytest.mark.parametrize(
    ("readme", "status", "message"),
    [
        ('{:threadline, "~> 0.2"}', Status.OK, "~> 0.2 admits 0.2.0"),
        ('{:threadline, "~> 0.1.0", only: :test}', Status.ISSUE, "~> 0.1.0 does not admit 0.2.0"),
        ('{:threadline,\n  ">= 0.1.0 and < 0.3.0"}', Status.OK, "admits 0.2.0"),
        ('{:threadline, ">= 0.1.0, < 0.3.0"}', Status.ISSUE, "invalid Mix requirement"),
        ('{:threadline, "~> 0.2"} or {:threadline, "~> 0.1.0"}', Status.ISSUE, "~> 0.1.0 does not admit"),
        ('{:threadline, path: "../threadline"}', Status.NOT_RUN, "no README documents a constraint on threadline"),
        ('{:threadline_web, "~> 0.1.0"}', Status.NOT_RUN, "no README documents"),
    ],
)
def test_every_requirement_in_an_elixir_readme_must_admit_the_version(
    tmp_path: Path, readme: str, status: Status, message: str
) -> None:
    _write(tmp_path, {"mix.exs": MIX, "README.md": readme})
    row = _results(tmp_path)[README]
    assert row.status is status, row
    assert message in row.notes


def test_a_pre_release_needs_a_requirement_that_names_one(tmp_path: Path) -> None:
    files = {"mix.exs": MIX.replace('"0.2.0"', '"0.3.0-rc.1"'), "README.md": '{:threadline, "~> 0.2"}'}
    _write(tmp_path, files)
    assert _results(tmp_path)[README].status is Status.ISSUE
    _write(tmp_path, {"README.md": '{:threadline, "~> 0.3.0-rc.0"}'})
    assert _results(tmp_path)[README].status is Status.OK


# --- lock files


@pytest.mark.parametrize(
    ("files", "status", "message"),
    [
        ({"uv.lock": UV_LOCK.replace('"0.4.0"', '"0.3.0"')}, Status.ISSUE, "found 0.3.0, expected 0.4.0"),
        ({"uv.lock": UV_LOCK.replace("thread-line", "other")}, Status.ISSUE, "missing package thread-line"),
        ({"uv.lock": 'x = "'}, Status.ISSUE, "invalid TOML"),
        (
            {"uv.lock": '[[package]]\nname = "thread-line"\nversion = "0.4.0"\nsource = { git = "https://example.org/x" }\n'},
            Status.ISSUE,
            "resolved from git https://example.org/x",
        ),
        ({"pyproject.toml": '[tool.uv]\noverride-dependencies = ["Thread-Line==0.4.0"]\n'}, Status.ISSUE, "override-dependencies has"),
        ({"pyproject.toml": '[tool.uv]\noverride-dependencies = ["psycopg>=3"]\n'}, Status.ISSUE, "psycopg: override-dependencies"),
        ({"pyproject.toml": '[tool.uv]\noverride-dependencies = ["rich>=13"]\n'}, Status.OK, "not its direct dependencies: rich"),
        ({"pyproject.toml": '[tool.uv.sources]\nthread_line = { path = "../lib" }\n'}, Status.ISSUE, "resolved from path ../lib"),
        ({"pyproject.toml": '[tool.uv.sources]\nthread_line = { index = "ours" }\n'}, Status.OK, "thread-line|Thread_Line 0.4.0"),
        ({"pyproject.toml": '[tool.poetry.group.dev.dependencies]\nthread-line = { git = "https://example.org/x" }\n'}, Status.ISSUE, "resolved from git"),
        ({"pyproject.toml": '[project]\ndependencies = ["thread-line @ file:///src/lib"]\n'}, Status.ISSUE, "file:///src/lib"),
        ({"pyproject.toml": '[tool.pdm.resolution.overrides]\nthread-line = "0.4.0"\n'}, Status.ISSUE, "tool.pdm.resolution.overrides"),
        ({"uv.lock": UV_LOCK + '\n[manifest]\noverrides = [{ name = "thread-line", specifier = ">=0" }]\n'}, Status.ISSUE, "override"),
        ({"poetry.lock": '[[package]]\nname = "Thread-Line"\nversion = "0.3.0"\n'}, Status.ISSUE, "found 0.3.0"),
        ({"pdm.lock": '[[package]]\nname = "thread-line"\nversion = "0.4.0"\npath = "./lib"\n'}, Status.ISSUE, "resolved from path ./lib"),
        ({"pylock.toml": '[[packages]]\nname = "thread-line"\nversion = "0.4"\n'}, Status.OK, "0.4.0"),
        ({"Pipfile.lock": '{"default": {"thread-line": {"version": "==0.4.0"}}}'}, Status.OK, "0.4.0"),
        ({"Pipfile.lock": '{"default": {"thread-line": {"editable": true, "path": "."}}}'}, Status.ISSUE, "resolved from path"),
        ({"Pipfile.lock": "{"}, Status.ISSUE, "invalid JSON"),
        ({"requirements.txt": "thread-line[pg]==0.4.0 \\\n    --hash=sha256:ab\n"}, Status.OK, "0.4.0"),
        ({"requirements-dev.txt": "thread-line==0.4.1  # why\n"}, Status.ISSUE, "found 0.4.1"),
        ({"requirements.txt": "thread-line @ git+https://example.org/x\n"}, Status.ISSUE, "git+https://example.org/x"),
        ({"requirements.txt": "thread-line>=0.4\n"}, Status.OK, "app/requirements.txt:1 names thread-line without pinning it"),
    ],
)  # fmt: skip
def test_a_python_lock_file_must_resolve_exactly_the_release(
    tmp_path: Path, files: dict[str, str], status: Status, message: str
) -> None:
    _write(tmp_path, PYTHON | {f"app/{name}": content for name, content in files.items()})
    row = _results(tmp_path, project="lib", consumer="app")[LOCK]
    assert row.status is status, row
    assert any(text in row.notes for text in message.split("|")), row
    assert row.evidence.startswith("app/")


def test_unpinned_requirements_are_not_a_lock_file(tmp_path: Path) -> None:
    _write(tmp_path, {"lib/pyproject.toml": PYPROJECT, "app/requirements.txt": "thread-line>=0.4\n"})
    row = _results(tmp_path, project="lib", consumer="app")[LOCK]
    assert row.status is Status.NOT_RUN
    assert "names thread-line without pinning it" in row.notes


@pytest.mark.parametrize(
    ("files", "status", "message"),
    [
        ({"mix.lock": MIX_LOCK.replace('"0.2.0"', '"0.1.9"')}, Status.ISSUE, "found 0.1.9, expected 0.2.0"),
        ({"mix.lock": MIX_LOCK.replace("threadline", "other")}, Status.ISSUE, "missing package threadline"),
        ({"mix.lock": '%{\n  "threadline": {:git, "https://example.org/t.git", "ab", []},\n}\n'}, Status.ISSUE, "resolved from git"),
        ({"mix.exs": '[{:threadline, "~> 0.2", override: true}]'}, Status.ISSUE, "threadline: override: true"),
        ({"mix.exs": '[{:threadline, "~> 0.2"},\n {:ecto, "~> 3.12", override: true}]'}, Status.ISSUE, "ecto: override: true"),
        ({"mix.exs": '[{:threadline, "~> 0.2"}, {:jason, "~> 1.0", override: true}]'}, Status.OK, "jason (app/mix.exs:1)"),
        ({"mix.exs": '[{:threadline, path: "../lib"}]'}, Status.ISSUE, "resolved with path:"),
        ({"mix.exs": '[{:threadline, "~> 0.2", github: "x/y"}]'}, Status.ISSUE, "resolved with github:"),
        ({"mix.exs": '# {:threadline, path: "../lib"}\n[{:threadline, "~> 0.2"}]'}, Status.OK, "threadline 0.2.0"),
        ({"mix.exs": "[threadline_dep()]"}, Status.NOT_RUN, "no readable dependency on threadline"),
        ({"mix.lock": MIX_LOCK + MIX_LOCK.replace('"0.2.0"', '"0.2.1"')}, Status.ISSUE, "found 0.2.1"),
    ],
)  # fmt: skip
def test_a_mix_lock_file_must_resolve_exactly_the_release(
    tmp_path: Path, files: dict[str, str], status: Status, message: str
) -> None:
    _write(tmp_path, ELIXIR | {f"app/{name}": content for name, content in files.items()})
    row = _results(tmp_path, project="lib", consumer="app")[LOCK]
    assert row.status is status, row
    assert message in row.notes


def test_dependencies_of_an_umbrella_are_in_its_apps(tmp_path: Path) -> None:
    files = {
        "lib/mix.exs": MIX,
        "app/mix.exs": "[]",
        "app/mix.lock": MIX_LOCK,
        "app/apps/web/mix.exs": '[{:threadline, "~> 0.2"}]',
    }
    _write(tmp_path, files)
    assert _results(tmp_path, project="lib", consumer="app")[LOCK].status is Status.OK


def test_a_consumer_without_a_lock_is_not_run(tmp_path: Path) -> None:
    _write(tmp_path, {"lib/mix.exs": MIX, "app/mix.exs": '[{:threadline, "~> 0.2"}]'})
    row = _results(tmp_path, project="lib", consumer="app")[LOCK]
    assert (row.status, row.notes) == (Status.NOT_RUN, "app has no lock file that resolves threadline")


def test_a_binary_readme_is_an_issue_with_a_relative_path(tmp_path: Path) -> None:
    _write(tmp_path, PYTHON)
    (tmp_path / "lib/README.md").write_bytes(b"\xff\xfe\x00")
    row = _results(tmp_path, project="lib", consumer="app")[README]
    assert (row.status, row.evidence) == (Status.ISSUE, "lib/README.md")
