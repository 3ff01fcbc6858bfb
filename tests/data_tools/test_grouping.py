"""Groups of images that stay on one side: by name, by looks, and never over half of the images."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from data_tools.conversion import fingerprints, grouping
from data_tools.readers import labels

CAT = frozenset(["cat"])


def group(names, classes_of=None):
    """The groups of two or more, as lists of names, of files that look all different."""
    prints = [fingerprints.Fingerprint(bytes([index] * 32), b"") for index in range(len(names))]
    classes_of = classes_of or [frozenset([name]) for name in names]  # no class says anything
    return list_groups(names, grouping.find_groups(names, prints, classes_of))


def list_groups(names, found):
    groups = {}
    for name, index in zip(names, found.group_of.tolist(), strict=True):
        groups.setdefault(index, []).append(name)
    return sorted(sorted(members) for members in groups.values() if len(members) > 1)


OTHERS = ["x.jpg", "y.jpg", "z.jpg", "w.jpg"]


def test_no_image():
    found = grouping.find_groups([], [], [])
    assert found.group_of.tolist() == [] and found.notes == []


@pytest.mark.parametrize(
    "names",
    [
        ["clip1_0001.jpg", "clip1_0002.jpg", "clip1_0057.jpg"],
        ["a/frame_000123.png", "a/frame_000150.png"],
        ["frame9.jpg", "frame1200.jpg"],
        ["walk_mp4-12_jpg.rf.0a1b.jpg", "walk_mp4-7_jpg.rf.77ff.jpg"],
        ["walk.MOV 12.jpg", "walk.MOV 900.jpg"],
        ["a_jpg.rf.0a1b.jpg", "a_jpg.rf.77ff.jpg"],
        ["clip/001.jpg", "clip/002.jpg"],
        ["img00001.jpg", "img00101.jpg"],
    ],
)
def test_frames_and_copies(names):
    assert group(OTHERS + names) == [sorted(names)]


@pytest.mark.parametrize(
    "names",
    [
        ["clip1_0001.jpg", "clip2_0001.jpg"],
        ["a/clip_0001.jpg", "b/clip_0002.jpg"],
        ["clip_001.jpg", "clip_0002.jpg"],  # numbers of another length
        ["speed538.jpg", "speed539.jpg"],  # no zero before them
        ["a01.jpg", "a02.jpg"],  # two digits
        ["img00001.jpg", "img00102.jpg"],  # too far apart
        ["DSC_0001.JPG", "DSC_0002.JPG"],  # of a camera
        ["IMG_0001.jpg", "IMG_0002.jpg"],
        ["a_jpg.rf.0a1b.jpg", "b_jpg.rf.0a1b.jpg"],
        ["a/a_jpg.rf.0a1b.jpg", "b/a_jpg.rf.77ff.jpg"],
        ["000000000009.jpg", "000000581921.jpg"],  # COCO
    ],
)
def test_names_that_say_nothing(names):
    assert group(OTHERS + names) == []


def test_a_group_of_over_half_of_the_images_says_nothing():
    blood = [f"BloodImage_{index:05}.jpg" for index in range(4)]
    assert group(blood + OTHERS) == [blood]
    assert group(blood + OTHERS[:3]) == []
    copies = ["a_jpg.rf.1.jpg", "a_jpg.rf.2.jpg"]  # are still found beside them
    assert group(blood + OTHERS[:1] + copies) == [blood] * False + [copies]


def test_numbers_of_the_images_of_a_class_are_no_video():
    cats = [f"cat_{index:03}.jpg" for index in range(3)]
    dogs = [f"dog_{index:03}.jpg" for index in range(3)]
    dog = frozenset(["dog"])
    assert group(cats + dogs, [CAT] * 3 + [dog] * 3) == []
    # As many cats elsewhere: the names may be those of a video after all.
    assert group(cats + dogs, [CAT] * 3 + [dog] * 2 + [CAT | dog]) == []
    assert group(cats + OTHERS, [CAT] * 6 + [dog]) == [cats]


def encode(image, size=None, quality=90, brightness=1.0):
    image = image.resize(size) if size else image
    file = io.BytesIO()
    ImageEnhance.Brightness(image).enhance(brightness).save(file, "JPEG", quality=quality)
    return file.getvalue()


@pytest.fixture
def scenes():
    """Five images of 320 x 240, each of 12 x 9 random patches."""
    rng = np.random.default_rng(0)
    patches = rng.integers(30, 200, (5, 9, 12, 3), np.uint8)
    return [Image.fromarray(each).resize((320, 240), Image.Resampling.BICUBIC) for each in patches]


@pytest.fixture
def take(tmp_path):
    """A function: the bytes of files -> their Fingerprints."""

    def take(contents):
        packed = []
        for index, content in enumerate(contents):
            path = tmp_path / f"{index}.jpg"
            path.write_bytes(content)
            packed.append(pickle.dumps(labels.LabeledImage(str(path), path.name, str(index))))
        ticks = []
        prints = fingerprints.take_fingerprints(packed, lambda: ticks.append(1))
        assert len(ticks) == len(contents)
        return prints

    return take


def test_near_identical_images(scenes, take):
    png = io.BytesIO()
    scenes[1].save(png, "PNG")
    contents = [
        *map(encode, scenes),
        encode(scenes[0], quality=30),
        encode(scenes[0], size=(160, 120)),
        encode(scenes[1], brightness=1.15),
        png.getvalue(),
    ]
    prints = take(contents)
    names = [str(index) for index in range(9)]
    found = grouping.find_groups(names, prints, [CAT] * 9)
    assert list_groups(names, found) == [["0", "5", "6"], ["1", "7", "8"]]
    assert len(found.notes) == 1 and "6 images in 2 groups" in found.notes[0]


def test_images_without_contrast_are_like_no_other(take):
    plain = Image.new("RGB", (64, 48), (90, 90, 90))
    darker = Image.new("RGB", (64, 48), (89, 90, 90))
    prints = take([encode(plain), encode(darker)])
    assert list(fingerprints.find_similar([each.thumbnail for each in prints])) == []


def test_identical_files_stay_together_even_if_they_are_most(take, scenes):
    contents = [encode(scenes[0])] * 3 + [encode(scenes[1])]
    found = grouping.find_groups(list("abcd"), take(contents), [CAT] * 4)
    assert list_groups(list("abcd"), found) == [["a", "b", "c"]]


def test_files_that_cannot_be_decoded(take, scenes):
    content = encode(scenes[0])
    cut, text, whole = take([content[: len(content) // 2], b"text", content])
    assert (cut.thumbnail, text.thumbnail, len(whole.thumbnail)) == (b"", b"", 72)
    assert cut.digest != whole.digest


def test_joining():
    groups = grouping.join(np.array([0, 1, 2, 3, 1]), [(0, 2), (4, 3)])
    assert groups.tolist() == [0, 1, 0, 1, 1]
