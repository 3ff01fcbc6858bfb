"""Generated data sets with the layouts and the faults of the real ones in ../shared/data."""

import numpy as np
from PIL import Image

NAMES = ("Platelets", "RBC", "WBC")  # in the order of the alphabet, as voc_to_tfrecord lists them
NUM_IMAGES = 24
WIDTH, HEIGHT = 640, 480
OBJECT = (
    "<object><name>{}</name><difficult>0</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin>"
    "<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


def draw_objects(index):
    """(name, xmin, ymin, xmax, ymax) of an image, in pixels from 1; the fourth has a point."""
    rng = np.random.default_rng(index)
    objects = []
    for _ in range(rng.integers(1, 6)):
        xmin, ymin = rng.integers(1, (400, 300)).tolist()
        width, height = rng.integers(20, 200, 2).tolist()
        objects.append((NAMES[rng.integers(3)], xmin, ymin, xmin + width, min(ymin + height, 480)))
    return [*objects, ("RBC", 181, 329, 181, 329)] if index == 3 else objects


def write_voc(folder):
    """JPEGImages, Annotations and ImageSets of the VOC layout."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    stems = [f"cells_{index:03d}" for index in range(NUM_IMAGES)]
    for index, stem in enumerate(stems):
        pixels = np.full((HEIGHT, WIDTH, 3), 60 + 5 * index, np.uint8)
        Image.fromarray(pixels).save(folder / "JPEGImages" / f"{stem}.jpg")
        objects = "".join(OBJECT.format(*each) for each in draw_objects(index))
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{stem}.jpg</filename>{size}{objects}</annotation>\n"
        (folder / "Annotations" / f"{stem}.xml").write_text(text)
    (folder / "ImageSets/Main/train.txt").write_text("\n".join(stems[:16]))
    (folder / "ImageSets/Main/val.txt").write_text("\n".join(stems[16:]))
    return folder


def write_yolo(folder):
    """train/images, train/labels and data.yaml of the YOLO layout."""
    for name in ("images", "labels"):
        (folder / "train" / name).mkdir(parents=True)
    for index in range(NUM_IMAGES):
        pixels = np.full((48, 64, 3), 60 + 5 * index, np.uint8)
        Image.fromarray(pixels).save(folder / f"train/images/sign_{index:03d}.jpg")
        rng = np.random.default_rng(index)
        rows = [
            f"{rng.integers(3)} {' '.join(f'{value:.6f}' for value in rng.uniform(0.3, 0.5, 4))}"
            for _ in range(rng.integers(1, 5))
        ]
        (folder / f"train/labels/sign_{index:03d}.txt").write_text("\n".join(rows) + "\n")
    (folder / "data.yaml").write_text("names:\n  0: stop\n  1: left\n  2: right\ntrain: train\n")
    return folder
