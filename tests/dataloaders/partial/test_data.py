"""Batches of several data sets, what they depend on, and the images that are scored."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data.phantom.simple import make_picture
from dataloaders.images.folder import MANIFEST
from dataloaders.io.png import read_image, read_mask, write_png
from dataloaders.ordering import LoaderOptions
from dataloaders.partial.config import FUNDUS_MEAN, FUNDUS_SD, PartialDataConfig
from dataloaders.partial.data import LABELLED, PSEUDO, STRONG
from dataloaders.partial.pseudo import PseudoLabelFolder
from dataloaders.transforms.views import ViewConfig
from tests.partial_sets import BLOBS, DISCS, LINES, MIXED, SIDE, image_set, open_sets, write_sets
from util.errors import ConfigError, DataError
from util.runtime.distributed import Plan

ALL = frozenset({STRONG})


def folder(root, spec):
    return str(root / spec.prepared_folder(SIDE))


def batches(data, steps=2, batch_size=2, plan=None, workers=0, device=None):
    options = LoaderOptions(workers, plan or Plan(), device=device)
    return list(data.loader(data.fit_normalisation(), 7, batch_size, range(steps), options))


def write_pseudo(data, root, run="run", certain=True, every=False):
    """Pseudo-labels that mark what is drawn, for every class, or for those that a set is not annotated for."""
    labels = PseudoLabelFolder(root)
    labels.begin(run)
    images, classes = {}, {}
    for each in data.trained:
        names = [name for number, name in enumerate(data.names) if every or number not in each.known]
        classes[each.name] = names
        images[each.name] = each.training_images()
        first = 100 * ["LINES", "BLOBS", "DISCS", "MIXED"].index(each.name)
        for number, image_id in enumerate(images[each.name]):
            masks = np.stack([make_picture(first + number).masks[name] for name in names])
            labels.write(each.name, image_id, names, masks, np.full_like(masks, certain))
    labels.finish(run, "recipe", data.config.task_list, images, classes, {})
    return labels


def test_a_batch_has_equally_many_images_of_each_data_set_and_says_what_is_known(sets):
    (batch,) = batches(open_sets(sets), steps=1)
    labelled = batch[LABELLED]
    assert list(batch.parts) == [LABELLED]
    assert labelled.source.tolist() == [0, 0, 1, 1, 2, 2]
    assert labelled.is_known.int().tolist() == 2 * [[1, 0, 0, 0, 0]] + 2 * [[0, 1, 1, 0, 0]] + 2 * [[0, 0, 0, 1, 1]]
    assert labelled.tasks == ((0,), (0,), (1,), (1,), (2,), (2,))
    assert not labelled.label[~labelled.is_known].any()
    assert labelled.image.shape == (6, 3, SIDE // 2, SIDE // 2)
    assert labelled.valid.shape == (6, 1, SIDE // 2, SIDE // 2)


def test_images_and_masks_are_those_of_the_files(sets):
    data = open_sets(sets, which_aug="none", crop_px=SIDE)
    (batch,) = batches(data, steps=1, batch_size=6)
    image = batch[LABELLED].image * torch.tensor(FUNDUS_SD)[:, None, None] + torch.tensor(FUNDUS_MEAN)[:, None, None]
    for number, each in enumerate(data.trained):
        left = set(each.ids("train"))
        for place in range(6 * number, 6 * number + 6):
            seen = image[place].permute(1, 2, 0).round().byte().numpy()
            (own,) = [
                i
                for i in left
                if np.abs(read_image(image_set(each).folder.image_path(i)).astype(int) - seen).max() <= 1
            ]
            left.remove(own)
            for channel in each.known:
                mask = read_mask(image_set(each).folder.mask_path(own, data.names[channel]))
                assert np.array_equal(batch[LABELLED].label[place, channel].numpy(), mask)
        assert not left


def test_batches_depend_neither_on_processes_nor_on_the_place_of_the_data(sets):
    data = open_sets(sets, ALL)
    wanted = batches(data)
    shared = [batches(data, batch_size=1, plan=Plan(rank, 2)) for rank in range(2)]
    variants = {
        "workers": batches(data, workers=2),
        "device": batches(open_sets(sets, ALL), device=torch.device("cpu")),
    }
    for step, batch in enumerate(wanted):
        for part in (LABELLED, STRONG):
            for name in ("image", "label", "valid", "source", "is_known"):
                value = getattr(batch[part], name)
                for variant, found in variants.items():
                    assert torch.equal(getattr(found[step][part], name), value), (variant, name)
                halves = [getattr(each[step][part], name) for each in shared]
                together = torch.cat([half[n : n + 1] for n in range(3) for half in halves])
                assert torch.equal(together, value), name
    assert not torch.equal(wanted[0][LABELLED].image, wanted[1][LABELLED].image)


def test_strong_views_are_the_weak_ones_disturbed(sets):
    (batch,) = batches(open_sets(sets, ALL), steps=1)
    strong = batch[STRONG]
    assert strong.weak is not None
    assert not strong.is_known.any()
    assert strong.tasks == ((),) * 6
    assert (strong.image - strong.weak).abs().amax((1, 2, 3)).median() > 0.1
    assert batch[LABELLED].weak is None
    plain = open_sets(sets, ALL, which_aug="none", crop_px=SIDE)
    (still,) = batches(plain, steps=1)
    torch.testing.assert_close(still[STRONG].image, still[STRONG].weak, atol=1e-4, rtol=0)


def test_pixels_in_holes_do_not_count(sets):
    data = open_sets(sets, ALL, aug=ViewConfig(hole_p=1.0))
    (batch,) = batches(data, steps=1)
    assert (~batch[STRONG].valid.all(1)).any((-1, -2)).all()
    (whole,) = batches(open_sets(sets, ALL, which_aug="none", crop_px=SIDE), steps=1)
    assert whole[STRONG].valid.all()


def test_the_parts_of_a_batch_draw_their_images_independently(sets):
    still = open_sets(sets, ALL, which_aug="none", crop_px=SIDE)
    first, second = ([batch[part].image for batch in batches(still, steps=3)] for part in (LABELLED, STRONG))
    assert any((one - other).abs().max() > 0.1 for one, other in zip(first, second, strict=True))


def test_a_class_that_is_annotated_has_no_pseudo_label(sets, tmp_path):
    write_pseudo(open_sets(sets), tmp_path, every=True)
    data = open_sets(sets, frozenset({PSEUDO}), pseudo_labels=str(tmp_path))
    (batch,) = batches(data, steps=1)
    assert not (batch[PSEUDO].is_known & batch[LABELLED].is_known).any()
    assert (batch[PSEUDO].is_known | batch[LABELLED].is_known).all()


def test_pseudo_labels_are_of_the_other_classes(sets, tmp_path):
    write_pseudo(open_sets(sets), tmp_path)
    data = open_sets(sets, frozenset({PSEUDO}), pseudo_labels=str(tmp_path), which_aug="none", crop_px=SIDE)
    (batch,) = batches(data, steps=1)
    pseudo = batch[PSEUDO]
    assert pseudo.is_known.int().tolist() == 2 * [[0, 1, 1, 1, 1]] + 2 * [[1, 0, 0, 1, 1]] + 2 * [[1, 1, 1, 0, 0]]
    assert pseudo.tasks == ((1, 2), (1, 2), (0, 2), (0, 2), (0, 1), (0, 1))
    assert pseudo.label[pseudo.is_known].any((-1, -2)).all()
    assert not pseudo.label[~pseudo.is_known].any()
    assert pseudo.valid.all()
    assert any(name.startswith("pseudo/") for name in data.contents())


def test_unknown_pixels_of_pseudo_labels_do_not_count(sets, tmp_path):
    write_pseudo(open_sets(sets), tmp_path, certain=False)
    data = open_sets(sets, frozenset({PSEUDO}), pseudo_labels=str(tmp_path), which_aug="none", crop_px=SIDE)
    (batch,) = batches(data, steps=1)
    pseudo = batch[PSEUDO]
    assert torch.equal(pseudo.valid, ~pseudo.is_known[:, :, None, None].expand_as(pseudo.valid))
    assert not pseudo.label.any()


def test_annotated_views_are_mirrored_until_a_class_is_on_one_side(sets, tmp_path, caplog):
    caplog.set_level("INFO")
    labels = write_pseudo(open_sets(sets), tmp_path)
    settings = {"pseudo_labels": str(tmp_path), "aug": ViewConfig((1.0, 1.0), rotations_deg=(0.0,)), "crop_px": SIDE}
    data = open_sets(sets, frozenset({PSEUDO}), align_side="disc", **settings)
    (batch,) = batches(data, steps=1, batch_size=6)
    assert (mean_column(batch[LABELLED].label[12:, 3]) < 0.5).all()  # the discs of DISCS, by their masks
    seen = mean_column(batch[LABELLED].label[:6, 0])  # the lines of LINES, by the pseudo-labels of their discs
    lines, right = data.trained[0], []
    for image_id in lines.ids("train"):
        disc, line = (
            read_mask(path)[None]
            for path in (labels.path("LINES", "disc", image_id), image_set(lines).folder.mask_path(image_id, "line"))
        )
        is_right = mean_column(disc) > 0.5
        right.append(bool(is_right))
        own = mean_column(line)
        assert (abs(seen - (1 - own if is_right else own)) < 1e-5).any()
    assert 0 < sum(right) < 6
    assert f"LINES: {sum(right)} of 6 images have disc on the right and are mirrored" in caplog.text
    usual = batches(open_sets(sets, frozenset({PSEUDO}), **settings), steps=1, batch_size=6)[0]
    assert torch.equal(usual[PSEUDO].image, batch[PSEUDO].image)
    assert (mean_column(usual[LABELLED].label[12:, 3]) > 0.5).any()


def mean_column(masks):
    share = np.asarray(masks).sum(-2)
    return (share @ (np.arange(SIDE) + 0.5)) / share.sum(-1) / SIDE


def test_a_set_that_does_not_show_the_class_is_mirrored_at_random(sets):
    data = open_sets(sets, align_side="disc")
    assert {name: set(p) for name, p in data._mirror_p.items()} == {"LINES": {0.5}, "BLOBS": {0.5}, "DISCS": {0.0, 1.0}}


def test_pseudo_labels_that_do_not_fit_are_refused(sets, tmp_path):
    needs = frozenset({PSEUDO})
    with pytest.raises(ConfigError, match=r"none given.*frugalseg pseudo-labels partial_generator"):
        _ = open_sets(sets, needs).pseudo_classes
    with pytest.raises(DataError, match="missing, or not finished"):
        _ = open_sets(sets, needs, pseudo_labels=str(tmp_path / "nowhere")).pseudo_classes
    labels = write_pseudo(open_sets(sets), tmp_path)
    assert open_sets(sets, needs, pseudo_labels=str(tmp_path)).pseudo_classes["LINES"] == (
        *("bright", "dark", "disc", "cup"),
    )
    with pytest.raises(ConfigError, match="holds pseudo-labels of the run run, not of other"):
        labels.begin("other")
    path = labels.path("DISCS", "line", "discs0")
    write_png(path, np.zeros((SIDE, SIDE), np.uint8))
    with pytest.raises(DataError, match=r"DISCS/line/discs0.png is not as the run wrote it"):
        _ = open_sets(sets, needs, pseudo_labels=str(tmp_path)).pseudo_classes
    path.unlink()
    with pytest.raises(DataError, match=r"DISCS/line/discs0.png is missing"):
        _ = open_sets(sets, needs, pseudo_labels=str(tmp_path)).pseudo_classes


def test_pseudo_labels_of_other_images_or_tasks_are_refused(sets, tmp_path):
    needs = frozenset({PSEUDO})
    some = open_sets(sets, datasets=[folder(sets, LINES), folder(sets, BLOBS)])
    write_pseudo(some, tmp_path / "some")
    with pytest.raises(DataError, match="the run run does not segment disc"):
        _ = open_sets(sets, needs, pseudo_labels=str(tmp_path / "some")).pseudo_classes
    other = write_sets(tmp_path / "other", n_train=5)
    write_pseudo(open_sets(other), tmp_path / "fewer")
    with pytest.raises(DataError, match="no labels of the training image lines5 of LINES"):
        _ = open_sets(sets, needs, pseudo_labels=str(tmp_path / "fewer")).pseudo_classes
    manifest = other / LINES.prepared_folder(SIDE) / MANIFEST
    changed = manifest.read_text().splitlines()
    changed[1] = changed[1].replace(changed[1].split(",")[4], "0" * 64)
    manifest.write_text("\n".join(changed) + "\n")
    with pytest.raises(DataError, match="made from another image lines0 of LINES"):
        _ = open_sets(other, needs, pseudo_labels=str(tmp_path / "fewer")).pseudo_classes


def test_one_data_set_can_be_left_out_and_a_task_too(sets):
    two = open_sets(sets, datasets=[folder(sets, LINES), folder(sets, DISCS)])
    assert two.names == ("line", "disc", "cup")
    assert batches(two, steps=1)[0][LABELLED].source.tolist() == [0, 0, 1, 1]
    lesions = open_sets(sets, tasks=("lesion",))
    assert [each.name for each in lesions.trained] == ["BLOBS"]
    assert lesions.config.facts.sources == ("BLOBS",)
    assert lesions.names == ("bright", "dark")


def test_missing_as_background_claims_to_know_everything(sets):
    (batch,) = batches(open_sets(sets, missing="background"), steps=1)
    assert batch[LABELLED].is_known.all()
    assert batch[LABELLED].tasks == ((0, 1, 2),) * 6
    assert not batch[LABELLED].label[:2, 1:].any()


def test_every_test_image_is_read_with_the_masks_that_its_set_has(sets):
    data = open_sets(sets, scored=[folder(sets, MIXED), folder(sets, LINES)])
    assert [each.name for each in data.scored] == ["MIXED", "LINES"]
    assert list(data.tested_cases()) == [f"{s}/{s.lower()}{n}" for s in ("MIXED", "LINES") for n in (6, 7, 8)]
    first = next(data.cases(data.scored[0]))()
    masks = make_picture(306).masks
    assert first.case.classes == (1, 2, 3, 4, 5)
    assert first.case.ids == ("mixed6",)
    assert np.array_equal(first.truth[:, 0], np.stack([masks[name] for name in ("bright", "dark", "disc")]))
    assert first.inside is None


def test_by_default_those_are_scored_that_are_trained_on(sets):
    assert [each.name for each in open_sets(sets).scored] == ["LINES", "BLOBS", "DISCS"]
    further = open_sets(sets).config.on(folder(sets, MIXED))
    assert further.spec.name == "MIXED"
    assert further.task_list == open_sets(sets).config.task_list
    with pytest.raises(ConfigError, match="scored already"):
        open_sets(sets).config.on(folder(sets, LINES))


def test_the_field_of_view_counts_unless_all_pixels_are_wanted(tmp_path):
    root = write_sets(tmp_path, n_train=1, n_test=1)
    data = open_sets(root)
    field = np.zeros((SIDE, SIDE), np.uint8)
    field[4:-4, 4:-4] = 255
    write_png(image_set(data.scored[0]).folder.field_path("lines1"), field)
    (read,) = data.cases(data.scored[0])
    inside = read().inside
    assert inside is not None
    assert np.array_equal(inside[0], field > 0)
    everything = replace(data, config=replace(data.config, fov=False))
    (read,) = everything.cases(everything.scored[0])
    assert read().inside is None


def test_an_image_that_is_trained_on_elsewhere_is_found(tmp_path):
    root = write_sets(tmp_path, n_train=2, n_test=1)
    data = open_sets(root, scored=[folder(root, MIXED)])
    data.require_separate()
    lines, mixed = image_set(data.trained[0]).folder, image_set(data.scored[0]).folder
    row, twin = mixed.row("mixed2"), lines.row("lines0")
    flipped = f"{int(twin['fingerprint'], 16) ^ 0b10101:064x}"
    row["fingerprint"] = flipped
    with pytest.raises(DataError, match=r"1 scored image.s. are trained on .MIXED: mixed2 is LINES: lines0"):
        data.require_separate()
    replace(data, config=replace(data.config, accept_shared_images=True)).require_separate()
    row["fingerprint"] = ""
    data.require_separate()
    row["image_sha256"] = twin["image_sha256"]
    with pytest.raises(DataError, match="mixed2 is LINES: lines0"):
        data.require_separate()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"datasets": ()}, "expected at least one data set"),
        ({"which_aug": "x"}, "expected one of fundus, slices, none"),
        ({"mean": (1.0,)}, "1 numbers; expected 3"),
        ({"sd": (1.0, 0.0, 1.0)}, "expected numbers above 0"),
        ({"tasks": ("liver",)}, "no data set is annotated for 'liver'"),
        ({"crop_px": 10_000}, "more than eight times"),
        ({"align_side": "macula"}, "expected one of line, bright, dark, disc, cup"),
    ],
)
def test_impossible_settings_are_refused(sets, settings, message):
    usual = {"datasets": tuple(folder(sets, spec) for spec in (LINES, BLOBS, DISCS))}
    with pytest.raises(ConfigError, match=message):
        PartialDataConfig(**{**usual, **settings})


def test_a_data_set_given_twice_is_refused(sets):
    with pytest.raises(ConfigError, match="LINES is given twice"):
        PartialDataConfig(datasets=(folder(sets, LINES),) * 2)


def test_a_set_without_any_of_the_classes_cannot_be_scored(sets):
    lines, discs = folder(sets, LINES), folder(sets, DISCS)
    with pytest.raises(ConfigError, match="scored: DISCS is annotated for disc, cup; the network segments line"):
        PartialDataConfig(datasets=(lines,), scored=(discs,))


def test_images_of_another_size_are_refused(sets):
    data = open_sets(sets)
    lines = replace(data.trained[0], side_px=64)
    other = replace(data, trained=(lines,), scored=(lines,))
    with pytest.raises(DataError, match="Set size_px to what was prepared"):
        batches(other, steps=1)
    with pytest.raises(DataError, match="32 x 32 px; expected 64 x 64"):
        next(other.cases(lines))()
