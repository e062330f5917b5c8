"""The page of a segmentation: tables of scans and images, doubtful masks, overlays by confidence, failures."""

import re

import numpy as np
import pytest
from PIL import Image

from util.errors import DataError
from util.files import write_text
from util.results.report.prediction import MOST_PICTURES, About, read_items, save_prediction_page

EVIL = "<script>alert(1)</script>"
ABOUT = About("Segmented by Propagation", "frugalseg predict --scans x", {f"bad {EVIL}": "cut short"}, 0.400123)


def write_scans(folder, n=3):
    """Scans s10, s9, ...; the spleen of s9 is doubtful, that of s8 was not found; one file has two frames."""
    lines = ["scan,frame,label,structure,voxels,volume_ml,confidence,review"]
    for k in range(10, 10 - n, -1):
        spleen = {9: "40,0.4,0.25,yes", 8: "0,0.0,,"}.get(k, f"50,0.5,0.{k},no")
        lines += [f"s{k},,1,liver,1000,1234.5,0.8{k % 10},no", f"s{k},,2,spleen,{spleen}"]
    lines += [f"cine,{frame},1,liver,10,1,0.9,no" for frame in (0, 1)]
    write_text(folder / "volumes.csv", "\n".join(lines) + "\n")
    return folder / "volumes.csv"


def write_overlay(folder, name, grey=100):
    Image.fromarray(np.full((30, 60, 3), grey, np.uint8)).save(folder / f"{name}_overlay.png")


def page_of(table, about=ABOUT):
    return save_prediction_page(table, "_overlay.png", about).read_text(encoding="utf-8")


def test_the_table_is_read_by_name_and_frame(tmp_path):
    items, unit, what = read_items(write_scans(tmp_path))
    assert [item.name for item in items] == ["cine, frame 0", "cine, frame 1", "s8", "s9", "s10"]
    assert (unit, what) == ("ml", "scan")
    spleens = {item.name: item.masks["spleen"] for item in items if "spleen" in item.masks}
    assert {name: mask.amount for name, mask in spleens.items()} == {"s8": None, "s9": 0.4, "s10": 0.5}
    assert [item.name for item in items if item.is_doubtful] == ["s9"]
    assert [item.lowest for item in items] == [0.9, 0.9, 0.88, 0.25, 0.1]


def test_doubtful_masks_and_failures_are_told_first(tmp_path):
    page = page_of(write_scans(tmp_path))
    assert "<h1>4 segmented scans</h1>" in page  # five rows: one has two frames
    head = page[: page.index("What was found")]
    told = " ".join(re.sub("<[^>]+>", " ", head[head.index("Before you read on") :]).split())
    assert "1 scan could not be segmented." in told
    assert "1 mask to look at, with a confidence below 40: s9 spleen." in told
    assert "No overlay was drawn: give --overlays" in told
    row = page[page.index('<th scope="row">s9') :]
    cells = re.findall(r"<td.*?</td>", row[: row.index("</tr>")], re.DOTALL)
    assert [" ".join(re.sub("<[^>]+>", "", cell).split()) for cell in cells] == ["1234 89", "0.4 25", "25"]
    assert "not there" in page
    assert EVIL not in page
    assert "bad &lt;script&gt;" in page
    assert "frugalseg predict --scans x" in page


def test_of_many_doubtful_masks_some_are_named(tmp_path):
    rows = [f"s{k},,1,liver,10,1.0,0.{k},yes" for k in range(10, 40)]
    write_text(
        tmp_path / "volumes.csv", "\n".join(["scan,frame,label,structure,voxels,volume_ml,confidence,review", *rows])
    )
    page = page_of(tmp_path / "volumes.csv")
    head = re.sub("<[^>]+>", "", page[page.index("30 masks to look at") : page.index("What was found")])
    assert head.count("liver") == 20
    assert "s29 liver, …" in head
    assert "…." not in head


def test_overlays_are_sorted_by_confidence_and_limited(tmp_path):
    table = write_scans(tmp_path, 10)
    for k in range(1, 11):
        write_overlay(tmp_path, f"s{k}")
    shown = re.findall(r"<summary>(\w+)", page_of(table))
    assert shown[:3] == ["s1", "s10", "s2"]
    lines = table.read_text().splitlines()
    for k in range(11, 30):
        lines.append(f"s{k},,1,liver,10,1,0.9{k},no")
        write_overlay(tmp_path, f"s{k}")
    table.write_text("\n".join(lines) + "\n")
    page = page_of(table)
    assert len(re.findall("<summary>", page)) == MOST_PICTURES
    assert f"{29 - MOST_PICTURES} further overlays, of more confident masks, are in the folder." in page


def test_a_damaged_overlay_is_told_and_a_foreign_table_refused(tmp_path):
    table = write_scans(tmp_path)
    (tmp_path / "s9_overlay.png").write_bytes(b"\x89PNG cut")
    assert "s9_overlay.png: cannot be read" in page_of(table)
    whole = table.read_text()
    for text, message in {
        "a,b\n1,2\n": "no column structure, confidence, review",
        whole.replace("scan,frame", "case,frame"): "no results of scans or images",
        whole.replace("1234.5", "many"): "a damaged table .*many",
    }.items():
        table.write_text(text)
        with pytest.raises(DataError, match=rf"volumes.csv: {message}.*Run the segmentation again"):
            page_of(table)


def test_images_have_shares_of_the_image_and_nothing_to_warn_of_is_not_warned_of(tmp_path):
    text = "image,label,structure,pixels,fraction_of_image,confidence,review\na,1,lesion,5,0.125,0.9,\n"
    write_text(tmp_path / "areas.csv", text)
    write_overlay(tmp_path, "a")
    page = page_of(tmp_path / "areas.csv", About("Segmented by UNet", "x", {}))
    assert "Before you read on" not in page
    assert "% of the image, and confidence × 100" in page
    assert "12.5 <small>90</small>" in page
