"""An installed Chromium that shows pages from disk. Playwright drives it, and downloads none."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

#: names of the program, in the order in which they are tried; bootstrap installs the first one
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

#: a picture is drawn without a GPU, and without a process of its own for that
_FEWER_PROCESSES = ("--disable-gpu", "--in-process-gpu", "--renderer-process-limit=1", "--disable-site-isolation-trials")


class MissingBrowserError(Exception):
    """No page can be shown; the message says what to install."""


def program() -> str:
    """Return the path of the installed browser.

    :raises MissingBrowserError: when none of the programs is on PATH.
    """
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        raise MissingBrowserError(
            f"no browser is on PATH (looked for {', '.join(PROGRAMS)}); try: sudo apt-get install chromium"
        )
    return found


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start the installed browser, and stop it at the end.

    While it runs, this thread has a running event loop: `asyncio.run` fails meanwhile.

    :raises MissingBrowserError: when Playwright or a browser is missing.
    """
    path = program()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise MissingBrowserError("Playwright is not installed; try: pip install -e '.[tests]'") from error
    # Chromium refuses its sandbox to root, whom containers run as; the pages are the project's own
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*_FEWER_PROCESSES, *sandbox])
        try:
            yield browser
        finally:
            browser.close()
