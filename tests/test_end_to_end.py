"""From the raw files of a phantom to a table, with the commands that a user types."""

import numpy as np
import pandas as pd
import pytest

import training  # noqa: F401 - registers its command
import validation  # noqa: F401
from config_ssl_upload import ex
from data.check import check_folder
from data.phantom import write_phantom
from data.prepare.__main__ import main
from data.superpixels import scans as superpixels
from dataloaders import catalog
from dataloaders.io.nifti import read_nifti

SMALL = {
    "modelname": "resnet18",
    "encoder_weights": "none",
    "num_workers": 0,
    "device": "cpu",
    "label_sets": "all",
    "superpix_scale": "SMALL",
    "print_interval": 20,
    "optim": {"lr": 5e-3},
}


def run(command, data, logs, *named, **changes):
    paths = {"path": {"data_dir": str(data), "log_dir": str(logs)}}
    ex.run(command, named_configs=named, config_updates=paths | changes)


def mean_dice(logs, method, protocol):
    scores = pd.concat([pd.read_csv(file) for file in logs.rglob("scores.csv")])
    return scores.query("method == @method and protocol == @protocol and metric == 'dice'")["value"].mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "scans", "size_px", "steps"), [("chaost2", 7, 96, 160), ("sabs", 9, 64, 4)], ids=["chaost2", "sabs"]
)
def test_from_raw_files_to_the_table(tmp_path, name, scans, size_px, steps):
    raw, data, logs = tmp_path / "raw", tmp_path / "data", tmp_path / "logs"
    spec = catalog.dataset(name)
    write_phantom(name, raw, n_scans=scans, size_px=size_px)
    main([name, f"--raw={raw}", f"--out={data}", f"--size-px={size_px}"])
    folder = data / spec.prepared_folder()
    superpixels.write_pseudo_labels(folder, spec, "SMALL")
    assert [finding for finding in check_folder(folder, spec, "SMALL", 0) if finding.severity == "error"] == []

    run("train", data, logs, "alpnet", name, n_steps=steps, **SMALL)
    run("validate", data, logs, "alpnet", name, n_steps=steps, **SMALL)
    quick = {"protocol": "reference", "surface_scores": False, "save_predictions": False}
    run("validate", data, logs, "alpnet", name, n_steps=steps, reload_model_path="none", **SMALL, **quick)
    run("validate", data, logs, "threshold", name, label_sets="all", num_workers=0, **quick)
    run("collect", data, logs)
    table = (logs / "table.md").read_text()
    for method in ("SSL-ALPNet", "SSL-ALPNet untrained", "threshold"):
        assert f"| {method} | {spec.name} | 1 | reference |" in table

    if steps > 100:  # long enough to have learned something
        trained, untrained = (mean_dice(logs, method, "reference") for method in ("SSL-ALPNet", "SSL-ALPNet untrained"))
        assert trained > untrained + 0.1
    masks = next(logs.glob("SSL-ALPNet*/validation/1/predictions/blind/original_grid"))
    scan = spec.cases[0]
    original = read_nifti(next(data.glob(f"{spec.name}/niis/**/image_{scan}.nii.gz")))
    mask = read_nifti(masks / f"scan_{scan}_label_{spec.evaluated[0]}.nii.gz")
    assert mask.array.shape == original.array.shape
    np.testing.assert_allclose(mask.affine, original.affine, atol=1e-4)
