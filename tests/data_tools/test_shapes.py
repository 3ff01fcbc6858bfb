"""The generated data set: it is reproducible, and its boxes are those of the drawn shapes."""

import json

import numpy as np
import pytest
from PIL import Image

from data_tools import shapes


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    shapes.write_dataset(folder, 60, seed=3)
    return folder, json.loads((folder / "annotations.json").read_text())


def test_same_seed_gives_same_bytes_for_any_number_of_images(drawn, tmp_path):
    folder, _ = drawn
    shapes.write_dataset(tmp_path, 3, seed=3)
    for name in ("000001.jpg", "000002.jpg", "000003.jpg"):
        assert (tmp_path / "images" / name).read_bytes() == (folder / "images" / name).read_bytes()
    shapes.write_dataset(tmp_path / "other", 1, seed=4)
    assert (tmp_path / "other/images/000001.jpg").read_bytes() != (
        folder / "images/000001.jpg"
    ).read_bytes()


def test_variety(drawn):
    _, content = drawn
    sizes = {(image["width"], image["height"]) for image in content["images"]}
    assert any(width > height for width, height in sizes) and any(
        width < height for width, height in sizes
    )
    with_objects = {annotation["image_id"] for annotation in content["annotations"]}
    assert 0 < len(content["images"]) - len(with_objects) < 10
    assert {annotation["category_id"] for annotation in content["annotations"]} == {1, 2, 3, 5}
    longer = [max(annotation["bbox"][2:]) for annotation in content["annotations"]]
    assert min(longer) < 30 and max(longer) > 130


def test_boxes_lie_inside_and_files_have_the_written_size(drawn):
    folder, content = drawn
    images = {image["id"]: image for image in content["images"]}
    for image in content["images"]:
        with Image.open(folder / "images" / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"])
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        image = images[annotation["image_id"]]
        assert x >= 0 and y >= 0 and x + width <= image["width"] and y + height <= image["height"]
        assert 0 < annotation["area"] <= width * height


def test_box_is_the_extent_of_the_mask():
    mask = np.zeros((7, 9), bool)
    mask[2:5, 3:8] = True  # rows 2 to 4, columns 3 to 7
    mask[3, 1] = True
    assert shapes.find_extent(mask) == [1, 2, 8, 5]


def test_box_shows_the_colour_of_its_object():
    # Nothing covers the last object of an image: the middle of its mask shows one even colour.
    rng = np.random.default_rng(0)
    image, objects = shapes.draw_image(rng)
    while not objects or objects[-1].name != "square":
        image, objects = shapes.draw_image(rng)
    xmin, ymin, xmax, ymax = objects[-1].box
    pixels = np.asarray(image)[
        (ymin * 2 + ymax) // 3 : (ymin + ymax * 2) // 3,
        (xmin * 2 + xmax) // 3 : (xmin + xmax * 2) // 3,
    ]
    assert pixels.reshape(-1, 3).std(0).max() < 20


def test_command(run, tmp_path):
    assert run("shapes", output=tmp_path, images=2)[0] == 0
    assert len(list((tmp_path / "images").iterdir())) == 2
    assert run("shapes", images=2) == (2, "error: missing --output (see --help)\n")
