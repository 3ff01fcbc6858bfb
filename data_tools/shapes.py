"""Draws a COCO-format data set of coloured shapes on textured backgrounds.

    ssd shapes --output DIR --images 1000 [--seed 0]

Writes `images/` and `annotations.json`. Every class comes in every colour, objects overlap, sizes
range from about 20 pixels to 60 % of the image, and about one image in twenty is empty. The same
seed draws the same images, whatever their number.
"""

import pathlib
import sys
from typing import NamedTuple

import numpy as np
from absl import flags
from PIL import Image, ImageDraw

from ssd_tf import commandline
from ssd_tf.files import write_json

# Category ids have a gap on purpose: real COCO files have them.
CATEGORIES = {"circle": 1, "square": 2, "triangle": 3, "star": 5}
SIZES_HW = ((240, 320), (320, 240), (300, 400), (400, 300), (360, 480), (480, 360), (320, 320))
EMPTY_FRACTION = 0.05
MIN_SIZE = 20  # pixels
MAX_SIZE = 0.6  # of the shorter side
MIN_VISIBLE = 0.4  # of an object, after later ones covered it
MIN_COLOR_DISTANCE = 100  # from the image's mean colour, Euclidean in RGB


class DrawnObject(NamedTuple):
    """box: [xmin, ymin, xmax, ymax] in pixels, half-open; area: of the mask, in pixels."""

    name: str
    box: list[int]
    area: int


def draw_image(rng):
    """Draw one image -> (Pillow image, its DrawnObjects). rng: a NumPy generator."""
    height, width = SIZES_HW[rng.integers(len(SIZES_HW))]
    image = Image.fromarray(draw_background(rng, height, width))
    mean = np.asarray(image.resize((1, 1), Image.Resampling.BOX), float)[0, 0]
    # Which object is seen at each pixel, from 1; 0: background.
    owner = np.zeros((height, width), np.uint8)
    objects = []
    for _ in range(0 if rng.random() < EMPTY_FRACTION else rng.integers(1, 9)):
        name, mask = draw_mask(rng, height, width)
        covered = np.where(mask, len(objects) + 1, owner)
        if all(
            np.sum(covered == index) >= MIN_VISIBLE * obj.area
            for index, obj in enumerate(objects, 1)
        ):
            owner = covered
            objects.append(DrawnObject(name, find_extent(mask), int(mask.sum())))
            image.paste(_draw_fill(rng, mean, height, width), mask=Image.fromarray(mask))
    return image, objects


def draw_background(rng, height, width):
    """Coarse and fine coloured noise around a random mean -> uint8 [height, width, 3]."""
    texture = np.full((height, width, 3), rng.uniform(60, 195, 3), np.float32)
    for cell, strength in (
        (rng.integers(60, 140), 30),
        (rng.integers(12, 40), 18),
        (rng.integers(3, 8), 10),
    ):
        noise = rng.normal(127.5, strength, (height // cell + 2, width // cell + 2, 3))
        grid = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
        layer = grid.resize((width, height), Image.Resampling.BICUBIC)
        texture += np.asarray(layer, np.float32) - 127.5
    return texture.clip(0, 255).astype(np.uint8)


def draw_mask(rng, height, width):
    """A shape at a random position -> (its class name, bool [height, width])."""
    name = list(CATEGORIES)[rng.integers(len(CATEGORIES))]
    size = np.exp(rng.uniform(np.log(MIN_SIZE), np.log(MAX_SIZE * min(height, width))))
    outline = _OUTLINES[name](rng)
    # The longer side of the shape's box is `size`.
    outline = (outline - outline.min(0)) / np.ptp(outline, 0).max() * size
    corner = rng.uniform(1, [width, height] - outline.max(0) - 1)
    canvas = Image.new("1", (width, height))
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in outline + corner], fill=1)
    return name, np.array(canvas)


def _circle(rng):
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], 1) * [1, rng.uniform(0.8, 1.25)]


def _square(rng):
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [1, rng.uniform(0.6, 1.67)]
    return _rotate(corners, rng.uniform(-0.25, 0.25))


def _triangle(rng):
    corners = np.array([[0, -1], [1, 1], [-1, 1]]) * [1, rng.uniform(0.7, 1.4)]
    return _rotate(corners, rng.uniform(-0.35, 0.35))


def _star(rng):
    angle = np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2, rng.uniform(0.38, 0.5), 1)
    corners = np.stack([radius * np.sin(angle), -radius * np.cos(angle)], 1)
    return _rotate(corners, rng.uniform(-0.6, 0.6))


_OUTLINES = {"circle": _circle, "square": _square, "triangle": _triangle, "star": _star}


def _rotate(points, angle):
    return points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _draw_fill(rng, background, height, width):
    """An image of one slightly uneven colour that stands out from the background's."""
    color = rng.uniform(0, 255, 3)
    while np.linalg.norm(color - background) < MIN_COLOR_DISTANCE:
        color = rng.uniform(0, 255, 3)
    grid = (color + rng.normal(0, 12, (4, 4, 3))).clip(0, 255).astype(np.uint8)
    return Image.fromarray(grid).resize((width, height), Image.Resampling.BILINEAR)


def find_extent(mask):
    """[xmin, ymin, xmax, ymax] of the true pixels of bool [height, width], half-open."""
    rows = np.flatnonzero(mask.any(1))
    columns = np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def write_dataset(output, num_images, seed):
    """Write the images and, last, the annotations. Returns the number of objects."""
    output = pathlib.Path(output)
    (output / "images").mkdir(parents=True, exist_ok=True)
    (output / "annotations.json").unlink(missing_ok=True)
    images = []
    annotations = []
    for index in range(num_images):
        image, objects = draw_image(np.random.default_rng([seed, index]))
        image_id = index + 1
        file_name = f"{image_id:06d}.jpg"
        image.save(output / "images" / file_name, quality=90)
        images.append(
            {"id": image_id, "file_name": file_name, "width": image.width, "height": image.height}
        )
        for obj in objects:
            annotations.append(_make_annotation(obj, len(annotations) + 1, image_id))
    categories = [{"id": category_id, "name": name} for name, category_id in CATEGORIES.items()]
    write_json(
        output / "annotations.json",
        {"images": images, "annotations": annotations, "categories": categories},
    )
    return len(annotations)


def _make_annotation(obj, annotation_id, image_id):
    xmin, ymin, xmax, ymax = obj.box
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": CATEGORIES[obj.name],
        "bbox": [xmin, ymin, xmax - xmin, ymax - ymin],
        "area": obj.area,
        "iscrowd": 0,
    }


FLAGS = commandline.new_flags()
flags.DEFINE_string(
    "output", None, "Folder to write images/ and annotations.json into.", flag_values=FLAGS
)
flags.DEFINE_integer("images", 1000, "Number of images.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer(
    "seed", 0, "Another seed draws other images.", lower_bound=0, flag_values=FLAGS
)


def _draw(values, _):
    num_objects = write_dataset(values.output, values.images, values.seed)
    print(
        f"{values.output}: {values.images} images, {num_objects} objects of {len(CATEGORIES)} "
        "classes"
    )


def main(argv=None):
    return commandline.run(_draw, FLAGS, __doc__, required=("output",), argv=argv)


if __name__ == "__main__":
    sys.exit(main())
