"""What a reader does with the page of the report, in a real browser: filters, links to a cell, the keyboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.browser.made_up_page import FEATURES

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.browser.conftest import Pages

#: the features in the order of the map
_ALL = [check.partition(".")[2] for check in FEATURES]
#: those that a direct connection has, too
_ON_DIRECT = [check for check, feature in FEATURES.items() if feature.direct]


def shown_features(page: Page) -> set[str]:
    """Return the features whose rows are visible in the feature map."""
    links = page.locator("#features table.map tr[data-check]:visible").locator("td a")
    addresses = links.evaluate_all("links => links.map(link => link.getAttribute('href'))")
    return {str(address).partition("/pooling.")[2] for address in addresses}


def heads(page: Page) -> list[str]:
    """Return the topologies whose columns are visible in the feature map."""
    names = page.locator("#features table.map thead th:visible").all_inner_texts()
    return [name.partition("\n")[0] for name in names[1:]]


def focused(page: Page) -> str:
    """Return the address of the link that has the focus, or the id of another element."""
    return str(page.evaluate("document.activeElement.getAttribute('href') || document.activeElement.id"))


def place(page: Page) -> str:
    return "#" + str(page.url).partition("#")[2]


# --- filters --------------------------------------------------------------------------------------------


def test_filters_of_the_feature_map(pages: Pages, report_page: Path) -> None:
    page = pages.open(report_page)
    tools = page.locator("#feature-tools")
    assert shown_features(page) == set(_ALL)
    assert f"{len(_ALL)} of {len(_ALL)}" in tools.locator("output").inner_text()

    tools.get_by_text("Only what differs").click()
    assert shown_features(page) == set(_ALL) - {"simple-query"}
    assert "differs" in place(page)

    tools.get_by_text("Only silent ones").click()
    silent = {"advisory-lock", "local-outside", "temp-table-kept", "cursor-with-hold", "copy-both", "cancel"}
    assert shown_features(page) == silent

    tools.locator("select[data-choice=mode]").select_option("session")
    assert heads(page) == ["session"]
    assert shown_features(page) == set(), "one column does not differ from itself"
    tools.get_by_text("Only what differs").click()
    assert shown_features(page) == {"cursor-with-hold"}, "the one feature that is silently lost in session mode"

    tools.get_by_text("Only silent ones").click()
    tools.locator("select[data-choice=mode]").select_option("")
    tools.locator("input").fill("ADVISORY lock")
    assert shown_features(page) == {"advisory-lock", "advisory-unlock"}
    assert page.locator("#features tr.group:visible").all_inner_texts() == ["LOCKS"], "empty groups are hidden"

    tools.locator("input").fill("")
    assert shown_features(page) == set(_ALL)


def test_a_topology_that_tried_no_feature_of_a_filter_has_no_column(pages: Pages, report_page: Path) -> None:
    page = pages.open(report_page, "#features=&q=cancel")
    tools = page.locator("#feature-tools")
    assert shown_features(page) == {"cancel"}
    assert heads(page) == ["session", "transaction"]
    assert tools.locator("output").inner_text() == (f"1 of {len(_ALL)} features; none of them was tried in direct")
    assert page.locator("#features .group:visible th").get_attribute("colspan") == "3"

    tools.locator("input").fill("nothing has this name")
    assert heads(page) == ["direct", "session", "transaction"], "without a row, the columns say nothing"
    tools.locator("input").fill("")
    assert heads(page) == ["direct", "session", "transaction"]


def test_neighbours_with_the_same_advice_share_it(pages: Pages, report_page: Path) -> None:
    page = pages.open(report_page)
    advice = page.locator("#features .advice:visible", has_text="pg_advisory_xact_lock")
    assert advice.count() == 1
    described = page.locator(f"#features th[aria-describedby='{advice.locator('p').get_attribute('id')}']")
    assert described.all_inner_texts() == ["the feature advisory-lock", "the feature advisory-unlock"]

    page.locator("#feature-tools input").fill("unlock")
    assert advice.count() == 1, "one of its features is left"
    page.locator("#feature-tools input").fill("xact_lock")
    assert shown_features(page) == {"advisory-lock", "advisory-unlock"}, "the search reads advice, too"
    page.locator("#feature-tools input").fill("simple-query")
    assert page.locator("#features .advice:visible").count() == 0

    page.evaluate("location.hash = '#compare=session/transaction'")
    compared = page.locator("#comparison .advice", has_text="pg_advisory_xact_lock")
    compared.wait_for()
    assert compared.count() == 1


# --- the navigation -------------------------------------------------------------------------------------


_BOXES = "selectors => selectors.map(selector => document.querySelector(selector).getBoundingClientRect().toJSON())"


def test_the_navigation_stays_on_screen_and_marks_the_section(pages: Pages, report_page: Path) -> None:
    """Each link leads to a heading that the bar does not cover, at any width."""
    page = pages.open(report_page)
    links = page.locator("nav a")
    for width in (360, 1400):
        page.set_viewport_size({"width": width, "height": 500})
        for link in links.all():
            link.focus()
            page.keyboard.press("Enter")
            anchor = str(link.get_attribute("href"))
            page.locator(f"nav a[aria-current][href='{anchor}']").wait_for(state="attached")
            bar, heading, marked = page.evaluate(_BOXES, ["nav", f"{anchor}-title", f"nav a[href='{anchor}']"])
            assert (bar["y"], bar["width"]) == (0, width)
            assert bar["height"] < 50, "one thin line"
            assert bar["height"] < heading["y"] < 500, (anchor, width)
            assert 0 <= marked["x"] < width, "the line scrolls to its mark"
        assert page.locator("nav a[aria-current]").count() == 1


# --- addresses ------------------------------------------------------------------------------------------


def test_the_address_of_a_filtered_map_opens_it(pages: Pages, report_page: Path) -> None:
    page = pages.open(report_page, "#features=differs,silent&mode=transaction&q=lock")
    pressed = page.locator("#feature-tools .chip[aria-pressed=true]").all_inner_texts()
    assert pressed == ["Only what differs", "Only silent ones"]
    assert page.locator("#feature-tools select[data-choice=mode]").input_value() == "transaction"
    assert page.locator("#feature-tools input").input_value() == "lock"
    assert heads(page) == ["transaction"]


#: the address of a cell, and words of its evidence
_CELLS = {
    "session/capture.insert": ("known", "backend 101", "backend 102", "expected", "observed", "no-trigger"),
    "session/actor.many-clients": ("actor: expected a | b, observed <c>",),
    "session/capture.coverage": ("Not run", "could not force a move"),
    "direct/capture.coverage": ("N/A", "there is no pooler in this chain"),
    "direct/actor.many-clients": ("it leaks", "https://example.org/doc"),
    "transaction/pooling.deallocate": ("fails (26000)", "nox -s topology-transaction -- --check pooling.deallocate"),
    "transaction/pooling.local-outside": ("lost", "Begin a transaction first", "server connections"),
}


def test_the_address_of_a_cell_opens_its_evidence(pages: Pages, report_page: Path) -> None:
    first, *others = _CELLS
    page = pages.open(report_page, f"#row={first}")
    panel = page.locator("#panel")
    for row in (first, *others):
        page.evaluate("address => { location.hash = address }", f"#row={row}")
        panel.get_by_role("heading", name=row.partition("/")[2]).wait_for()
        panel.get_by_text(row.partition("/")[0]).first.wait_for()
        text = panel.inner_text() + " ".join(panel.locator("svg").all_text_contents())
        for word in _CELLS[row]:
            assert word in text, row
        assert page.locator(f'.chosen[href="#row={row}"]').count() >= 1
        assert page.locator(f'[href="#row={row}"]').first.is_visible()


def test_the_address_of_a_comparison_opens_it(pages: Pages, report_page: Path) -> None:
    page = pages.open(report_page, "#compare=direct/transaction")
    table = page.locator("#comparison table")
    table.wait_for()
    assert table.locator("thead th").all_inner_texts()[1:3] == ["direct", "transaction"]
    changed = table.locator("tbody tr").all_inner_texts()
    features = [row for row in changed if "the feature" in row]
    assert len(features) == len(_ON_DIRECT) - 1, "each feature but the one that works"

    page.get_by_role("button", name="Swap").click()
    assert place(page) == "#compare=transaction/direct"
    page.locator("#comparison th", has_text="direct").first.wait_for()
    assert table.locator("thead th").all_inner_texts()[1:3] == ["transaction", "direct"]


def test_an_address_that_names_nothing_opens_the_page(pages: Pages, report_page: Path) -> None:
    page = pages.open(report_page, "#row=nowhere/nothing")
    for nonsense in ("#row=", "#row=direct/", "#compare=a/b", "#features=&&=", "#%E0", "#x=1", "#check=nothing"):
        page.evaluate("address => { location.hash = address }", nonsense)
        assert page.locator("#panel").is_hidden(), nonsense
        assert page.locator("#verdicts h2", has_text="Verdicts").is_visible()


# --- the keyboard ---------------------------------------------------------------------------------------


def test_the_first_stop_of_the_tab_key_skips_to_the_verdicts(pages: Pages, report_page: Path) -> None:
    page = pages.open(report_page)
    page.keyboard.press("Tab")
    assert focused(page) == "#verdicts"
    assert page.locator(".skip").is_visible()
    page.keyboard.press("Enter")
    assert place(page) == "#verdicts"
    page.keyboard.press("Tab")
    inside = page.evaluate("document.activeElement.closest('header.top, nav') !== null")
    assert not inside, "the navigation comes before the verdicts"


def test_the_heat_map_is_one_stop_in_each_part_and_arrows_move_in_it(pages: Pages, report_page: Path) -> None:
    """Enter opens a cell, Escape returns to it, and an arrow passes squares that owe no answer."""
    page = pages.open(report_page)
    tables = page.locator("table.heat").all()
    assert [
        table.locator("a.sq").evaluate_all("links => links.filter(link => link.tabIndex === 0).length")
        for table in tables
    ] == [1] * len(tables)

    table = page.locator("table.heat", has_text="pooling.simple-query").first
    table.locator("a.sq[tabindex='0']").focus()
    start = focused(page)
    page.keyboard.press("ArrowUp")
    assert focused(page) == start, "the edge of the map holds the focus"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    moved = focused(page)
    assert moved.startswith("#row=transaction/pooling.")
    assert moved != start.replace("direct", "transaction")

    page.keyboard.press("Enter")
    page.locator("#panel").wait_for(state="visible")
    assert place(page) == moved
    assert moved.partition("/")[2] in page.locator("#panel h3").inner_text()
    assert focused(page) == "panel"

    page.keyboard.press("Escape")
    assert page.locator("#panel").is_hidden()
    assert focused(page) == moved
    assert place(page) == "#"

    page.keyboard.press("Enter")
    page.locator("#panel").wait_for(state="visible")
    assert place(page) == moved, "the same cell opens again"

    # only the transaction topology has audited paths; a line without a square is not a stop
    table = page.locator("table.heat", has_text="paths.create-post").first
    table.locator("a.sq[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    assert focused(page) == "#row=transaction/paths.nightly-recalculation"
    page.keyboard.press("ArrowRight")
    assert focused(page) == "#row=transaction/paths.nightly-recalculation"
