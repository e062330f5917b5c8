"""A received prepared folder: what its manifest may say."""

import pytest

from dataloaders.catalog import dataset
from dataloaders.images.folder import MANIFEST, ImageFolder
from util.errors import DataError


@pytest.mark.parametrize("image_id", ["/tmp/victim", "../../victim", "..", "a\\b", "-rf", "CON", "x" * 300])
def test_an_id_that_leaves_the_folder_is_refused_where_it_is_read(tmp_path, image_id):
    (tmp_path / MANIFEST).write_text(f"id,split\na,train\n{image_id},test\n")
    folder = ImageFolder(tmp_path, dataset("ISIC2017"))
    for read in (lambda: folder.ids("test"), lambda: folder.row("a")):
        with pytest.raises(DataError, match=r"manifest\.csv, line 3: the id .* expected"):
            read()
