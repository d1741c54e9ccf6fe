"""Tests that share servers, a browser or a module of unit tests run in one process; others are distributed one by one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from harness import places
from tests.scheduling import SHARING, SLOW_UNITS, group_of, sort


def test_the_modules_whose_tests_share_something_or_are_slow_exist() -> None:
    assert {path.stem for path in (places.SHIPPED / "tests").rglob("test_*.py")} >= SHARING
    assert {path.stem for path in (places.SHIPPED / "tests" / "unit").glob("test_*.py")} >= SLOW_UNITS


def test_tests_that_share_a_fixture_run_in_one_process() -> None:
    contract = (places.SHIPPED / "tests" / "contract").glob("test_*.py")
    sharing = {path.stem for path in contract if 'scope="module"' in path.read_text(encoding="utf-8")}
    assert sharing
    assert sharing - SHARING == set()


def test_tests_of_a_module_that_shares_servers_are_grouped_by_engine() -> None:
    module = "tests/contract/test_hostapp.py"
    assert group_of(f"{module}::test_a[docker-transaction]") == group_of(f"{module}::test_b[docker-transaction-1]")
    assert group_of(f"{module}::test_a[native-direct]") == "test_hostapp-native"
    assert group_of("tests/contract/test_audit_edges.py::test_a") == "test_audit_edges"
    assert group_of("tests/contract/test_run.py::test_a[x]") == "tests/contract/test_run.py::test_a[x]"


def test_tests_of_the_page_share_a_browser() -> None:
    assert group_of("tests/browser/test_page.py::test_a") == group_of("tests/browser/test_page_everywhere.py::test_b[x]")


def test_unit_tests_are_grouped_by_module() -> None:
    assert group_of("tests/unit/test_cli.py::test_a[docker]") == group_of("tests/unit/test_cli.py::test_b")
    assert group_of("tests/unit/test_cli.py::test_a") != group_of("tests/unit/test_lint.py::test_a")


def test_what_takes_longest_begins_first_and_slow_and_large_modules_of_unit_tests_before_small_ones() -> None:
    alone, sharing, long = ("contract/test_run.py::a", "contract/test_hostapp.py::a", "contract/test_run.py::long")
    small, large = "unit/test_cli.py::a", [f"unit/test_lint.py::{name}" for name in "ab"]
    slow = "unit/test_page_size.py::a"
    items: list[Any] = [
        SimpleNamespace(
            nodeid=f"tests/{name}",
            location=(f"tests/{name.partition('::')[0]}", 0, ""),
            get_closest_marker=lambda _, name=name: name if name == long else None,
        )
        for name in (small, slow, alone, *large, sharing, long)
    ]
    sort(items)
    assert [item.nodeid.removeprefix("tests/") for item in items] == [long, sharing, alone, slow, *large, small]
