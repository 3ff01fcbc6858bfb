"""Labels that name devices, FIFOs and files elsewhere: reads are bounded, and nothing leaks in."""

import os
import pathlib
import resource
import signal

import pytest
import tensorflow  # noqa: F401 - before the memory is limited

from data_tools.readers import coco_json, csv_table, files, voc_xml, yolo_txt
from ssd_tf import user_files

SECONDS = 120
MORE_MEMORY = 1 << 30  # bytes of address space that a conversion may take


@pytest.fixture(autouse=True)
def deadline():
    """Ends a test that waits for the writer of a FIFO."""

    def stop(*_):
        raise TimeoutError("the test waits for a FIFO")

    handler = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)


@pytest.fixture
def images(tmp_path, paint):
    """A folder with a.jpg, a FIFO and a link to /dev/zero; outside.jpg is two folders above."""
    folder = tmp_path / "data/images"
    paint(folder / "a.jpg")
    paint(tmp_path / "outside.jpg", size_wh=(40, 48))
    paint(tmp_path / "absolute.jpg", size_wh=(32, 48))
    os.mkfifo(folder / "fifo.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    return folder


def named(images):
    """The names in the labels: one sound image, two elsewhere, two FIFOs or devices, one both."""
    absolute = str(images.parents[1] / "absolute.jpg")
    return ["a.jpg", "../../outside.jpg", absolute, "/dev/zero", "fifo.jpg", "zero.jpg"]


@pytest.fixture
def coco(images, write_coco):
    """Flags of a COCO data set that names all of them."""
    entries = [(i, name, 64, 48) for i, name in enumerate(named(images), 1)]
    boxes = [(i, 1, [8, 16, 16, 24], {}) for i, *_ in entries]
    write_coco(images.parent / "a.json", entries, boxes)
    return {"images": images, "annotations": images.parent / "a.json"}


@pytest.fixture
def csv(images):
    """Flags of a CSV data set that names all of them."""
    rows = [f"{name},64,48,cat,8,16,24,40" for name in named(images)]
    header = "filename,width,height,class,xmin,ymin,xmax,ymax"
    (images.parent / "a.csv").write_text("\n".join([header, *rows]))
    return {"images": images, "csv": images.parent / "a.csv"}


@pytest.fixture
def limited_memory():
    """Lets a read without a bound fail before it fills the memory."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    sizes = pathlib.Path("/proc/self/statm")
    if sizes.exists():
        in_use = int(sizes.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + MORE_MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def convert(limited_memory, tmp_path, run, read_dataset):  # noqa: ARG001
    """A function: format, flags -> converts with little memory; the entry of report.json."""

    def convert(name, **flags):
        assert run(f"{name}_to_tfrecord", output=tmp_path / "out", workers=1, **flags) == (0, "")
        return read_dataset(tmp_path / "out")[1]["splits"]["train"]

    return convert


@pytest.mark.parametrize("name", ["coco", "csv"])
def test_images_elsewhere_are_dropped_and_named(name, images, convert, request):
    report = convert(name, **request.getfixturevalue(name))
    assert report["images"] == 1
    assert report["dropped_images"] == {"outside the image folder": 3, "unreadable": 2}
    assert report["boxes_of_dropped_images"] == 5
    reasons = {entry["file"]: entry["reason"] for entry in report["dropped"]}
    outside = images.parents[1] / "outside.jpg"
    assert reasons["../../outside.jpg"] == (
        f"outside the image folder: {outside} is not in {images}; use --allow_outside to accept it"
    )
    assert reasons["/dev/zero"].startswith("outside the image folder: /dev/zero is not in ")
    assert reasons["zero.jpg"] == f"unreadable: {images / 'zero.jpg'} is not a regular file"
    assert reasons["fifo.jpg"] == f"unreadable: {images / 'fifo.jpg'} is not a regular file"


@pytest.mark.parametrize("name", ["coco", "csv"])
def test_images_elsewhere_are_converted_if_allowed(name, convert, request, tmp_path, read_split):
    report = convert(name, allow_outside=True, **request.getfixturevalue(name))
    assert report["dropped_images"] == {"unreadable": 3}
    sizes = [(record["width"], record["height"]) for record in read_split(tmp_path / "out")]
    assert sorted(sizes) == [(32, 48), (40, 48), (64, 48)]


def test_files_are_compared_without_waiting(images, paint, write_coco, convert):
    """--val_fraction hashes every file before it divides them: here 8 sound images and 2 others."""
    names = [f"{i}.jpg" for i in range(8)]
    for i, name in enumerate(names):
        paint(images / name, size_wh=(64 + i, 48))
    names += ["fifo.jpg", "zero.jpg"]
    entries = [(i, name, 64, 48) for i, name in enumerate(names, 1)]
    boxes = [(i, 1, [8, 16, 16, 24], {}) for i, *_ in entries]
    annotations = write_coco(images.parent / "split.json", entries, boxes)
    report = convert("coco", val_fraction=0.4, images=images, annotations=annotations)
    # Whichever side the two get to, 6 images are for training.
    assert report["read"] == 6
    assert sum(report["dropped_images"].values()) == 6 - report["images"] <= 2


def test_strict_ends_at_an_image_elsewhere(coco, run, tmp_path):
    code, error = run("coco_to_tfrecord", strict=True, output=tmp_path / "out", workers=1, **coco)
    assert code == 1
    assert "outside the image folder: " in error and "--allow_outside" in error


VOC = "<annotation><filename>{}</filename></annotation>"


@pytest.mark.parametrize("allow_outside", [False, True])
@pytest.mark.parametrize("image_folder", ["JPEGImages", "."])
def test_voc_images_elsewhere(tmp_path, paint, image_folder, allow_outside):
    paint(tmp_path / "outside.jpg")
    paint(tmp_path / "voc" / image_folder / "sub/a.jpg")
    for stem, name in {
        "a": "sub/a.jpg",
        "b": os.path.relpath(tmp_path / "outside.jpg", tmp_path / "voc" / image_folder),
        "c": str(tmp_path / "outside.jpg"),
    }.items():
        (tmp_path / f"voc/{stem}.xml").write_text(VOC.format(name))
    found = list(voc_xml.read_voc(tmp_path / "voc", "all", allow_outside).images)
    assert [bool(image.path) for image in found] == [True, allow_outside, allow_outside]
    if not allow_outside:
        assert all(image.fault.startswith("outside the image folder: ") for image in found[1:])


def test_voc_list_that_names_an_annotation_elsewhere(tmp_path, paint):
    paint(tmp_path / "outside.jpg")
    (tmp_path / "outside.xml").write_text(VOC.format("outside.jpg"))
    (tmp_path / "voc/Annotations").mkdir(parents=True)
    (tmp_path / "voc/JPEGImages").mkdir()
    (tmp_path / "voc/ImageSets/Main").mkdir(parents=True)
    (tmp_path / "voc/ImageSets/Main/train.txt").write_text("../../outside\n")
    (image,) = voc_xml.read_voc(tmp_path / "voc", "train").images
    assert image.fault.startswith("outside the image folder: ")


@pytest.fixture
def yolo(tmp_path, paint):
    """A function: lines of train.txt, `path` of data.yaml -> data.yaml, in tmp_path/data."""

    def write(lines, root=None):
        paint(tmp_path / "outside.jpg")
        paint(tmp_path / "data/images/a.jpg")
        (tmp_path / "data/labels").mkdir()
        (tmp_path / "data/labels/a.txt").write_text("0 .5 .5 .5 .5\n")
        (tmp_path / "data/lists").mkdir()
        (tmp_path / "data/lists/train.txt").write_text("\n".join(lines))
        content = "train: lists/train.txt\nnames: [cat]\n" + (f"path: {root}\n" if root else "")
        (tmp_path / "data/data.yaml").write_text(content)
        return tmp_path / "data/data.yaml"

    return write


@pytest.mark.parametrize("allow_outside", [False, True])
def test_yolo_lists_stay_in_the_data_set(tmp_path, yolo, allow_outside):
    path = yolo(["../images/a.jpg", "../../outside.jpg", str(tmp_path / "outside.jpg")])
    first, *others = yolo_txt.read_yolo(path, "train", allow_outside).images
    assert (len(first.objects), first.fault) == (1, "")
    assert [image.filename for image in others] == ["outside.jpg"] * 2
    for image in others:
        assert bool(image.path) == allow_outside
        assert image.fault.startswith("outside the image folder: ") != allow_outside


def test_yolo_path_of_data_yaml_is_the_data_set(tmp_path, yolo):
    path = yolo(["../images/a.jpg", str(tmp_path / "outside.jpg")], root=tmp_path)
    content = path.read_text().replace("lists/train.txt", "data/lists/train.txt")
    path.write_text(content)
    assert [image.fault for image in yolo_txt.read_yolo(path, "train").images] == ["", ""]


def test_yolo_folders_of_data_yaml_may_be_anywhere(tmp_path, paint):
    paint(tmp_path / "elsewhere/images/a.jpg")
    (tmp_path / "elsewhere/labels").mkdir()
    (tmp_path / "elsewhere/labels/a.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/data.yaml").write_text("train: ../elsewhere/images\nnames: [cat]\n")
    (image,) = yolo_txt.read_yolo(tmp_path / "data", "train").images
    assert (len(image.objects), image.fault) == (1, "")


def test_yolo_fifos(tmp_path, paint, run, read_dataset):
    """As the labels of an image, as a stray label file, as an image, and as a YAML file."""
    folder = tmp_path / "data"
    for name in ("a", "b"):
        paint(folder / f"images/{name}.jpg")
    (folder / "labels").mkdir()
    (folder / "labels/a.txt").write_text("0 .5 .5 .5 .5\n")
    for name in ("labels/b.txt", "labels/stray.txt", "images/c.jpg", "args.yaml"):
        os.mkfifo(folder / name)
    (folder / "data.yaml").write_text("train: images\nnames: [cat]\n")
    assert run("yolo_to_tfrecord", yolo=folder, output=tmp_path / "out", workers=1) == (0, "")
    report = read_dataset(tmp_path / "out")[1]["splits"]["train"]
    assert (report["images"], report["findings"]) == (1, {})
    assert {entry["file"]: entry["reason"] for entry in report["dropped"]} == {
        "b.jpg": f"annotation cannot be read: {folder / 'labels/b.txt'} is not a regular file",
        "c.jpg": f"unreadable: {folder / 'images/c.jpg'} is not a regular file",
    }


@pytest.mark.parametrize("name", ["data.yaml", "obj.data", "train.txt"])
def test_yolo_fifo_instead_of_a_list(tmp_path, name):
    (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [cat]\n")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    path = tmp_path / ("data.yaml" if name == "train.txt" else name)
    with pytest.raises(user_files.NotRegularFileError, match=f"{name} is not a regular file"):
        list(yolo_txt.read_yolo(path, "train").images)


@pytest.mark.parametrize("sets", [(), ("train",)])
def test_voc_fifo_as_annotation(tmp_path, paint, sets):
    paint(tmp_path / "JPEGImages/a.jpg")
    (tmp_path / "Annotations").mkdir()
    os.mkfifo(tmp_path / "Annotations/a.xml")
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    for name in sets:
        (tmp_path / f"ImageSets/Main/{name}.txt").write_text("a\n")
    (image,) = voc_xml.read_voc(tmp_path, "train" if sets else "all").images
    path = tmp_path / "Annotations/a.xml"
    assert image.fault == f"annotation cannot be read: {path} is not a regular file"


def test_reads_are_bounded(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert user_files.read_bytes(path, 5) == b"12345"
    message = "a is too large: 5 bytes; the limit is 4"
    with pytest.raises(user_files.FileTooLargeError, match=message):
        user_files.read_bytes(path, 4)
    os.truncate(path, 1 << 36)  # takes no space; reading it would fill the memory
    with pytest.raises(user_files.FileTooLargeError) as caught:
        user_files.read_bytes(path, 4)
    assert caught.value.size == 1 << 36
    for device in ("/dev/zero", "/dev/null"):
        with pytest.raises(user_files.NotRegularFileError):
            user_files.read_bytes(device, 1 << 20)


@pytest.mark.skipif(not os.path.isfile("/proc/self/status"), reason="there is no /proc")
def test_a_file_whose_size_is_given_as_0_is_read():
    assert os.path.getsize("/proc/self/status") == 0
    assert b"VmPeak" in user_files.read_bytes("/proc/self/status", 1 << 20)
    with pytest.raises(user_files.FileTooLargeError) as caught:
        user_files.read_bytes("/proc/self/status", 10)
    assert caught.value.size == 11  # no more is read


@pytest.mark.parametrize(
    ("path", "accepted"),
    [
        ("images/a.jpg", True),
        ("images/sub/../a.jpg", True),
        ("images/../images/a.jpg", True),
        ("/data/images/a.jpg", True),
        ("//data/images/a.jpg", True),
        ("images/../a.jpg", False),
        ("images2/a.jpg", False),
        ("/data/a.jpg", False),
    ],
)
def test_what_is_inside_a_folder(monkeypatch, path, accepted):
    monkeypatch.setattr(os, "getcwd", lambda: "/data")
    assert (files.ImageFolders(("images",)).check(path).fault == "") == accepted
    assert files.ImageFolders(("images",), allow_outside=True).check(path).fault == ""


def test_links_do_not_lead_outside(tmp_path, paint):
    """Data sets are often folders of links; but a `..` after a link is resolved in the text."""
    paint(tmp_path / "far/a.jpg")
    paint(tmp_path / "b.jpg")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").symlink_to(tmp_path / "far/a.jpg")
    (tmp_path / "images/far").symlink_to(tmp_path / "far")
    folders = files.ImageFolders((tmp_path / "images",))
    assert folders.check(tmp_path / "images/a.jpg").fault == ""
    assert folders.check(tmp_path / "images/far/a.jpg").fault == ""
    found = folders.check(f"{tmp_path}/images/far/../b.jpg")
    assert found == (tmp_path / "images/b.jpg", "")


def test_absolute_paths_of_a_linked_data_set(tmp_path, paint, write_coco):
    """The folder is given by a link, and the labels name its real path."""
    image = tmp_path / "real/images/a.jpg"
    paint(image)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_coco(tmp_path / "a.json", [(1, str(image), 64, 48)])
    (first,) = coco_json.read_coco(tmp_path / "a.json", tmp_path / "link/images").images
    assert (first.path, first.fault) == (str(image), "")
    (tmp_path / "real/labels").mkdir()
    (tmp_path / "real/labels/a.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "real/train.txt").write_text(str(image))
    (tmp_path / "real/data.yaml").write_text("train: train.txt\nnames: [cat]\n")
    (first,) = yolo_txt.read_yolo(tmp_path / "link/data.yaml", "train").images
    assert (len(first.objects), first.fault) == (1, "")


@pytest.mark.parametrize("allow_outside", [False, True])
def test_copy_inside_is_preferred_to_the_original_outside(
    tmp_path, paint, write_coco, allow_outside
):
    original = tmp_path / "original/p.jpg"
    copy = tmp_path / "data/images/p.jpg"
    paint(original)
    paint(copy)
    expected = [str(original if allow_outside else copy)]
    write_coco(tmp_path / "a.json", [(1, str(original), 64, 48)])
    coco = coco_json.read_coco(tmp_path / "a.json", copy.parent, allow_outside)
    assert [image.path for image in coco.images] == expected
    rows = f"filename,class,xmin,ymin,xmax,ymax\n{original},cat,8,16,24,40\n"
    (tmp_path / "a.csv").write_text(rows)
    csv = csv_table.read_csv(tmp_path / "a.csv", copy.parent, False, allow_outside)
    assert [image.path for image in csv.images] == expected
    (tmp_path / "data/p.xml").write_text(VOC.format(original))
    voc = voc_xml.read_voc(tmp_path / "data", "all", allow_outside)
    assert [image.path for image in voc.images] == expected
    (tmp_path / "data/images/train.txt").write_text(str(original))
    (tmp_path / "data/data.yaml").write_text("train: images/train.txt\nnames: [cat]\n")
    for folder in ("data/images", "original"):
        (tmp_path / folder / "p.txt").write_text("0 .5 .5 .5 .5\n")
    yolo = yolo_txt.read_yolo(tmp_path / "data", "train", allow_outside)
    assert [image.path for image in yolo.images] == expected


@pytest.mark.parametrize(
    ("root", "accepted"),
    [
        (".", True),
        ("..", True),
        ("../../elsewhere", True),
        ("../..", False),
        ("../../..", False),
        ("/", False),
        ("up", False),
    ],
)
def test_yolo_path_far_above_data_yaml_does_not_count(tmp_path, paint, root, accepted):
    """`up` is a link to the folder two levels above data.yaml."""
    folder = tmp_path / "a/b"
    folder.mkdir(parents=True)
    (folder / "up").symlink_to(tmp_path)
    image = tmp_path / "secret.jpg"
    if accepted:
        image = pathlib.Path(os.path.normpath(folder / root)) / "images/x.jpg"
    paint(image)
    image.with_suffix(".txt").write_text("0 .5 .5 .5 .5\n")
    (folder / "train.txt").write_text(str(image))
    (folder / "data.yaml").write_text(f"path: {root}\ntrain: train.txt\nnames: [cat]\n")
    (found,) = yolo_txt.read_yolo(folder, "train").images
    assert bool(found.path) == accepted
    assert found.fault.startswith("outside the image folder: ") != accepted


def test_yolo_images_beside_data_yaml_but_not_in_its_path(tmp_path, paint):
    paint(tmp_path / "data/other/a.jpg")
    (tmp_path / "data/other/a.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "data/sub/lists").mkdir(parents=True)
    (tmp_path / "data/sub/lists/train.txt").write_text("../../other/a.jpg\n")
    (tmp_path / "data/data.yaml").write_text("path: sub\ntrain: lists/train.txt\nnames: [cat]\n")
    (image,) = yolo_txt.read_yolo(tmp_path / "data", "train").images
    assert (len(image.objects), image.fault) == (1, "")


def test_yolo_images_beside_a_list_elsewhere(tmp_path, paint):
    paint(tmp_path / "lists/a.jpg")
    (tmp_path / "lists/a.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "lists/train.txt").write_text("a.jpg\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/data.yaml").write_text("train: ../lists/train.txt\nnames: [cat]\n")
    (image,) = yolo_txt.read_yolo(tmp_path / "data", "train").images
    assert (len(image.objects), image.fault) == (1, "")


@pytest.mark.parametrize(
    ("names", "accepted"),
    [("obj.names", True), ("../obj.names", True), ("../../private.key", False)],
)
def test_darknet_class_names_are_in_the_data_set(tmp_path, paint, names, accepted):
    folder = tmp_path / "a/b"
    paint(folder / "images/a.jpg")
    (folder / names).write_text("cat\n")
    (folder / "obj.data").write_text(f"train = images\nnames = {names}\n")
    assert yolo_txt.read_yolo(folder, "train", True).classes == [{"name": "cat", "id": 0}]
    if accepted:
        assert yolo_txt.read_yolo(folder, "train").classes == [{"name": "cat", "id": 0}]
    else:
        with pytest.raises(ValueError, match=r"private.key is not in .*; use --allow_outside"):
            yolo_txt.read_yolo(folder, "train")


def test_yolo_list_with_entries_that_no_file_can_have(yolo):
    """A name of 300 characters, folders, a NUL, and a line that is longer than any path."""
    lines = ["../images/a.jpg", "x" * 300, ".", "/", "a\0b.jpg", "y" * 5000 + "z.jpg"]
    path = yolo(lines)
    for allow_outside in (False, True):
        images = list(yolo_txt.read_yolo(path, "train", allow_outside).images)
        assert [len(image.objects) for image in images] == [1, 0, 0, 0, 0, 0]
        assert images[-1].path == ""
        assert images[-1].fault.startswith("path too long: ")
        assert images[-1].fault.endswith(" bytes; the limit is 4096")
        assert images[-1].filename == "..." + "y" * 95 + "z.jpg"


def test_yolo_list_with_odd_entries_is_converted(tmp_path, yolo, run, read_dataset):
    path = yolo(["../images/a.jpg", "x" * 300, ".", "/", "a\0b.jpg", "y" * 5000])
    assert run("yolo_to_tfrecord", yolo=path, output=tmp_path / "out", workers=1) == (0, "")
    report = read_dataset(tmp_path / "out")[1]["splits"]["train"]
    assert report["images"] == 1
    assert sum(report["dropped_images"].values()) == 5


def test_coco_and_csv_names_longer_than_any_path(tmp_path, write_coco):
    name = "y" * 5000 + ".jpg"
    write_coco(tmp_path / "a.json", [(1, name, 64, 48)])
    (tmp_path / "a.csv").write_text(f"filename,class,xmin,ymin,xmax,ymax\n{name},cat,1,1,9,9\n")
    for source in (
        coco_json.read_coco(tmp_path / "a.json", tmp_path),
        csv_table.read_csv(tmp_path / "a.csv", tmp_path, False),
    ):
        (image,) = source.images
        assert (image.path, image.filename) == ("", "..." + "y" * 96 + ".jpg")
        assert image.fault.startswith("path too long: ")


def test_lists_of_images_are_bounded(tmp_path, yolo, monkeypatch):
    path = yolo(["../images/a.jpg"])
    (tmp_path / "voc/ImageSets/Main").mkdir(parents=True)
    (tmp_path / "voc/ImageSets/Main/train.txt").write_text("a\n" * 8)
    monkeypatch.setattr(user_files, "MAX_LIST_BYTES", 14)
    with pytest.raises(user_files.FileTooLargeError, match="15 bytes; the limit is 14"):
        list(yolo_txt.read_yolo(path, "train").images)
    with pytest.raises(user_files.FileTooLargeError, match="16 bytes; the limit is 14"):
        voc_xml.read_voc(tmp_path / "voc", "train")


def test_voc_annotations_are_bounded(tmp_path, paint, monkeypatch):
    paint(tmp_path / "a.jpg")
    (tmp_path / "a.xml").write_text("<annotation></annotation>")
    monkeypatch.setattr(user_files, "MAX_LABEL_BYTES", 24)
    (image,) = voc_xml.read_voc(tmp_path, "all").images
    assert image.fault.endswith("a.xml is too large: 25 bytes; the limit is 24")


def test_yaml_beside_data_yaml_is_bounded(tmp_path, paint, monkeypatch):
    paint(tmp_path / "images/a.jpg")
    (tmp_path / "images/a.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "args.yaml").write_text("names: [dog]\n" + "#" * 100)
    (tmp_path / "set.yaml").write_text("train: images\nnames: [cat]\n")
    monkeypatch.setattr(user_files, "MAX_LABEL_BYTES", 100)
    assert yolo_txt.read_yolo(tmp_path, "train").classes == [{"name": "cat", "id": 0}]


def test_first_line_of_a_stray_label_file_is_bounded(tmp_path, paint):
    paint(tmp_path / "images/a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "labels/stray.txt").write_text(" " * 70_000 + "0 .5 .5 .5 .5\n")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat]\n")
    source = yolo_txt.read_yolo(tmp_path, "train")
    assert len(list(source.images)) == 1
    assert source.unused == {}


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ("names: [*i]", "expected `names` to be a list"),
        ("names: *i", "expected `names` to be a list"),
        ("names: [cat]\ntrain: *i", "expected a folder, a list of files"),
        ("names: [cat]\ntrain: l.txt\npath: *i", "expected `path` to be a folder"),
        ("names: " + "[" * 1000, "is not YAML"),
        ("names: [2020-13-45]", "has no 'train'"),  # text, like every name
    ],
)
def test_yaml_aliases_are_not_expanded(tmp_path, tail, message):
    """Written out, the last of these lists would have 10 ** 9 entries."""
    lines = ["a: &a [" + ",".join("x" * 10) + "]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [" + ",".join([f"*{before}"] * 10) + "]")
    (tmp_path / "data.yaml").write_text("\n".join([*lines, tail]))
    with pytest.raises(ValueError, match=message) as caught:
        list(yolo_txt.read_yolo(tmp_path / "data.yaml", "train").images)
    assert len(str(caught.value)) < 1000


def test_yolo_odd_neighbours_of_data_yaml_and_labels(tmp_path, paint):
    """Folders and dangling links under the names of files."""
    for name in "ab":
        paint(tmp_path / f"images/{name}.jpg")
    for folder in ("labels/b.txt", "labels/notes.txt", "bad.yaml", "bad.data"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "labels/a.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "labels/gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "args.yaml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "set.yaml").write_text("train: images\nnames: [cat]\n")
    source = yolo_txt.read_yolo(tmp_path, "train")
    found = [(image.filename, len(image.objects), image.fault) for image in source.images]
    assert found == [("a.jpg", 1, ""), ("b.jpg", 0, "")]
    assert source.unused == {}


def test_voc_odd_annotations_are_dropped(tmp_path, paint):
    """An encoding that nobody knows, and the name of an image that no file can have."""
    paint(tmp_path / "a.jpg")
    (tmp_path / "a.xml").write_text(VOC.format("a.jpg"))
    (tmp_path / "b.xml").write_text('<?xml version="1.0" encoding="bogus"?><annotation/>')
    (tmp_path / "c.xml").write_text(VOC.format("x" * 300))
    first, second, third = voc_xml.read_voc(tmp_path, "all").images
    assert (first.path, first.fault) == (str(tmp_path / "a.jpg"), "")
    assert second.fault.startswith("annotation cannot be read: ")
    assert third.filename == "x" * 300


def test_label_file_that_is_a_fifo(tmp_path):
    os.mkfifo(tmp_path / "a")
    with pytest.raises(
        user_files.NotRegularFileError, match=r"--annotations: .*a is not a regular file"
    ):
        coco_json.read_coco(tmp_path / "a", tmp_path)
    with pytest.raises(user_files.NotRegularFileError, match=r"--csv: .*a is not a regular file"):
        csv_table.read_csv(tmp_path / "a", tmp_path, False)


def test_the_case_of_a_name_counts_more_than_its_suffix(tmp_path):
    for name in ("A.jpg", "a.png"):
        (tmp_path / name).touch()
    found = files.ImageFolders((tmp_path,)).locate(tmp_path, "a.bmp")
    assert found == str(tmp_path / "a.png")
