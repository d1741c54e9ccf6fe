"""The site: README and `docs/` as pages. `nox -s docs` builds it into `site/`; a broken link or anchor fails the build.

CONTRIBUTING.md says why Sphinx is the generator.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: documents in the order in which a new reader needs them; others of `docs/` follow
_ORDER = {
    "Start": ("quickstart", "concepts", "report", "limits"),
    "Your own systems": ("identify", "your-staging", "ci", "gates", "migrations", "audit-targets", "audit-layer"),
    "Topologies": ("topologies", "pooler-of-your-own", "engines"),
    "Results": (
        "sample/README",
        "sample/job-engines",
        "sample/ingest",
        "evidence",
        "resilience",
        "job-engines",
        "performance",
    ),
    "Reference": ("command-line", "reference", "reference/commands", "reference/checks", "reference/files"),
}
_PROJECT = ("CONTRIBUTING", "CHANGELOG", "SECURITY")

_DOCS = Path(__file__).parent

project = "pooler-harness"
author = "the pooler-harness contributors"
extensions = ["myst_parser"]
root_doc = "README"
source_suffix = {".md": "markdown"}
include_patterns = ["*.md", "docs/**.md"]
exclude_patterns = [".*", "reports", "site", "mutants", "env"]

#: as on the host of the repository: `#a-heading` leads to the heading
myst_heading_anchors = 4

html_theme = "furo"
html_title = "pooler-harness"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
# a browser refuses to fetch the summaries of a search from disk
html_show_search_summary = False
#: names of code are no prose: no typographic dashes for `--option`
smartquotes = False


def _navigation() -> str:
    """Return the tables of contents, which the side bar shows."""
    sections = {
        heading: [f"docs/{name}" for name in names if (_DOCS / f"{name}.md").exists()]
        for heading, names in _ORDER.items()
    }
    listed = {name for names in sections.values() for name in names}
    found = [f"docs/{path.relative_to(_DOCS).with_suffix('').as_posix()}" for path in sorted(_DOCS.rglob("*.md"))]
    sections |= {"More": [name for name in found if name not in listed], "Project": list(_PROJECT)}
    return "".join(
        "\n".join(("", "```{toctree}", ":hidden:", f":caption: {heading}", "", *names, "```", ""))
        for heading, names in sections.items()
        if names
    )


def _add_navigation(_app: Any, document: str, source: list[str]) -> None:
    if document == root_doc:
        source[0] += _navigation()


def _write_index(app: Any, error: Exception | None) -> None:
    """Let the address of a folder lead to the first page."""
    if error is None:
        page = f'<!doctype html><meta charset="utf-8"><title>{project}</title>'
        page += f'<meta http-equiv="refresh" content="0; url={root_doc}.html"><a href="{root_doc}.html">{project}</a>\n'
        (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def setup(app: Any) -> None:
    app.connect("source-read", _add_navigation)
    app.connect("build-finished", _write_index)
