"""Names of NIfTI files, and which two files make a pair."""

from pathlib import Path

HEADER_SUFFIXES = (".hdr", ".hdr.gz")
VOXEL_SUFFIXES = (".img", ".img.gz")
SINGLE_SUFFIXES = (".nii", ".nii.gz")


def is_nifti(path: Path) -> bool:
    """Whether a file's name is that of one NIfTI scan: `*.nii`, `*.nii.gz`, or the header of a pair.

    The voxels of a pair, `*.img`, are not: the header next to them stands for both.
    """
    name = path.name.lower()
    if name.endswith(HEADER_SUFFIXES):
        return pair_of(path) is not None
    return name.endswith(SINGLE_SUFFIXES)


def nifti_stem(path: Path) -> str:
    """The name of a file without the suffix of NIfTI; other suffixes are kept."""
    suffixes = (*SINGLE_SUFFIXES, *HEADER_SUFFIXES, *VOXEL_SUFFIXES)
    found = max((suffix for suffix in suffixes if path.name.lower().endswith(suffix)), key=len, default="")
    return path.name[: len(path.name) - len(found)]


def pair_of(path: Path) -> tuple[Path, Path] | None:
    """Header and voxels of the pair (`*.hdr`, `*.img`) to which a file belongs; None where it has no partner."""
    own, others = (HEADER_SUFFIXES, VOXEL_SUFFIXES)
    is_header = path.name.lower().endswith(own)
    if not is_header and not path.name.lower().endswith(others):
        return None
    wanted = [f"{nifti_stem(path)}{suffix}".lower() for suffix in (others if is_header else own)]
    partners = [each for each in path.parent.iterdir() if each.name.lower() in wanted] if path.exists() else []
    exact = [each for each in partners if nifti_stem(each) == nifti_stem(path)] or partners
    if not exact:
        return None
    return (path, min(exact)) if is_header else (min(exact), path)
