"""The page of all runs as a browser shows it."""

import pytest

from tests.browser import CHROMIUM
from tests.util.results.conftest import HOSTILE, NOW, write_exps
from util.results import runs
from util.results.run_index import read_folder
from util.results.run_list import distinguishing, ordered

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

PLACES = "[...document.querySelectorAll('#body tr')].map((row) => row.lastChild.lastChild.textContent)"
SORTED = (
    "[...document.querySelectorAll('th')].filter((th) => th.getAttribute('aria-sort') !== 'none')"
    ".map((th) => `${th.textContent} ${th.getAttribute('aria-sort')}`).join()"
)
FOCUS = "document.activeElement.id || document.activeElement.textContent"
SCORED = ["../a/validation/1", "../mySSL_train_SABS/4", "../b/validation/2"]  # the best first
STATES = "[...document.getElementById('status').options].map((each) => each.value)"
OLDER = ["../b/validation/2", "../a/validation/1", "../a/runs/1", "../mySSL_train_SABS/4"]


def heading(name):
    return f"[...document.querySelectorAll('th button')].find((each) => each.textContent === '{name}')"


def tab_to(page, name):
    for _ in range(30):
        if page.run(FOCUS) == name:
            return
        page.press("Tab")
    pytest.fail(f"Tab does not reach {name}")


@pytest.fixture(scope="module")
def runs_page(tmp_path_factory):
    exps = write_exps(tmp_path_factory.mktemp("runs") / "exps")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        found = ordered(read_folder(exps, NOW))
        runs.save_page(exps / "pages/runs.html", found, distinguishing(found))
    return exps / "pages/runs.html"


@pytest.fixture
def page(browser, runs_page):
    browser.open(runs_page)
    yield browser
    assert browser.errors == []
    assert browser.requests == [runs_page.resolve().as_uri()]


def test_it_is_legible_in_all_windows_and_loads_nothing(browser, runs_page):
    assert HOSTILE not in runs_page.read_text()
    assert browser.look_at(runs_page, "runs") == []
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"  # dark, as asked for


def test_the_mouse_sorts(page):
    assert page.run(SORTED) == "Start descending"
    assert page.run(PLACES)[4:] == OLDER
    page.click(heading("Score"))
    assert page.run(SORTED) == "Score descending"
    assert page.run(PLACES)[:3] == SCORED
    page.click(heading("Score"))
    assert page.run(PLACES)[:3] == SCORED[::-1]  # runs without a score stay at the end
    page.click(heading("Folder"))
    assert page.run(SORTED) == "Folder ascending"
    assert page.run(PLACES)[:2] == ["../a/runs/1", "../a/validation/1"]


def test_filters_find_words_states_and_dates(page):
    page.click("document.getElementById('text')")
    page.write("a/validation/1")
    assert page.run(PLACES) == ["../a/validation/1"]
    assert page.run("document.querySelector('a').getAttribute('href')") == "../a/validation/1/report.html"
    assert page.run("document.getElementById('count').textContent") == "1 of 8 runs"
    page.save_screenshot("runs-filtered")
    page.click("document.querySelector('[type=reset]')")
    page.wait_for(f"{PLACES}.length === 8")
    page.run("document.getElementById('from').focus()")
    page.write("11202026")
    assert page.run(PLACES)[4:] == OLDER[:3]
    page.press("Backspace")
    page.run("document.getElementById('to').focus()")
    page.write("11192026")
    assert page.run(PLACES) == OLDER[3:]
    assert page.run("document.querySelector('#body a')") is None


def test_names_and_comments_are_no_markup(page):
    assert page.run("document.title") == "Runs"
    assert page.run("document.querySelectorAll('b').length") == 0
    assert HOSTILE in page.run("document.getElementById('body').textContent")


def test_keys_alone_filter_and_sort(page):
    page.press("Tab")
    assert page.run(FOCUS) == "text"
    page.write("VALUEERROR")
    assert page.run(PLACES) == ["../b/runs/1"]
    page.press("Backspace", len("VALUEERROR"))
    page.write("eval_fold nothing")
    assert page.run(PLACES) == []
    page.press("Backspace", len("eval_fold nothing"))
    tab_to(page, "status")
    page.press(
        "ArrowDown", page.run("[...document.activeElement.options].findIndex((each) => each.value === 'running')")
    )
    assert page.run(PLACES) == ["../c/runs/1"]
    tab_to(page, "Reset")
    page.press("Space")
    page.wait_for(f"{PLACES}.length === 8")
    tab_to(page, "Score")
    page.press("Enter")
    assert page.run(SORTED) == "Score descending"
    assert page.run(PLACES)[:3] == SCORED
    page.press("Space")
    assert page.run(SORTED) == "Score ascending"
    assert page.run(FOCUS) == "Score"
    page.save_screenshot("runs-sorted-by-keys")
