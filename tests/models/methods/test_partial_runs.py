"""Methods for partially annotated data sets with what a run gives them: settings, prepared sets, checkpoints."""

import json
from dataclasses import asdict

import pytest
import torch

from config_ssl_upload import defaults_for, identity, read_settings
from dataloaders.ordering import LoaderOptions
from dataloaders.scans.normalise import Normalisation
from models import METHODS, build_method
from models.training.average import AverageConfig
from models.training.load import load_trained
from models.training.optim import OptimConfig
from models.training.state import build_state
from tests.models.methods.partial_helpers import NAMES, TASKS
from tests.partial_sets import BLOBS, DISCS, LINES, SIDE, open_sets, write_sets
from util.runtime import checkpoint
from util.schema import merge

CPU = torch.device("cpu")
NETWORK = {"encoder": "test_convnext", "channels": 8}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_sets(tmp_path_factory.mktemp("data"))


def values_of(name, root, **changes):
    """All keys of a run, as Sacred has them: lists in place of tuples."""
    folders = [str(root / spec.prepared_folder(SIDE)) for spec in (LINES, BLOBS, DISCS)]
    given = {"method": name, "datasets": folders, "network": NETWORK, "encoder_weights": "none"} | changes
    return json.loads(json.dumps(merge(defaults_for(given), given)))


def state_of(values):
    return build_state(values, 0, OptimConfig("adamw", 1e-3), AverageConfig(), Normalisation(), CPU)


def test_tasks_and_data_sets_follow_from_the_data(root):
    values = values_of("partial_adversarial", root)
    assert values["sources"] == ["LINES", "BLOBS", "DISCS"]
    assert [each["name"] for each in values["heads"]] == [task.name for task in TASKS]
    assert values["network"]["in_channels"] == 3
    settings = read_settings(values)
    assert settings.run.method == "partial_adversarial"
    assert "PSSNet" in settings.experiment_folder.name


def test_settings_are_the_same_whether_lists_or_tuples(root):
    values = values_of("partial_generator", root)
    heads = [asdict(task) for task in TASKS]  # classes as tuples
    assert identity(values) == identity(values | {"heads": tuple(heads)})
    assert json.loads(json.dumps(identity(values))) == identity(values)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_brings_its_tasks_along(name, root, tmp_path):
    state = state_of(values_of(name, root))
    state.save(tmp_path / "checkpoint.pt")
    other = values_of(name, root, datasets=[str(root / BLOBS.prepared_folder(SIDE))])
    assert len(other["heads"]) == 1
    trained = load_trained(tmp_path / "checkpoint.pt", other, "last", CPU)
    assert trained.method.state_dict().keys() == state.method.state_dict().keys()
    assert all(value.equal(state.method.state_dict()[key]) for key, value in trained.method.state_dict().items())


def steps(state, batches):
    state.method.train()
    for batch in batches:
        state.train_step(state.method, batch, torch.autocast("cpu", enabled=False))


@pytest.mark.parametrize("name", ["partial_generator", "partial_teacher"])
def test_a_run_resumes_exactly_from_its_checkpoint(name, root, tmp_path):
    """With dropout and drop path, on batches of the loader."""
    values, data = values_of(name, root), open_sets(root, METHODS[name].needs, crop_px=SIDE)
    batches = list(data.loader(Normalisation(), 0, 2, range(4), LoaderOptions()))
    whole, again = state_of(values), state_of(values)
    torch.manual_seed(5)
    steps(whole, batches[:2])
    whole.save(tmp_path / "checkpoint.pt")
    steps(whole, batches[2:])
    again.load_state_dict(checkpoint.load(tmp_path / "checkpoint.pt"))
    steps(again, batches[2:])
    before, after = whole.method.state_dict(), again.method.state_dict()
    assert all(value.equal(after[key]) for key, value in before.items())


def test_strong_views_have_the_order_of_the_annotated_images(root):
    data = open_sets(root, frozenset({"strong"}), crop_px=SIDE)
    (batch,) = data.loader(Normalisation(), 0, 2, range(1), LoaderOptions())
    assert batch["strong"].tasks == ((),) * 6
    assert batch["labelled"].source.equal(batch["strong"].source)
    losses = build_method(values_of("partial_teacher", root)).train()(batch)
    assert losses.keys() == {"loss", "pseudo", "confidence", *(f"dice_{task.name}" for task in TASKS)}
