"""Simulates annotation noise on the training masks of a set of images.

TARGET is the name of a built-in set, the description of your own data, or a prepared folder.

    frugalseg noise isic2017 --alpha 0.3 0.5 0.7 --beta 0.5 0.7 --jobs 8 --picture noise.png
    frugalseg noise isic2017 --import-json FOLDER --name a0.7_b0.7

Writes noisy/<structure>/a0.3_b0.5/<id>.png for every training image (masks without noise are copied), noise.csv with
the noise of each mask, and noise.json with the parameters and the statistics. Results that are up to date are not
computed again. --picture draws clean and noisy outlines, several of each type. --import-json imports noisy masks of the
released code of superpixel-guided learning or T-Loss, a folder of <id>.json.
"""

import argparse
import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data.noise.masks import draw_noisy_masks, write_noise
from data.prepare.import_labels import import_noise, require_name
from data.prepare.steps import add_structures, add_target, open_images, refuse_options, select_structures
from dataloaders.images.derived import noise_of
from dataloaders.images.folder import NOISE_TYPES, ImageFolder, NoiseConfig
from util.cli import number, run_main, whole
from util.errors import ConfigError
from util.items import run_all
from util.parser import CommandParser, add_json, answering

MAIN_OPTIONS = ("data_dir", "jobs", "alpha", "beta", "structure", "types", "picture", "json")
IMPORT_OPTIONS = ("name", "class_name")
MAKING_OPTIONS = ("alpha", "beta", "types", "direction", "variant", "seed", "picture")


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line; writes or imports the noise of every structure."""
    parser = make_parser()
    given = parser.parse_args(arguments)
    if given.part != "train":
        raise ConfigError(
            f"--part {given.part}: noise is simulated on the training masks only, 'train'; all others are needed as "
            "reference and stay unchanged."
        )
    folder = open_images(given.target, given.data_dir, given.dataset, given.size_px)
    if given.import_json is not None:
        refuse_options(given, parser, MAKING_OPTIONS, "not with --import-json")
        with answering(given.json) as answer:
            answer |= _about(folder) | {"noise": [{"folder": _import(given, folder)}]}
        return
    refuse_options(given, parser, IMPORT_OPTIONS, "only with --import-json")
    if given.alpha is None or given.beta is None:
        raise ConfigError("--alpha, --beta: missing; expected both, such as --alpha 0.7 --beta 0.7.")
    more = {"types": tuple(given.types), "direction": given.direction, "variant": given.variant, "seed": given.seed}
    noises = [NoiseConfig(alpha, beta, **more) for alpha, beta in itertools.product(given.alpha, given.beta)]
    settings = list(itertools.product(select_structures(folder.spec, given.structure), noises))

    made: list[dict[str, Any]] = []

    def write(structure: str, noise: NoiseConfig) -> None:
        facts = write_noise(folder, noise, structure, given.jobs)
        about = {"structure": structure, "alpha": noise.alpha, "beta": noise.beta}
        made.append({"folder": noise_of(folder, noise, structure).folder} | about | _snake_case(facts["statistics"]))
        if given.picture:
            stem = given.picture.stem + (f"_{structure}_{noise.name}" if len(settings) > 1 else "")
            draw_noisy_masks(folder, noise, structure, given.picture.with_stem(stem))

    with answering(given.json) as answer:
        answer |= _about(folder) | {"noise": made}
        run_all(partial(write, structure, noise) for structure, noise in settings)


def _about(folder: ImageFolder) -> dict[str, Any]:
    return {"dataset": folder.spec.name, "folder": folder.folder}


def _snake_case(statistics: dict[str, Any]) -> dict[str, Any]:
    return {name.lower(): value for name, value in statistics.items()}


def _import(given: argparse.Namespace, folder: ImageFolder) -> Path:
    structure, *others = select_structures(folder.spec, given.structure)
    if others:
        choices = ", ".join([structure, *others])
        raise ConfigError(f"--structure: expected the one of the imported masks, of {choices}.")
    return import_noise(given.import_json, folder, structure, require_name(given.name, "a0.7_b0.7"), given.class_name)


def make_parser() -> CommandParser:
    """The parser of the command line."""
    parser = CommandParser("noise", __doc__ or "", MAIN_OPTIONS)
    add_target(parser)
    add_structures(parser)
    add, usual = parser.add_argument, NoiseConfig()
    add("--alpha", type=number(), nargs="+", help="fractions of the training images that become noisy")
    add("--beta", type=number(), nargs="+", help="strengths: changed pixels per pixel of the object")
    names = ", ".join(NOISE_TYPES)
    add("--types", nargs="+", default=list(usual.types), metavar="TYPE", help=f"of {names} (default: all)")
    add("--direction", choices=("reference", "uniform8"), default=usual.direction, help="of shifts")
    add("--variant", choices=("reference", "per_image"), default=usual.variant, help="of the seeds")
    add("--seed", type=whole(0), default=usual.seed, help="default: 0")
    add("--part", default="train", help="only train is possible")
    add("--jobs", type=whole(1), default=1, help="processes (default: 1)")
    add("--picture", type=Path, metavar="FILE.png", help="also draw some images with outlines")
    add("--import-json", type=Path, metavar="FOLDER", help="import noisy masks from <id>.json")
    add("--name", help="with --import-json: folder name of the imported masks, such as a0.7_b0.7")
    add("--class-name", help="with --import-json: key of the structure in the files (default: its name)")
    add_json(parser)
    return parser


if __name__ == "__main__":
    run_main(main)
