from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from models.networks.displacement import Displacement, DisplacementConfig, fit_displacements, shift_field
from models.networks.label_propagation import Cells

CONFIG = DisplacementConfig()
SHAPE = (9, 14, 16)
SIZE = torch.tensor([8.0, 0.05, 0.04])  # of a place: mm, heights and widths of the body
ALL = torch.ones(SHAPE[0], dtype=torch.bool)


def cells(feature):
    z, row, column = (torch.arange(n) * size for n, size in zip(feature.shape[:3], SIZE, strict=True))
    return Cells(feature, row + 0.1, column + 0.2, z)


def noise(seed=0):
    return F.normalize(torch.randn(*SHAPE, 6, generator=torch.Generator().manual_seed(seed)), dim=-1)


def labels(*boxes):
    """Background and one structure for each box of slices."""
    value = torch.zeros(SHAPE, dtype=torch.long)
    for number, box in enumerate(boxes, start=1):
        value[box] = number
    return F.one_hot(value, len(boxes) + 1).float()


ONE = (slice(2, 5), slice(3, 7), slice(4, 8))
OTHER = (slice(4, 7), slice(8, 11), slice(9, 12))


def test_each_structure_has_a_shift_of_its_own():
    """The places of each are moved by other steps; around them the query shows something else."""
    support, label, query = noise(), labels(ONE, OTHER), noise(1)
    moves = {1: (1, 3, -2), 2: (-2, 0, 2)}
    for value, move in moves.items():
        places = (label[..., value] > 0).nonzero()
        query[tuple((places + torch.tensor(move)).T)] = support[tuple(places.T)]
    found, *_ = fit_displacements(cells(query), cells(support), label, ALL, CONFIG)
    torch.testing.assert_close(found.shift, torch.tensor([moves[1], moves[2]]) * SIZE)
    assert (found.scale == 1).all()


def test_the_grids_may_differ():
    """The query has every second slice and other first places."""
    smooth = F.avg_pool3d(noise().permute(3, 0, 1, 2)[None], 3, stride=1, padding=1)
    support = F.normalize(smooth[0].permute(1, 2, 3, 0), dim=-1)
    moved = cells(support[::2].roll((2, -1), (1, 2)))
    query = replace(moved, z_mm=torch.arange(len(moved.feature)) * 16.0, row=moved.row + 0.05)
    found, *_ = fit_displacements(query, cells(support), labels(ONE), ALL, CONFIG)
    assert found.shift[0].tolist() == pytest.approx([0, 0.15, -0.04], abs=1e-6)


def test_what_does_not_look_like_it_anywhere_stays():
    """Equal everywhere: no shift; nothing annotated, nothing shown: no shift; and the cost holds back small gains."""
    same = torch.ones(*SHAPE, 6) / 6**0.5
    label = labels(ONE, OTHER)
    for known in (ALL, ~ALL):
        assert not fit_displacements(cells(same), cells(same), label, known, CONFIG)[0].shift.any()
    assert not fit_displacements(cells(same), cells(same), 0 * label, ALL, CONFIG)[0].shift.any()
    dear = replace(CONFIG, cost=100.0)
    assert not fit_displacements(cells(noise(1)), cells(noise()), label, ALL, dear)[0].shift.any()


def test_structures_that_fill_no_place_are_found_by_their_fullest_ones():
    support, label, query = noise(), labels(ONE), noise(1)
    query[3:6, 5:9, 6:10] = support[ONE]
    faint = 0.3 * label + 0.1 * labels(OTHER)
    shift = fit_displacements(cells(query), cells(support), faint, ALL, CONFIG)[0].shift
    torch.testing.assert_close(shift[0], torch.tensor([1, 2, 2]) * SIZE)


def test_slices_without_annotation_do_not_count():
    support, label, query = noise(), labels(ONE), noise(1)
    query[2, 6:10, 4:8] = support[2, 3:7, 4:8]
    query[3:5, 3:7, 7:11] = support[3:5, 3:7, 4:8]
    known = torch.arange(SHAPE[0]) == 2
    found, *_ = fit_displacements(cells(query), cells(support), label, known, CONFIG)
    torch.testing.assert_close(found.shift[0], torch.tensor([0, 3, 0]) * SIZE)


def test_no_shift_is_beyond_reach():
    config = replace(CONFIG, reach=0.1, reach_z_mm=8.0, cost=0.0)
    found, *_ = fit_displacements(cells(noise(1)), cells(noise()), labels(ONE, OTHER), ALL, config)
    assert (found.shift.abs() <= torch.tensor([8.0, 0.1, 0.1]) + 1e-6).all()


def test_a_structure_keeps_its_size_where_the_body_is_larger():
    """The query's body is twice as wide: places of the same size in mm are half as far from the structure's centre."""
    support, label, query = noise(), labels((slice(2, 5), slice(2, 7), slice(3, 12))), noise(1)
    places = (label[..., 1] > 0).nonzero()
    centre = places.float().mean(0)
    goals = (centre + (places - centre) * torch.tensor([1, 1, 0.5])).round().long() + torch.tensor([0, 4, 3])
    query[tuple(goals.T)] = support[tuple(places.T)]
    found, *_ = fit_displacements(cells(query), cells(support), label, ALL, CONFIG, (1.0, 0.5))
    assert found.scale.tolist() == [[1, 1, 0.5]]
    torch.testing.assert_close(found.shift[0], torch.tensor([0, 4, 3]) * SIZE)


def test_places_outside_the_query_look_like_nothing():
    """The query's last column looks like the structure, which is wider; where it lies it is found half."""
    label, alike = labels((slice(2, 5), slice(3, 7), slice(9, 13))), torch.eye(6)[0]
    support, query = noise(), -alike.expand(*SHAPE, 6).clone()
    support[label[..., 1] > 0] = alike
    query[:, :, -1] = alike
    query[2:5, 3:7, 9:12] = alike
    found, *_ = fit_displacements(cells(query), cells(support), label, ALL, CONFIG)
    assert not found.shift.any()


def test_a_shift_holds_within_a_structure_and_fades_around_it():
    shifts = torch.tensor([[8.0, 0.1, -0.1], [-8.0, 0.0, 0.2]])
    narrow = replace(CONFIG, spread=0.03, spread_z_mm=4.0)
    found = Displacement(shifts, torch.ones(2, 3), torch.zeros(2, 3))
    field = shift_field(cells(noise()), labels(ONE, OTHER), found, narrow)
    torch.testing.assert_close(field[3, 4, 5], shifts[0], rtol=0.1, atol=0.01)
    torch.testing.assert_close(field[5, 9, 10], shifts[1], rtol=0.1, atol=0.01)
    assert not field[0, 13, 0].any()
    between = field[3, 7, 6]  # beside the first one
    assert 0.2 < float(between[1] / shifts[0, 1]) < 1


def test_a_scaled_structure_shrinks_towards_its_centre():
    one = cells(noise())
    centre = torch.stack([one.z_mm[3], one.row[5], one.column[6]])
    found = Displacement(torch.zeros(1, 3), torch.tensor([[1.0, 0.5, 1.0]]), centre[None])
    field = shift_field(one, labels(ONE), found, replace(CONFIG, spread=0.03, spread_z_mm=4.0))
    torch.testing.assert_close(field[3, 3, 6], torch.tensor([0, 0.5 * 2 * SIZE[1], 0]), rtol=0.1, atol=1e-6)
    assert not field[..., [0, 2]].any()


THIRD = (slice(3, 6), slice(9, 12), slice(3, 6))
DECOY, COMMON = torch.tensor([0, 1, 1]), torch.tensor([2, -3, 2])


def moved_together(likeness, *others):
    """Two structures move by `COMMON`; the third looks more like something else, one place beside where it was.

    others: further structures, each with moves and how much it looks like itself after each.
    """
    support, label, query = noise(), labels(ONE, OTHER, THIRD, *(box for box, *_ in others)), noise(1)
    moves = [(1, COMMON, 1.0), (2, COMMON, 1.0), (3, COMMON, likeness), (3, DECOY, 0.65)]
    moves += [(value, *move) for value, (_, *found) in enumerate(others, start=4) for move in found]
    for value, move, share in moves:
        places = (label[..., value] > 0).nonzero()
        mixed = share * support[tuple(places.T)] + (1 - share**2) ** 0.5 * noise(2)[tuple(places.T)]
        query[tuple((places + move).T)] = F.normalize(mixed, dim=-1)
    return cells(query), cells(support), label


def test_a_structure_that_lies_elsewhere_is_found_again_in_agreement_with_the_others():
    first, second = fit_displacements(*moved_together(0.6), ALL, CONFIG)
    torch.testing.assert_close(first.shift, torch.stack([COMMON, COMMON, DECOY]) * SIZE)
    torch.testing.assert_close(second.shift, torch.stack([COMMON] * 3) * SIZE)


def test_a_structure_that_differs_little_keeps_its_place():
    near = COMMON - torch.tensor([2, 0, 0])  # 16 mm
    fourth = ((slice(1, 2), slice(8, 13), slice(1, 8)), (near, 0.85), (COMMON, 0.8))
    config = replace(CONFIG, agreement=1.0)
    query, support, label = moved_together(0.6, fourth)
    first, second = fit_displacements(query, support, label, ALL, config)
    torch.testing.assert_close(first.shift[2:], torch.stack([DECOY, near]) * SIZE)
    torch.testing.assert_close(second.shift[2:], torch.stack([COMMON, near]) * SIZE)


def test_there_is_one_answer_where_structures_agree():
    assert len(fit_displacements(*moved_together(0.9), ALL, CONFIG)) == 1
    assert len(fit_displacements(*moved_together(0.6), ALL, replace(CONFIG, agreement=0.0))) == 1


def test_a_structure_that_is_not_shown_is_looked_for_nowhere():
    query, support, label = moved_together(0.9)
    label[..., 3] = 0
    (found,) = fit_displacements(query, support, label, ALL, CONFIG)
    assert not found.shift[2].any()
