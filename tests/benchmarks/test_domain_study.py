"""The study of domain generalisation: which runs it makes, and its table."""

import pytest

from benchmarks.domain_study import DEVELOPMENT, DOMAINS, SEEDS, Job, ablation_jobs, study_jobs, table
from config_ssl_upload import ex, read_settings
from models.presets import NAMED_CONFIGS, sources


def test_every_method_is_trained_for_each_domain_and_seed():
    jobs = study_jobs()
    assert len({(job.line, job.column, job.seed) for job in jobs}) == len(jobs) == 6 * len(DOMAINS) * len(SEEDS)
    assert {job.words[0] for job in jobs} == set(sources.METHODS)
    assert {word for job in jobs for word in job.words} <= set(NAMED_CONFIGS)
    assert all(job.keys == {"test_domains": [job.column]} for job in jobs)


def test_the_ablation_never_opens_the_reported_domain():
    for target, (trained, tested) in DEVELOPMENT.items():
        assert target not in {*trained, tested}
        assert tested not in trained
    assert {job.keys["test_domains"][0] for job in ablation_jobs()} == set(DOMAINS)


@pytest.mark.parametrize("job", [job for job in ablation_jobs() if job.seed == 0 and job.column == "C+D to B"])
def test_every_variant_has_valid_settings(job):
    words = ("mms", "semidg_small", *job.words)
    found = read_settings(ex.run("print_config", config_updates=dict(job.keys), named_configs=words).config)
    assert found.values["test_domains"] == ["B"]


def test_the_table_by_hand():
    jobs = [Job("CPS", (), {}, column, seed) for seed in (0, 1) for column in "AB"]
    lines = table(jobs, [80.0, 90.0, 82.0, 92.0]).splitlines()
    assert lines == ["| | A | B | mean |", "|---|---:|---:|---:|", "| CPS | 81.0 | 91.0 | 86.0 ± 1.4 |"]
