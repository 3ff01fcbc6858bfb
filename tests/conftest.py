"""Shared fixtures: the folder of real data, a tiny generated data set, a run trained on it."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import fcntl
import gc
import pathlib
import shutil
import sys

import numpy as np
import pytest
import yaml

import ssd_tf  # noqa: F401 - it sets TensorFlow's variables before TensorFlow is imported

pytest_plugins = ["cpu_report"]

ROOT = pathlib.Path(__file__).parents[1]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Files with tests that take long come first, so that two processes end at the same time."""
    long = {item.path for item in items if item.get_closest_marker("integration")}
    items.sort(key=lambda item: item.path not in long)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Import TensorFlow and all tests without the garbage collector, which would find nothing."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish():
    """Make functions of TensorFlow cheap to trace.

    The garbage collector need not walk through what is imported, again and again. Graphs of toy
    networks need no optimizer; the processes that tests start have one, as users do.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    if tensorflow := sys.modules.get("tensorflow"):
        tensorflow.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


# Category ids with gaps, and not in the order of the names.
CLASSES = ({"name": "red", "id": 7}, {"name": "green", "id": 3}, {"name": "blue", "id": 12})
RGB = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 230)}

# Height, width, then per object its class and corners ymin, xmin, ymax, xmax in pixels. No image is
# square; one has no object.
IMAGES = (
    (64, 96, [("red", 8, 6, 40, 46)]),
    (96, 64, [("green", 30, 10, 78, 42)]),
    (64, 96, [("blue", 16, 40, 56, 88)]),
    (80, 120, [("red", 30, 60, 76, 110), ("green", 4, 8, 60, 36)]),
    (64, 96, []),
    (60, 100, [("blue", 6, 10, 40, 48), ("red", 24, 58, 54, 92)]),
)


def draw_image(index):
    """One of IMAGES, uint8 [H, W, 3]: gray, with a rectangle in the class's colour per object."""
    height, width, objects = IMAGES[index]
    noise = np.random.default_rng(index).integers(-12, 13, (height, width, 3))
    image = np.full((height, width, 3), 110) + noise
    for name, ymin, xmin, ymax, xmax in objects:
        image[ymin:ymax, xmin:xmax] = RGB[name]
    return image.astype(np.uint8)


def write_records(folder, splits, classes=CLASSES):
    """Write a data set of IMAGES; splits maps the name of a split to the indices of its images."""
    from data_sets import write_classes, write_split

    names = [entry["name"] for entry in classes]
    entries = {}
    for split, indices in splits.items():
        # Else protobuf may order the features in another way in each process.
        records = [
            make_record(index, names).SerializeToString(deterministic=True) for index in indices
        ]
        num_boxes = sum(len(IMAGES[index][2]) for index in indices)
        entries[split] = write_split(folder, split, [records], num_boxes)
    return write_classes(folder, classes, entries)


def make_record(index, names):
    """One of IMAGES as a tf.train.Example; names: the classes in label order."""
    from data_sets import encode

    from ssd_tf.data.records import make_example

    height, width, objects = IMAGES[index]
    return make_example(
        image=encode(draw_image(index)),
        image_format="png",
        height=height,
        width=width,
        filename=f"{index}.png",
        source_id=str(100 + index),
        boxes=[
            [ymin / height, xmin / width, ymax / height, xmax / width]
            for _, ymin, xmin, ymax, xmax in objects
        ],
        labels=[names.index(name) + 1 for name, *_ in objects],
        texts=[name for name, *_ in objects],
    )


TINY = {
    "model": {
        "input_hw": [64, 96],
        "backbone": {"name": "plain", "first_stride": 8},
        "num_levels": 3,
        "head": "separable",
    },
    "boxes": {"preset": "paper", "s_min": 0.4, "s_max": 0.8, "aspect_ratios": [2.0]},
    "train": {
        "steps": 80,
        "batch_size": 6,
        "learning_rate": 0.05,
        "weight_decay": 0.0,
        "schedule": "cosine",
    },
    "eval": {"max_detections": 20, "every": 30},
    "export": {"max_detections": 20},
}


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real images and annotations beside the checkout."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs real data, and there is no folder {folder}")
    return folder


@pytest.fixture
def make_data(tmp_path):
    """A function: a data set of IMAGES in tmp_path / name, with these indices in its splits."""

    def make(name, **splits):
        (tmp_path / name).mkdir()
        return write_records(tmp_path / name, splits)

    return make


@pytest.fixture(scope="session")
def tiny_data(built_once):
    """TFRecords of IMAGES: all of them in `train`, four of them in `val`."""

    def build(folder):
        folder.mkdir()
        write_records(folder, {"train": range(6), "val": [0, 1, 3, 4]})

    return built_once("data", build)


@pytest.fixture(scope="session")
def blue_first(tmp_path_factory):
    """Some of IMAGES in a data set that lists blue first and red last, with other ids."""
    classes = [{"name": "blue", "id": 1}, {"name": "green", "id": 2}, {"name": "red", "id": 3}]
    return write_records(
        tmp_path_factory.mktemp("blue_first"), {"train": [0], "val": [0, 1, 3, 4]}, classes
    )


@pytest.fixture(scope="session")
def tiny_config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny_config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="session")
def tiny_config(tiny_config_file):
    from ssd_tf.config import load_config

    return load_config(tiny_config_file)


@pytest.fixture(scope="session")
def built_once(tmp_path_factory):
    """A function: name, build -> a copy of the folder that build(folder) makes.

    It is made once for all processes of pytest-xdist, which wait for each other.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def copy_of(name, build):
        folder = root / f"shared_{name}"
        complete = root / f"shared_{name}.complete"
        with open(root / f"shared_{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)
                build(folder)
                complete.touch()
        return shutil.copytree(folder, tmp_path_factory.mktemp(name) / name)

    return copy_of


@pytest.fixture(scope="session")
def tiny_run(built_once, tiny_data, tiny_config):
    """The run folder of a detector overfitted to IMAGES."""
    from ssd_tf.training.train import train

    return built_once("run", lambda folder: train(tiny_config, tiny_data, folder))


@pytest.fixture(autouse=True)
def thresholds_do_not_stay(request):
    """An evaluation of the tiny run leaves its thresholds there, which later tests must not see."""
    yield
    if "tiny_run" in request.fixturenames:
        for name in ("thresholds.json", "written.sha256"):
            (request.getfixturevalue("tiny_run") / name).unlink(missing_ok=True)


@pytest.fixture(scope="session")
def tiny_detector(tiny_run):
    from ssd_tf.inference.loading import load_detector

    return load_detector(tiny_run)


@pytest.fixture(scope="session")
def images():
    return [draw_image(index) for index in range(len(IMAGES))]
