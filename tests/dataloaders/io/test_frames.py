"""NIfTI files with time as fourth axis: frames in and out, with their geometry and time step."""

import gzip

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Header, Nifti1Image

from dataloaders.io import nifti
from dataloaders.io.nifti import read_frames, read_nifti, write_frames
from dataloaders.io.volumes import read_cine
from dataloaders.samples import Volume
from util.errors import DataError

ARRAY = np.arange(5 * 4 * 3 * 2, dtype=np.int16).reshape(5, 4, 3, 2)  # (x, y, z, time)
AFFINE = np.array([[-1.5, 0, 0, 40], [0, 2, 0, -30], [0, 0, 9, 12], [0, 0, 0, 1.0]])


def write(path, array: np.ndarray = ARRAY, unit="mm", scale=None):
    image = Nifti1Image(array, AFFINE)
    image.header.set_xyzt_units(unit, "msec")
    image.header["pixdim"][4] = 42.5
    if scale:
        image.header.set_slope_inter(*scale)
    image.to_filename(path)
    return path


def header_of(path):
    return Nifti1Header(gzip.decompress(path.read_bytes())[:348], check=False)


def test_frames_are_read_in_their_order(tmp_path):
    frames = read_frames(write(tmp_path / "a.nii.gz"))
    assert len(frames) == 2
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.array, ARRAY[..., number].transpose(2, 1, 0))
        assert frame.array.dtype == np.int16
        assert frame.array.flags.c_contiguous
        np.testing.assert_allclose(frame.affine, AFFINE)


@pytest.mark.parametrize("array", [ARRAY[..., 0], ARRAY[..., :1]])
def test_a_scan_without_time_has_one_frame(tmp_path, array):
    path = write(tmp_path / "a.nii", array)
    (frame,) = read_cine(path)
    np.testing.assert_array_equal(frame.array, read_nifti(path).array)


def test_scaling_applies_to_every_frame(tmp_path):
    path = tmp_path / "a.nii"
    content = bytearray(write(path).read_bytes())
    header = Nifti1Header(bytes(content[:348]), check=False)
    header["scl_slope"], header["scl_inter"] = 0.5, 3
    path.write_bytes(header.binaryblock + bytes(content[348:]))
    for number, frame in enumerate(read_frames(path)):
        np.testing.assert_allclose(frame.array, ARRAY[..., number].transpose(2, 1, 0) * 0.5 + 3)


def test_what_cannot_be_read_is_said(tmp_path, monkeypatch):
    path = write(tmp_path / "a.nii")
    with pytest.raises(DataError, match=r"a\.nii: an array of shape \(5, 4, 3, 2\).*expected three dimensions"):
        read_nifti(path)
    with pytest.raises(DataError, match=r"expected \(x, y, z\) or \(x, y, z, time\)"):
        read_frames(write(tmp_path / "b.nii", np.resize(ARRAY, (2, 2, 2, 2, 2))))  # type: ignore[arg-type]
    (tmp_path / "c.nii").write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="truncated, or a damaged header: it asks for 5 x 4 x 3 x 2 voxels"):
        read_frames(tmp_path / "c.nii")
    with pytest.raises(DataError, match=r"gone\.nii: no such file or folder"):
        read_cine(tmp_path / "gone.nii")
    monkeypatch.setattr(nifti, "memory_bytes", lambda: 900)
    with pytest.raises(DataError, match=r"5 x 4 x 3 x 2 voxels of 2 bytes, which need .* GiB"):
        read_frames(path)


@pytest.mark.parametrize("unit", ["mm", "meter"])
def test_results_have_the_geometry_and_the_time_step_of_the_scan(tmp_path, unit):
    path = write(tmp_path / "a.nii.gz", unit=unit)
    if unit == "meter":
        image = Nifti1Image(ARRAY, np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINE)
        image.header.set_xyzt_units("meter", "msec")
        image.header["pixdim"][4] = 42.5
        image.to_filename(path)
    frames = read_frames(path)
    labels = [Volume((frame.array % 3).astype(np.uint8), frame.affine, frame.stored) for frame in frames]
    write_frames(tmp_path / "b.nii.gz", labels, path)
    before, after = header_of(path), header_of(tmp_path / "b.nii.gz")
    assert after.get_xyzt_units() == before.get_xyzt_units() == (unit, "msec")
    assert float(after["pixdim"][4]) == 42.5
    np.testing.assert_allclose(np.asarray(after.get_sform()), np.asarray(before.get_sform()), rtol=1e-6)
    again = read_frames(tmp_path / "b.nii.gz")
    assert [frame.array.dtype for frame in again] == [np.uint8] * 2
    for frame, label in zip(again, labels, strict=True):
        np.testing.assert_array_equal(frame.array, label.array)


def test_a_single_frame_is_written_without_time(tmp_path):
    write_frames(tmp_path / "b.nii.gz", [Volume(ARRAY[..., 0].transpose(2, 1, 0), AFFINE)])
    assert header_of(tmp_path / "b.nii.gz").get_data_shape() == (5, 4, 3)
    write_frames(tmp_path / "c.nii.gz", [Volume(ARRAY[..., 0].transpose(2, 1, 0), AFFINE)] * 2)
    assert header_of(tmp_path / "c.nii.gz").get_data_shape() == (5, 4, 3, 2)
