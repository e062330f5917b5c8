import base64
import gzip

import nibabel as nib
import numpy as np
import pytest

from tests.util.results.report.conftest import AFFINE, volumes
from util.errors import DataError
from util.results.report import images
from util.results.report.views import read_view, save_view

NAMES = {1: "LIVER", 2: "RK"}


def make(path, arrays, affine=AFFINE):
    image, truth, prediction = arrays
    save_view(path, image, truth, prediction, affine, case="1", names=NAMES, conditions={"fold": 0}, picture=None)
    return read_view(path)


def decoded(text):
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def test_a_view_is_cropped_to_the_body_and_turned_for_radiologists(tmp_path):
    image, truth, prediction = volumes(2)
    view = make(tmp_path / "1.npz", (image, truth, prediction))
    assert view.image.shape == view.truth.shape == view.prediction.shape == (8, 28 + 4, 32 + 4)
    assert (view.image.dtype, view.image.max()) == (np.uint8, 255)
    assert (view.truth > 0).sum() == (truth > 0).sum()
    assert view.about.letters == ("R", "A")
    assert view.about.spacing_mm == (5.0, 1.5, 1.5)
    assert nib.aff2axcodes(view.affine) == ("L", "P", "S")


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (1, -1, 1)])
def test_the_affine_keeps_places_in_the_patient(tmp_path, axes, signs):
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (row, sign, size) in enumerate(zip(axes, signs, (1.5, 2.0, 5.0), strict=True)):
        affine[row, axis] = sign * size
    image, truth, _ = volumes()
    view = make(tmp_path / "1.npz", (image, truth, truth), affine)

    def offset(label, matrix):
        """Millimetres from the centre of class 1 to that of class 2, in patient directions."""
        centres = [np.argwhere(label == value).mean(0)[::-1] for value in (1, 2)]
        return matrix[:3, :3] @ (centres[1] - centres[0])

    np.testing.assert_allclose(offset(view.truth, view.affine), offset(truth, affine), atol=1e-6)


def test_unknown_voxels_are_not_marked(tmp_path):
    image, truth, prediction = volumes()
    truth[0] = 255
    assert set(np.unique(make(tmp_path / "1.npz", (image, truth, prediction)).truth)) == {0, 1, 2}


def test_volumes_are_stored_as_nifti_and_thinned_out_where_large(tmp_path, monkeypatch):
    view = make(tmp_path / "1.npz", volumes(3))
    encoded = images.encode_view(view)
    assert encoded["step"] == [1, 1, 1]
    truth = decoded(encoded["truth"])
    assert np.array_equal(np.asarray(truth.dataobj).T, view.truth)
    assert truth.get_data_dtype() == np.uint8
    header = gzip.decompress(base64.b64decode(encoded["truth"]))
    assert np.frombuffer(header[108:112], np.float32) == 352  # where the viewer expects the voxels
    np.testing.assert_allclose(np.asarray(truth.affine), view.affine)
    assert np.abs(np.asarray(decoded(encoded["image"]).dataobj).T.astype(int) - view.image).max() < 4

    monkeypatch.setattr(images, "LARGEST_BYTES", 4000)
    thin = images.encode_view(view)
    assert sum(len(thin[name]) for name in ("image", "truth", "prediction")) <= 4000
    assert thin["step"][1] >= 2
    assert decoded(thin["truth"]).header.get_zooms()[0] == pytest.approx(1.5 * thin["step"][2])


def test_a_damaged_view_is_named(tmp_path):
    (tmp_path / "1.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"1\.npz: not a view of a case"):
        read_view(tmp_path / "1.npz")
