"""The picture page as a browser shows it."""

import pytest

from tests.browser import CHROMIUM

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

IDS = "[...document.querySelectorAll('.tiles li:not([hidden]) b')].map((each) => each.textContent)"
LARGE = "document.querySelector('.large-told').textContent"


def are_like(colours, wanted):
    """Whether some are about a colour."""
    return any(max(abs(a - b) for a, b in zip(colour, wanted, strict=True)) < 40 for colour in colours)


@pytest.fixture
def page(browser, image_page):
    browser.open(image_page)
    yield browser
    assert browser.errors == []
    assert browser.requests == [image_page.resolve().as_uri()]


def choose(page, element, value):
    page.run(f"document.getElementById('{element}').value = {value!r}")
    page.run(f"document.getElementById('{element}').dispatchEvent(new Event('change'))")


def test_pages_are_legible_in_all_windows_and_load_nothing(browser, image_page, scan_page):
    assert browser.look_at(image_page, "pictures-images") == []
    assert browser.look_at(scan_page, "pictures-scans") == []


def test_suspects_come_first_and_tiles_are_sorted_and_filtered(page):
    assert page.run(IDS)[:3] == ["img_07", "img_03", "img_00"]
    choose(page, "order", "number")
    assert page.run(IDS) == [f"img_{number:02}" for number in range(16)]
    choose(page, "order", "labelled")
    areas = page.run("[...document.querySelectorAll('.tiles li')].map((each) => Number(each.dataset.labelled))")
    assert areas == sorted(areas, reverse=True)
    choose(page, "split", "test")
    assert sorted(page.run(IDS)) == ["img_12", "img_13", "img_14", "img_15"]
    assert page.run("document.getElementById('count').textContent") == "4 of 16 shown"
    choose(page, "class", "none")
    assert page.run(IDS) == []


def test_layers_change_by_keyboard(page):
    tile = ".tile"
    assert are_like(page.colours(tile), (230, 159, 0))  # the lung
    page.run("document.querySelector('[name=layer]:checked').focus()")
    page.press("ArrowLeft")
    assert all(max(colour) - min(colour) < 12 for colour in page.colours(tile))  # the image alone
    for _ in range(2):
        page.press("ArrowRight")
    assert are_like(page.colours(tile), (255, 204, 0))
    shown = "[...document.querySelectorAll('.legend p')].filter((each) => !each.hidden).map((each) => each.dataset.for)"
    assert page.run(shown) == ["Superpixels gray_24_0.0392"]
    choose(page, "split", "test")
    assert page.run("[...document.querySelectorAll('.tiles li:not([hidden]) .absent')].every((each) => !each.hidden)")


def test_a_tile_is_enlarged_and_left_by_keyboard(page):
    page.run("document.querySelector('.tile').focus()")
    page.press("Enter")
    assert page.run("document.getElementById('large').open")
    assert page.run(LARGE).startswith("img_07")
    page.press("ArrowRight")
    assert page.run(LARGE).startswith("img_03")
    page.press("ArrowDown")
    assert page.run(LARGE).endswith("Shown: Superpixels gray_24_0.0392")
    assert are_like(page.colours(".stage"), (255, 204, 0))
    page.save_screenshot("pictures-images-enlarged", whole=False)
    page.run("document.getElementById('close').click()")
    assert page.run("document.getElementById('large').open") is False
    page.wait_for("document.activeElement.getAttribute('aria-label') === 'Enlarge img_03'")
