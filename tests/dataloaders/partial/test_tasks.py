"""Tasks of several data sets are joined by name, and contradictions between descriptions are refused."""

from dataclasses import replace

import pytest

from dataloaders.description import ClassSpec, DatasetSpec
from dataloaders.partial.tasks import channels_of, join_specs, join_tasks, known_channels, known_task_numbers
from dataloaders.samples import Task
from tests.partial_sets import BLOBS, DISCS, LINES, MIXED
from util.errors import ConfigError

VESSEL, LESION, DISC = Task("vessel", ("line",)), BLOBS.tasks[0], DISCS.tasks[0]


def images(name, *classes, tasks=()):
    return DatasetSpec(name, "images", classes=tuple(map(ClassSpec, classes)), tasks=tasks)


def test_tasks_come_in_the_order_of_the_data_sets_and_have_the_most_complete_classes():
    assert join_tasks([LINES, BLOBS, DISCS]) == (VESSEL, LESION, DISC)
    assert join_tasks([MIXED, LINES, DISCS]) == (LESION, DISC, VESSEL)
    assert channels_of(join_tasks([LINES, BLOBS, DISCS])) == ("line", "bright", "dark", "disc", "cup")


def test_without_tasks_every_class_is_one():
    liver, kidneys = images("A", "liver"), images("B", "left", "right")
    assert join_tasks([liver, kidneys]) == tuple(Task(name, (name,)) for name in ("liver", "left", "right"))


def test_some_of_the_tasks_can_be_chosen():
    assert join_tasks([LINES, BLOBS, DISCS], ["disc_cup", "vessel"]) == (VESSEL, DISC)
    with pytest.raises(ConfigError, match=r"no data set is annotated for 'liver'.*LINES: vessel; BLOBS: lesion"):
        join_tasks([LINES, BLOBS], ["liver"])


def test_what_a_data_set_is_annotated_for():
    tasks = join_tasks([LINES, BLOBS, DISCS])
    assert [known_channels(spec, tasks) for spec in (LINES, BLOBS, DISCS, MIXED)] == [(0,), (1, 2), (3, 4), (1, 2, 3)]
    assert known_task_numbers((1, 2, 3), tasks) == (1, 2)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (images("X", "cup", "disc", tasks=(Task("disc_cup", ("cup", "disc"), "nested"),)), "some of the latter"),
        (images("X", "disc", "cup", tasks=(Task("disc_cup", ("disc", "cup")),)), "independent in X, but nested"),
        (images("X", "disc", tasks=(Task("optic", ("disc",)),)), "'disc': in task 'disc_cup', and in task 'optic'"),
        (images("X", "disc", "rim", tasks=(Task("disc_cup", ("disc", "rim"), "nested"),)), "disc, rim in X"),
    ],
)
def test_contradictions_are_refused(other, message):
    with pytest.raises(ConfigError, match=message):
        join_tasks([DISCS, other])


def test_one_description_of_all():
    joined = join_specs([LINES, BLOBS, DISCS], join_tasks([LINES, BLOBS, DISCS]))
    assert joined.name == "LINES+BLOBS+DISCS"
    assert joined.class_names == ("background", "line", "bright", "dark", "disc", "cup")
    assert joined.tasks == (VESSEL, LESION, DISC)
    with pytest.raises(ConfigError, match=r"LINES holds images of 3 channel.s., GREY images of 1"):
        join_specs([LINES, replace(BLOBS, name="GREY", channels=1)], ())


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ((Task("a", ("bright", "x")),), "'x' is no class"),
        ((Task("a", ()),), "has no class"),
        ((Task("a", ("bright",)),), "the class 'dark' is in none"),
        ((Task("a", ("bright",)), Task("b", ("bright", "dark"))), "the class='bright' is given twice"),
        ((Task("a", ("bright",)), Task("a", ("dark",))), "name='a' is given twice"),
        ((Task("a/b", ("bright", "dark")),), "slash"),
    ],
)
def test_tasks_of_a_description_must_fit_its_classes(tasks, message):
    with pytest.raises(ConfigError, match=message):
        images("X", "bright", "dark", tasks=tasks)
