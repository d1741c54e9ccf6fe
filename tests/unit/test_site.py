"""The check of the built site finds links that lead nowhere, and files that come from other hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.site import findings

if TYPE_CHECKING:
    from pathlib import Path


def site_of(folder: Path, page: str, styles: str = "") -> list[str]:
    """Make a site of three files, and return what is wrong with it."""
    (folder / "docs").mkdir()
    (folder / "index.html").write_text(page, encoding="utf-8")
    (folder / "docs" / "a page.html").write_text('<h2 id="here">Here</h2><a href="../index.html">up</a>')
    (folder / "docs" / "site.css").write_text(styles)
    return list(findings(folder))


@pytest.mark.parametrize(
    "page",
    [
        '<a href="docs/a%20page.html#here">',
        '<a href="https://www.postgresql.org/">',
        '<p id="top"><a href="#top">',
        '<link rel="stylesheet" href="docs/site.css">',
        '<img src="data:image/png;base64,AA==">',
        '<a href=".">',
    ],
)
def test_links_within_the_site_and_links_to_follow_are_accepted(page: str, tmp_path: Path) -> None:
    assert site_of(tmp_path, page) == []


@pytest.mark.parametrize(
    ("page", "finding"),
    [
        ('<a href="docs/gone.html">', "docs/gone.html leads to no file"),
        ('<a href="docs/a%20page.html#gone">', "docs/a%20page.html#gone leads to no anchor"),
        ('<a href="#gone">', "#gone leads to no anchor"),
        ('<img src="docs/gone.png">', "docs/gone.png leads to no file"),
        ('<a href="docs/">', "docs/ leads to no file"),
        ('<script src="https://cdn.example/a.js">', "loads https://cdn.example/a.js from another host"),
        ('<link href="//fonts.example/css">', "loads //fonts.example/css from another host"),
    ],
)
def test_a_mistake_is_found(page: str, finding: str, tmp_path: Path) -> None:
    assert site_of(tmp_path, page) == [f"index.html: {finding}"]


@pytest.mark.parametrize(
    "style", ["@font-face { src: url('https://f.example/a.woff') }", '@import "https://f.example/a"']
)
def test_a_style_that_loads_from_another_host_is_found(style: str, tmp_path: Path) -> None:
    [finding] = site_of(tmp_path, "<p>", style)
    assert finding.startswith("docs/site.css: loads https://f.example/a")


def test_a_folder_without_a_page_is_not_a_site(tmp_path: Path) -> None:
    assert list(findings(tmp_path)) == [f"{tmp_path}: no page"]
