"""Images, label files and reading of records that the tests of data_tools share."""

import importlib
import json
import pathlib

import drawn_data
import numpy as np
import pytest
from PIL import Image

from data_tools.conversion import pool

REAL_DATA = pathlib.Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def real_data():
    """A function: name of a folder of real data -> its path; skips if it is absent."""

    def find(name):
        if not (REAL_DATA / name).is_dir():
            pytest.skip(f"the real data set {name} is not at ../shared/data beside the checkout")
        return REAL_DATA / name

    return find


@pytest.fixture(scope="session")
def drawn_voc(tmp_path_factory):
    return drawn_data.write_voc(tmp_path_factory.mktemp("drawn_voc"))


@pytest.fixture(scope="session")
def drawn_yolo(tmp_path_factory):
    return drawn_data.write_yolo(tmp_path_factory.mktemp("drawn_yolo"))


@pytest.fixture(params=["drawn", pytest.param("real", marks=pytest.mark.integration)])
def cells(request, real_data, drawn_voc):
    """A VOC data set of blood cells: drawn, and BCCD itself."""
    return drawn_voc if request.param == "drawn" else real_data("bccd")


@pytest.fixture(params=["drawn", pytest.param("real", marks=pytest.mark.integration)])
def signs(request, real_data, drawn_yolo):
    """A YOLO data set of traffic signs: drawn, and photographs."""
    return drawn_yolo if request.param == "drawn" else real_data("robot_signs")


@pytest.fixture
def paint():
    """A function: path, size, box -> a gray Pillow image with a red box, saved unless path is None.

    size_wh: width, height; box: [xmin, ymin, xmax, ymax] in pixels; save: options of Image.save.
    """

    def paint(path, size_wh=(64, 48), box=(8, 16, 24, 40), **save):
        pixels = np.full((size_wh[1], size_wh[0], 3), 128, np.uint8)
        xmin, ymin, xmax, ymax = box
        pixels[ymin:ymax, xmin:xmax] = (230, 20, 20)
        image = Image.fromarray(pixels)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, **save)
        return image

    return paint


@pytest.fixture
def plant(tmp_path, paint):
    """A function: {path: text, or (width, height) of an image} -> the folder that holds them."""

    def plant(files):
        for name, content in files.items():
            path = tmp_path / "export" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            paint(path, content) if isinstance(content, tuple) else path.write_text(content)
        return tmp_path / "export"

    return plant


@pytest.fixture
def write_coco():
    """A function: writes COCO JSON and returns its path.

    images: [(id, file, width, height)]; annotations: [(image id, category id, bbox, more keys)];
    categories: [(id, name)].
    """

    def write(path, images, annotations=(), categories=((1, "cat"), (3, "dog"))):
        images = [
            {"id": image_id, "file_name": file, "width": width, "height": height}
            for image_id, file, width, height in images
        ]
        annotations = [
            {
                "id": annotation_id,
                "image_id": image_id,
                "category_id": category,
                "bbox": box,
                "area": 7.5,
                "iscrowd": 0,
                **more,
            }
            for annotation_id, (image_id, category, box, more) in enumerate(annotations, 1)
        ]
        categories = [{"id": category, "name": name} for category, name in categories]
        path.write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": categories})
        )
        return path

    return write


@pytest.fixture
def run(capsys, monkeypatch):
    """A function: a data_tools command, its flags -> (exit code, stderr without progress).

    Converters work in this process, unless `workers` says otherwise.
    """
    monkeypatch.setattr(pool, "SECONDS_PER_LINE", 1e9)

    def run(command, *arguments, **flags):
        argv = [command]
        if command in (
            "coco_to_tfrecord",
            "csv_to_tfrecord",
            "voc_to_tfrecord",
            "yolo_to_tfrecord",
        ):
            flags = {"workers": 1} | flags
        for name, value in flags.items():
            argv += [f"--{name}"] if value is True else [f"--{name}={value}"]
        code = importlib.import_module(f"data_tools.{command}").main([*argv, *arguments])
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def convert_coco(tmp_path, run):
    """A function: flags -> (exit code, stderr).

    Converts tmp_path/images and tmp_path/annotations.json into tmp_path/out.
    """

    def convert(**flags):
        given = {
            "images": tmp_path / "images",
            "annotations": tmp_path / "annotations.json",
            "output": tmp_path / "out",
        }
        return run("coco_to_tfrecord", **(given | {"workers": 1} | flags))

    return convert


@pytest.fixture
def read_split():
    """A function: folder, split -> its records in order, as plain dicts."""

    def read(folder, split="train"):
        import tensorflow as tf

        paths = [
            str(path) for path in sorted(pathlib.Path(folder).glob(f"{split}-*-of-*.tfrecord"))
        ]
        return [_to_dict(record) for record in tf.data.TFRecordDataset(paths).as_numpy_iterator()]

    return read


def _to_dict(record):
    import tensorflow as tf

    feature = tf.train.Example.FromString(record).features.feature
    values = {
        key: list(getattr(value, value.WhichOneof("kind")).value)
        for key, value in feature.items()
        if value.WhichOneof("kind")
    }
    sides = [
        values.get(f"image/object/bbox/{side}", []) for side in ("ymin", "xmin", "ymax", "xmax")
    ]
    return {
        "image": values["image/encoded"][0],
        "filename": values["image/filename"][0].decode(),
        "source_id": values["image/source_id"][0].decode(),
        "height": values["image/height"][0],
        "width": values["image/width"][0],
        "boxes": np.array(sides, np.float32).T.reshape(-1, 4),
        "labels": values.get("image/object/class/label", []),
        "texts": [text.decode() for text in values.get("image/object/class/text", [])],
        "areas": values.get("image/object/area", []),
        "crowd": values.get("image/object/is_crowd", []),
        "difficult": values.get("image/object/difficult", []),
    }


@pytest.fixture
def read_dataset():
    """A function: folder -> (dataset.json, report.json)."""

    def read(folder):
        return tuple(
            json.loads((pathlib.Path(folder) / name).read_text())
            for name in ("dataset.json", "report.json")
        )

    return read


@pytest.fixture
def nothing_looks_finished():
    """A function: folder -> asserts that no shard, temporary file or dataset.json is left in it."""

    def check(folder):
        folder = pathlib.Path(folder)
        assert sorted(path.name for path in folder.iterdir()) == [] if folder.exists() else True

    return check
