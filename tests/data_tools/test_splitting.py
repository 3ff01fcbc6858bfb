"""Stratified splitting: each class in its share, identical files on one side."""

import numpy as np

from data_tools.conversion import splitting


def test_no_image_and_one_image():
    assert splitting.choose_validation([], [], 0.2, 0).tolist() == []
    assert splitting.choose_validation([frozenset("a")], [1], 0.2, 0).tolist() == [False]


def test_each_class_in_its_share():
    # 100 images with a, 50 of them with b too; 10 with only the rare c; 40 without objects.
    classes_of = (
        [frozenset("ab")] * 50 + [frozenset("a")] * 50 + [frozenset("c")] * 10 + [frozenset()] * 40
    )
    chosen = splitting.choose_validation(classes_of, range(150), 0.2, 0)
    parts = [chosen[:50].sum(), chosen[50:100].sum(), chosen[100:110].sum(), chosen[110:].sum()]
    assert parts == [10, 10, 2, 8]


def test_only_image_of_a_class_stays_in_training():
    # 16 images with a; b, c, d and e have one image each, of which 0.4 would be validation's share.
    classes_of = [frozenset("a")] * 16 + [frozenset(name) for name in "bcde"]
    for seed in range(5):
        chosen = splitting.choose_validation(classes_of, range(20), 0.4, seed)
        assert chosen[16:].tolist() == [False] * 4
        assert chosen.any()


def test_seeds():
    classes_of = [frozenset("a")] * 40
    one, again, other = (
        splitting.choose_validation(classes_of, range(40), 0.25, seed) for seed in (1, 1, 2)
    )
    assert one.sum() == other.sum() == 10
    assert (one == again).all() and (one != other).any()


def test_identical_files_stay_on_one_side():
    digests = [7, 1, 7, 2, 3, 7, 4, 4, 5, 6]
    for seed in range(20):
        chosen = splitting.choose_validation([frozenset("a")] * 10, digests, 0.3, seed)
        assert len(set(chosen[[0, 2, 5]])) == 1 and len(set(chosen[[6, 7]])) == 1
        assert 0 < chosen.sum() < 10


def test_order_of_images_is_kept():
    chosen = splitting.choose_validation(
        [frozenset("a")] * 6 + [frozenset("b")] * 2, np.arange(8), 0.5, 0
    )
    assert chosen[:6].sum() == 3 and chosen[6:].sum() == 1


def test_a_group_larger_than_what_validation_lacks_stays_in_training():
    # Ten images of one group, each with a class of its own; two more images have all ten classes.
    classes_of = [frozenset([name]) for name in "abcdefghij"] + [frozenset("abcdefghij")] * 2
    for seed in range(10):
        chosen = splitting.choose_validation(classes_of, [0] * 10 + [1, 2], 0.2, seed)
        assert chosen[:10].sum() == 0 and chosen.sum() == 1


def test_two_videos_alone_are_divided_all_the_same(
    tmp_path, paint, write_coco, convert_coco, read_dataset
):
    """Each is half of the images, and too much for validation, which would stay empty."""
    files = [f"clip{clip}_000{frame}.jpg" for clip in (1, 2) for frame in (1, 2, 3)]
    for index, file in enumerate(files):
        paint(tmp_path / "images" / file, box=(9 * index, 16, 9 * index + 8, 40))
    images = [(index, file, 64, 48) for index, file in enumerate(files)]
    boxes = [(index, 1, [9 * index, 16, 8, 24], {}) for index in range(6)]
    write_coco(tmp_path / "annotations.json", images, boxes)
    assert convert_coco(val_fraction=0.2) == (0, "")
    dataset, report = read_dataset(tmp_path / "out")
    assert dataset["splits"]["val"]["images"] == 1
    assert "notes" not in report["splits"]["train"]["source"]


def test_images_that_are_all_the_same_cannot_be_divided(tmp_path, paint, write_coco, convert_coco):
    files = [f"{name}.jpg" for name in "cabd"]
    for file in files:
        paint(tmp_path / "images" / file)
    images = [(index, file, 64, 48) for index, file in enumerate(files)]
    boxes = [(index, 1, [8, 16, 16, 24], {}) for index in range(4)]
    write_coco(tmp_path / "annotations.json", images, boxes)
    code, error = convert_coco(val_fraction=0.2)
    assert code == 1
    assert "all 4 images are the same as c.jpg" in error and "val_fraction" not in error
