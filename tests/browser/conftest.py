"""One browser for each module, and pages that must report no error and send no request."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.browser.chromium import MissingBrowserError, chromium
from tests.browser.made_up_page import hostile, ordinary, written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Dialog, Page, Request


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return the browser. Without one, the tests fail when CI is set, and are skipped otherwise."""
    try:
        with chromium() as started:
            yield started
    except MissingBrowserError as error:
        if os.environ.get("CI"):
            pytest.fail(f"the tests of the page need a browser, and CI requires them: {error}")
        pytest.skip(str(error))


class Pages:
    """Opens pages from disk, and collects what they must not do."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._opened: list[Page] = []
        #: errors of the console, which include violations of the content security policy
        self.errors: list[str] = []
        #: addresses that a page asked for, other than itself
        self.requests: list[str] = []

    def open(
        self,
        path: Path,
        place: str = "",
        *,
        width: int = 1400,
        height: int = 900,
        dark: bool = False,
        scripts: bool = True,
    ) -> Page:
        """Open a page in a window of its own, at a place such as `#row=session/capture.insert`."""
        page = self._browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            java_script_enabled=scripts,
        )
        self._opened.append(page)
        page.set_default_timeout(20_000)
        page.on("console", lambda message: self.errors.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", self._dialog)
        address = path.as_uri()
        page.context.on("request", lambda request: self._asked(request, address))
        page.goto(address + place)
        if scripts:
            page.locator("#lanes > *").wait_for(state="attached")  # drawn last, from the evidence inside the page
        return page

    def _dialog(self, dialog: Dialog) -> None:
        self.errors.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def _asked(self, request: Request, page: str) -> None:
        if request.url.partition("#")[0] != page:
            self.requests.append(request.url)

    def close(self) -> None:
        for page in self._opened:
            page.context.close()


@pytest.fixture
def pages(browser: Browser) -> Iterator[Pages]:
    """Return what opens pages; at the end, none may have reported an error or sent a request."""
    pages = Pages(browser)
    yield pages
    pages.close()
    assert pages.errors == []
    assert pages.requests == []


@pytest.fixture(scope="module")
def report_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page with every kind of cell."""
    return written(ordinary(), tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page in which every text of the evidence tries to run a script."""
    return written(hostile(), tmp_path_factory.mktemp("hostile"))
