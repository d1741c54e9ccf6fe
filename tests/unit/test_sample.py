"""The published sample report is small, dated as its runs are, and names the versions that it is about."""

from __future__ import annotations

import re

from harness import places

FOLDER = places.PACKAGE.parent / "docs" / "sample"
SAMPLE = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_sample_is_small_enough_to_commit() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) < 150_000


def test_the_date_is_that_of_its_runs() -> None:
    [date] = re.findall(r"Made on (\d{4}-\d{2}-\d{2})", SAMPLE)
    runs = set(re.findall(r"run (\d{8})T\d{6}Z", SAMPLE))
    assert runs == {date.replace("-", "")}


def test_the_versions_are_those_of_the_servers() -> None:
    prose = SAMPLE.partition("## Topologies")[0]
    for product in ("PostgreSQL", "PgBouncer"):
        exact = re.escape(product) + r" (\d+\.\d+(?:\.\d+)?)"
        [observed] = set(re.findall(exact, SAMPLE.partition("stg-01 -->")[2].partition("pooler-harness: end")[0]))
        assert f"{product} {observed}" in prose


def test_every_topology_of_the_sample_is_a_column_of_its_feature_map() -> None:
    topologies = re.findall(r"^\| ([a-z]+\+[^ ]+) \| CI \|", SAMPLE, re.MULTILINE)
    assert [name.partition("+")[0] for name in topologies] == ["direct", "session", "statement", "transaction"]
    assert f"| Feature | {' | '.join(topologies)} |" in SAMPLE
