"""The study of several partly labelled data sets: which runs it makes, what it scores, and its table."""

import pytest

from benchmarks.partial_study import (
    EXPERTS,
    GENERATOR,
    LINES,
    STRUCTURES,
    TRAINED,
    columns,
    first_jobs,
    gather,
    scored_sets,
    second_jobs,
    table,
    write_complete,
)
from config_ssl_upload import ex, read_settings
from data.prepare.__main__ import main as prepare
from dataloaders.catalog import dataset
from models.presets import NAMED_CONFIGS


def all_jobs(folder, seed=0):
    return [*first_jobs(seed, folder), *second_jobs(seed, folder)]


def test_every_line_is_trained_and_the_pseudo_labels_are_those_of_the_same_seed(tmp_path):
    jobs = all_jobs(tmp_path, 1)
    assert {job.line for job in jobs} == set(LINES)
    assert sum(job.line == EXPERTS for job in jobs) == len(TRAINED)
    (generator,) = [job for job in jobs if job.line == GENERATOR]
    assert generator.commands.index("export") < generator.commands.index("validate")
    assert {job.keys["pseudo_labels"] for job in second_jobs(1, tmp_path)} == {generator.keys["export_to"]}
    assert {job.word for job in jobs} <= set(NAMED_CONFIGS)


@pytest.mark.parametrize("place", range(9))
def test_every_job_has_valid_settings(place, tmp_path):
    job = all_jobs(tmp_path)[place]
    keys = {"datasets": list(TRAINED), "scored": scored_sets(job, [])} | dict(job.keys)
    found = read_settings(ex.run("print_config", config_updates=keys, named_configs=(job.word, "partial_small")).config)
    assert found.run.n_steps == 300


def test_an_expert_is_scored_where_its_structures_are_annotated(tmp_path):
    experts = {job.keys["datasets"][0]: scored_sets(job, ["own"]) for job in all_jobs(tmp_path) if job.line == EXPERTS}
    assert experts == {
        "RETA": ["DRIVE", "STARE", "own"],
        "DDR": ["DDR", "IDRiD", "own"],
        "REFUGE": ["REFUGE", "IDRiD", "own"],
    }


def test_complete_sets_show_all_structures(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.partial_study.N_COMPLETE", 2)
    description = write_complete("DDR", tmp_path)
    spec = dataset(description)
    assert spec.class_names[1:] == STRUCTURES
    assert [task.name for task in spec.tasks] == ["vessel", "lesion", "disc_cup"]
    prepare([str(description), "--out", str(tmp_path / "data"), "--size-px", "96"])
    assert len(list((tmp_path / "data").glob("DDR-complete/prepared_96px/masks/*/*.png"))) == 2 * len(STRUCTURES)


def test_the_table_by_hand(tmp_path):
    pairs = {pair for each in columns().values() for pair in each}
    jobs = all_jobs(tmp_path, 0) + all_jobs(tmp_path, 1)
    scores = [dict.fromkeys(pairs, 0.5 + 0.1 * job.seed) for job in jobs]
    first = table(gather(jobs, scores)).splitlines()[2]
    assert first == f"| {EXPERTS} |{' 55.0 ± 7.1 |' * len(columns())}"
