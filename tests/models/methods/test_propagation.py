import logging
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F

from dataloaders.samples import EvalCase, SupportScan, SupportSet
from models.methods import propagation
from models.methods.alpnet import ALPNet, ALPNetConfig
from models.methods.calibration import CalibrationConfig
from models.methods.encoded_scans import EncodedScan, EncodedSupport, PlacedSupport, shrink_labels
from models.methods.placing import Placer
from models.methods.propagation import Propagation, PropagationConfig
from models.methods.registration import Registration, RegistrationConfig
from models.methods.second_look import SecondLookConfig, whole
from models.networks.brightness import BrightnessConfig, with_brightness
from models.networks.deformation import DeformationConfig
from models.networks.displacement import Displacement, DisplacementConfig
from models.networks.postprocessing import PostprocessConfig
from models.presets import NAMED_CONFIGS
from util.errors import ConfigError, DataError
from util.schema import merge

NO_COPIES = BrightnessConfig(levels=())  # random weights do not tell what differs in brightness alone
NOT_CALIBRATED = CalibrationConfig(copies=0)  # for speed
CONFIG = PropagationConfig(
    modelname="resnet18",
    encoder_weights="none",
    enlargements=(1.0,),
    brightness=NO_COPIES,
    calibration=NOT_CALIBRATED,
    second_look=SecondLookConfig(below_cells=0.0),
)
SPACING_MM = (7.7, 1.25, 1.25)
SIZE, DEPTH = 128, 12


@pytest.fixture(scope="module")
def method():
    torch.manual_seed(0)
    return Propagation(CONFIG)


def body(move=(0, 0), missing=(), seed=0, depth=DEPTH):
    """A scan with three structures in a body, one of them at the image's edge, and its label map."""
    z, y, x = torch.meshgrid(torch.arange(depth), torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    label = torch.zeros(depth, SIZE, SIZE, dtype=torch.uint8)
    places = {1: (48, 40, 22), 2: (80, 90, 16), 5: (127, 64, 20)}
    for value, (row, column, radius) in places.items():
        if value not in missing:
            flat = (z - 6) ** 2 * 16 + (y - row - move[0]) ** 2 + (x - column - move[1]) ** 2
            label[flat <= radius**2] = value
    inside = ((y - 64) / 58.0) ** 2 + ((x - 64) / 60.0) ** 2 <= 1
    noise = torch.randn(depth, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    image = inside + 1.5 * (label == 1) + 2.5 * (label == 2) + 0.8 * (label == 5) + 0.05 * noise
    image = image + 0.2 * torch.sin(y / 6) * inside
    return (image - image.mean()) / image.std(), label


def support_of(*scans, classes=(1, 2, 5), slices=(4, 6, 8)):
    chosen = torch.tensor([slices] * len(classes))
    whole = tuple(SupportScan(image[:, None], label, SPACING_MM, chosen) for image, label in scans)
    image = torch.zeros(len(classes), 3, len(scans), 1, 8, 8)
    return SupportSet(classes, image, torch.zeros(len(classes), 3, len(scans), 8, 8, dtype=torch.bool), whole)


def case_of(image, classes=(1, 2, 5), spacing_mm=SPACING_MM):
    part = torch.zeros(len(classes), len(image), dtype=torch.int64)
    return EvalCase("1", classes, image[:, None], part, spacing_mm=spacing_mm)


def segment(method, query, *supports, slices=(4, 6, 8), **options):
    support = method.encode_support(support_of(*supports, slices=slices, **options))
    return method.predict(case_of(query, **options), support)


def dice(masks, label, classes=(1, 2, 5)):
    truth = torch.stack([label == value for value in classes])
    both = (masks & truth).flatten(1).sum(1)
    return 2 * both / (masks.flatten(1).sum(1) + truth.flatten(1).sum(1))


@torch.no_grad()
def test_a_scan_gives_its_own_labels_back():
    """On the grid of the features, where nothing is lost by enlarging."""
    config = replace(CONFIG, postprocess=PostprocessConfig(exclusive=True))
    torch.manual_seed(0)
    method = Propagation(config)
    image, label = body()
    (encoded,) = method.encode_support(support_of((image, label)))
    shares = method._shares(encoded.scan, [next(method.placer.place(encoded.scan, encoded))], config.kernel)
    found = F.one_hot(shares.argmax(1), 4).bool()
    truth = F.one_hot(encoded.label.argmax(-1), 4).bool()
    both = (found & truth).flatten(0, 2).sum(0)
    assert (2 * both / (found.flatten(0, 2).sum(0) + truth.flatten(0, 2).sum(0))).min() > 0.97


def test_another_scan_is_segmented(method):
    (image, label), other = body((4, 5), seed=1), body()
    assert dice(segment(method, image, other), label).min() > 0.75  # the least: the structure at the edge


def bent(image, label):
    """The scan with its columns shifted by up to 12 pixels, to either side, in its upper and its lower half."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIZE), torch.linspace(-1, 1, SIZE), indexing="ij")
    grid = torch.stack([x + 24 / SIZE * torch.sin(3 * y), y], -1).expand(len(image), -1, -1, -1)
    warped = F.grid_sample(image[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    moved = F.grid_sample(label[:, None].float(), grid, "nearest", align_corners=False)[:, 0]
    return warped, moved.to(label.dtype)


def test_a_deformation_is_followed():
    """Structures are not looked for as a whole, and how places look hardly counts, so that it alone can find them."""
    own, (query, truth) = body(), bent(*body(seed=1))
    found = []
    for reach in (0.0, 0.3):
        torch.manual_seed(0)
        kernel = replace(CONFIG.kernel, sigma_xy=0.03, temperature=1.0)
        deformation = replace(CONFIG.deformation, reach=reach)
        config = replace(
            CONFIG,
            displacement=DisplacementConfig(reach=0.0),
            kernel=kernel,
            deformation=deformation,
            postprocess=PostprocessConfig(exclusive=True),
        )
        found.append(dice(segment(Propagation(config), query, own), truth))
    assert (found[1] > found[0]).all()
    assert found[1].mean() > found[0].mean() + 0.1


def test_the_unit_of_intensities_does_not_matter(method):
    (image, _), (other, label) = body((4, 5), seed=1), body()
    scaled = 37 * other + 400
    normalised = (scaled - scaled.mean()) / scaled.std()
    plain, found = (segment(method, image, (each, label)) for each in (other, normalised))
    assert dice(found, _classes(plain)).min() > 0.999


def _classes(masks):
    return sum(masks[k].to(torch.uint8) * value for k, value in enumerate((1, 2, 5)))


def test_of_two_placements_each_structure_has_the_firmer_map(method, monkeypatch):
    (image, label), other = body((4, 5), seed=1), body()
    case, support = case_of(image), method.encode_support(support_of(other))
    placed = next(method.placer.place(method.encode_case(case).encoded, support[0]))
    sure, unsure = 0.9 * F.one_hot(label.long(), 6).movedim(-1, 0)[[1, 2, 5]], 0.0
    maps = [sure * torch.tensor(levels)[:, None, None, None] for levels in ((1.0, 0.7, unsure), (0.8, 1.0, 1.0))]
    monkeypatch.setattr(Placer, "place", lambda *_: iter([placed, placed._replace(found=None)]))
    monkeypatch.setattr(method, "_maps", lambda case, query, placed: maps[placed[0].found is None])
    found = method.probabilities(case, support)
    torch.testing.assert_close(found, torch.stack([maps[0][0], maps[1][1], maps[1][2]]))


@pytest.mark.parametrize("axes", [(0,), (1, 2)])
def test_flipped_scans_have_flipped_masks(method, axes):
    (image, label), (other, known) = body((4, 5), seed=1), body()
    flipped = segment(method, image.flip(axes), (other.flip(axes), known.flip(axes)))
    plain = segment(method, image, (other, known))
    assert dice(flipped, label.flip(axes)).mean() > dice(plain, label).mean() - 0.04


def test_exchanged_rows_and_columns_make_no_difference(method):
    (image, label), (other, known) = body((4, 5), seed=1), body()
    turned = segment(method, image.mT, (other.mT.contiguous(), known.mT.contiguous()))
    assert dice(turned, label.mT).mean() > dice(segment(method, image, (other, known)), label).mean() - 0.04


def test_several_supports_vote_and_their_order_does_not_matter(method):
    (image, label), one, other = body((4, 5), seed=1), body(), body((-3, 2), seed=2)
    both, exchanged = segment(method, image, one, other), segment(method, image, other, one)
    assert dice(both, label).min() > 0.75
    assert dice(both, _classes(exchanged)).min() > 0.999


def test_classes_are_independent_of_their_number_and_values(method):
    (image, label), other = body((4, 5), seed=1), body()
    assert dice(segment(method, image, other, classes=(2,)), label, (2,)).min() > 0.85


def test_structures_of_another_brightness_are_found_by_copies():
    torch.manual_seed(0)
    fixed = replace(CONFIG, displacement=DisplacementConfig(reach=0.0), deformation=DeformationConfig(reach=0.0))
    with_copies, method = (Propagation(replace(fixed, brightness=each)) for each in (BrightnessConfig(), NO_COPIES))
    image, label = body()
    query, truth = body(seed=1)
    query = with_brightness(query[:, None], truth, (2,), 0.1)[:, 0]
    found, missed = (
        each.probabilities(case_of(query), each.encode_support(support_of((image, label))))[1][truth == 2].mean()
        for each in (with_copies, method)
    )
    assert found > missed + 0.05


@pytest.mark.parametrize("annotation", ["labelled", "parts"])
def test_fewer_slices_are_enough_for_most(annotation):
    torch.manual_seed(0)
    method = Propagation(replace(CONFIG, annotation=annotation))
    (image, label), other = body((4, 5), seed=1), body()
    (encoded,) = method.encode_support(support_of(other))
    assert encoded.is_annotated.sum() == (3 if annotation == "parts" else (other[1] > 0).flatten(1).any(1).sum())
    assert dice(segment(method, image, other), label).mean() > 0.7


def test_unannotated_slices_are_not_looked_at():
    torch.manual_seed(0)
    method = Propagation(replace(CONFIG, annotation="parts", calibration=CalibrationConfig()))
    (image, _), (other, known) = body(seed=1), body()
    changed = known.clone()
    changed[[0, 1, 2, 3, 5, 7, 9, 10, 11]] = 3
    assert torch.equal(segment(method, image, (other, known)), segment(method, image, (other, changed)))


def test_structures_end_soon_after_the_last_annotated_slice():
    """Slices 0 to 5 are annotated, on the last of which all structures are widest; the query has twelve.

    With `appearance` they would go on where the scan looks like them.
    """
    torch.manual_seed(0)
    method = Propagation(replace(CONFIG, postprocess=replace(CONFIG.postprocess, appearance=False)))
    (image, label), (other, known) = body(seed=1), body()
    masks = segment(method, image, (other[:6], known[:6]), slices=(3, 4, 5))
    assert dice(masks[:, :6], label[:6]).mean() > 0.8
    assert masks[:, 6].flatten(1).any(1).all()  # 7.7 mm further
    assert not masks[:, 10:].any()  # 38.5 mm


def test_votes_fade_beyond_the_slices_where_a_structure_was_found():
    """A second structure lies 20 mm further up than in the annotated scan, whose slices end at 30 mm."""
    scan = EncodedScan(
        torch.zeros(4, 1, 1, 2), torch.zeros(4, 1), whole((8, 8)), (10.0, 1.0, 1.0), torch.ones(4, 1, 1) > 0
    )
    support = EncodedSupport(scan, torch.zeros(4, 1, 1, 3), torch.ones(4) > 0)
    shift = torch.tensor([[0.0, 0.0, 0.0], [20.0, 0.0, 0.0]])
    placed = PlacedSupport(
        support, torch.tensor([-25.0, 15.0, 45.0]), Displacement(shift, torch.ones(2, 3), shift), None
    )
    votes = torch.tensor([0.2, 0.4, 0.4]).expand(3, 1, 1, 3)
    found = placed.fade(votes, 20.0)[:, 0, 0]
    first, second = (0.4 * torch.tensor([-0.5 * (d / 20) ** 2 for d in far]).exp() for far in ([25, 0, 15], [45, 5, 0]))
    torch.testing.assert_close(found, torch.stack([1 - first - second, first, second], 1))
    everywhere = placed._replace(found=None).fade(votes, 20.0)[:, 0, 0]
    torch.testing.assert_close(everywhere[:, 2], first)


def test_a_single_slice_is_segmented(method):
    (image, label), other = body((4, 5), seed=1), body()
    masks = segment(method, image[6:7], other)
    assert dice(masks, label[6:7]).min() > 0.8


def test_an_unsure_structure_can_be_answered_with_not_there():
    torch.manual_seed(0)
    method = Propagation(replace(CONFIG, postprocess=replace(CONFIG.postprocess, min_confidence=0.6)))
    (image, label), other = body(seed=1), body()
    masks = segment(method, image, other)
    assert not masks[2].any()  # found with a confidence of 0.41; the others with 0.9
    assert dice(masks, label)[:2].min() > 0.8
    image, label = body(missing=(2,), seed=1)
    assert not segment(method, image, other)[1].any()


def test_a_scan_without_a_body_is_answered(method, caplog):
    with caplog.at_level(logging.WARNING):
        masks = segment(method, torch.zeros(3, SIZE, SIZE), body())
    assert masks.shape == (3, 3, SIZE, SIZE)
    assert "no body found" in caplog.text


def test_a_case_is_encoded_once_for_its_labels_and_its_likeness(method, monkeypatch):
    (image, _), other = body((4, 5), seed=1), body()
    support = method.encode_support(support_of(other))
    plain = method.probabilities(case_of(image), support)
    encoded = method.encode_case(case_of(image))
    monkeypatch.setattr(method, "encode_scan", None)
    assert torch.equal(method.probabilities(encoded, support), plain)
    likeness = method.likeness(encoded, support)
    assert likeness.case > 0.9 * likeness.support


def test_likeness_is_that_of_slices_at_the_same_height(method, monkeypatch):
    image, label = body()
    support, compared = method.encode_support(support_of((image, label))), []
    monkeypatch.setattr(propagation, "similarity", lambda query, support: compared.append(query.z_mm) or 1.0)
    method.likeness(case_of(image[4:]), support)
    torch.testing.assert_close(compared[0], 7.7 * torch.arange(4.0, DEPTH), atol=4.0, rtol=0)


def test_likeness_is_that_of_the_first_size():
    """The encoder's weights are random, and the same ones."""
    cases = (body((4, 5), seed=1)[0], body(seed=2)[0].mT.flip(1))
    found = []
    for sizes in ((1.0,), (1.0, 2.0)):
        torch.manual_seed(0)
        method = Propagation(replace(CONFIG, enlargements=sizes))
        support = method.encode_support(support_of(body()))
        found.append([method.likeness(case_of(image), support) for image in cases])
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


def test_an_unlike_scan_is_told_and_the_most_similar_support_counts(method):
    (image, _), other = body((4, 5), seed=1), body()
    turned = case_of(image.roll(3, 0).mT.flip(1))
    support = method.encode_support(support_of(other))
    assert method.likeness(turned, support).is_low
    (foreign,) = method.encode_support(support_of((other[0].mT.flip(1), other[1].mT.flip(1).contiguous())))
    assert not method.likeness(turned, (*support, foreign)).is_low
    single = method.encode_support(support_of((other[0][5:6], other[1][5:6]), slices=(0, 0, 0)))
    assert method.likeness(turned, single) is None


@pytest.mark.parametrize(
    ("support", "error", "message"),
    [
        (lambda: support_of(body(), classes=(7,)), DataError, "none of the classes 7 on its 12 annotated slices"),
        (lambda: replace(support_of(body()), scans=()), ConfigError, "compares whole scans"),
    ],
)
def test_unusable_supports_are_refused(method, support, error, message):
    with pytest.raises(error, match=message):
        method.encode_support(support())


@pytest.mark.parametrize("build", [lambda: Propagation(CONFIG), lambda: Registration(RegistrationConfig())])
def test_the_spacing_must_be_known(build):
    image, label = body()
    method = build()
    encoded = method.encode_support(support_of((image, label)))
    with pytest.raises(ConfigError, match="needs the spacing"):
        method.probabilities(case_of(image, spacing_mm=None), encoded)


def test_some_size_of_the_slices_must_be_given():
    with pytest.raises(ConfigError, match="enlargements: empty"):
        PropagationConfig(enlargements=())


def test_unknown_pixels_belong_to_no_class():
    label = torch.zeros(1, 16, 16, dtype=torch.uint8)
    label[0, :8, :8] = 255
    label[0, 8:, :4] = 2
    shares = shrink_labels(label, (2,), (2, 2))[0]
    assert shares[0, 0].tolist() == [0, 0]
    assert shares[1, 0].tolist() == [0.5, 0.5]
    assert shares[1, 1].tolist() == [1, 0]


def test_alpnet_takes_the_switches_and_is_unchanged_without():
    torch.manual_seed(0)
    plain = ALPNet(ALPNetConfig(modelname="resnet18", encoder_weights="none")).eval()
    (image, _), (other, known) = body((4, 5), seed=1), body()
    masks = torch.stack([(known == value)[[4, 6, 8], None] for value in (1, 2, 5)])
    support = SupportSet((1, 2, 5), other[[4, 6, 8]][:, None, None].expand(3, -1, -1, -1, -1, -1), masks)
    switched = ALPNet(replace(plain.config, postprocess=CONFIG.postprocess)).eval()
    switched.load_state_dict(plain.state_dict())
    case = case_of(image)
    before, after = (each.predict(case, each.encode_support(support)) for each in (plain, switched))
    probabilities = plain.probabilities(case, plain.encode_support(support))
    assert torch.equal(before, probabilities > 0.5)
    assert after.sum(0).max() == 1 < before.sum(0).max()
    look = replace(plain.config, postprocess=PostprocessConfig(appearance=True))
    other_look = ALPNet(look).eval()
    other_look.load_state_dict(plain.state_dict())
    corrected = other_look.probabilities(case, other_look.encode_support(support))
    assert corrected.shape == probabilities.shape
    assert (corrected - probabilities).abs().max() > 0.1
    with pytest.raises(ConfigError, match="appearance and guided_filter need the spacing"):
        other_look.probabilities(case_of(image, spacing_mm=None), other_look.encode_support(support))


def test_the_plain_configuration_has_a_title_of_its_own():
    plain = merge(asdict(PropagationConfig()), NAMED_CONFIGS["propagation_plain"])
    assert Propagation.title(plain) == "plain propagation"
    for change in (
        {"displacement": {"agreement": 0.1}},
        {"deformation": {"reach": 0.1}},
        {"calibration": {"copies": 1}},
        {"enlargements": [1.0, 2.0]},
        {"postprocess": {"appearance": True}},
    ):
        assert Propagation.title(merge(plain, change)) == "propagation"
    assert Propagation.title(asdict(PropagationConfig())) == "propagation"
