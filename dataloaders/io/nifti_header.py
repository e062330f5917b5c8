"""Headers of NIfTI and Analyze files: type and number of the voxels, and how the file says where they are."""

from dataclasses import dataclass

import numpy as np
from nibabel.analyze import AnalyzeHeader
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.quaternions import fillpositive, quat2mat
from nibabel.spatialimages import HeaderDataError
from nibabel.spm2analyze import Spm2AnalyzeHeader
from nibabel.wrapstruct import WrapStructError

from dataloaders.samples import StoredGeometry
from util.errors import DataError

HEADER_BYTES = 540  # of the longest header, NIfTI-2
UNITS_MM = {1: ("meter", 1000.0), 2: ("mm", 1.0), 3: ("micron", 0.001)}  # code -> name, length
UNIT_CODES = {name: code for code, (name, _) in UNITS_MM.items()}
TIME_BITS = 0b111000  # of `xyzt_units`
KNOWN_CODES = range(1, 6)  # of sform and qform; 0 and all others say that the matrix is not valid
MOST_PER_AXIS = 32_767  # the largest axis of NIfTI-1, in which results are written
SPACING_RANGE_MM = (1e-4, 1e3)
FARTHEST_MM = 1e6  # of the first voxel from the origin
ROUNDING = 3 * float(np.finfo(np.float32).eps)  # of a quaternion in float32
LONGEST_QUATERNION = 1.005  # of b, c, d; rounding makes them slightly longer than 1
SAME_MM = 1e-3  # by which corners may differ for two matrices to be the same


@dataclass(frozen=True)
class Header:
    """What a header says.

    Attributes:
        format: in words.
        is_pair: whether the voxels are in a file of their own.
        shape: (x, y, z, ...).
        dtype: of the stored voxels, with their byte order.
        offset: bytes before the first voxel.
        scale: slope and intercept; (1, 0): none.
        affine: (4, 4) float64, voxel (x, y, z, 1) to RAS+ millimetres: sform, else qform, else voxel sizes alone.
        stored: the fields that say so; None where `write_nifti` would write the same.
        frame_step: time between frames, in the unit of time; 0: not given.
        time_code: NIfTI's code of the unit of time; 0: not given.
    """

    format: str
    is_pair: bool
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    scale: tuple[float, float]
    affine: np.ndarray
    stored: StoredGeometry | None
    frame_step: float = 0.0
    time_code: int = 0

    @property
    def n_frames(self) -> int:
        """Length of the fourth axis, time."""
        return self.shape[3] if len(self.shape) > 3 else 1

    @property
    def n_bytes(self) -> int:
        """Size of all voxels, as stored."""
        return self.n_voxels * self.dtype.itemsize

    @property
    def n_voxels(self) -> int:
        """Number of voxels; Python's integers do not overflow."""
        number = 1
        for length in self.shape:
            number *= length
        return number


def parse_header(block: bytes) -> Header:
    """Interprets the first bytes of a NIfTI-1, NIfTI-2 or Analyze file.

    Args:
        block: the first `HEADER_BYTES`, or fewer of a short file.

    Raises:
        DataError: neither of these formats, or values that cannot be; the message does not name the file.
    """
    try:
        with np.errstate(all="ignore"):
            return _interpret(_header_of(block))
    except DataError:
        raise
    except (HeaderDataError, WrapStructError, KeyError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"a damaged header ({reason}); copy or make the file again.") from error


def _header_of(block: bytes) -> AnalyzeHeader:
    for kind, size in ((Nifti1Header, 348), (Nifti2Header, 540), (Spm2AnalyzeHeader, 348)):
        if kind.may_contain_header(block):
            return kind(block[:size], check=False)
    if len(block) < 348:
        raise DataError(f"truncated: {len(block)} bytes, and a NIfTI header has 348. Copy or make the file again.")
    raise DataError(
        f"not a NIfTI file: it begins with {block[:4]!r}; expected a NIfTI-1, NIfTI-2 or Analyze header. Copy it "
        "again, or convert it."
    )


def _interpret(header: AnalyzeHeader) -> Header:
    is_nifti = isinstance(header, Nifti1Header)
    if not 1 <= int(header["dim"][0]) <= 7:
        raise DataError(f"a damaged header ({int(header['dim'][0])} axes); expected 3. Copy or make the file again.")
    shape = tuple(int(length) for length in header.get_data_shape())
    if any(not 0 < length <= MOST_PER_AXIS for length in shape):
        raise DataError(
            f"an array of shape {shape} (x, y, z, ...); expected 1 to {MOST_PER_AXIS} voxels per axis. Copy or make "
            "the file again."
        )
    is_pair = not is_nifti or header["magic"].item()[:2] == b"ni"
    slope, intercept = header.get_slope_inter()
    stored, base = _stored_geometry(header), header.get_best_affine() if not is_nifti else header.get_base_affine()
    affine = affine_of(stored, np.asarray(base, np.float64) * _scale(stored))
    _check_affine(affine)
    return Header(
        format="Analyze" if not is_nifti else "NIfTI-2" if isinstance(header, Nifti2Header) else "NIfTI-1",
        is_pair=is_pair,
        shape=shape,
        dtype=_dtype_of(header),
        offset=_offset(header, is_pair),
        scale=(1.0 if slope is None else slope, 0.0 if intercept is None else intercept),
        affine=affine,
        stored=None if _is_usual(stored, affine, shape) else stored,
        frame_step=max(0.0, float(np.nan_to_num(header["pixdim"][4], posinf=0.0))) if is_nifti else 0.0,
        time_code=int(header["xyzt_units"]) & TIME_BITS if is_nifti else 0,
    )


def _dtype_of(header: AnalyzeHeader) -> np.dtype:
    try:
        dtype = header.get_data_dtype()
    except KeyError:
        raise DataError(
            f"voxels of the unknown type {int(header['datatype'])}; expected numbers. Copy or make the file again."
        ) from None
    if dtype.kind not in "iuf" or not dtype.itemsize:
        found = "colours" if dtype.names else "complex numbers" if dtype.kind == "c" else f"type {dtype}"
        raise DataError(f"voxels that are {found}; expected one real number per voxel. Extract a single channel first.")
    return dtype


def _offset(header: AnalyzeHeader, is_pair: bool) -> int:
    """Bytes before the first voxel.

    Raises:
        DataError: impossible.
    """
    offset = float(header["vox_offset"])
    first = 0 if is_pair else 544 if isinstance(header, Nifti2Header) else 352
    if not (np.isfinite(offset) and offset >= 0 and (offset == 0 or offset >= first)):
        raise DataError(
            f"voxels at byte {offset:g} (vox_offset); expected {first} or more. Copy or make the file again."
        )
    return max(int(offset), first)


def _stored_geometry(header: AnalyzeHeader) -> StoredGeometry:
    pixdim = tuple(float(value) for value in header["pixdim"][:4])
    if not isinstance(header, Nifti1Header):
        return StoredGeometry(0, 0, "mm", pixdim, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), ((0.0,) * 4,) * 3)
    return StoredGeometry(
        sform_code=int(header["sform_code"]),
        qform_code=int(header["qform_code"]),
        unit=UNITS_MM.get(int(header["xyzt_units"]) & 7, ("mm", 1.0))[0],
        pixdim=pixdim,
        quaternion=tuple(float(header[f"quatern_{letter}"]) for letter in "bcd"),
        qoffset=tuple(float(header[f"qoffset_{letter}"]) for letter in "xyz"),
        sform=tuple(tuple(float(value) for value in header[f"srow_{letter}"]) for letter in "xyz"),
    )


def _scale(stored: StoredGeometry) -> np.ndarray:
    """(4, 1), from the header's unit to millimetres."""
    length_mm = UNITS_MM[UNIT_CODES[stored.unit]][1]
    return np.array([[length_mm], [length_mm], [length_mm], [1.0]])


def affine_of(stored: StoredGeometry, without_codes: np.ndarray) -> np.ndarray:
    """(4, 4) in millimetres: the sform where it is valid, else the qform, else `without_codes`.

    Raises:
        DataError: the qform is needed and cannot be computed.
    """
    if stored.sform_code in KNOWN_CODES:
        return _sform(stored)
    return _qform(stored) if stored.qform_code in KNOWN_CODES else without_codes


def _sform(stored: StoredGeometry) -> np.ndarray:
    return np.array([*stored.sform, (0.0, 0.0, 0.0, 1.0)]) * _scale(stored)


def _qform(stored: StoredGeometry) -> np.ndarray:
    """The affine of the quaternion; b, c, d that are slightly longer than 1 are a half turn, as in ITK and FSL.

    Raises:
        DataError: no quaternion.
    """
    quaternion = np.array(stored.quaternion)
    length = float(np.linalg.norm(quaternion))
    if not length <= LONGEST_QUATERNION:
        raise DataError(
            f"a damaged header (quaternion of length {length:.4g}); expected at most 1. Copy or make the file again."
        )
    if 1 - length**2 < -ROUNDING:
        quaternion /= length
    size = np.abs(stored.pixdim[1:]) * [1, 1, -1 if stored.pixdim[0] == -1 else 1]
    affine = np.eye(4)
    affine[:3, :3] = quat2mat(fillpositive(quaternion, ROUNDING)) @ np.diag(size)
    affine[:3, 3] = stored.qoffset
    return affine * _scale(stored)


def disagreement_mm(stored: StoredGeometry, shape: tuple[int, ...]) -> float:
    """Largest distance of a corner voxel between sform and qform; 0 where only one of them is valid.

    Args:
        stored: of the header.
        shape: (x, y, z).
    """
    if not {stored.sform_code, stored.qform_code} <= set(KNOWN_CODES):
        return 0.0
    corners = np.array([[x, y, z, 1] for x in (0, shape[0] - 1) for y in (0, shape[1] - 1) for z in (0, shape[2] - 1)])
    try:
        difference = _sform(stored) - _qform(stored)
    except DataError:
        return float("inf")
    return float(np.linalg.norm(corners @ difference.T, axis=1).max())


def is_sheared(affine: np.ndarray) -> bool:
    """Whether the axes are not at right angles, so that no quaternion describes them."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return not np.allclose(axes.T @ axes, np.eye(3), atol=1e-5)


def _is_usual(stored: StoredGeometry, affine: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether `write_nifti` would write the same: code 1, millimetres, and both matrices alike unless sheared."""
    if stored.unit != "mm" or stored.sform_code != 1 or len(shape) < 3:
        return False
    if is_sheared(affine):
        return stored.qform_code == 0
    return stored.qform_code == 1 and disagreement_mm(stored, shape[:3]) < SAME_MM


def _check_affine(affine: np.ndarray) -> None:
    axes = affine[:3, :3]
    sizes = np.linalg.norm(axes, axis=0)
    low, high = SPACING_RANGE_MM
    if not np.isfinite(affine).all() or abs(np.linalg.det(axes / np.where(sizes > 0, sizes, 1))) < 1e-6:
        raise DataError(
            f"the header's affine {affine[:3].round(3).tolist()} cannot be inverted; expected three axes of positive "
            "voxel size. Convert the scan again, or correct the header."
        )
    if sizes.min() < low or sizes.max() > high or np.abs(affine[:3, 3]).max() > FARTHEST_MM:
        raise DataError(
            f"voxels of {' x '.join(f'{size:.3g}' for size in sizes)} mm, the first at "
            f"{np.array2string(affine[:3, 3], precision=4)} mm; expected sizes from {low:g} to {high:g} mm within "
            f"{FARTHEST_MM:g} mm. Correct unit, voxel size and position in the header, or convert the scan again."
        )


def write_geometry(header: Nifti1Header, stored: StoredGeometry) -> None:
    """Sets the fields of a header that say where the voxels are, exactly as they were read."""
    header["sform_code"], header["qform_code"] = stored.sform_code, stored.qform_code
    header["xyzt_units"] = UNIT_CODES[stored.unit]
    header["pixdim"][:4] = stored.pixdim
    for letter, value in zip("bcd", stored.quaternion, strict=True):
        header[f"quatern_{letter}"] = value
    for letter, offset, row in zip("xyz", stored.qoffset, stored.sform, strict=True):
        header[f"qoffset_{letter}"], header[f"srow_{letter}"] = offset, row
