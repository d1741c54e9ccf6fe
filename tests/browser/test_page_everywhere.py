"""The page on every screen, on paper, without scripts, for assistive technology, and with hostile evidence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from harness.model import Status
from harness.printable import CONTROLS
from tests.browser.made_up_page import FEATURES, ordinary, written

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.conftest import Pages

_AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text(encoding="utf-8")
_PANEL = "#row=session/capture.insert"
#: A4 landscape without the margins that the page asks for, 96 pixels an inch: 275 mm
_PAPER = 1039


# --- sizes ----------------------------------------------------------------------------------------------


def test_nothing_scrolls_the_page_or_the_evidence_sideways(pages: Pages, whole_page: Path) -> None:
    page = pages.open(whole_page)
    for place in ("", _PANEL):
        page.evaluate(f"location.hash = '{place}'")
        if place:
            page.locator("#panel").wait_for(state="visible")
        for width in (360, 400, 1400, 2000):
            page.set_viewport_size({"width": width, "height": 400})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (place, width)
            if place:
                left, right, inside, room = page.evaluate(
                    "(({left, right}, panel) => [left, right, panel.scrollWidth, panel.clientWidth])"
                    "(panel.getBoundingClientRect(), panel)"
                )
                assert 0 <= left < right <= width, width
                assert inside <= room, "a long address or value breaks between lines"


def test_a_long_value_does_not_push_the_last_column_out_of_a_table_of_issues(pages: Pages, report_page: Path) -> None:
    page = pages.open(report_page, width=1400)
    tables = page.locator("#issues table.listed:not(:has(th:nth-child(7)))").all()
    assert tables
    for table in tables:
        cell = table.locator("tbody td:nth-last-child(2)").first
        cell.evaluate("cell => { cell.textContent = 'x'.repeat(300) }")
        inside, room = table.evaluate("table => [table.scrollWidth, table.parentElement.clientWidth]")
        assert inside <= room


#: the width of the placeholder of a field, and the room for it
_PLACEHOLDER = """field => {
    const pen = document.createElement('canvas').getContext('2d'), style = getComputedStyle(field);
    pen.font = style.font;
    const sides = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
    return [pen.measureText(field.placeholder).width, field.clientWidth - sides];
}"""


def test_on_a_narrow_screen_a_feature_is_a_card_and_the_search_fits(pages: Pages, report_page: Path) -> None:
    """Neither the map nor the comparison scrolls sideways; each outcome stands beside its topology."""
    page = pages.open(report_page, "#compare=session/transaction", width=360)
    page.locator("#comparison table").wait_for()
    for part in ("#features .wide", "#comparison .wide"):
        inside, room = page.locator(part).evaluate("part => [part.scrollWidth, part.clientWidth]")
        assert inside <= room, part
    cells = page.locator("#features tr[data-check='pooling.cancel'] td")
    named = "cell => getComputedStyle(cell, '::before').content"
    assert [cell.evaluate(named) for cell in cells.all()][1:] == ['"session"', '"transaction"']
    assert [cell.is_visible() for cell in cells.all()] == [False, True, True], "a dash takes no line"
    assert cells.nth(1).get_attribute("role") == "cell", "also where it is no cell of a drawn table"
    needed, room = page.locator("#feature-tools input").evaluate(_PLACEHOLDER)
    assert needed < room


# --- paper ----------------------------------------------------------------------------------------------

#: the texts of cells that are wider than their cell, and of tables that are wider than the paper
_CLIPPED = """(place) => {
    const within = document.getElementById(place);
    const table = document.evaluate('(.//table | following::table)[1]', within, null, 9).singleNodeValue;
    const wide = table.getBoundingClientRect().right > innerWidth + 1 ? ['the table'] : [];
    return wide.concat([...table.querySelectorAll('th, td')]
        .filter((cell) => cell.scrollWidth > cell.clientWidth + 1).map((cell) => cell.textContent));
}"""


def test_paper_has_verdicts_differences_and_the_rubrics_first_and_unfolds_issues(pages: Pages, tmp_path: Path) -> None:
    report = ordinary()
    holding, *others = report.walkthrough
    held = replace(report, walkthrough=(replace(holding, status=Status.OK), *others), issues=report.issues * 20)
    page = pages.open(written(held, tmp_path), width=_PAPER)
    assert page.locator(".paper:visible").count() == 0, "a screen has the whole map"
    issue = page.locator("#issues tbody tr").last
    assert not issue.is_visible(), "a long table is folded"
    page.emulate_media(media="print")
    order = page.locator("main > section:visible").evaluate_all(
        "parts => parts.sort((one, other) => one.offsetTop - other.offsetTop).map(part => part.id)"
    )
    assert order[:4] == ["verdicts", "differences", "topology", "paths"]
    assert not set(order) & {"checks", "features", "compare", "load", "timeline", "limits"}
    assert page.locator("header .paper", has_text="feature-map.md").is_visible(), "says where the other rows are"
    assert page.locator("#differences td", has_text="the feature advisory-lock").is_visible()
    assert page.locator("#paths tr", has_text="nightly-recalculation").is_visible(), "the rubrics are whole"
    items = page.locator("#checklist tbody tr:not(.group)").all()
    assert [item.is_visible() for item in items] == [False] + [True] * len(others), "else what is not OK"
    assert issue.evaluate("row => row.checkVisibility({contentVisibilityAuto: true}) && row.offsetHeight > 0")


def test_paper_fits_the_rubrics_and_has_nothing_that_only_a_screen_needs(pages: Pages, report_page: Path) -> None:
    page = pages.open(report_page, _PANEL, width=_PAPER, dark=True)
    page.locator("#panel").wait_for(state="visible")
    page.emulate_media(media="print")
    for selector in ("nav", "#panel", ".skip"):
        assert page.locator(selector).is_hidden(), selector
    assert page.locator(".card").first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)", "also in the dark"
    for place in ("topology", "paths"):
        assert page.evaluate(_CLIPPED, place) == [], f"the table of {place} fits"
    assert page.pdf(format="A4", landscape=True).startswith(b"%PDF")


# --- without scripts ------------------------------------------------------------------------------------


def test_without_scripts_verdicts_and_maps_are_readable(pages: Pages, report_page: Path) -> None:
    page = pages.open(report_page, scripts=False)
    cards = page.locator(".card").all_inner_texts()
    assert len(cards) == 3
    assert any("does not hold" in card for card in cards)
    for word in ("OK", "known", "Issue", "Not run", "N/A", "fails (26000)", "hangs", "lost", "wrong", "leaks"):
        assert page.locator("table.heat a.sq", has_text=word).count(), f"a square says {word}"
    rows = page.locator("#features tr[data-check]:visible")
    assert rows.count() == len(FEATURES)
    assert page.locator("table.map td", has_text="fails (26000)").first.is_visible()
    assert page.locator("#feature-tools").is_hidden(), "filters need scripts"
    assert page.locator("#checks noscript").count() == 1


# --- assistive technology -------------------------------------------------------------------------------


#: the rules of axe-core whose result depends on colours, and so on the scheme
_OF_COLOURS = ("color-contrast", "link-in-text-block")


def _serious(page: Page, part: str = "html", rules: tuple[str, ...] = ()) -> list[str]:
    """Return the serious and critical findings in a part of the page, each with some of its elements.

    Without names of rules, all rules of axe-core apply.
    """
    options = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
    found: Any = page.evaluate("([part, options]) => axe.run(part, options)", [part, options])
    return [
        f"{finding['id']}: {', '.join(node['html'][:120] for node in finding['nodes'][:4])}"
        for finding in found["violations"]
        if finding["impact"] in {"serious", "critical"}
    ]


def test_axe_has_no_serious_finding_until_the_page_is_broken(pages: Pages, report_page: Path) -> None:
    """All rules apply to the page with evidence beside it, and those of colours to the dark page as well.

    The control: text in the colour of its background, and a picture without a name.
    """
    page = pages.open(report_page, height=900, dark=True)
    page.evaluate(_AXE)
    assert _serious(page, rules=_OF_COLOURS) == [], "dark"
    page.evaluate(f"location.hash = '{_PANEL}'")
    page.locator("#panel").wait_for(state="visible")
    assert _serious(page, "#panel", _OF_COLOURS) == [], "dark, with evidence"
    page.emulate_media(color_scheme="light")
    assert _serious(page) == [], "light, with evidence"

    page.evaluate("document.querySelector('.verdict').style.color = getComputedStyle(document.body).backgroundColor")
    page.evaluate("document.querySelector('.bar').removeAttribute('aria-label')")
    assert {finding.partition(":")[0] for finding in _serious(page, "#verdicts")} == {"color-contrast", "role-img-alt"}


# --- evidence from outside ------------------------------------------------------------------------------

#: elements that markup in a text would add to, and the cells
_MADE = ["script", "style", "img", "[onclick]", "[onerror]", "a[href^='javascript:']", "aside", "form", "table.heat a.sq"]
_COUNTS = """selectors => Object.fromEntries(
    selectors.map(selector => [selector, document.querySelectorAll(selector).length]))"""

#: opens the panel of each cell, and counts the elements in it that only a text of the evidence can have made
_INERT = """async () => {
    const panel = document.getElementById('panel'), counts = [];
    document.documentElement.style.display = 'none';  // nothing is laid out and painted a hundred times
    for (const square of document.querySelectorAll('table.heat a.sq')) {
        const drawn = new Promise((done, failed) => {
            new MutationObserver((_, observer) => { observer.disconnect(); done(); }).observe(panel, {childList: true});
            setTimeout(failed, 20_000, new Error(`no panel for ${square.getAttribute('href')}`));
        });
        location.hash = square.getAttribute('href');
        await drawn;
        counts.push(panel.hidden ? NaN : panel.querySelectorAll('img, script, [onclick]').length);
    }
    return counts;
}"""


def test_text_from_outside_is_inert(pages: Pages, report_page: Path, hostile_page: Path) -> None:
    """No text of the evidence becomes an element, an attribute, a script or a control character, in any cell."""
    plain = pages.open(report_page).evaluate(_COUNTS, _MADE)
    page = pages.open(hostile_page)
    assert page.evaluate("window.ran") is None
    counts = page.evaluate(_COUNTS, _MADE)
    assert counts == plain
    assert page.evaluate(_INERT) == [0] * counts["table.heat a.sq"]
    text = page.evaluate("document.documentElement.textContent")
    assert "<img src=x" in text
    assert not re.findall(f"[{CONTROLS}]", text)


def test_a_page_that_runs_a_script_of_its_evidence_is_found(pages: Pages, report_page: Path, tmp_path: Path) -> None:
    """The control: the policy of the page refuses a script that escaping has missed, and the console says so."""
    broken = tmp_path / "report.html"
    text = report_page.read_text(encoding="utf-8")
    broken.write_text(
        text.replace("</main>", "<script>window.ran = 1</script><img src='https://example.org/x.png'></main>"),
        encoding="utf-8",
    )
    page = pages.open(broken)
    assert page.evaluate("window.ran") is None
    assert len(pages.errors) == 2
    assert all("Content Security Policy" in error for error in pages.errors)
    pages.errors.clear()
    pages.requests.clear()
