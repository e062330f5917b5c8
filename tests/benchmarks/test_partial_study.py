"""The study of several partly labelled data sets: which runs it makes, what it scores, and its table."""

import numpy as np
import pytest

from benchmarks.partial_study import (
    CASTS,
    EXPERTS,
    GENERATOR,
    LINES,
    TASKS,
    Scores,
    columns,
    complete_name,
    first_jobs,
    gather,
    make_data,
    run,
    second_jobs,
    table,
)
from config_ssl_upload import ex, read_settings
from data.phantom.simple import STRUCTURES
from dataloaders.catalog import dataset
from models.presets import NAMED_CONFIGS


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder with all data, and the descriptions of the trained and the complete sets."""
    out = tmp_path_factory.mktemp("study")
    return out, *make_data(out)


def all_jobs(trained, folder, seed=0):
    return [*first_jobs(seed, trained, folder), *second_jobs(seed, trained, folder)]


def test_every_line_is_trained_and_the_pseudo_labels_are_those_of_the_same_seed(tmp_path):
    jobs = all_jobs(list(TASKS), tmp_path, 1)
    assert {job.line for job in jobs} == set(LINES)
    assert sum(job.line == EXPERTS for job in jobs) == len(TASKS)
    (generator,) = [job for job in jobs if job.line == GENERATOR]
    assert generator.commands.index("export") < generator.commands.index("validate")
    assert {job.keys["pseudo_labels"] for job in second_jobs(1, [], tmp_path)} == {generator.keys["export_to"]}
    assert {job.word for job in jobs} <= set(NAMED_CONFIGS)


@pytest.mark.parametrize("place", range(9))
def test_every_job_has_valid_settings(made, place, tmp_path):
    _, trained, complete = made
    job = all_jobs(trained, tmp_path)[place]
    keys = dict(job.keys) | {"scored": complete}
    found = read_settings(ex.run("print_config", config_updates=keys, named_configs=(job.word, "partial_small")).config)
    assert found.run.optim.warmup_steps < found.run.n_steps / 4


def test_complete_sets_show_all_structures_and_the_others_one_task(made):
    out, trained, complete = made
    assert [dataset(path).class_names[1:] for path in trained] == list(TASKS.values())
    for path, cast in zip(complete, CASTS, strict=True):
        spec = dataset(path)
        assert (spec.name, spec.class_names[1:]) == (complete_name(cast), STRUCTURES)
        assert [(task.name, task.classes) for task in spec.tasks] == list(TASKS.items())
        assert len(list((out / "data" / spec.name).glob("prepared_64px/masks/*/*.png"))) == 21 * len(STRUCTURES)


def test_stage_1_finds_in_each_set_what_it_labels(made, monkeypatch):
    """Trained, exported and validated as by the study, in half of its steps."""
    monkeypatch.setattr("benchmarks.partial_study.N_STEPS", 200)
    out, trained, complete = made
    job = first_jobs(0, trained, out / "pseudo_labels")[0]
    scores = run(job, out, complete)
    assert np.mean([scores[pair] for pair in columns()["labelled in the set"]]) > 0.8
    assert len(list((out / "pseudo_labels" / "seed0").rglob("*.png"))) >= 120


def test_the_table_by_hand(tmp_path):
    pairs = {pair for each in columns().values() for pair in each}
    jobs = all_jobs(list(TASKS), tmp_path, 0) + all_jobs(list(TASKS), tmp_path, 1)
    scores: list[Scores] = [dict.fromkeys(pairs, 0.5 + 0.1 * job.seed) for job in jobs]
    first = table(gather(jobs, scores)).splitlines()[2]
    assert first == f"| {EXPERTS} |{' 55.0 ± 7.1 |' * len(columns())}"
