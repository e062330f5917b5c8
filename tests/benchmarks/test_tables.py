"""Every benchmark runs and prints a whole table, on tiny inputs; nothing is asserted of a time."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import (
    cacps_step,
    dense_step,
    fourier_mix,
    noisy_labels,
    partial_step,
    propagation_scan,
    pseudo_labels,
    timing,
    training_step,
    validation_scan,
)
from benchmarks.timing import HEADER, compare, interval, parse, product_rate

N_COLUMNS = HEADER.splitlines()[0].count("|")
TINY = {"size": 64, "repeats": 1, "modelname": "resnet18"}


def options_of(monkeypatch, words=(), **defaults):
    monkeypatch.setattr(sys, "argv", ["benchmark", "--device", "cpu", *words])
    return parse("For a test.", **TINY | defaults)


@pytest.mark.parametrize(
    ("benchmark", "options", "n_lines", "n_networks"),
    [
        (training_step, {"episodes": 2}, 4, 2),
        (validation_scan, {"slices": 3}, 2, 2),
        (propagation_scan, {"slices": 3, "encoder": "resnet18"}, 1, 1),
        (dense_step, {"batch": 2, "base_features": 4}, 8, 6),
        (pseudo_labels, {"slices": 3, "scans": 2, "jobs": 1}, 1, 0),
        (noisy_labels, {}, 5, 0),
        (fourier_mix, {"batch": 2}, 4, 0),
        (cacps_step, {"batch": 2, "encoder": "resnet10t"}, 4, 4),
        (partial_step, {"batch": 1, "encoder": "test_convnext", "channels": 8}, 5, 5),
    ],
)
def test_a_table_is_whole(monkeypatch, benchmark, options, n_lines, n_networks):
    found = benchmark.measure(options_of(monkeypatch, **options))
    assert len(found) == n_lines
    for line in found:
        assert str(line).count("|") == N_COLUMNS
        assert 0 < line.lowest <= line.ratio <= line.highest
    of_networks = [line for line in found if line.floor_seconds is not None]
    assert len(of_networks) == n_networks
    for line in of_networks:
        assert line.outside == pytest.approx(1 - 1 / line.ratio)


def test_steps_in_another_precision_are_set_against_plain_ones(monkeypatch):
    found = training_step.measure(options_of(monkeypatch, ["--precision", "bf16", "--channels-last", "on"], episodes=1))
    assert "1 eager float32 step(s)" in found[-1].yardstick


def test_slices_on_a_device_give_the_same_episodes():
    stack = training_step.synthetic_stack(64, n_slices=3)
    moved = stack.on(torch.device("cpu"))
    torch.testing.assert_close(moved.images([0, 2]), stack.images([0, 2]), rtol=0, atol=0)
    torch.testing.assert_close(moved.id_maps([1]), stack.id_maps([1]), rtol=0, atol=0)


def test_the_floor_of_a_convolution_is_its_operations(monkeypatch):
    options = options_of(monkeypatch)
    net, image = nn.Conv2d(3, 5, 3, padding=1, bias=False), torch.rand(2, 3, 16, 16)
    line = compare("a", lambda: net(image), "b", lambda: net(image), options, is_network=True)
    operations = 2 * (2 * 5 * 16 * 16) * (3 * 3 * 3)
    assert line.floor_seconds == pytest.approx(operations / product_rate(options.device, "float32"))


def test_counting_the_operations_of_a_compiled_network_leaves_it_compiled(monkeypatch):
    n_compiled = []

    def backend(graph, _):
        n_compiled.append(graph)
        return graph.forward

    net, image = nn.Sequential(nn.Conv2d(3, 5, 3)), torch.rand(2, 3, 16, 16)
    compiled = torch.compile(net, backend=backend)
    line = compare("a", lambda: compiled(image), "b", lambda: compiled(image), options_of(monkeypatch), is_network=True)
    compiled(image)
    assert line.floor_seconds is not None
    assert line.floor_seconds > 0
    assert len(n_compiled) == 1


@pytest.mark.parametrize(("number", "beyond"), [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (15, 3), (40, 13)])
def test_the_interval_of_a_median(number, beyond):
    assert interval([1.0 + (7 * each) % number for each in range(number)]) == (1 + beyond, number - beyond)


def test_nineteen_of_twenty_intervals_hold_the_median():
    draws = np.random.default_rng(0).lognormal(size=(4000, 31))
    held = [low <= 1 <= high for low, high in map(interval, draws)]
    assert 0.95 <= np.mean(held) < 0.98


def test_the_ratio_is_that_of_neighbours(monkeypatch):
    """A machine that has one fast moment, in a call of the yardstick, and is ten times slower later on."""
    clock, slowness = [0.0], iter([1.0, 1.0, 0.1, *[1.0] * 7, *[10.0] * 10])

    def work(seconds):
        clock[0] += seconds * next(slowness)

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(timing, "peak_bytes", lambda *_: None)
    line = compare("a", lambda: work(3.0), "b", lambda: work(2.0), options_of(monkeypatch), repeats=9)
    assert (line.ratio, line.lowest, line.highest) == pytest.approx((1.5, 1.5, 1.5))


def test_memory_that_a_computation_takes_for_a_while_is_seen(monkeypatch):
    line = compare("a", lambda: [torch.ones(2**26).sum() for _ in range(3)], "b", lambda: None, options_of(monkeypatch))
    assert line.peak_bytes is None or line.peak_bytes > 0.9 * 2**28


def test_tasks_are_compared_with_one(monkeypatch):
    options = options_of(monkeypatch, batch=1, encoder="test_convnext", channels=8, tasks=2)
    assert ["2 task" in line.name for line in partial_step.measure_tasks(options)] == [False, True]


def test_what_waits_for_the_backward_pass_is_counted_once():
    weight = torch.rand(100, requires_grad=True)

    def step():
        found = weight.exp()  # kept by exp, and twice by the product
        (found * found * weight).sum().backward()  # the first product and the weight are kept, too

    assert partial_step.saved_bytes(step, [weight]) == 2 * 400
    assert partial_step.saved_bytes(step, []) == 3 * 400


def test_memory_grows_with_the_tasks_that_an_image_is_annotated_for(monkeypatch):
    options = options_of(monkeypatch, batch=1, encoder="test_convnext", channels=8, memory="1,2,4")
    _, *lines = partial_step.measure_memory(options)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [row[0] for row in cells] == ["1", "2", "4"]
    own, every = ([float(row[column]) for row in cells] for column in (2, 4))
    assert own[0] == every[0] == 1
    assert all(ratio < 1.3 for ratio in own)
    assert 1.1 < every[1] < every[2]


def test_memory_of_scans_of_several_lengths(monkeypatch):
    lines = propagation_scan.measure_memory(options_of(monkeypatch, slices=3, encoder="resnet18"))
    assert [line.split("|")[1].strip() for line in lines] == ["3 slices", "6 slices", "12 slices"]
    assert {line.count("|") for line in lines} == {propagation_scan.MEMORY_HEADER.splitlines()[0].count("|")}


def test_tensors_count_while_they_live():
    given = torch.ones(1000)
    with propagation_scan.LiveTensors() as tensors:
        kept = given.view(10, 100) + 1  # a view of what was there is nothing new
        passing = torch.ones(3000)
        passing.mul_(2)
        del passing
        again = kept * 2
    assert tensors.peak_bytes == 16_000
    assert tensors.live_bytes == 8000
    del again
    assert tensors.live_bytes == 4000
