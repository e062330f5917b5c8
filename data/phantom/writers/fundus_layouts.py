"""Where seven sets of fundus photographs keep which files, and with which cameras they were taken."""

from collections.abc import Callable
from dataclasses import dataclass

from data.phantom.bodies.eye import LESIONS
from data.phantom.devices.fundus_camera import FundusCamera

IMAGE, FIELD, DISC_CUP, SECOND = "image", "field", "disc_cup", "second"  # what files show, besides single structures
STARE_NUMBERS = (1, 2, 3, 4, 5, 44, 77, 81, 82, 139, 162, 163, 235, 236, 239, 240, 255, 291, 319, 324)
IDRID_MASKS = {
    "MA": ("1. Microaneurysms", "MA"),
    "HE": ("2. Haemorrhages", "HE"),
    "EX": ("3. Hard Exudates", "EX"),
    "SE": ("4. Soft Exudates", "SE"),
    "disc": ("5. Optic Disc", "OD"),
}
CYCLE = ("train", "train", "valid", "test")  # parts of the images, in turn

Files = dict[str, str]  # path below the download -> what the file shows


@dataclass(frozen=True)
class FundusLayout:
    """A set of fundus photographs as it is downloaded.

    Attributes:
        eyes: seeds the patients; sets with the same word show the same eyes.
        n_published: number of photographs.
        folders: that are created in the output folder.
        files: place of an image in the set, from 0 -> its files.
        cameras: take the images in turn.
        camera_of: place -> number of the camera; None: in turn.
        lacks: place -> lesions that the eye has none of.
        is_square: photographs are squeezed to a square.
        has_palette: masks are palette images of black and red.
    """

    eyes: str
    n_published: int
    folders: tuple[str, ...]
    files: Callable[[int], Files]
    cameras: tuple[FundusCamera, ...]
    camera_of: Callable[[int], int] | None = None
    lacks: Callable[[int], tuple[str, ...]] = lambda index: ()
    is_square: bool = False
    has_palette: bool = False

    def camera(self, index: int) -> FundusCamera:
        """The camera of an image."""
        number = index if self.camera_of is None else self.camera_of(index)
        return self.cameras[number % len(self.cameras)]


def _ddr(index: int) -> Files:
    part, name = CYCLE[index % 4], f"007-{index + 1:04d}-000"
    labels = "segmentation label" if part == "valid" else "label"
    root = f"lesion_segmentation/{part}"
    return {f"{root}/image/{name}.jpg": IMAGE} | {f"{root}/{labels}/{kind}/{name}.tif": kind for kind in LESIONS}


def _idrid_number(index: int) -> tuple[bool, int]:
    """Whether an image is in the test part, every third one, and its published number."""
    return (True, 55 + index // 3) if index % 3 == 2 else (False, 1 + index - index // 3)


def _idrid_lacks(index: int) -> tuple[str, ...]:
    return ("SE",) if index % 4 == 3 else ()


def _idrid(index: int) -> Files:
    is_tested, number = _idrid_number(index)
    part = "b. Testing Set" if is_tested else "a. Training Set"
    files = {f"A. Segmentation/1. Original Images/{part}/IDRiD_{number:02d}.jpg": IMAGE}
    for kind, (folder, suffix) in IDRID_MASKS.items():
        if kind not in _idrid_lacks(index):
            root = f"A. Segmentation/2. All Segmentation Groundtruths/{part}/{folder}"
            files[f"{root}/IDRiD_{number:02d}_{suffix}.tif"] = kind
    return files


def _reta(index: int) -> Files:
    """Vessels of the test part are withheld."""
    is_tested, number = _idrid_number(index)
    files = {f"images/IDRiD_{number:02d}.jpg": IMAGE}
    return files if is_tested else files | {f"vessels/IDRiD_{number:02d}_vessel.png": "vessel"}


def _refuge(index: int) -> Files:
    part, number = CYCLE[index % 4], index // 4 + 1
    if part == "train":
        name, group = (f"g{number:04d}", "Glaucoma") if index % 4 == 0 else (f"n{number:04d}", "Non-Glaucoma")
        maps = f"Annotation-Training400/Disc_Cup_Masks/{group}"
        return {f"Training400/{group}/{name}.jpg": IMAGE, f"{maps}/{name}.bmp": DISC_CUP}
    letter, images, maps = {
        "valid": ("V", "REFUGE-Validation400", "REFUGE-Validation400-GT/Disc_Cup_Masks"),
        "test": ("T", "Test400", "REFUGE-Test-GT/Disc_Cup_Masks/N"),
    }[part]
    return {f"{images}/{letter}{number:04d}.jpg": IMAGE, f"{maps}/{letter}{number:04d}.bmp": DISC_CUP}


def _drive(index: int) -> Files:
    part, number = ("test", 1 + index // 2) if index % 2 else ("training", 21 + index // 2)
    files = {
        f"{part}/images/{number:02d}_{part}.tif": IMAGE,
        f"{part}/mask/{number:02d}_{part}_mask.gif": FIELD,
        f"{part}/1st_manual/{number:02d}_manual1.gif": "vessel",
    }
    return files if part == "training" else files | {f"test/2nd_manual/{number:02d}_manual2.gif": SECOND}


def _stare(index: int) -> Files:
    name = f"im{STARE_NUMBERS[index]:04d}"
    return {
        f"stare-images/{name}.ppm.gz": IMAGE,
        f"labels-vk/{name}.vk.ppm.gz": "vessel",
        f"labels-ah/{name}.ah.ppm.gz": SECOND,
    }


def _aria(index: int) -> Files:
    group = f"aria_{'acd'[index % 3]}"
    name = f"{group}_{index // 3 + 1}_1"
    return {
        f"{group}_markups/{name}.tif": IMAGE,
        f"{group}_markup_vessel/{name}_BSS.tif": "vessel",
        f"{group}_markup_vessel/{name}_BDP.tif": SECOND,
    }


IDRID_CAMERA = FundusCamera(4288 / 2848, 1.2, (1.0, 0.92, 0.75), vignette=0.3)
ZEISS, CANON = FundusCamera(2124 / 2056, 0.97, (0.82, 0.95, 1.1)), FundusCamera(1.0, 0.94, (1.08, 0.9, 0.8))
LAYOUTS = {
    "ddr": FundusLayout(
        eyes="ddr",
        n_published=757,
        folders=("lesion_segmentation",),
        files=_ddr,
        cameras=(
            FundusCamera(1.0, 0.96, (1.02, 0.8, 0.6)),
            FundusCamera(1.5, 1.0, (0.95, 0.85, 0.7), blur_mm=0.05),
            FundusCamera(1.25, 1.1, (1.0, 0.75, 0.65), noise=0.018),
        ),
    ),
    "idrid": FundusLayout(
        "idrid", 81, ("A. Segmentation",), _idrid, (IDRID_CAMERA,), lacks=_idrid_lacks, has_palette=True
    ),
    "refuge": FundusLayout(
        eyes="refuge",
        n_published=1200,
        folders=(
            *("Training400", "Annotation-Training400", "REFUGE-Validation400", "REFUGE-Validation400-GT"),
            *("Test400", "REFUGE-Test-GT"),
        ),
        files=_refuge,
        cameras=(ZEISS, CANON),
        camera_of=lambda index: int(CYCLE[index % 4] != "train"),
    ),
    "reta": FundusLayout(
        "idrid", 81, ("images", "vessels"), _reta, (IDRID_CAMERA,), lacks=_idrid_lacks, is_square=True
    ),
    "drive": FundusLayout(
        "drive", 40, ("training", "test"), _drive, (FundusCamera(565 / 584, 0.95, (1.08, 1.0, 0.95)),)
    ),
    "stare": FundusLayout(
        eyes="stare",
        n_published=len(STARE_NUMBERS),
        folders=("stare-images", "labels-vk", "labels-ah"),
        files=_stare,
        cameras=(FundusCamera(700 / 605, 1.08, (1.0, 1.1, 0.7), blur_mm=0.06, noise=0.02),),
    ),
    "aria": FundusLayout(
        eyes="aria",
        n_published=143,
        folders=tuple(f"aria_{group}_{kind}" for group in "acd" for kind in ("markups", "markup_vessel")),
        files=_aria,
        cameras=(FundusCamera(768 / 576, 0.98, (0.9, 0.7, 0.5), blur_mm=0.05, vignette=0.35),),
    ),
}
