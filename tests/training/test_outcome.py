"""The Result of a run, from the files in its folder."""

import pytest
from PIL import Image

from ssd_tf.draw import HeldOut
from ssd_tf.training.live_page import LivePage
from ssd_tf.training.monitor import METRICS
from ssd_tf.training.outcome import describe, read_result
from ssd_tf.training.progress import Plan

HEADER = (
    "step,loss,classification,localization,l2,positives_per_image,gradient_norm,learning_rate,"
    "AP,AP50,AP75\n"
)


@pytest.fixture
def folder(tmp_path):
    """A function: a run folder with checkpoints {folder: step} and rows of metrics.csv."""

    def make(rows="", **checkpoints):
        for name, step in checkpoints.items():
            path = tmp_path / "checkpoints" / name / f"ckpt-{step}.index"
            path.parent.mkdir(parents=True)
            path.touch()
        (tmp_path / "metrics.csv").write_text(HEADER + rows)
        return tmp_path

    return make


def test_nothing_was_saved(folder):
    result = read_result(folder())
    assert dict(result) == {}
    assert list(result.paths) == ["numbers"]
    assert str(result.folder) in describe(result)


def test_the_best_of_several_evaluations(folder):
    rows = "10,1,1,1,1,1,1,1,0.25,0.5,\n20,1,1,1,1,1,1,1,0.125,0.75,0.5\n"
    run = folder(rows, best=10, last=20)
    result = read_result(run)
    assert dict(result) == {"step": 10, "AP": 0.25, "AP50": 0.5}
    assert result.paths["weights"] == run / "checkpoints" / "best" / "ckpt-10"
    assert result.rows == (("step", "10"), ("AP", "0.250"), ("AP50", "0.500"))
    assert "step 10" in describe(result) and "AP 0.250" in describe(result)


def test_without_evaluations_it_is_the_last(folder):
    result = read_result(folder("20,1,1,1,1,1,1,1,,,\n", last=20))
    assert dict(result) == {"step": 20}
    assert not set(METRICS) & set(result)
    assert "step 20" in describe(result)


def test_the_images_of_the_best_evaluation(folder, tiny_config):
    run = folder(best=50, last=50)
    image = Image.new("RGB", (30, 20))
    page = LivePage(run, Plan(100, 8, 160), tiny_config, 0)
    for step in (0, 50, 100):
        page.keep_images(step, [HeldOut("a.jpg", image, image)], best_steps=[50])
    assert list(read_result(run).images) == ["a.jpg, step 50"]
