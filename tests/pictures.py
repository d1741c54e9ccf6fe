"""Draw the picture of README from a page of the report: the verdicts on session and transaction, and the heat map.

python -m tests.pictures [REPORT.html [PICTURE.png]]
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from tests.browser.chromium import MissingBrowserError, chromium

if TYPE_CHECKING:
    from playwright.sync_api import Page

#: in pixels of the page, which the picture has twice; README shows it about 850 wide
WIDTH = 1180
#: what a repository may hold of a picture
MOST_BYTES = 200_000
#: with a palette, the picture has a third of its size; the page has some 30 colours, and letters have shades of them
COLOURS = 128
#: the topologies whose verdicts are drawn: the safe mode, and the one that people ask about
SHOWN = ("session", "transaction")
#: the lines of the heat map that are drawn
LINES = ("direct", *SHOWN)
#: its bands that are drawn: the audit trail, and the features that differ most
BANDS = (
    "Capture and triggers",
    "Actor bridge and semantics",
    "Redaction",
    "Pooling: session settings",
    "Pooling: session objects",
    "Pooling: prepared statements",
    "Pooling: locks and messages",
)

#: hides all but the picture; returns the names that the page lacks
_ARRANGE = """([shown, lines, bands]) => {
    const keep = (selector, name, wanted) => {
        const parts = [...document.querySelectorAll(selector)];
        const missing = wanted.filter((title) => !parts.some((part) => name(part) === title));
        parts.forEach((part) => { part.hidden = !wanted.includes(name(part)); });
        return missing;
    };
    const begin = (selector) => (part) => part.querySelector(selector).firstChild.textContent.trim();
    const missing = [
        keep('.card', begin('h3'), shown),
        keep('.band', begin('caption'), bands),
        keep('.heat tbody tr', begin('th'), lines),
        keep('main > *', (part) => part.id, ['verdicts', 'checks']),
    ];
    document.querySelectorAll('.top, .skip, h2, .notes, noscript, #checks > p').forEach((part) => { part.hidden = true; });
    return [...new Set(missing.flat())];
}"""
_STYLE = """
    [hidden] { display: none !important }
    main { padding: .2rem 1.2rem 1rem } main > section { padding-top: 1rem !important } .shell { padding: 0 !important }
    .cards { grid-template-columns: 1fr 1fr !important }
"""


class MissingPartError(Exception):
    """The page lacks a part of the picture."""


def draw(page: Page, target: Path) -> int:
    """Write the picture, and return its size in bytes.

    :raises MissingPartError: when the report lacks a topology or a band.
    """
    missing = page.evaluate(_ARRANGE, [list(SHOWN), list(LINES), list(BANDS)])
    if missing:
        raise MissingPartError(f"the page lacks {', '.join(missing)}; try: nox -s report")
    page.add_style_tag(content=_STYLE)
    shot = Image.open(io.BytesIO(page.locator("#main").screenshot(animations="disabled")))
    shot.quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    return target.stat().st_size


def main(report: str = "reports/report.html", target: str = "docs/images/heat-map.png") -> int:
    """Return 0; or 2 when the report, the browser or a topology is missing, or the picture is too large."""
    source, picture = Path(report).resolve(), Path(target)
    if not source.is_file():
        print(f"{report} is missing; try: nox -s report", file=sys.stderr)
        return 2
    picture.parent.mkdir(parents=True, exist_ok=True)
    try:
        with chromium() as browser:
            page = browser.new_page(
                viewport={"width": WIDTH, "height": 900},
                device_scale_factor=2,
                color_scheme="light",
                reduced_motion="reduce",
            )
            page.goto(source.as_uri())
            page.locator("#lanes > *").wait_for(state="attached")
            size = draw(page, picture)
    except (MissingBrowserError, MissingPartError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{target}: {size / 1000:.0f} kB, of at most {MOST_BYTES // 1000}", file=sys.stderr)
    return 0 if size <= MOST_BYTES else 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
