import io

import numpy as np
import pytest
from fixed_detector import IMAGES, OBJECTS, assert_found
from PIL import Image

from ssd_tf.inference.detections import Detections

RED = (230, 25, 75)


def make(*rows, image=None):
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(
        boxes, np.array(scores, np.float32), np.array(labels, int), ["cat", None], image
    )


FOUND = make(
    ([0.1, 0.2, 0.5, 0.6], 0.75, 1),
    ([0.0, 0.0, 1.0, 1.0], 0.5, 2),
    ([0.0, 0.0, 0.5, 0.5], 0.25, 3),
    image=np.zeros((40, 80, 3), np.uint8),
)


def test_nothing():
    nothing = make(image=np.full((4, 6, 3), 7, np.uint8))
    assert (len(nothing), nothing.names, nothing.to_coco()) == (0, [], [])
    assert repr(nothing) == "<0 detections>"
    assert (np.asarray(nothing.draw()) == 7).all()


def test_names():
    assert FOUND.names == ["cat", "class 2", "class 3"]
    assert repr(FOUND) == "<3 detections: cat 0.75, class 2 0.50, class 3 0.25>"


def test_selection():
    assert FOUND.above(0.5).names == ["cat", "class 2"]
    assert FOUND.select([2]).scores.tolist() == [0.25]
    assert FOUND.select([2]).image is FOUND.image


def test_rows_of_coco():
    # 80 wide, 40 high.
    assert FOUND.to_coco(image_id=7)[0] == {
        "image_id": 7,
        "category_id": 1,
        "bbox": pytest.approx([16, 4, 32, 16]),
        "score": 0.75,
    }


def test_drawing():
    drawn = np.asarray(FOUND.draw(score=0.6))
    assert drawn.shape == (40, 80, 3)
    assert (drawn[4:20, 16] == RED).all()
    assert not (np.asarray(FOUND.draw(score=0.8)) == RED).all(-1).any()


def test_a_notebook_shows_the_drawn_image():
    shown = np.asarray(Image.open(io.BytesIO(FOUND._repr_png_())))
    np.testing.assert_array_equal(shown, np.asarray(FOUND.draw()))
    assert make()._repr_png_() is None


def test_without_an_image():
    with pytest.raises(ValueError, match="no image to draw on"):
        make().draw()
    with pytest.raises(ValueError, match="size of the image is not known"):
        make().to_coco()


def test_a_detector_takes_paths_pillow_images_and_arrays(detector, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(IMAGES[2]).save(path)
    for image in (path, str(path), Image.open(path), IMAGES[2]):
        found = detector(image)
        assert_found(found, OBJECTS[2])
        np.testing.assert_array_equal(found.image, IMAGES[2])
    assert sorted(found.above(0.5).names) == ["blue", "red"]


def test_one_trace_for_all_batch_sizes(detector):
    predict = detector.stages.network
    for size in (1, 3, 8):
        detector.batch([IMAGES[0]] * size)
    assert predict.experimental_get_tracing_count() == 1
