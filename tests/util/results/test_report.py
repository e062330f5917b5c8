import base64
import re

import pytest

from util.errors import DataError
from util.results.layout import Layout
from util.results.report import save_report
from util.results.scores import make_scores
from util.results.tables import make_tables

LAYOUT = Layout(lines=("method",), columns=("structure",), averaged=("fold",))


def tables():
    shared = {"method": "A<B", "structure": "LIVER", "metric": "dice", "fold": 0}
    return make_tables(make_scores([shared | {"case": i, "value": 0.5 + i / 10} for i in (0, 1)]), LAYOUT)


def test_page_holds_everything_and_needs_nothing_else(tmp_path):
    (tmp_path / "one.png").write_bytes(b"\x89PNG not really")
    save_report(
        tmp_path / "deep/report.html",
        "Run 3 & 4",
        tables=tables(),
        pictures={'Scan "1"': tmp_path / "one.png"},
        facts={"seed": 1234, "optim": {"lr": 0.001, "inner": {"x": "<y>"}}, "{{ title }}": "{% raise %}"},
        command="python validation.py with alpnet 'a&b'",
    )
    page = (tmp_path / "deep/report.html").read_text(encoding="utf-8")
    assert "<h1>Run 3 &amp; 4</h1>" in page
    assert "<td>A&lt;B</td>" in page
    assert "<td>55.00 ± 7.07<small>[8.58, 94.09], n = 2</small></td>" in page
    assert "<li>Dice × 100: mean over folds" in page
    assert "python validation.py with alpnet &#39;a&amp;b&#39;" in page
    assert "<dt>optim.inner.x</dt><dd>&lt;y&gt;</dd>" in page
    assert "<dt>{{ title }}</dt><dd>{% raise %}</dd>" in page
    assert re.findall("<h2>(.*?)</h2>", page) == ["Scores", "Pictures", "Command", "Configuration"]
    (source,) = re.findall('src="(.*?)"', page)
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == b"\x89PNG not really"
    assert 'alt="Scan &#34;1&#34;"' in page
    assert not re.search(r"https?:|<link|<script|@import|url\(", page)


def test_names_are_no_markup(tmp_path):
    name = '<script>alert("1")</script><img src=x onerror=alert(1)>'
    (tmp_path / "one.png").write_bytes(b"")
    shared = {"method": name, "structure": name, "metric": "dice", "fold": 0, "value": 0.5}
    tables = make_tables(make_scores([shared | {"case": name}]), LAYOUT)
    save_report(
        tmp_path / "report.html", name, tables=tables, pictures={name: tmp_path / "one.png"}, facts={name: name},
        command=name,
    )  # fmt: skip
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;") >= 8
    assert not re.search("<script|<img src=x", page)


def test_what_is_not_given_has_no_heading(tmp_path):
    save_report(tmp_path / "report.html", "Nothing yet")
    assert "<h2>" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_missing_picture_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: cannot be read .*Draw it again, or leave it out"):
        save_report(tmp_path / "report.html", "x", pictures={"gone": tmp_path / "gone.png"})
    assert not (tmp_path / "report.html").exists()
