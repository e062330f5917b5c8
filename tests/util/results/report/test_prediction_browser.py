"""The page of all results of `frugalseg predict` as a browser shows it."""

import pytest

from tests.browser import CHROMIUM
from tests.util.results.report.test_prediction import ABOUT, write_overlay, write_scans
from util.results.report.prediction import save_prediction_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

COLUMN = "[...document.querySelectorAll('table.cases tbody tr')].map((row) => row.cells[{}].firstChild.data.trim())"
HEADINGS = "document.querySelectorAll('table.cases .sort')"
SORTS = "[...document.querySelectorAll('table.cases th[scope=col]')].map((th) => th.getAttribute('aria-sort'))"
LONG = "a_scan_with_the_long_name_of_its_series_and_of_the_hospital"


@pytest.fixture(scope="module")
def prediction_page(tmp_path_factory):
    """Four scans, one of them with a long name, and a scan of two frames; overlays of all but the latter."""
    folder = tmp_path_factory.mktemp("results")
    table = write_scans(folder)
    with table.open("a") as stream:
        stream.write(f"{LONG},,1,liver,1000,99.5,0.7,no\n")
    for grey, name in enumerate(("s8", "s9", "s10", LONG)):
        write_overlay(folder, name, 60 * grey)
    return save_prediction_page(table, "_overlay.png", ABOUT)


@pytest.fixture
def page(browser, prediction_page):
    browser.open(prediction_page)
    yield browser
    assert browser.errors == []
    assert browser.requests == [prediction_page.resolve().as_uri()]


def test_it_is_legible_in_all_windows_and_loads_nothing(browser, prediction_page):
    assert browser.look_at(prediction_page, "segmentations") == []


def test_figures_stay_in_sight_beside_a_long_name(browser, prediction_page):
    browser.open(prediction_page, width=375)
    edge = browser.run("document.querySelector('table.cases tbody td').getBoundingClientRect().right")
    assert edge <= 375


def test_the_mouse_sorts_by_volume_and_absent_structures_are_the_smallest(page):
    page.click(f"{HEADINGS}[2]")
    assert page.run(COLUMN.format(2)) == ["not there", "0.4", "0.5", "–", "–", "–"]
    assert page.run(SORTS) == [None, None, "ascending", None]
    page.click(f"{HEADINGS}[2]")
    assert page.run(COLUMN.format(2)) == ["0.5", "0.4", "not there", "–", "–", "–"]
    assert page.run(SORTS) == [None, None, "descending", None]


def test_keys_sort_by_confidence_and_by_name(page):
    reached = f"document.activeElement === {HEADINGS}[3]"
    for _ in range(20):
        page.press("Tab")
        if page.run(reached):
            break
    page.press("Enter")
    assert page.run(COLUMN.format(3)) == ["10", "25", "70", "88", "90", "90"]
    page.press("Space")
    assert page.run(COLUMN.format(3)) == ["90", "90", "88", "70", "25", "10"]
    assert page.run(reached)  # the focus stays
    page.run(f"{HEADINGS}[0].focus()")
    page.press("Enter")
    assert page.run(COLUMN.format(0)) == [LONG, "cine, frame 0", "cine, frame 1", "s8", "s9", "s10"]
    page.save_screenshot("segmentations-sorted-by-keys")


def test_a_doubtful_mask_leads_to_its_row(page):
    page.click("document.querySelector('.warnings a[href^=\"#item\"]')")
    assert page.run("document.querySelector('tr:target th').textContent.trim()").startswith("s9")


def test_overlays_are_pictures_also_those_that_are_folded(page):
    shown = "[...document.images].map((each) => each.complete && each.naturalWidth)"
    assert page.run("[...document.querySelectorAll('details')].map((each) => each.open)") == [True, True, True, False]
    page.click("document.querySelectorAll('summary')[3]")
    page.wait_for(f"{shown}.every((width) => width === 60)")
    assert page.colours("details:nth-of-type(2) img") & {(60, 60, 60), (61, 61, 61), (59, 59, 59)}  # s9
