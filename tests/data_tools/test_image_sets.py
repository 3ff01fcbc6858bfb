"""Sets of a folder of VOC or YOLO labels: which are listed, chosen, left out and warned of."""

import shutil

import pytest

from data_tools import voc_to_tfrecord
from data_tools.readers import voc_xml, yolo_txt

XML = (
    "<annotation><object><name>cat</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>6</xmax>"
    "<ymax>5</ymax></bndbox></object></annotation>"
)
IMAGE = (8, 6)


def plant_voc(plant, *stems):
    content = {f"{stem}.xml": XML for stem in stems}
    return plant(content | {f"{stem}.jpg": IMAGE for stem in stems})


def list_sets(folder):
    return [tuple(each) for each in voc_xml.list_sets(folder)]


def test_voc_without_sets(plant):
    assert list_sets(plant_voc(plant, "a", "crash test/b")) == [("all", None, 2)]


def test_voc_sets_in_folders(plant):
    folder = plant_voc(plant, "images/Train/a", "images/Train/b", "images/valid/c", "test/x/d", "e")
    assert list_sets(folder) == [("Train", "train", 2), ("test", "test", 1), ("valid", "val", 1)]
    assert [voc_xml.choose_image_set(folder, split) for split in ("train", "val", "test")] == [
        "Train",
        "valid",
        "test",
    ]
    source = voc_xml.read_voc(folder, "Train")
    assert [tuple(each) for each in source.other_sets] == [
        ("test", "test", 1),
        ("valid", "val", 1),
    ]
    assert voc_xml.read_voc(folder, "all").other_sets == ()


def test_voc_without_a_training_folder_trains_on_the_rest(plant):
    folder = plant_voc(plant, "a", "x/b", "test/c")
    assert list_sets(folder) == [("test", "test", 1), ("train", "train", 2)]
    assert voc_xml.choose_image_set(folder, "train") == "train"
    source = voc_xml.read_voc(folder, "train")
    assert [image.source_id for image in source.images] == ["a", "x/b"]
    with pytest.raises(FileNotFoundError):
        voc_xml.read_voc(folder, "val")


@pytest.mark.parametrize(
    ("lists", "sets"),
    [
        ({"train": "a", "val": "b"}, [("train", "train", 1), ("val", "val", 1)]),
        ({"trainval": "a\nb", "train": "a"}, [("train", "train", 1)]),
        ({"trainval": "a\nb", "val": "b"}, [("trainval", "train", 2)]),
        ({"valid": "a", "test": "gone"}, [("valid", "val", 1)]),
        ({"default": "a\nb"}, [("default", "train", 2)]),
        ({"cat": "a 1", "dog": "b 1"}, [("all", None, 2)]),
    ],
)
def test_voc_sets_in_lists(plant, lists, sets):
    content = {f"ImageSets/Main/{name}.txt": text for name, text in lists.items()}
    folder = plant(content | {f"Annotations/{stem}.xml": XML for stem in "ab"})
    assert list_sets(folder) == sets


def read_stems(folder, image_set):
    return [image.source_id for image in yolo_txt.read_yolo(folder, image_set).images]


def test_yolo_folders_beside_a_classes_txt(plant):
    content = {"labels/classes.txt": "cat\n"}
    for stem in ("train/a", "valid/b"):
        content[f"images/{stem}.jpg"] = IMAGE
        content[f"labels/{stem}.txt"] = "0 .5 .5 .5 .5\n"
    folder = plant(content)
    assert [read_stems(folder, name) for name in ("train", "val", "valid")] == [["a"], ["b"], ["b"]]
    others = yolo_txt.read_yolo(folder, "train").other_sets
    assert [(each.name, each.split) for each in others] == [("valid", "val")]
    with pytest.raises(ValueError, match="train, valid"):
        read_stems(folder, "test")


def test_yolo_images_beside_a_test_folder(plant):
    content = {"classes.txt": "cat\n"}
    for stem in ("a", "x/b", "test/c"):
        content[f"{stem}.jpg"] = IMAGE
        content[f"{stem}.txt"] = "0 .5 .5 .5 .5\n"
    folder = plant(content)
    assert read_stems(folder, "train") == ["a", "b"]
    assert read_stems(folder, "test") == ["c"]


def test_sets_left_out_are_warned_of_until_they_are_converted(plant, run, tmp_path, read_dataset):
    folder = plant_voc(plant, *(f"cards/images/{stem}" for stem in ("train/a", "test/b", "val/c")))

    def convert(**flags):
        flags = {"voc": folder / "cards", "output": tmp_path / "out", "workers": 1} | flags
        assert run("voc_to_tfrecord", **flags)[0] == 0  # the images are identical
        warnings = read_dataset(tmp_path / "out")[1]["splits"][flags.get("split", "train")]
        found = [each for each in warnings["warnings"] if each["what"] == "set_left_out"]
        return [(each["names"], each["count"]) for each in found]

    assert convert() == [(["test"], 1), (["val"], 1)]
    assert convert(split="test") == [(["val"], 1)]
    assert convert() == [(["val"], 1)]
    assert convert(image_set="train") == []  # the user knows of the sets


@pytest.fixture
def voc(paint, tmp_path, capsys):
    """A function: convert a set of a VOC folder; (exit code, error, splits: names of images)."""
    folder = tmp_path / "voc"
    (folder / "ImageSets/Main").mkdir(parents=True)
    for index, name in enumerate("abc"):
        paint(folder / f"{name}.jpg", box=(9 * index, 16, 9 * index + 8, 40))
        (folder / f"{name}.xml").write_text(XML)
    for name, content in {"trainval": "a\nb\n", "train": "a\n", "val": "b\n"}.items():
        (folder / f"ImageSets/Main/{name}.txt").write_text(content)

    def convert(split, *flags):
        given = [f"--voc={folder}", f"--output={tmp_path / 'out'}", f"--split={split}"]
        code = voc_to_tfrecord.main(["x", *given, "--workers=1", *flags])
        splits = {
            path.name.removesuffix("-images.tsv"): [
                line.split("\t")[1] for line in path.read_text().splitlines()
            ]
            for path in (tmp_path / "out").glob("*-images.tsv")
        }
        return code, capsys.readouterr().err, splits

    return convert


def test_trainval_and_then_its_part_val(voc):
    both = {"train": ["a.jpg", "b.jpg"]}
    code, _, splits = voc("train")
    assert (code, {name: sorted(images) for name, images in splits.items()}) == (0, both)
    for flags in ([], ["--image_set=val"]):
        code, error, splits = voc("val", *flags)
        assert (code, list(splits)) == (1, ["train"])
        assert "--image_set train" in error
    # As the error says.
    assert voc("train", "--image_set=train")[::2] == (0, {"train": ["a.jpg"]})
    assert voc("val")[::2] == (0, {"train": ["a.jpg"], "val": ["b.jpg"]})
    # And now the default is what leaves val apart.
    assert voc("train")[::2] == (0, {"train": ["a.jpg"], "val": ["b.jpg"]})
    assert voc("val")[0] == 0


def test_val_and_then_trainval_that_holds_it(voc, tmp_path):
    """Without a list train."""
    train_list = tmp_path / "voc/ImageSets/Main/train.txt"
    train_list.unlink()
    alone = {"val": ["b.jpg"]}
    assert voc("val")[::2] == (0, alone)
    code, error, splits = voc("train")
    assert (code, splits) == (1, alone)
    assert str(train_list) in error and "--val_fraction" in error
    # The split test may be made of the list val, too.
    assert voc("val", "--image_set=trainval")[0] == 0
    assert voc("test", "--image_set=val")[0] == 0
    code, error, splits = voc("train")
    assert (code, sorted(splits)) == (1, ["test", "val"])
    assert "the images of test" in error
    # As the error says.
    assert voc("train", f"--output={tmp_path / 'other'}", "--val_fraction=0.5")[0] == 0
    train_list.write_text("a\n")
    assert voc("train")[2]["train"] == ["a.jpg"]


def test_val_of_other_images_than_trainval(voc, tmp_path):
    (tmp_path / "voc/ImageSets/Main/train.txt").unlink()
    (tmp_path / "voc/ImageSets/Main/test.txt").write_text("c\n")
    assert voc("val", "--image_set=test")[0] == 0
    code, _, splits = voc("train")
    assert (code, sorted(splits["train"]), splits["val"]) == (0, ["a.jpg", "b.jpg"], ["c.jpg"])


def test_val_of_another_folder(voc, tmp_path):
    (tmp_path / "voc/ImageSets/Main/train.txt").unlink()
    shutil.copytree(tmp_path / "voc", tmp_path / "other")
    assert voc("val", f"--voc={tmp_path / 'other'}")[0] == 0
    code, _, splits = voc("train")
    assert (code, sorted(splits["train"]), splits["val"]) == (0, ["a.jpg", "b.jpg"], ["b.jpg"])


def test_trainval_divided_by_a_fraction(voc):
    for _ in range(2):
        code, _, splits = voc("train", "--val_fraction=0.5")
        assert (code, sorted(splits["train"] + splits["val"])) == (0, ["a.jpg", "b.jpg"])


def test_trainval_that_was_asked_for(voc):
    assert voc("train", "--image_set=trainval")[0] == 0
    assert voc("val")[0] == 0
