import matplotlib.pyplot as plt
import pytest
from matplotlib.image import imread

from util.results import curves, progress
from util.results.progress import Progress

SCALARS = {
    "train/loss": [[10, 20], [1.0, 0.5]],
    "val/dice": [[20], [0.7]],
    "train_set/dice_to_clean/all": [[20], [0.6]],
}


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, in a list of one."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def drawn(monkeypatch, clock):
    """The figures that would have been saved; each takes two seconds."""
    figures = []

    def save(figure, path):
        figures.append(figure)
        clock[0] += 2

    monkeypatch.setattr(curves, "save_figure", save)
    return figures


def test_it_draws_at_most_once_a_minute_and_less_than_a_hundredth_of_the_time(tmp_path, clock, drawn):
    picture = Progress(tmp_path, "mine", 0, 1000)
    picture.draw_if_due(10, SCALARS)
    clock[0] += 60
    picture.draw_if_due(20, {})  # nothing is logged yet
    assert drawn == []
    clock[0] += 60
    picture.draw_if_due(30, SCALARS)
    clock[0] += 199
    picture.draw_if_due(40, SCALARS)
    assert len(drawn) == 1
    clock[0] += 2
    picture.draw_if_due(50, SCALARS)
    assert len(drawn) == 2


def test_nothing_is_drawn_where_no_picture_is_wanted(tmp_path, clock, drawn):
    for is_drawn in (False, True):
        picture = Progress(tmp_path, "mine", 0, 1000, is_drawn)
        clock[0] += 1000
        picture.draw_if_due(50, SCALARS)
        assert bool(drawn) is is_drawn


def test_the_title_tells_step_and_time_left(tmp_path, clock, drawn):
    picture = Progress(tmp_path, "JoCoR on JSRT", 500, 1000)
    clock[0] += 60
    picture.draw(600, SCALARS)  # 0.6 s per step
    picture.draw(1000, SCALARS)
    titles = [figure.get_suptitle().splitlines() for figure in drawn]
    assert titles == [
        ["JoCoR on JSRT", "step 600 of 1000, about 0:04:00 left"],
        ["JoCoR on JSRT", "step 1000 of 1000"],
    ]
    assert [axes.get_title() for axes in drawn[0].axes] == ["train/loss", "val/dice"]


def test_the_picture_is_replaced_as_a_whole(tmp_path):
    picture = Progress(tmp_path, "mine", 0, 1000)
    for step in (20, 30):
        picture.draw(step, SCALARS)
        assert [path.name for path in tmp_path.iterdir()] == ["progress.png"]
        assert imread(tmp_path / "progress.png").shape[1] > 800
    assert not plt.get_fignums()


def test_what_prevents_the_picture_does_not_stop_training(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    Progress(tmp_path / "file", "mine", 0, 1000).draw(20, SCALARS)
    Progress(tmp_path, "mine", 0, 1000).draw(20, {"train/loss": [[1, 2], [1.0]]})
    assert ["progress.png: left out, the scores are not affected" in line for line in caplog.messages] == [True, True]
    assert not (tmp_path / "progress.png").exists()
