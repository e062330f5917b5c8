import pytest

from dataloaders.build import FAMILIES, open_data
from dataloaders.fewshot.config import FewShotConfig
from dataloaders.fewshot.data import FewShotData
from dataloaders.images.config import DenseConfig
from dataloaders.images.data import DenseData
from dataloaders.images.folder import NoiseConfig
from dataloaders.sources.config import SourcesDataConfig
from dataloaders.sources.data import SourcesData
from models import METHODS
from tests.models.hearts import write_hearts
from util.errors import DataError

NOISY = DenseConfig(size_px=32, noise=NoiseConfig(0.7, 0.7))


def test_each_family_gets_its_data(prepared_folder, image_folder):
    assert isinstance(open_data("fewshot", FewShotConfig(), str(prepared_folder)), FewShotData)
    assert isinstance(open_data("dense", DenseConfig(size_px=32), str(image_folder)), DenseData)


def test_several_sources_get_theirs_with_what_the_method_needs(tmp_path):
    folder = write_hearts(tmp_path)
    config = SourcesDataConfig(dataset=str(folder), test_domains=("A",))
    for needs in (frozenset(), METHODS["cacps"].needs):
        data = open_data("sources", config, str(folder), needs=needs)
        assert isinstance(data, SourcesData)
        assert data.needs == needs
        assert "domains B, C, D, tested on A" in data.describe()


def test_every_methods_family_has_data():
    assert {method.family for method in METHODS.values()} == set(FAMILIES)


def test_the_method_decides_which_labels_and_whether_superpixels_are_read(image_folder):
    given = open_data("dense", NOISY, str(image_folder))
    clean = open_data("dense", NOISY, str(image_folder), trains_on="clean")
    assert isinstance(given, DenseData)
    assert isinstance(clean, DenseData)
    assert "noise a0.7_b0.7" in given.describe()
    assert "clean masks" in clean.describe()
    assert not given.needs_superpixels
    assert open_data("dense", NOISY, str(image_folder), needs=frozenset({"superpixels"})).needs_superpixels  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("family", "config"), [("fewshot", FewShotConfig()), ("dense", DenseConfig()), ("sources", SourcesDataConfig())]
)
def test_an_empty_folder_is_named_with_the_remedy(family, config, tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}.*frugalseg prepare"):
        open_data(family, config, str(tmp_path))


def test_the_data_root_serves_as_well(make_image_folder, tmp_path):
    make_image_folder(tmp_path / "ISIC2017/prepared_32px", n_train=1, n_test=1, noise=None, superpixel=None)
    assert "1 images of lesion" in open_data("dense", DenseConfig(size_px=32), str(tmp_path)).describe()
