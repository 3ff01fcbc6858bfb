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
