"""Compiled templates are kept, and a cache that cannot keep them changes no document."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jinja2
import pytest

from harness.report.template_cache import template_cache

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pooler-harness" / "templates"


def rendered(text: str, kind: str = "markdown", *filters: str, autoescape: bool = False) -> str:
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"a.j2": text}),
        bytecode_cache=template_cache(kind, *filters),
        autoescape=autoescape,  # noqa: S701 -- what is not escaped differs, too
    )
    return environment.get_template("a.j2").render(name="<b>")


def test_a_compiled_template_is_kept_and_another_text_is_compiled_again(cache: Path) -> None:
    assert rendered("one {{ name }}") == "one <b>"
    [kept] = cache.rglob("*.cache")
    before = kept.read_bytes()
    assert rendered("one {{ name }}") == "one <b>"
    assert kept.read_bytes() == before
    assert rendered("two {{ name }}") == "two <b>"
    assert kept.read_bytes() != before


def test_environments_and_filters_have_templates_of_their_own(cache: Path, tmp_path: Path) -> None:
    filters = tmp_path / "filters.py"
    filters.write_text("one")
    assert rendered("{{ name }}", "markdown", str(filters)) == "<b>"
    assert rendered("{{ name }}", "html", str(filters), autoescape=True) == "&lt;b&gt;"
    filters.write_text("two")
    assert rendered("{{ name }}", "markdown", str(filters)) == "<b>"
    assert len(list(cache.rglob("*.cache"))) == 3


@pytest.mark.parametrize("there", ["templates", "templates/markdown"])
def test_without_a_folder_templates_are_compiled(cache: Path, there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if there == "templates":
        cache.parent.mkdir(parents=True)
        cache.write_text("a file where the folder has to be")
        assert template_cache("markdown") is None
    else:
        found = template_cache("markdown")
        assert found is not None
        for file in cache.iterdir():
            file.rmdir()
            file.write_text("a file where the folder was")
        monkeypatch.setattr("tests.unit.test_template_cache.template_cache", lambda *_: found)
    assert rendered("one {{ name }}") == "one <b>"


def test_a_file_that_is_cut_off_is_compiled_again(cache: Path) -> None:
    rendered("one {{ name }}")
    [kept] = cache.rglob("*.cache")
    whole = kept.read_bytes()
    for length in range(0, len(whole), 5):
        kept.write_bytes(whole[:length])
        assert rendered("one {{ name }}") == "one <b>"
        assert kept.read_bytes() == whole
