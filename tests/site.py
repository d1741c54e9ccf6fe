"""Read a site that was built, and print the links that lead nowhere and the files that come from other hosts.

The generator checks links between documents. This is about what it wrote: every page works from disk, and loads its
styles, scripts, fonts and images from the site itself. Run by `nox -s docs`.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

#: attributes that make a browser load a file, by element; a link of `<a>` is followed by a reader
_LOADED = {("img", "src"), ("script", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}
_IN_STYLES = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")


class Page(HTMLParser):
    """The links and anchors of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        #: addresses, and whether a browser loads them with the page
        self.links: list[tuple[str, bool]] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if not value:
                continue
            if name == "id":
                self.anchors.add(value)
            elif (tag, name) in _LOADED or (tag, name) == ("a", "href"):
                self.links.append((value, tag != "a"))


def findings(site: Path) -> Iterator[str]:
    """Yield `FILE: what is wrong` for each mistake in a site."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site}: no page"
    for path, page in pages.items():
        for address, loaded in page.links:
            for finding in _link(address, path, pages, loaded=loaded):
                yield f"{path.relative_to(site)}: {finding}"
    for path in sorted(site.rglob("*.css")):
        for address, imported in _IN_STYLES.findall(path.read_text(encoding="utf-8")):
            for finding in _link(address or imported, path, {}, loaded=True):
                yield f"{path.relative_to(site)}: {finding}"


def _link(address: str, source: Path, pages: dict[Path, Page], *, loaded: bool) -> Iterator[str]:
    parts = urlsplit(address)
    if parts.scheme == "data":
        return
    if parts.scheme or parts.netloc:
        if loaded:
            yield f"loads {address} from another host"
        return
    target = source.parent / unquote(parts.path) if parts.path else source
    target = target.resolve() if not target.is_dir() else target.resolve() / "index.html"
    page = next((page for path, page in pages.items() if path.resolve() == target), None)
    if not target.exists():
        yield f"{address} leads to no file"
    elif page and parts.fragment and unquote(parts.fragment) not in page.anchors:
        yield f"{address} leads to no anchor"


def main(folder: str) -> int:
    found = list(findings(Path(folder)))
    sys.stderr.writelines(f"{finding}\n" for finding in found)
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
