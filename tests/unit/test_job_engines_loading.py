"""Files of job engines: loading, the messages for mistakes, and the shipped ones."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from harness import places
from harness.errors import ConfigError, UsageError
from harness.job_engines.loading import SHIPPED, JobEngine, load, shipped

GOOD = """
title = "Mine"
summary = "one table"
documentation = "https://example.org/mine"
version = "1.2"
claims = ["cancel", "lease"]

[packages]
python = ["psycopg[binary]==3.3.9"]
npm = ["@scope/mine@1.2.3-rc.1"]

[commands]
install = ["{python}", "{folder}/mine.py", "install"]
enqueue = ["sh", "-c", "echo ${first} {first}..{last}"]
work = ["{python}", "{folder}/mine.py", "work"]
cancel = ["{python}", "{folder}/mine.py", "cancel", "{key}"]

[sql]
state = "SELECT key, state FROM jobs"

[settings]
lease_s = 3
concurrency = 2

[variants.default]
summary = "as its documentation begins"

[variants.pooler]
summary = "without LISTEN"
environment = { LISTEN = "off" }
settings = { poll_s = 5, needs_supervisor = false }

[[documented]]
cases = ["claims"]
variants = ["pooler"]
pool_modes = ["direct", "transaction"]
outcome = "a job runs twice"
instead = "use session mode"
source = "https://example.org/mine/pooler"
"""


def written(folder: Path, text: str = GOOD, name: str = "mine") -> Path:
    (folder / "mine.py").write_text("print('hello')\n")
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


@pytest.fixture
def mine(tmp_path: Path) -> JobEngine:
    return load(written(tmp_path))


def test_a_job_engine_is_read_from_its_file(mine: JobEngine, tmp_path: Path) -> None:
    assert (mine.name, mine.folder, mine.shipped, mine.file.title) == ("mine", tmp_path, False, "Mine")
    assert mine.file.documented[0].pool_modes == ("direct", "transaction")
    assert mine.has("cancel")
    assert not mine.has("fork")
    assert mine.uses("python")
    assert not mine.uses("node")


def test_the_folder_of_a_relative_path_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert load(Path("mine.toml")).folder == tmp_path


def test_a_variant_s_settings_replace_those_of_the_engine(mine: JobEngine) -> None:
    default, pooler = mine.settings_of("default"), mine.settings_of("pooler")
    assert (default.lease_s, default.poll_s, default.concurrency, default.needs_supervisor) == (3, 1, 2, True)
    assert (pooler.lease_s, pooler.poll_s, pooler.concurrency, pooler.needs_supervisor) == (3, 5, 2, False)
    assert mine.variant("pooler").environment == {"LISTEN": "off"}
    with pytest.raises(UsageError, match="unknown variant 'poler' of the job engine mine"):
        mine.settings_of("poler")


def test_placeholders_are_filled_and_variables_of_a_shell_are_kept(mine: JobEngine, tmp_path: Path) -> None:
    assert mine.command("work", python="/venv/python") == ("/venv/python", f"{tmp_path}/mine.py", "work")
    assert mine.command("enqueue", first=1, last=20) == ("sh", "-c", "echo ${first} 1..20")
    assert mine.command("fork") == ()
    with pytest.raises(KeyError):
        mine.command("cancel", python="/venv/python")


@pytest.fixture(scope="module")
def any_engine(tmp_path_factory: pytest.TempPathFactory) -> JobEngine:
    return load(written(tmp_path_factory.mktemp("engine")))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_a_value_is_never_read_as_a_placeholder(any_engine: JobEngine, value: str) -> None:
    assert any_engine.command("work", python=value + "{folder}")[0] == value + "{folder}"


def test_the_identity_changes_with_the_program_and_with_the_file(mine: JobEngine, tmp_path: Path) -> None:
    assert load(tmp_path / "mine.toml").identity == mine.identity
    (tmp_path / "mine.py").write_text("print('other')\n")
    other = load(tmp_path / "mine.toml").identity
    written(tmp_path, GOOD.replace("lease_s = 3", "lease_s = 4"))
    assert len({mine.identity, other, load(tmp_path / "mine.toml").identity}) == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('version = "1.2"', "", "mine.toml: version: missing key"),
        (
            '"work"]',
            '"work", "{first}"]',
            "mine.toml:15: commands.work: unknown placeholder {first}; allowed here: {fo",
        ),
        ('cel", "{key}"]', 'cel", "{kye}"]', "commands.cancel: unknown placeholder {kye}; allowed here: {folder}, {p"),
        ('cel", "{key}"]', 'cel"]', "mine.toml:16: commands.cancel: needs {key}, which no argument contains"),
        ("..{last}", "", "commands.enqueue: needs {last}, which no argument contains"),
        ('/mine.py", "work"', '/other.py", "work"', "mine.toml:15: commands.work: no such file /"),
        ('"cancel", "lease"', '"cancel", "fork"', "mine.toml:6: claims: fork requires commands.fork, which is missing"),
        ('"cancel", "lease"', '"lease"', "mine.toml:16: commands.cancel: nothing runs it, because claims lack cancel"),
        ('"cancel", "lease"', '"cancel", "heartbeat"', "claims: heartbeat requires lease, which is missing"),
        ("lease_s = 3", "", "claims: lease requires settings.lease_s, which no variant has"),
        ('"cancel", "lease"', '"cancel"', "documented[0].cases: claims does not run, because claims lack lease"),
        ('["pooler"]', '["poler"]', "mine.toml: documented[0].variants: unknown variant 'poler'"),
        ('"transaction"]', '"trans"]', "documented[0].pool_modes[1]: found 'trans', allowed: "),
        ("poll_s = 5", "pol_s = 5", "mine.toml: variants.pooler.settings.pol_s: unknown key; allowed here: lease_s, "),
        ("poll_s = 5", "poll_s = true", "variants.pooler.settings.poll_s: found true, allowed: a number"),
        ("poll_s = 5", "poll_s = 0", "variants.pooler.settings.poll_s: found 0, allowed: "),
        ("poll_s = 5", "concurrency = 2.5", "variants.pooler.settings.concurrency: found 2.5, allowed: "),
        ("poll_s = 5", 'poll_s = "5"', "variants.pooler.settings.poll_s: found '5', allowed: "),
        ("==3.3.9", ">=3.3", "mine.toml:9: packages.python: 'psycopg[binary]>=3.3' names no exact version"),
        ("==3.3.9", "==3.*", "names no exact version"),
        ("psycopg[binary]==3.3.9", "--index-url=x", "packages.python: '--index-url=x' is not a requirement"),
        ("psycopg[binary]==3.3.9", "a @ https://example.org/a.whl", "names no exact version"),
        ("mine@1.2.3-rc.1", "mine@^1.2", "mine.toml:10: packages.npm: '@scope/mine@^1.2' names no exact version"),
        ("@scope/mine@1.2.3-rc.1", "--global", "packages.npm: '--global' names no exact version"),
    ],
)
def test_mistakes_are_named_with_their_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, GOOD.replace(old, new)))
    assert message in str(caught.value)


def test_the_lease_may_be_a_variant_s_own(tmp_path: Path) -> None:
    engine = load(written(tmp_path, GOOD.replace("lease_s = 3", "").replace("poll_s = 5", "lease_s = 3")))
    assert [engine.settings_of(name).lease_s for name in engine.file.variants] == [None, 3]


def test_a_target_that_does_not_run_needs_no_program(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace("/mine.py", "/absent.exs").replace("claims =", 'not_run = "no"\nclaims =', 1))
    assert load(path).file.not_run == "no"


@pytest.mark.parametrize("name", ["Mine", "1mine", "my_engine", "my engine", "m" * 41])
def test_a_name_that_no_check_id_can_contain_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="invalid name"):
        load(written(tmp_path, name=name))


def test_the_shipped_job_engines_are_valid() -> None:
    engines = shipped()
    assert [engine.name for engine in engines] == sorted(path.stem for path in SHIPPED.glob("*.toml"))
    assert all(engine.shipped for engine in engines)


def test_the_extra_pins_what_the_shipped_targets_pin() -> None:
    """A program of one's own runs on the packages that the published results are about."""
    project = tomllib.loads((places.PACKAGE.parent / "pyproject.toml").read_text())
    extra = {found.name: found for found in map(Requirement, project["project"]["optional-dependencies"]["jobs"])}
    for engine in shipped():
        for text in engine.file.packages.python:
            wanted, found = Requirement(text), extra[Requirement(text).name]
            assert wanted.specifier == found.specifier, text
            assert wanted.extras <= found.extras, text
            marked = f'python_version >= "{engine.file.packages.oldest_python}"'
            assert found.marker is None or str(found.marker) == marked, text
