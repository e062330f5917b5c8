"""From configuration keys to data: the only constructors that training and validation call."""

from dataloaders.fewshot.data import FewShotConfig, FewShotData, open_fewshot
from dataloaders.images.data import DenseConfig, DenseData, open_dense

DataConfig = FewShotConfig | DenseConfig
Data = FewShotData | DenseData

# The keys that each family of methods reads, beside the general ones.
CONFIGS: dict[str, type[FewShotConfig] | type[DenseConfig]] = {"fewshot": FewShotConfig, "dense": DenseConfig}


def open_data(config: DataConfig, data_dir: str, trains_on: str = "given", needs_superpixels: bool = False) -> Data:
    """The prepared data that a configuration names; read when asked for.

    Args:
        config: of either family.
        data_dir: the data root, or the prepared folder itself.
        trains_on: "given" or "clean" labels, for images.
        needs_superpixels: whether batches carry superpixel ids, for images.

    Raises:
        DataError: nothing prepared there.
    """
    if isinstance(config, FewShotConfig):
        return open_fewshot(config, data_dir)
    return open_dense(config, data_dir, trains_on == "clean", needs_superpixels)
