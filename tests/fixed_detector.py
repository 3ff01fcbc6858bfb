"""A network with fixed weights, so that tests do not depend on what a trained model detects.

It divides its input of 64 x 96 into 2 x 3 cells of 32 x 32 pixels, its default boxes, and takes a
cell's class from its mean colour. Its offsets are the same everywhere: the box of a cell lies
4 pixels lower and is 24 pixels wide instead of 32.
"""

import keras
import numpy as np

from ssd_tf.models.ssd import SSD

NAMES = ["red", "green", "blue"]
RGB = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 230)}
CELL = 32

# Variances of 0.1, 0.1, 0.2, 0.2: 1.25 * 0.1 * 32 pixels = 4 pixels; exp(0.2 * tw) = 24 / 32.
OFFSETS = [1.25, 0.0, 0.0, np.log(24 / 32) / 0.2]

# A colour's logit is .02 * (2 * its own channel - the other two): 0 for gray, about 7 for its own
# colour, and less than -3 for another. The background's is 3 everywhere.
LOGITS = [[0, 0.04, -0.02, -0.02], [0, -0.02, 0.04, -0.02], [0, -0.02, -0.02, 0.04]]
BACKGROUND = [3.0, 0.0, 0.0, 0.0]


def make_network() -> SSD:
    image = keras.Input((2 * CELL, 3 * CELL, 3), name="image")
    mean = keras.layers.Reshape((6, 3))(keras.layers.AveragePooling2D(CELL)(image))
    logits = keras.layers.Dense(4, name="logits")
    offsets = keras.layers.Dense(4, name="offsets")
    model = keras.Model(image, {"offsets": offsets(mean), "logits": logits(mean)})
    logits.set_weights([np.array(LOGITS), np.array(BACKGROUND)])
    offsets.set_weights([np.zeros((3, 4)), np.array(OFFSETS)])
    default_boxes = [
        [row / 2, column / 3, (row + 1) / 2, (column + 1) / 3]
        for row in range(2)
        for column in range(3)
    ]
    return SSD(model, np.array(default_boxes, np.float32), (), ((2, 3),))


def draw(height, width, *cells):
    """uint8 [height, width, 3]: gray noise, with the cells (name, row, column) in their colours."""
    noise = np.random.default_rng(0).integers(-12, 13, (height, width, 3))
    image = np.full((height, width, 3), 110) + noise
    for name, row, column in cells:
        y = slice(row * height // 2, (row + 1) * height // 2)
        x = slice(column * width // 3, (column + 1) * width // 3)
        image[y, x] = RGB[name]
    return image.astype(np.uint8)


def box_of(row, column):
    """The normalised box that is found for a cell."""
    ymin = (row * CELL + 4) / 64
    xmin = (column * CELL + 4) / 96
    return [ymin, xmin, min(ymin + 32 / 64, 1.0), xmin + 24 / 96]


# Height, width and the coloured cells (name, row, column). The sizes differ, and one has no object.
CONTENT = (
    (64, 96, [("red", 0, 0)]),
    (128, 96, [("green", 0, 2)]),
    (96, 90, [("blue", 1, 1), ("red", 0, 0)]),
    (64, 96, []),
)
IMAGES = [draw(height, width, *cells) for height, width, cells in CONTENT]
OBJECTS = [cells for _, _, cells in CONTENT]


def strong(detections, score=0.5):
    """(name, box) of the detections that score at least `score`, sorted by name."""
    rows = np.flatnonzero(detections.scores >= score)
    found = [(NAMES[detections.labels[row] - 1], detections.boxes[row]) for row in rows]
    return sorted(found, key=lambda pair: pair[0])


def assert_found(detections, objects, atol=1e-5):
    """Exactly these objects (name, row, column) are found, at their places."""
    found = strong(detections)
    assert [name for name, _ in found] == sorted(name for name, *_ in objects)
    for (_, box), (_, row, column) in zip(found, sorted(objects), strict=True):
        np.testing.assert_allclose(box, box_of(row, column), atol=atol)
