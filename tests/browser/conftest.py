"""One browser for all tests of this folder, and pages that must report no error and send no request."""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.chromium import MissingBrowserError, chromium
from tests.browser.made_up_page import hostile, ordinary, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, Dialog, Page, Request


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Return the browser. Without one, the tests fail when CI is set, and are skipped otherwise."""
    try:
        with chromium() as started:
            yield started
    except MissingBrowserError as error:
        if os.environ.get("CI"):
            pytest.fail(f"the tests of the page need a browser, and CI requires them: {error}")
        pytest.skip(str(error))


@pytest.fixture(scope="package")
def window(browser: Browser) -> Iterator[Page]:
    """Return a window for one page after another: to open one takes longer than most tests."""
    page = browser.new_page(reduced_motion="reduce")
    yield page
    page.context.close()


#: makes each address new: a page that differs in its fragment only is not loaded again
_LOADS = itertools.count()


class Pages:
    """Opens pages from disk, one after another, and collects what they must not do."""

    def __init__(self, browser: Browser, window: Page) -> None:
        self._browser = browser
        self._window = window
        self._listening = contextlib.ExitStack()
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
        height: int = 400,
        dark: bool = False,
        scripts: bool = True,
    ) -> Page:
        """Open a page at a place such as `#row=session/capture.insert`, and close the page opened before it.

        A low window takes half as long to draw as a high one.
        """
        self.close()
        page = self._window
        if not scripts:
            page = self._browser.new_page(reduced_motion="reduce", java_script_enabled=False)
            self._listening.callback(page.context.close)
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(media="null", color_scheme="dark" if dark else "light")
        page.set_default_timeout(20_000)
        address = f"{path.as_uri()}?{next(_LOADS)}"
        self._listen(
            page, "console", lambda message: self.errors.append(message.text) if message.type != "log" else None
        )
        self._listen(page, "pageerror", lambda error: self.errors.append(str(error)))
        self._listen(page, "dialog", self._dialog)
        self._listen(page.context, "request", lambda request: self._asked(request, address))
        page.goto(address + place)
        if scripts:
            page.locator("#lanes > *").wait_for(state="attached")  # drawn last, from the evidence inside the page
        return page

    def _listen(self, source: Page | BrowserContext, event: Any, heard: Callable[[Any], None]) -> None:
        source.on(event, heard)
        self._listening.callback(source.remove_listener, event, heard)

    def _dialog(self, dialog: Dialog) -> None:
        self.errors.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def _asked(self, request: Request, page: str) -> None:
        if request.url.partition("#")[0] != page:
            self.requests.append(request.url)

    def close(self) -> None:
        """Stop listening; the page in the window stays until the next one takes its place."""
        self._listening.close()
        self._window.mouse.move(0, 0)  # nothing of the next page is hovered over


@pytest.fixture
def pages(browser: Browser, window: Page) -> Iterator[Pages]:
    """Return what opens pages; at the end, none may have reported an error or sent a request."""
    pages = Pages(browser, window)
    yield pages
    pages.close()
    assert pages.errors == []
    assert pages.requests == []


@pytest.fixture(scope="package")
def report_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page with every kind of cell."""
    return written(ordinary(), tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="package")
def whole_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page with every kind of cell, and with many columns and rows."""
    return written(ordinary(whole=True), tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="package")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page in which every text of the evidence tries to run a script."""
    return written(hostile(), tmp_path_factory.mktemp("hostile"))
