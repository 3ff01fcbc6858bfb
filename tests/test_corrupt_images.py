"""Corrupt image files of every format through everything that reads images."""

import random

import image_samples
import pytest
import tensorflow as tf

from data_tools.conversion import image_checks
from ssd_tf import pixels
from ssd_tf.data import decoding

decode = tf.function(
    decoding.decode_image, input_signature=[tf.TensorSpec([], tf.string)], autograph=False
)
SAMPLES = image_samples.make_samples()


def make_corrupt(number, seed):
    """[(name, bytes)]: corrupt files of all formats, in turn."""
    chance = random.Random(seed)
    names = sorted(SAMPLES)
    return [
        (
            names[index % len(names)],
            image_samples.corrupt(SAMPLES[names[index % len(names)]], chance),
        )
        for index in range(number)
    ]


def read_all_ways(path, name, data):
    """Which of the three readers take the file; each raises what it promises or nothing."""
    path = path / f"corrupt_{name}"
    path.write_bytes(data)
    verdicts = []
    for read, promised in (
        (lambda: pixels.read_image(path), pixels.BadImage),
        (lambda: image_checks.check_image(path), image_checks.BadImage),
        (lambda: decode(data), tf.errors.InvalidArgumentError),
    ):
        try:
            read()
            verdicts.append(True)
        except promised:
            verdicts.append(False)
    return verdicts


def check(path, number, seed):
    verdicts = [read_all_ways(path, name, data) for name, data in make_corrupt(number, seed)]
    # The converter takes what the detector takes.
    assert [read for read, *_ in verdicts] == [checked for _, checked, _ in verdicts]
    for taken in zip(*verdicts, strict=True):
        assert number / 10 < sum(taken) < number * 9 / 10  # both verdicts occur


def test_nothing_but_the_promised_errors(tmp_path):
    check(tmp_path, 72, seed=1)


@pytest.mark.slow
def test_nothing_but_the_promised_errors_in_many_files(tmp_path):
    check(tmp_path, 600, seed=2)


@pytest.mark.slow
def test_detect_on_a_folder_of_corrupt_images(tiny_run, tmp_path):
    from ssd_tf.commands import detect

    (tmp_path / "in").mkdir()
    for index, (name, data) in enumerate(make_corrupt(300, seed=3)):
        (tmp_path / "in" / f"{index}_{name}").write_bytes(data)
    output = tmp_path / "out"
    argv = ["detect", f"--model={tiny_run}", f"--output={output}", str(tmp_path / "in")]
    assert detect.main(argv) == 0
    assert 30 < len(list(output.glob("*.*g"))) < 270
