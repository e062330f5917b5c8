"""Pages of small prepared sets, with every layer."""

import re

import numpy as np
import pytest

from data.pictures import ImageCases, ScanCases, save_page
from data.pictures.choice import read_suspects
from dataloaders.io.png import read_mask
from dataloaders.partial.pseudo import PseudoLabelFolder
from dataloaders.samples import Task
from tests.conftest import CHAOST2, JSRT
from util.files import write_text

EVIL = "</script><b onclick=x>'\"&"
PSEUDO_CLASSES = ("lung", "rib'&\"<b>")


@pytest.fixture(scope="session")
def pseudo_folder(chest_folder, tmp_path_factory):
    """Pseudo-labels of the training images: the lung, of which the uppermost rows do not count, and another class."""
    folder = PseudoLabelFolder(tmp_path_factory.mktemp("pseudo"))
    ids = [f"img_{number:02}" for number in range(12)]
    for image_id in ids:
        mask = read_mask(chest_folder / f"masks/lung/{image_id}.png")
        is_certain = np.ones((2, *mask.shape), bool)
        is_certain[0, :4] = False
        folder.write("JSRT", image_id, PSEUDO_CLASSES, np.stack([mask, mask.T]), is_certain)
    tasks = [Task("chest", PSEUDO_CLASSES)]
    folder.finish("run", "recipe", tasks, {"JSRT": dict.fromkeys(ids, "")}, {"JSRT": PSEUDO_CLASSES}, {})
    return folder.folder


@pytest.fixture(scope="session")
def suspects_file(tmp_path_factory):
    """Three masks of two images."""
    path = tmp_path_factory.mktemp("suspects") / "suspects.csv"
    rows = ["1,img_07,heart,9.5", "2,img_03,lung,4", "3,img_07,lung,2.25"]
    write_text(path, "\n".join(["rank,id,structure,score", *rows]) + "\n")
    return path


@pytest.fixture(scope="session")
def image_page(chest_folder, pseudo_folder, suspects_file, tmp_path_factory):
    """The page of 12 training and 4 test images."""
    path = tmp_path_factory.mktemp("page") / "pictures.html"
    source = ImageCases(JSRT, chest_folder, pseudo_folder)
    suspects = read_suspects(suspects_file, {one for ids in source.splits.values() for one in ids})
    assert save_page(source, path, suspects=suspects) == {}
    return path


@pytest.fixture(scope="session")
def scan_page(prepared_folder, tmp_path_factory):
    """The page of eight scans."""
    path = tmp_path_factory.mktemp("page") / "pictures.html"
    assert save_page(ScanCases(CHAOST2, prepared_folder), path) == {}
    return path


def text_of(page: str) -> str:
    """What a reader sees, spaces joined."""
    body = re.sub(r"<(style|script|title|svg)\b.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(re.sub("<[^>]+>", " ", body).split())


def tiles_of(page: str) -> dict[str, str]:
    """Id -> tile."""
    tiles = re.findall(r"<li data-number.*?</li>", page, re.DOTALL)
    return {re.findall(r"<b>(.*?)</b>", tile)[0]: tile for tile in tiles}
