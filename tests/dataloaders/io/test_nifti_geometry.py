"""Headers of NIfTI files: formats, units, codes, quaternions, what cannot be, and the way back into a file."""

import gzip

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from nibabel.nifti1 import Nifti1Header, Nifti1Image, Nifti1Pair
from nibabel.nifti2 import Nifti2Image
from nibabel.spm2analyze import Spm2AnalyzeImage

from dataloaders.io.nifti import geometry_doubts, is_nifti, nifti_stem, pair_of, read_nifti, read_shape, write_nifti
from dataloaders.io.volumes import read_volume
from dataloaders.samples import Volume
from util.errors import DataError

ARRAY = np.arange(24, dtype=np.int16).reshape(4, 3, 2)  # (x, y, z)
AFFINE = np.array([[-1.5, 0, 0, 40], [0, 2, 0, -30], [0, 0, 4, 12], [0, 0, 0, 1.0]])


def write(path, sform_code=1, qform_code=1, unit="mm", scale=1.0, qform=None, kind=Nifti1Image):
    """A file of `ARRAY` at `AFFINE`, in another unit by `scale`."""
    to_unit = np.diag([scale, scale, scale, 1])
    image = kind(ARRAY, to_unit @ AFFINE)
    image.header.set_xyzt_units(unit)
    image.set_sform(to_unit @ AFFINE, sform_code)
    image.set_qform(to_unit @ (AFFINE if qform is None else qform), qform_code)
    image.to_filename(path)
    return path


def header_of(path):
    return Nifti1Header(gzip.decompress(path.read_bytes())[:348], check=False)


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1.0), ("unknown", 1.0), ("meter", 1e-3), ("micron", 1e3)])
def test_every_unit_becomes_millimetres_and_comes_back(tmp_path, unit, scale):
    volume = read_nifti(write(tmp_path / "a.nii", unit=unit, scale=scale))
    np.testing.assert_allclose(volume.affine, AFFINE, rtol=1e-6)
    write_nifti(tmp_path / "b.nii.gz", volume)
    again = read_nifti(tmp_path / "b.nii.gz")
    np.testing.assert_allclose(again.affine, AFFINE, rtol=1e-6)
    first, second = (sitk.ReadImage(str(tmp_path / name)) for name in ("a.nii", "b.nii.gz"))
    np.testing.assert_allclose(second.GetOrigin(), first.GetOrigin(), rtol=1e-6)
    np.testing.assert_allclose(second.GetSpacing(), first.GetSpacing(), rtol=1e-6)


def test_an_unknown_code_of_the_unit_is_the_millimetre(tmp_path):
    content = bytearray(write(tmp_path / "a.nii").read_bytes())
    content[123] = 7
    (tmp_path / "a.nii").write_bytes(content)
    np.testing.assert_allclose(read_nifti(tmp_path / "a.nii").affine, AFFINE, rtol=1e-6)


@pytest.mark.parametrize("codes", [(0, 0), (0, 1), (1, 0), (2, 1), (4, 1), (1, 1)])
def test_codes_and_matrices_come_back_as_they_were(tmp_path, codes, caplog):
    moved = AFFINE + np.eye(4, k=3) * 7
    path = write(tmp_path / "a.nii", *codes, qform=moved)
    volume = read_volume(path)
    write_nifti(tmp_path / "b.nii.gz", volume)
    first, second = Nifti1Header(path.read_bytes()[:348]), header_of(tmp_path / "b.nii.gz")
    for field in ("sform_code", "qform_code", "pixdim", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "srow_x"):
        np.testing.assert_array_equal(second[field], first[field])
    np.testing.assert_array_equal(read_nifti(tmp_path / "b.nii.gz").affine, volume.affine)
    warned = "a.nii: sform (code 2) and qform (code 1) differ by up to 7 mm" in caplog.text
    assert warned == (codes == (2, 1))
    assert ("does not say how the scan lies in the patient" in caplog.text) == (codes == (0, 0))


def test_matrices_that_agree_are_no_doubt(tmp_path):
    for codes in ((1, 1), (2, 1), (1, 0), (0, 1)):
        assert geometry_doubts(read_nifti(write(tmp_path / "a.nii", *codes))) == []
    assert read_nifti(write(tmp_path / "a.nii")).stored is None


def test_a_changed_grid_does_not_inherit_the_header(tmp_path):
    volume = read_nifti(write(tmp_path / "a.nii", 0, 0))
    write_nifti(tmp_path / "b.nii.gz", Volume(volume.array[:, 1:], AFFINE))
    assert (header_of(tmp_path / "b.nii.gz")["sform_code"], header_of(tmp_path / "b.nii.gz")["qform_code"]) == (1, 1)


def with_quaternion(path, *bcd):
    content = bytearray(write(path, 0, 1).read_bytes())
    content[256:268] = np.array(bcd, np.float32).tobytes()
    path.write_bytes(content)
    return path


def test_a_quaternion_rounded_above_one_is_a_half_turn_as_in_itk(tmp_path):
    path = with_quaternion(tmp_path / "a.nii", 0.6000012, 0.8000016, 0)
    volume = read_nifti(path)
    image = sitk.ReadImage(str(path))
    lps = image.TransformContinuousIndexToPhysicalPoint([3.0, 2.0, 1.0])
    np.testing.assert_allclose(np.multiply(lps, [-1, -1, 1]), (volume.affine @ [3, 2, 1, 1])[:3], atol=1e-4)


def test_a_quaternion_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.nii: a damaged header \(quaternion of length 5\)"):
        read_nifti(with_quaternion(tmp_path / "a.nii", 3, 4, 0))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_2_is_read(tmp_path, name):
    volume = read_nifti(write(tmp_path / name, kind=Nifti2Image))
    np.testing.assert_array_equal(volume.array, ARRAY.T)
    np.testing.assert_array_equal(volume.affine, AFFINE)


@pytest.mark.parametrize("kind", [Nifti1Pair, Spm2AnalyzeImage])
@pytest.mark.parametrize("named", ["a.img", "a.hdr"])
def test_pairs_are_read_by_either_name(tmp_path, kind, named, caplog):
    kind(ARRAY, AFFINE).to_filename(tmp_path / "a.img")
    volume = read_volume(tmp_path / named)
    np.testing.assert_array_equal(volume.array, ARRAY.T)
    assert volume.spacing_mm == (4, 2, 1.5)
    assert ("does not say how the scan lies" in caplog.text) == (kind is Spm2AnalyzeImage)
    assert [is_nifti(tmp_path / name) for name in ("a.hdr", "a.img")] == [True, False]
    assert pair_of(tmp_path / named) == (tmp_path / "a.hdr", tmp_path / "a.img")


def test_half_a_pair_is_named(tmp_path):
    Nifti1Pair(ARRAY, AFFINE).to_filename(tmp_path / "a.img")
    (tmp_path / "a.img").rename(tmp_path / "b.img")
    with pytest.raises(DataError, match=r"a\.hdr: the header of a pair; expected the voxels in a\.img"):
        read_nifti(tmp_path / "a.hdr")
    with pytest.raises(DataError, match=r"b\.img: not a NIfTI file|b\.img: truncated"):
        read_nifti(tmp_path / "b.img")
    assert not is_nifti(tmp_path / "a.hdr")


def test_names_of_nifti_files(tmp_path):
    assert [is_nifti(tmp_path / name) for name in ("a.nii", "A.NII.GZ", "a.img", "a.hdr", "a.mha")] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert [nifti_stem(tmp_path / name) for name in ("a.b.nii.gz", "a.NII", "a.hdr", "a.mha")] == [
        "a.b", "a", "a", "a.mha",
    ]  # fmt: skip


def test_the_shape_comes_from_the_header_alone(tmp_path):
    path = write(tmp_path / "a.nii")
    path.write_bytes(path.read_bytes()[:352])
    assert read_shape(path) == (2, 3, 4)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "dim",
            [3, 30_000, 30_000, 30_000, 1, 1, 1, 1],
            r"asks for 30000 x 30000 x 30000 .*the file has 400 bytes",
        ),
        ("dim", [3, 4, 0, 2, 1, 1, 1, 1], r"shape \(4, 0, 2\).*1 to 32767 voxels per axis"),
        ("dim", [3, 4, -3, 2, 1, 1, 1, 1], r"shape \(4, -3, 2\)"),
        ("dim", [2, 4, 6, 1, 1, 1, 1, 1], "three dimensions"),
        ("vox_offset", 1e30, r"truncated, or a damaged header: .* from byte 10000000\d+"),
        ("vox_offset", np.nan, r"byte nan \(vox_offset\)"),
        ("vox_offset", -8, r"byte -8 \(vox_offset\)"),
        ("datatype", 128, "voxels that are colours"),
        ("datatype", 32, "voxels that are complex numbers"),
        ("datatype", 77, "unknown type 77"),
        ("srow_x", [1e-30, 0, 0, 0], r"voxels of 1e-30 x .* expected sizes from 0\.0001 to 1000 mm"),
        ("srow_x", [1e30, 0, 0, 0], r"voxels of 1e\+30"),
        ("srow_x", [1.5, 0, 0, 1e9], r"within 1e\+06 mm"),
        ("srow_x", [np.nan, 0, 0, 0], "cannot be inverted"),
        ("srow_x", [0, 0, 4, 0], "cannot be inverted"),
    ],
)
def test_impossible_headers_are_refused_before_anything_is_allocated(tmp_path, field, value, message):
    path = write(tmp_path / "a.nii")
    header = Nifti1Header(path.read_bytes()[:348], check=False)
    header[field] = value
    path.write_bytes(header.binaryblock + path.read_bytes()[348:])
    with pytest.raises(DataError, match=rf"a\.nii: .*{message}"):
        read_nifti(path)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float16, np.longdouble, np.uint32])
def test_every_number_type_is_written_with_its_values(tmp_path, dtype):
    array = np.array([0, 7, 40_000 if dtype != np.float16 else 4096], dtype).reshape(1, 1, 3)
    write_nifti(tmp_path / "a.nii.gz", Volume(array, AFFINE))
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii.gz").array, array)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nii.gz"))), array)


def test_whole_numbers_of_64_bits_are_narrowed_where_they_fit(tmp_path):
    for values, dtype in (([-1040, 260], np.int16), ([0, 65_535], np.uint16), ([-70_000, 0], np.int32)):
        write_nifti(tmp_path / "a.nii.gz", Volume(np.array(values, np.int64).reshape(1, 1, 2), AFFINE))
        assert read_nifti(tmp_path / "a.nii.gz").array.dtype == dtype
    write_nifti(tmp_path / "a.nii.gz", Volume(np.array([0, 2**40]).reshape(1, 1, 2), AFFINE))
    assert read_nifti(tmp_path / "a.nii.gz").array.max() == 2**40
