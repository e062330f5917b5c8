import ast
import re
import shutil
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from data.phantom import write_phantom
from data.prepare.scans import convert, normalise
from dataloaders.catalog import dataset
from dataloaders.scans.preprocess import parameters_of

ROOT = Path(__file__).parents[1]
SIZE_PX = 64
MR = "CHAOST2/chaos_MR_T2_normalized"
CT = "SABS/sabs_CT_normalized"

# Notebook -> whose scans it runs on ("": it makes its own), its parameters besides RAW and OUT, what it must write
# below OUT, and the number of its pictures. Those of examples/ take fewer steps here than by default.
NOTEBOOKS = {
    "data/CHAOST2/png_gth_to_nii": ("CHAOST2", {"SCAN": 2}, ["CHAOST2/niis/T2SPIR/label_2.nii.gz"], 1),
    "data/CHAOST2/image_normalize": ("CHAOST2", {"SCAN": 2, "SIZE_PX": SIZE_PX}, [f"{MR}/image_2.nii.gz"], 1),
    "data/CHAOST2/class_slice_index_gen": ("CHAOST2", {"MIN_TP": 5}, [f"{MR}/classmap_5.json"], 1),
    "data/SABS/intensity_normalization": ("SABS", {"SCAN": 1}, ["SABS/niis/image_1.nii.gz"], 1),
    "data/SABS/resampling_and_roi": ("SABS", {"SCAN": 1, "SIZE_PX": SIZE_PX}, [f"{CT}/label_1.nii.gz"], 1),
    "data/SABS/class_slice_index_gen": ("SABS", {"MIN_TP": 1}, [f"{CT}/classmap_1.json"], 1),
    "data/pseudolabel_gen": ("CHAOST2", {"DATASET": "chaost2", "SCALE": "SLIC"}, [f"{MR}/superpix-SLIC_1.nii.gz"], 1),
    "examples/fewshot": ("", {"SIZE_PX": SIZE_PX}, ["exps/*/validation/1/report.html"], 1),
    "examples/noisy_labels": ("", {"N_IMAGES": 12, "N_STEPS": 6}, ["curves.png", "exps/*/progress.png"], 3),
    "examples/partial_labels": ("", {"N_IMAGES": 4, "N_STEPS": 6}, ["pseudo_labels/pseudo_labels.json"], 3),
    "examples/domain_generalisation": ("", {"N_STEPS": 4}, ["fourier.png", "exps/*/validation/1/report.html"], 3),
    "examples/own_scan": ("", {"SIZE_PX": SIZE_PX}, ["case7_segmentation.nii.gz", "case7_overlay.png"], 1),
}
FROM_RAW = ("data/CHAOST2/png_gth_to_nii", "data/SABS/intensity_normalization")

every_notebook = pytest.mark.parametrize("name", NOTEBOOKS)


def paths(name):
    return ROOT / f"{name}.ipynb", ROOT / f"{name}.py"


def code_of(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """Folders `<data set>/raw` and `<data set>/out` with two tiny scans each, converted and normalised."""
    root = tmp_path_factory.mktemp("phantoms")
    for name in ("CHAOST2", "SABS"):
        spec, raw, out = dataset(name), root / name / "raw", root / name / "out"
        write_phantom(name.lower(), raw, n_scans=2, size_px=SIZE_PX)
        convert(spec, raw, out)
        normalise(spec, out, parameters_of(spec, SIZE_PX))
    return root


def test_every_notebook_is_tested():
    folders = (ROOT / "data", ROOT / "examples")
    found = {path.relative_to(ROOT).with_suffix("") for folder in folders for path in folder.rglob("*.ipynb")}
    assert {path.as_posix() for path in found} == set(NOTEBOOKS)


@every_notebook
def test_twins_agree_cell_by_cell(name):
    notebook, script = (jupytext.read(path) for path in paths(name))
    assert [(c.cell_type, c.source) for c in notebook.cells] == [(c.cell_type, c.source) for c in script.cells]
    assert notebook.metadata.jupytext.formats == script.metadata.jupytext.formats == "ipynb,py:percent"


@every_notebook
def test_notebooks_are_thin_and_without_outputs(name):
    notebook = nbformat.read(paths(name)[0], as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    for number, source in enumerate(code_of(notebook)):
        assert not any(isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Lambda) for n in ast.walk(ast.parse(source)))
        assert ("sys.path" in source) == (number == 0), "the path is edited in the first cell, and only there"


@every_notebook
def test_notebook_runs_on_a_phantom(name, request, tmp_path, monkeypatch):
    dataset_name, parameters, results, n_pictures = NOTEBOOKS[name]
    out = tmp_path / "out"
    parameters = {"OUT": out} | parameters
    if name in FROM_RAW:
        parameters["RAW"] = request.getfixturevalue("phantoms") / dataset_name / "raw"
    elif dataset_name:
        shutil.copytree(request.getfixturevalue("phantoms") / dataset_name / "out", out)
        for result in results:
            (out / result).unlink(missing_ok=True)
    notebook = nbformat.read(paths(name)[0], as_version=4)
    known = set(re.findall(r'environ\.get\("(\w+)"', code_of(notebook)[0]))
    assert set(parameters) <= known
    for key, value in parameters.items():
        monkeypatch.setenv(key, str(value))

    resources = {"metadata": {"path": str(paths(name)[0].parent)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()

    for result in results:
        assert list(out.glob(result)), result
    pictures = [o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) == n_pictures
