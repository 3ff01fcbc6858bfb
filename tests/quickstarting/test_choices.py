"""The choices, with numbers worked out by hand."""

import numpy as np
import pytest

from ssd_tf.quickstarting import choices
from ssd_tf.quickstarting.choices import Pace, Statistics


def make_statistics(sides=(0.5,), image_hw=(480, 640), **changes):
    given = {"images": {"train": 100, "val": 20}, "objects": {"cat": 100}, "unlabelled": 0}
    return Statistics(image_hw=image_hw, object_sides=np.array(sides), **(given | changes))


def input_of(statistics, start_hw=(320, 320), seconds_per_image=0.01, minutes=15):
    choice = choices.choose_input(statistics, start_hw, seconds_per_image, minutes)
    assert list(choice.values) == ["model.input_hw"]
    return choice.values["model.input_hw"]


def test_without_objects_the_input_is_that_of_the_start():
    assert input_of(make_statistics(sides=())) == [320, 320]


def test_the_input_of_the_start_need_not_be_square():
    assert input_of(make_statistics(), start_hw=(192, 288)) == [192, 288]


@pytest.mark.parametrize(
    ("image_hw", "expected"),
    [
        ((480, 640), [320, 320]),  # 1.33 times as wide, as COCO's
        ((640, 480), [320, 320]),
        ((1080, 1920), [256, 416]),  # 240 x 426.7
        ((1920, 1080), [416, 256]),
        ((100, 1000), [96, 1024]),  # 101.2 x 1011.9
    ],
)
def test_long_images_get_a_long_input_of_the_same_area(image_hw, expected):
    assert input_of(make_statistics(image_hw=image_hw)) == expected


def test_small_objects_get_a_larger_input():
    # .04 of 320 are 12.8 pixels, of 480 19.2.
    assert input_of(make_statistics([0.04], (1000, 1000))) == [480, 480]
    # 9.6 pixels at 480, 12.8 at 640, the largest.
    assert input_of(make_statistics([0.02], (1000, 1000))) == [640, 640]


def test_a_quarter_of_small_objects_is_not_many():
    assert input_of(make_statistics([0.04, 0.5, 0.5, 0.5], (1000, 1000))) == [320, 320]
    assert input_of(make_statistics([0.04, 0.04, 0.5, 0.5, 0.5], (1000, 1000))) == [480, 480]


def test_no_input_is_larger_than_the_images():
    # 480 x 480 are 230,400 pixels, 450 x 450 times 1.1 are 222,750.
    assert input_of(make_statistics([0.04], (450, 450))) == [320, 320]
    assert input_of(make_statistics([0.04], (460, 460))) == [480, 480]


def test_a_larger_input_must_leave_time_for_ten_passes():
    # A pass over 100 images takes 225 times as many seconds at 480 x 480.
    statistics = make_statistics([0.04], (1000, 1000))
    assert input_of(statistics, seconds_per_image=0.41) == [320, 320]
    assert input_of(statistics, seconds_per_image=0.39) == [480, 480]
    # 640 x 640 would take 400.
    statistics = make_statistics([0.02], (1000, 1000))
    assert input_of(statistics, seconds_per_image=0.39) == [480, 480]


@pytest.mark.parametrize(
    ("covered", "from_run", "expected"),
    [(0.8, False, False), (0.79, False, True), (0.3, True, False), (0.29, True, True)],
)
def test_trained_box_heads_are_kept_longer(covered, from_run, expected):
    assert choices.needs_fitting(covered, from_run) is expected


@pytest.mark.parametrize(
    ("covered", "fitted", "expected"),
    [
        (0.9, None, False),
        (0.7, 0.8, True),
        (0.7, 0.74, False),
        (0.1, 0.16, True),
        (0.5, 0.4, False),
    ],
)
def test_fitted_boxes_must_cover_five_percent_more(covered, fitted, expected):
    assert choices.is_worth_fitting(covered, fitted) is expected
    choice = choices.choose_boxes(covered, fitted)
    assert f"{covered:.0%}" in choice.reason
    assert ("start" in choice.shown) is not expected


@pytest.mark.parametrize(
    ("num_images", "size"), [(1, 2), (3, 2), (4, 4), (15, 8), (16, 16), (9999, 16)]
)
def test_a_batch_has_no_image_twice(num_images, size):
    assert choices.choose_batch(num_images).values == {"train.batch_size": size}


def schedule(num_images, pace, minutes, steps=None, from_run=True):
    values = {}
    for choice in choices.choose_schedule(num_images, 16, pace, minutes, from_run, steps):
        values |= choice.values
    assert values.pop("eval.every") == values["train.checkpoint_every"]
    return values


def test_a_schedule_of_fifteen_minutes():
    # An evaluation at 100 - 20 seconds, every 40 steps; 875 s / (2 + 5 / 40) s are 411 steps.
    assert schedule(200, Pace(2, 20, 5), 15) == {
        "train.steps": 411,
        "train.checkpoint_every": 42,
        "eval.patience": 4,
        "train.warmup_steps": 21,
        "train.ema": 0.987,
    }


def test_only_a_run_is_evaluated_before_the_first_step():
    # 880 s / (2 + 5 / 40) s.
    assert schedule(200, Pace(2, 20, 5), 15, from_run=False)["train.steps"] == 414
    for from_run, seconds in ((True, 25), (False, 109)):
        found = choices.choose_schedule(200, 16, Pace(2, 20, 5), 15, from_run)
        (reason,) = [choice.reason for choice in found if "eval.every" in choice.values]
        assert f" {seconds} s" in reason


def test_slow_evaluations_are_rare():
    # Every 200 s: 1,770 s / (1 + 20 / 200) s are 1,609 steps.
    values = schedule(200, Pace(1, 10, 20), 30)
    assert (values["train.steps"], values["train.checkpoint_every"]) == (1609, 202)


def test_a_long_schedule():
    # Every 90 s, 900 steps: 3,589 s / (.1 + 1 / 900) s; 39 evaluations.
    assert schedule(1000, Pace(0.1, 10, 1), 60) == {
        "train.steps": 35495,
        "train.checkpoint_every": 911,
        "eval.patience": 16,
        "train.warmup_steps": 100,
        "train.ema": 0.995,
    }


def test_a_short_budget_is_evaluated_every_tenth_of_it():
    # Every 12 s, 120 steps: 109 s / (.1 + 1 / 120) s.
    values = schedule(1000, Pace(0.1, 10, 1), 2)
    assert (values["train.steps"], values["train.checkpoint_every"]) == (1006, 126)


def test_a_slow_start_does_not_bring_an_evaluation_after_each_step():
    # 120 s to start, so no image within 100 s: every fortieth of 900 s, 22.5 s or 11.25 steps.
    # 780 s / (2 + 0 / 11.25) s are 390 steps; 390 / 12 evaluations.
    values = schedule(200, Pace(2, 120, 0), 15)
    assert (values["train.steps"], values["train.checkpoint_every"]) == (390, 12)
    # A step of 30 s takes longer than that: 26 steps and evaluations, of which 40 % are 10.
    values = schedule(200, Pace(30, 120, 0), 15)
    assert (values["train.checkpoint_every"], values["eval.patience"]) == (1, 10)


def test_the_last_evaluation_is_in_the_minutes():
    # 120 - 20 - 20 s, less a whole evaluation, though a tenth of the training would be 7 s.
    assert schedule(200, Pace(1, 20, 20), 2)["train.steps"] == 60


def test_ten_steps_are_made_in_any_case():
    assert schedule(200, Pace(2, 20, 5), 0.1) == {
        "train.steps": 10,
        "train.checkpoint_every": 10,
        "eval.patience": 4,
        "train.warmup_steps": 0,
        "train.ema": 0.5,
    }


def test_steps_of_the_user_are_kept():
    values = schedule(200, Pace(2, 20, 5), 15, steps=3)
    assert values["train.steps"] == 3
    assert (values["train.checkpoint_every"], values["train.warmup_steps"]) == (3, 0)
    assert schedule(200, Pace(200, 200, 5), 15, steps=3)["train.checkpoint_every"] == 1


def test_a_warning_of_less_than_one_pass():
    pace = Pace(2, 20, 5)
    assert choices.explain_short_budget(200, 16, 13, pace, 0.5) is None
    # (12.5 * 2 + 20 + 10) s are .92 minutes.
    warning = choices.explain_short_budget(200, 16, 12, pace, 0.5)
    for text in ("--minutes 0.5 ", "192 of 200", "--minutes 1,", "--minutes 10"):
        assert text in warning


def test_data_without_weaknesses():
    assert choices.find_weaknesses(make_statistics(), (320, 320)) == []


def test_weaknesses():
    statistics = make_statistics(
        sides=[0.02, 0.5],
        images={"train": 49},
        objects={"cat": 19, "dog": 20, "cow": 0},
        unlabelled=25,
    )
    few, absent, rare, tiny, unlabelled = choices.find_weaknesses(statistics, (320, 320))
    assert "49" in few
    assert "cow" in absent and "cat" not in absent
    assert "cat" in rare and "dog" not in rare and "cow" not in rare
    assert "50%" in tiny
    assert "25 of 49" in unlabelled
    # .02 of 512 are 10.2 pixels.
    assert len(choices.find_weaknesses(statistics, (512, 512))) == 4


def test_long_lists_of_classes_are_cut():
    objects = {f"class{index}": 1 for index in range(7)}
    (rare,) = choices.find_weaknesses(make_statistics(objects=objects), (320, 320))
    assert "class4 and 2 more" in rare
