"""The pages as a browser shows them."""

import pytest

from tests.browser import CHROMIUM, WITHOUT_WEBGL, chromium
from util.results.report import save_report
from util.results.report.compare import save_comparison

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

SHOWN = "document.querySelector('.viewer output').textContent !== ''"
CASES = "[...document.querySelectorAll('table.cases tbody tr')].map((row) => row.cells[{}].textContent.trim())"


def are_coloured(colours):
    """Whether some are no grey."""
    return any(max(colour) - min(colour) > 60 for colour in colours)


@pytest.fixture(scope="module")
def pages(write_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    runs = [write_run(folder / name) for name in "ab"]
    return {"run": save_report(runs[0]), "comparison": save_comparison(runs, folder / "comparison.html")}


@pytest.fixture
def page(browser, pages):
    browser.open(pages["run"])
    browser.wait_for(SHOWN)
    yield browser
    assert browser.errors == []
    assert browser.requests == [pages["run"].resolve().as_uri()]


@pytest.mark.parametrize(("name", "ready"), [("run", SHOWN), ("comparison", "true")], ids=["run", "comparison"])
def test_pages_are_legible_in_all_windows_and_load_nothing(browser, pages, name, ready):
    assert browser.look_at(pages[name], f"report-{name}", ready) == []


def test_headings_sort_by_click_and_by_keyboard(page):
    page.run("document.querySelectorAll('table.cases .sort')[1].click()")
    assert page.run(CASES.format(1)) == ["50.0", "60.0", "70.0", "90.0", "95.0"]
    assert page.run("document.querySelectorAll('table.cases thead th')[1].getAttribute('aria-sort')") == "ascending"
    page.run("document.querySelectorAll('table.cases .sort')[2].focus()")
    page.press("Enter")
    page.press("Enter")
    assert page.run(CASES.format(2)) == ["80.0", "75.0", "60.0", "40.0", "–"]  # undefined scores stay at the end
    sorts = "[...document.querySelectorAll('table.cases thead th')].map((th) => th.getAttribute('aria-sort'))"
    assert page.run(sorts)[1:3] == [None, "descending"]


def test_points_name_their_case_and_lead_to_its_row(page):
    page.run("document.querySelector('.strip a.case').focus()")
    page.press("ArrowRight")
    told = page.run("document.querySelector('.told').textContent")
    assert told.endswith(", LIVER: 60.0")
    page.press("Enter")
    assert page.run("document.activeElement.tagName") == "TR"
    assert page.run("document.activeElement.cells[1].textContent") == "60.0"


def test_slices_are_drawn_and_change_with_keys_and_layers(page):
    output = "document.querySelector('.viewer output').textContent"
    assert len(page.colours("#slice")) > 20
    assert are_coloured(page.colours("#slice"))
    page.run("document.querySelectorAll('[data-layer]').forEach((each) => each.checked && each.click())")
    assert len(page.colours("#slice")) > 20
    assert not are_coloured(page.colours("#slice"))
    before = page.run(output)
    page.run("document.getElementById('slice').focus({ focusVisible: false })")
    page.press("ArrowUp")
    assert page.run(output) == f"{int(before.split()[0]) + 1} of 8"
    page.press("ArrowDown")
    page.run("document.activeElement.blur()")
    page.run("document.querySelector('[data-layer=disagreement]').click()")
    assert are_coloured(page.colours("#slice"))


def test_other_cases_are_shown_by_choice(page):
    label = "document.getElementById('slice').getAttribute('aria-label')"
    assert page.run(label).startswith("worst case, 2, slice ")
    page.run("document.getElementById('viewer-case').value = 2")
    page.run("document.getElementById('viewer-case').dispatchEvent(new Event('change'))")
    page.wait_for(f"{label}.startsWith('best case, 10')")


def test_the_volume_view_opens_on_demand_and_shows_the_case(page):
    assert page.run("document.getElementById('open-volume').hidden") is False
    assert page.run("typeof niivue") == "undefined"
    page.run("document.getElementById('open-volume').click()")
    page.wait_for("document.querySelector('.volume').dataset.shows === 'worst case, 2'")
    assert page.run("document.querySelector('.volume canvas').width") > 300
    colours = page.colours("#volume")
    assert len(colours) > 50
    yellow = [colour for colour in colours if colour[0] > 150 and colour[2] < 80 and colour[1] > 90]
    assert yellow  # the first structure; the cross-hair is red
    assert page.run("document.getElementById('no-volume').hidden")
    page.save_screenshot("report-run-volume")
    page.run("document.getElementById('open-volume').click()")
    assert page.run("document.getElementById('slice').hidden") is False


def test_the_command_is_copied_or_selected(page):
    page.run("document.querySelector('.copy').click()")
    page.wait_for("document.querySelector('.copy').textContent !== 'Copy'")


def test_without_webgl_the_slices_stay_and_a_sentence_says_why(pages, tmp_path):
    with chromium(tmp_path, *WITHOUT_WEBGL) as page:
        page.open(pages["run"])
        page.wait_for(SHOWN)
        page.wait_for("document.getElementById('no-volume').checkVisibility()")
        assert page.run("document.createElement('canvas').getContext('webgl2')") is None
        assert page.run("document.getElementById('no-volume').textContent").startswith("No 3-D view: it needs WebGL2")
        assert page.run("document.getElementById('open-volume').checkVisibility()") is False
        assert are_coloured(page.colours("#slice"))
        before = page.run("document.getElementById('viewer-slice').valueAsNumber")
        page.run("document.getElementById('slice').focus()")
        page.press("ArrowUp")
        assert page.run("document.getElementById('viewer-slice').valueAsNumber") == before + 1
        page.save_screenshot("report-run-without-webgl")
        assert page.errors == []
