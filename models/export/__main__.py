"""Exports a trained network: weights without code, what rebuilds the method, a model card, and ONNX.

    frugalseg export exps/EXPERIMENT/checkpoint.pt --out my_model
    frugalseg export exps/EXPERIMENT/checkpoint.pt --out my_model --weights ema --onnx
    frugalseg export 100000.pth --dataset chaost2 --modelname dlfcn_res101 --out my_model
    frugalseg export ISIC_checkpoint_last.pth --dataset isic2017 --loss tloss --size-px 128 --out my_model

The folder is written as a whole or not at all. `frugalseg predict` takes it as its --checkpoint. It contains
no paths of this machine and no ids of cases. See docs/export.md.
"""

import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.export.card import write_card
from models.export.network import Network, OfImages, read_network
from models.export.onnx import OPSET, OnnxFile, require_packages, write_onnx
from models.export.scores import find_scores, score_tables
from models.losses import LOSS_TITLES
from models.training.exported import REVIEW
from util.cli import number, run_main, whole
from util.errors import ConfigError, UserError
from util.files import ensure_writable
from util.parser import CommandParser, add_json, print_json
from util.results.confidence import review_rule

logger = logging.getLogger(__name__)

MAIN_OPTIONS = ("out", "weights", "onnx", "scores", "json")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and exports.

    Raises:
        UserError: the checkpoint or the scores cannot be used, the folder exists, or the network has no ONNX.
    """
    given = make_parser().parse_args(arguments)
    if given.out.exists() and (not given.out.is_dir() or any(given.out.iterdir())):
        raise ConfigError(f"--out={given.out}: exists. Choose another folder, or remove it first.")
    if given.onnx:
        require_packages()
    mean_std = None if given.mean_std is None else tuple(given.mean_std)
    network = read_network(
        given.checkpoint, given.weights, dataset=given.dataset, modelname=given.modelname, mean_std=mean_std,
        images=OfImages(given.loss, tuple(given.structures or ()), given.size_px),
    )  # fmt: skip
    scores = find_scores(given.checkpoint, network, given.scores)
    rule = review_rule(scores)
    if rule is not None:
        network.content[REVIEW] = asdict(rule)
    with new_folder(given.out) as folder:
        digest = network.write(folder)
        onnx = None
        if given.onnx:
            onnx = write_onnx(network.method.inference_network(), network.input_shape, folder / "model.onnx")
            _tell(onnx)
        write_card(folder, network, given.checkpoint, digest, score_tables(scores, network), onnx)
    without = ", without scores: none were found" if scores.empty else ""
    logger.info("%s exported to %s%s", network.title, given.out, without)
    if given.json:
        files = sorted(path.name for path in given.out.iterdir())
        print_json({"out": given.out, "files": files} | _about(network, digest, not scores.empty, onnx))


def _about(network: Network, digest: str, has_scores: bool, onnx: OnnxFile | None) -> dict[str, Any]:
    """What was exported, for `--json`."""
    content = network.content
    return {
        "method": network.title,
        "family": network.family,
        "dataset": network.spec.name,
        "weights": content["weights"],
        "step": content["step"],
        "weights_sha256": digest,
        "has_scores": has_scores,
        "onnx": onnx and {"opset": OPSET, **asdict(onnx)},
    }


def _tell(onnx: OnnxFile) -> None:
    text = "ONNX, opset %d, free axes: %s; largest difference to PyTorch %.2g, allowed %.2g"
    logger.info(text, OPSET, onnx.free, onnx.difference, onnx.tolerance)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yields a temporary folder next to `target`, and renames it when the block succeeds; else it is removed.

    Raises:
        UserError: it cannot be written to, or the disk is full.
    """
    temporary = Path(tempfile.mkdtemp(dir=ensure_writable(target.absolute().parent), prefix=".exporting-"))
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.rename(target)
    except OSError as error:
        raise UserError(
            f"{target}: cannot be written ({error.strerror or error}). Free some disk space or choose another --out."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_parser() -> CommandParser:
    """The parser of the command line."""
    parser = CommandParser("export", __doc__ or "", MAIN_OPTIONS)
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="checkpoint.pt, a snapshot, or a file of a paper's authors")
    add("--out", type=Path, required=True, metavar="FOLDER", help="folder to be made")
    add("--weights", choices=("last", "ema"), default="last", help="ema: the averaged ones (default: last)")
    add("--onnx", action="store_true", help="also write the network as model.onnx (requirements-onnx.txt)")
    text = "scores.csv of a validation of these weights (default: the last one in the experiment's folder)"
    add("--scores", type=Path, metavar="FILE", help=text)
    add("--dataset", help="of the training, for checkpoints that do not contain it")
    add("--modelname", help="encoder, such as dlfcn_res101, of checkpoints released by the authors of SSL-ALPNet")
    add("--mean-std", type=number(), nargs=2, metavar=("MEAN", "STD"), help="of their preprocessed training scans; CT")
    add = parser.add_argument_group("files of the authors of superpixel-guided learning and T-Loss").add_argument
    add("--loss", choices=LOSS_TITLES, metavar="NAME", help="of the training: ce, tloss, gce, ...")
    add("--structures", nargs="+", metavar="NAME", help="of the data set (default: its first class)")
    add("--size-px", type=whole(16), metavar="PX", help="side of the prepared images (default: the data set's)")
    add_json(parser)
    return parser


if __name__ == "__main__":
    run_main(main)
