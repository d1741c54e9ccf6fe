"""Tests that share servers, a browser or a module of unit tests run in one process; others are distributed one by one."""

from __future__ import annotations

from harness import places
from tests.scheduling import SHARING, group_of


def test_the_modules_whose_tests_share_something_exist() -> None:
    assert {path.stem for path in (places.SHIPPED / "tests").rglob("test_*.py")} >= SHARING


def test_tests_of_a_module_that_shares_servers_are_grouped_by_engine() -> None:
    module = "tests/contract/test_hostapp.py"
    assert group_of(f"{module}::test_a[docker-transaction]") == group_of(f"{module}::test_b[docker-transaction-1]")
    assert group_of(f"{module}::test_a[native-direct]") == "test_hostapp-native"
    assert group_of("tests/contract/test_audit_edges.py::test_a") == "test_audit_edges"
    assert group_of("tests/contract/test_run.py::test_a[x]") == "tests/contract/test_run.py::test_a[x]"


def test_unit_tests_are_grouped_by_module() -> None:
    assert group_of("tests/unit/test_cli.py::test_a[docker]") == group_of("tests/unit/test_cli.py::test_b")
    assert group_of("tests/unit/test_cli.py::test_a") != group_of("tests/unit/test_lint.py::test_a")
