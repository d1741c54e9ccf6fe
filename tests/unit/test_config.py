"""TOML files to typed data: topologies as an example of what is valid, and errors for the rest."""

from __future__ import annotations

import contextlib
import copy
import math
import re
import tomllib
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness import config
from harness.errors import ConfigError, UsageError
from harness.lab.pooler_options import require_known_options
from harness.lab.topologies import load_topologies, load_topology, with_versions
from harness.model import PoolMode, Topology
from tests.tables import each_row

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
summary = "s"
[postgres]
version = "17"
[pooler]
product = "pgbouncer"
version = "1.24"
pool_mode = "transaction"
default_pool_size = 4
"""


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_topology_is_read_from_a_file_and_named_by_it(tmp_path: Path) -> None:
    topology = load_topology(write(tmp_path, GOOD))
    assert topology.name == "mine"
    assert topology.pool_mode is PoolMode.TRANSACTION


@each_row(
    ("old", "new", "parts"),
    [
        (
            '"transaction"',
            '"transactional"',
            ["pooler.pool_mode", "'transactional'", "session, transaction, statement"],
        ),
        ("default_pool_size = 4", "default_pool_size = 0", ["pooler.default_pool_size", "found 0", "from 1 to"]),
        ("default_pool_size = 4", 'default_pool_size = "4"', ["pooler.default_pool_size", "found '4'", "whole number"]),
        ("default_pool_size", "default_pool_sze", ["pooler.default_pool_sze", "unknown key", "default_pool_size"]),
        ('product = "pgbouncer"', 'product = "pgcat"', ["pooler.product", "'pgcat'", "pgbouncer"]),
        ('product = "pgbouncer"\n', "", ["pooler.product", "missing"]),
        (
            'product = "pgbouncer"\nversion = "1.24"',
            'product = "pgpool"\nversion = "4.6"',
            ["pooler.pool_mode", "allowed for pgpool: session"],
        ),
        ("default_pool_size = 4", "default_pool_size = 4\npeered = true", ["pooler.peered", "no peers"]),
        ("default_pool_size = 4", "default_pool_size = 4\ninstances = 9", ["pooler.instances", "from 1 to 4"]),
        (
            "default_pool_size = 4",
            'default_pool_size = 4\ndatabase = { pool_size = "3\\nx" }',
            ["pooler.database.pool_size", "one line"],
        ),
        (
            "default_pool_size = 4",
            'default_pool_size = 4\ndatabase = { pool_sizes = "3" }',
            ["pooler.database.pool_sizes: PgBouncer 1.24 has no such option of a database", "did you mean pool_size"],
        ),
        (
            "default_pool_size = 4",
            'default_pool_size = 4\nuser = { max_db_connections = "3" }',
            ["pooler.user.max_db_connections", "declare it in pooler.settings"],
        ),
        (
            "default_pool_size = 4",
            'default_pool_size = 4\nsettings = { transaction_timeout = "3" }',
            ["pooler.settings.transaction_timeout: PgBouncer 1.24 has no", "known from PgBouncer 1.26 on"],
        ),
        (
            "default_pool_size = 4",
            'default_pool_size = 4\ndatabase = { pool_mode = "sesion" }',
            ["pooler.database.pool_mode: found 'sesion', allowed: session, transaction, statement"],
        ),
        (
            'product = "pgbouncer"\nversion = "1.24"\npool_mode = "transaction"',
            'product = "pgpool"\nversion = "4.6"\npool_mode = "session"\nuser = { pool_size = "3" }',
            ["pooler.user", "only PgBouncer has these options, found pgpool", "settings ="],
        ),
        ("[pooler]", "[[pooler]]", ["pooler: found a list, allowed: a table"]),
        ('[postgres]\nversion = "17"', "postgres = 17", ["postgres: found 17, allowed: a table"]),
        ('summary = "s"', 'summary = "s"\nverify = "pooling"', ["verify: found 'pooling', allowed: a list"]),
        (
            'summary = "s"',
            "summary = 2026-01-01",
            ["summary: found the date or time 2026-01-01, allowed: text", 'write it in quotes: "2026-01-01"'],
        ),
        ('summary = "s"', "summary = true", ["summary: found true, allowed: text"]),
        ('summary = "s"', 'summary = "s"\n"" = 1', ['"": unknown key']),
        ('summary = "s"', 'summary = "s"\n"a\\nb`c" = 1', ['"a\\nb`c": unknown key']),
        ("default_pool_size = 4", f'default_pool_size = "{"x" * 999}"', [f"found '{'x' * 80}'…, allowed"]),
        ('version = "17"', 'version = "16"', ["postgres.version", '"16"', "17"]),
        ('version = "17"', 'version = "seventeen"', ["postgres.version", "'seventeen'"]),
        ("[pooler]", "[pooler", ["invalid TOML", "line"]),
        ('summary = "s"', "summary = ''", ["summary"]),
        (
            'summary = "s"',
            'summary = "s"\ncolour = "red"',
            ["colour", "unknown key", "allowed here: summary, postgres"],
        ),
        ('summary = "s"', 'summary = "s"\nname = "other"', ["name", "unknown key", "allowed here: summary, postgres"]),
    ],
)
def test_an_error_names_file_key_found_and_allowed(tmp_path: Path, old: str, new: str, parts: list[str]) -> None:
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_topology(path)
    for part in [str(path), *parts]:
        assert part in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_error_of_an_unknown_value_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean transaction"):
        load_topology(write(tmp_path, GOOD.replace('"transaction"', '"transacton"')))


@pytest.mark.parametrize("name", ["Mine.toml", "my topology.toml", "1st.toml", "a|b.toml"])
def test_a_file_with_an_invalid_name_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="invalid topology name"):
        load_topology(write(tmp_path, GOOD, name))


def test_a_setting_cannot_contain_another_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one line"):
        load_topology(write(tmp_path, GOOD + '[pooler.settings]\nverbose = "1\\nauth_type = trust"\n'))


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no topology file"):
        load_topologies(tmp_path)


def test_other_versions_become_part_of_the_name() -> None:
    topology = load_topologies()["transaction"]
    older = with_versions(topology, {"postgres": "15", "pgbouncer": "1.18"})
    assert older.name == "transaction+postgres-15+pgbouncer-1.18"
    assert (older.postgres.version, older.pooler and older.pooler.version) == ("15", "1.18")
    with pytest.raises(UsageError, match="unknown product"):
        with_versions(topology, {"mysql": "8"})
    with pytest.raises(UsageError, match="unknown version '9' of postgres"):
        with_versions(topology, {"postgres": "9"})


scalars = st.one_of(st.text(max_size=12), st.integers(), st.booleans(), st.floats(allow_nan=False), st.none())
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(["summary", "postgres", "pooler", "client"]) | st.text(max_size=8)
sections = st.dictionaries(
    st.sampled_from(["version", "product", "pool_mode", "default_pool_size", "settings", "prepare"])
    | st.text(max_size=6),
    values,
    max_size=5,
)


@given(st.dictionaries(keys, values | sections, max_size=5))
def test_any_decoded_data_is_valid_or_a_config_error(raw: dict[str, object]) -> None:
    try:
        loaded = config.convert(raw, Topology, where="some.toml", given={"name": "some"})
    except ConfigError as error:
        assert str(error).startswith("some.toml: ")
    else:
        assert loaded.summary


@pytest.mark.parametrize("text", ["a = " + "[" * 3000, "a = " + "[" * 3000 + "]" * 3000, "a = " + "{a = " * 3000])
def test_deeply_nested_toml_is_a_config_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="invalid TOML"):
        config.load(write(tmp_path, text), Topology, given={"name": "mine"})


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ('install = ["a.sql", "b\\u0000"]', "mine.toml:1: install[1]: found a NUL"),
        ('"a\\u0000" = 1', 'mine.toml:1: "a\\u0000": found a NUL'),
    ],
)
def test_a_nul_character_in_any_text_is_a_config_error(tmp_path: Path, line: str, where: str) -> None:
    with pytest.raises(ConfigError) as raised:
        config.load(write(tmp_path, line), Topology, given={"name": "mine"})
    assert where in str(raised.value)


@given(st.text(max_size=80))
@example("\ufeff")
def test_any_file_is_valid_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = write(tmp_path_factory.mktemp("config"), text)
    try:
        tomllib.loads(text.removeprefix("\ufeff"))  # a byte order mark, as editors on Windows write it
        valid = True
    except tomllib.TOMLDecodeError:
        valid = False
    with pytest.raises(ConfigError) as caught:
        config.load(path, Topology, given={"name": "mine"})
    assert ("invalid TOML" in str(caught.value)) is not valid


def test_a_number_in_a_table_of_texts_is_named_with_its_key(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        'summary = "one"\n[postgres]\nversion = "17"\nsettings = { work_mem = "8MB", jit = 1 }\n', encoding="utf-8"
    )
    with pytest.raises(ConfigError) as caught:
        load_topology(path)
    assert caught.value.what == "postgres.settings.jit: found 1, allowed: a text in quotes"
    assert caught.value.hint == 'write jit = "1"'


OPTIONS = """
[pooler.settings]
track_extra_parameters = "search_path"
[pooler.user]
query_timeout = "3"
"""


def test_an_option_that_another_version_does_not_know_is_found_with_that_version(tmp_path: Path) -> None:
    topology = load_topology(write(tmp_path, GOOD + OPTIONS))
    assert with_versions(topology, {"pgbouncer": "1.26"}).name == "mine+pgbouncer-1.26"
    with pytest.raises(UsageError, match=r"--set pgbouncer=1\.18: pooler\.settings\.track_extra_parameters"):
        with_versions(topology, {"pgbouncer": "1.18"})


@pytest.mark.parametrize(
    ("version", "accepted"),
    [("1.18", False), ("1.18.5", False), ("1.21", True), ("1.24", True), ("1.24.1", True), ("1.30", True)],
)
def test_a_version_that_was_not_tried_may_know_what_a_later_one_knows(
    tmp_path: Path, version: str, accepted: bool
) -> None:
    topology = load_topology(write(tmp_path, GOOD + OPTIONS))
    assert topology.pooler is not None
    pooler = msgspec.structs.replace(topology.pooler, version=version)
    with contextlib.nullcontext() if accepted else pytest.raises(ConfigError):
        require_known_options(pooler, "mine.toml")


def test_a_newer_version_than_all_that_were_tried_may_know_anything(tmp_path: Path) -> None:
    topology = load_topology(write(tmp_path, GOOD))
    assert topology.pooler is not None
    pooler = msgspec.structs.replace(topology.pooler, version="2.0", settings={"brand_new": "1"})
    require_known_options(pooler, "mine.toml")


def test_a_file_in_another_encoding_is_named_without_the_words_of_a_codec(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b'summary = "caf\xe9"')
    with pytest.raises(ConfigError, match="not UTF-8 text: found the byte 0xe9 at position 14"):
        load_topology(path)


#: values that are wrong for almost every key
NONSENSE: list[object] = [
    *(0, -1, 2**64, 10**400, 1e308, math.nan, math.inf, True, "", "\n", "x" * 9999, "\x1b[2J", "env:", "{unique}", "{"),
    *("/dev/zero", "[", "(?", "\\", "2026-01-01", "a.b.c", "`", "\u202e", [], {}, [[]], [{}], {"": ""}, {"`": {}}),
    *(date(2026, 1, 1), time(1, 2), datetime(2026, 1, 1, tzinfo=UTC)),
]
TOPOLOGY = {**tomllib.loads(GOOD), "client": {"prepare": "named"}, "host": {"notifier": "poll"}, "verify": ["pooling"]}


def places(tree: object, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, value in inside for place in ((*at, key), *places(value, (*at, key)))]


@given(st.data())
def test_nonsense_in_a_declaration_is_an_error_that_names_its_key_in_plain_words(data: st.DataObject) -> None:
    tree = copy.deepcopy(TOPOLOGY)
    *above, last = data.draw(st.sampled_from(places(tree)))
    node: Any = tree
    for key in above:
        node = node[key]
    node[last] = data.draw(st.sampled_from(NONSENSE))
    try:
        config.convert({**tree}, Topology, where="f", given={"name": "mine"})
    except ConfigError as error:
        assert error.what.startswith(str(above[0] if above else last))
        assert not re.search(r"Expected|Object|`str`|`array`|NoneType", error.what)
        assert len(error.what) < 600
