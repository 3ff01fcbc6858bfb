import base64
import hashlib
import html.parser
import importlib
import io
import json
import os
import shutil
import signal
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from fixed_detector import IMAGES, NAMES, draw, make_network
from PIL import Image

from ssd_tf.commands import detect, evaluate


@pytest.fixture(autouse=True, scope="module")
def fixed_weights(tiny_config):
    """`ssd detect` gets a detector with fixed weights, whatever --model says."""
    from ssd_tf.inference.detector import keras_detector

    detector = keras_detector(tiny_config, make_network(), NAMES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssd_tf.inference.detect.load_detector", lambda *_flags, **_options: detector)
        patch.setattr(detect, "check_exists", lambda *_arguments: None)
        yield


@pytest.fixture
def ends_at(monkeypatch):
    """A function: let the detector do something instead of detecting, in its n-th image from 1."""
    from ssd_tf.inference import detect as module

    inner = module.load_detector()

    class Ending:
        classes = inner.classes
        thresholds = inner.thresholds
        read_image = inner.read_image

        def __init__(self, number, end):
            self.number = number
            self.end = end

        def __call__(self, image):
            self.number -= 1
            if self.number == 0:
                self.end()
            return inner(image)

    def end_at(number, end):
        ending = Ending(number, end)
        monkeypatch.setattr(module, "load_detector", lambda *_flags, **_options: ending)

    return end_at


def interrupt():
    raise KeyboardInterrupt


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def crash():
    raise RuntimeError("out of memory")


@pytest.fixture
def look(tmp_path):
    """A function: run `ssd detect`, which must succeed; returns the rows and the drawn images."""

    def call(*argv):
        output = tmp_path / "out"
        assert detect.main(["detect", "--model=any", f"--output={output}", *map(str, argv)]) == 0
        drawn = {
            path.name: np.asarray(Image.open(path))
            for path in sorted(output.iterdir())
            if path.suffix.lower() in (".png", ".jpg", ".jfif")
        }
        return json.loads((output / "detections.json").read_text()), drawn

    return call


@pytest.fixture
def image_folder(tmp_path):
    """A folder of two images: green in `green.png`; blue and red in `0042.jpg`."""
    folder = tmp_path / "image_folder"
    folder.mkdir()
    Image.fromarray(IMAGES[1]).save(folder / "green.png")
    Image.fromarray(IMAGES[2]).save(folder / "0042.jpg", quality=95)
    return folder


def test_a_list_of_images(look, image_folder, tmp_path):
    listed = tmp_path / "images.txt"
    listed.write_text(f"{image_folder / 'green.png'}\n\n")
    rows, drawn = look("--list", listed)
    assert [row["file_name"] for row in rows] == [str(image_folder / "green.png")]
    assert list(drawn) == ["green.png"]
    _, drawn = look("--list", listed, image_folder / "0042.jpg")
    assert len(drawn) == 2


def test_rows(look, image_folder):
    rows, _ = look(image_folder)
    assert sorted((row["file_name"], row["class"], row["category_id"]) for row in rows) == [
        (str(image_folder / "0042.jpg"), "blue", 3),
        (str(image_folder / "0042.jpg"), "red", 1),
        (str(image_folder / "green.png"), "green", 2),
    ]
    (green,) = [row for row in rows if row["class"] == "green"]
    # Of 128 x 96: 8 pixels below the cell in its upper right corner, 24 pixels wide.
    assert green["bbox"] == pytest.approx([68, 8, 24, 64], abs=1e-3)
    assert sorted(green) == ["bbox", "category_id", "class", "file_name", "image_id", "score"]


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["2.png", "a.png"], [1, 2]),
        (["7.png", "0042.png"], [7, 42]),
        (["5.png", "05.png"], [1, 2]),
    ],
)
def test_image_ids_are_unique(look, tmp_path, names, ids):
    paths = [tmp_path / name for name in names]
    for path in paths:
        Image.fromarray(IMAGES[0]).save(path)
    rows, _ = look(*paths)
    assert [(row["image_id"], row["file_name"]) for row in rows] == list(
        zip(ids, map(str, paths), strict=True)
    )


def test_drawn_images(look, image_folder):
    _, drawn = look(image_folder)
    assert sorted(drawn) == ["0042.jpg", "green.png"]
    assert drawn["0042.jpg"].shape == (96, 90, 3)
    # The box is outlined in the colour of the second class, and not filled: rows 8 to 72, columns
    # 68 to 92. Its caption lies over its upper edge.
    outline = (drawn["green.png"] == (60, 180, 75)).all(-1)
    assert outline[30:72, 66:71].any()
    assert outline[30:72, 90:95].any()
    assert outline[70:75, 70:90].any()
    assert not outline[30:65, 75:86].any()
    np.testing.assert_array_equal(drawn["green.png"][30:65, 75:86], IMAGES[1][30:65, 75:86])


def test_classes_max_and_score(look, image_folder):
    rows, _ = look("--classes=green,blue", image_folder)
    assert [row["class"] for row in rows] == ["blue", "green"]
    rows, _ = look("--max=1", image_folder)
    assert len(rows) == 2
    rows, _ = look("--score=0.0001", image_folder)
    assert len(rows) > 3


def test_thresholds_of_the_model(look, image_folder, monkeypatch):
    from ssd_tf.inference import detect as module
    from ssd_tf.inference.thresholds import Thresholds

    # What is found from .5 on: three colours, with scores of .98; gray cells score less than .05.
    names = [row["class"] for row in look(image_folder)[0]]
    thresholds = Thresholds(0.5, {"green": 1.0, "blue": 0.9})
    monkeypatch.setattr(module.load_detector(), "thresholds", thresholds)
    rows, _ = look(image_folder)
    assert [row["class"] for row in rows] == [name for name in names if name != "green"]
    assert "green" in names and len(rows) > 0
    assert len(look("--score=0.5", image_folder)[0]) == len(names)
    monkeypatch.setattr(module.load_detector(), "thresholds", Thresholds(0.0001, {}))
    assert len(look(image_folder)[0]) > len(names)


def test_an_image_without_objects(look, tmp_path):
    Image.fromarray(IMAGES[3]).save(tmp_path / "empty.png")
    rows, drawn = look(tmp_path / "empty.png")
    assert rows == []
    np.testing.assert_array_equal(drawn["empty.png"], IMAGES[3])


def test_gray_and_rotated_images(look, tmp_path):
    Image.fromarray(IMAGES[0]).convert("L").save(tmp_path / "gray.png")
    # Stored rotated to the left; EXIF says how to show it: 128 x 96 with green.
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated = Image.fromarray(np.rot90(IMAGES[1]).copy())
    rotated.save(tmp_path / "rotated.jpg", exif=exif, quality=95)
    rows, drawn = look(tmp_path / "gray.png", tmp_path / "rotated.jpg")
    assert drawn["gray.png"].shape == (64, 96, 3)
    assert drawn["rotated.jpg"].shape == (128, 96, 3)
    (green,) = rows
    assert green["file_name"].endswith("rotated.jpg")
    assert green["bbox"] == pytest.approx([68, 8, 24, 64], abs=1e-3)


def test_two_images_of_one_name(look, image_folder, tmp_path):
    (tmp_path / "more").mkdir()
    Image.fromarray(draw(40, 60)).save(tmp_path / "more" / "green.png")
    _, drawn = look(image_folder / "green.png", tmp_path / "more" / "green.png")
    assert sorted(drawn) == ["green.png", "green_2.png"]
    # A second call uses the same names again.
    _, drawn = look(image_folder / "green.png", tmp_path / "more" / "green.png")
    assert sorted(drawn) == ["green.png", "green_2.png"]


@pytest.mark.parametrize(
    ("names", "drawn_names"),
    [
        (["1/a_3.png", "1/a.png", "2/a.png"], ["a.png", "a_3.png", "a_3_3.png"]),
        (["1/a.png", "2/a.png", "1/a_2.png"], ["a.png", "a_2.png", "a_2_3.png"]),
    ],
)
def test_a_suffixed_name_may_be_taken(look, tmp_path, names, drawn_names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(draw(40, 60)).save(tmp_path / name)
    _, drawn = look(*(tmp_path / name for name in names))
    assert sorted(drawn) == drawn_names


def test_an_unreadable_file_is_skipped(look, image_folder):
    (image_folder / "broken.jpg").write_bytes((image_folder / "0042.jpg").read_bytes()[:300])
    (image_folder / "text.png").write_text("no image")
    (image_folder / "notes.txt").write_text("not looked at")
    rows, drawn = look(image_folder)
    assert sorted(drawn) == ["0042.jpg", "green.png"]
    assert len(rows) == 3


def test_bad_input(fails, image_folder, tmp_path):
    output = tmp_path / "out"

    def refuse(*argv, code):
        line = fails(detect.main, "--model=any", f"--output={output}", *argv, code=code)
        assert not (output / "detections.json").exists()
        return line

    assert "the model has no class 'grene'; did you mean 'green'?" in refuse(
        "--classes=red,grene", image_folder, code=2
    )
    assert "name at least one image" in refuse(code=2)
    assert "--score" in refuse("--score=1.5", image_folder, code=2)
    assert "--seconds" in refuse("--seconds=3", image_folder, code=2)
    assert f"no image, folder or video at {tmp_path / 'gone'}" in refuse(tmp_path / "gone", code=1)
    (tmp_path / "none").mkdir()
    assert "no images (.avif, " in refuse(tmp_path / "none", code=1)
    (tmp_path / "none" / "a.png").write_text("no image")
    assert "none of the inputs could be read: 1" in refuse(tmp_path / "none", code=1)


def test_input_images_are_not_overwritten(fails, image_folder):
    before = (image_folder / "green.png").read_bytes()
    line = fails(detect.main, "--model=any", f"--output={image_folder}", image_folder, code=2)
    assert "holds input images" in line
    assert (image_folder / "green.png").read_bytes() == before


def write_video(path, images):
    cv2 = pytest.importorskip("cv2", reason="needs the extra `video`")
    height, width = images[0].shape[:2]
    codec = cv2.VideoWriter_fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), codec, 12.5, (width, height))
    for image in images:
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()


def test_a_video_keeps_its_frames_rate_and_size(look, tmp_path, image_folder):
    # Colours survive the codec of large plain areas well enough.
    frames = [draw(128, 192, ("red", 0, 0)), draw(128, 192), draw(128, 192, ("blue", 1, 2))]
    write_video(tmp_path / "two.mp4", frames * 4)
    rows, drawn = look(image_folder / "green.png", tmp_path / "two.mp4")
    assert list(drawn) == ["green.png"]
    # The image has the id 1, the frames 2 to 13; every third frame shows nothing.
    assert [(row["image_id"], row.get("frame"), row["class"]) for row in rows] == [
        (1, None, "green"),
        (2, 0, "red"),
        (4, 2, "blue"),
        (5, 3, "red"),
        (7, 5, "blue"),
        (8, 6, "red"),
        (10, 8, "blue"),
        (11, 9, "red"),
        (13, 11, "blue"),
    ]
    from ssd_tf.inference.inputs import Video

    video = Video(tmp_path / "out" / "two.mp4")
    assert (video.num_frames, video.rate) == (12, pytest.approx(12.5))
    assert [frame.shape for frame in video] == [(128, 192, 3)] * 12
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "detections.json",
        "green.png",
        "overview.html",
        "two.mp4",
        "written.sha256",
    ]


def test_what_cannot_be_opened_as_a_video_is_skipped(look, fails, tmp_path, image_folder):
    pytest.importorskip("cv2", reason="needs the extra `video`")
    (tmp_path / "broken.mp4").write_text("no video")
    rows, _ = look(image_folder / "green.png", tmp_path / "broken.mp4")
    assert [row["class"] for row in rows] == ["green"]
    argv = ["--model=any", f"--output={tmp_path / 'none'}", tmp_path / "broken.mp4", "camera:99"]
    assert "none of the inputs could be read: 2" in fails(detect.main, *argv, code=1)
    assert not (tmp_path / "none").exists()


def test_videos_without_opencv(look, tmp_path, monkeypatch, image_folder, caplog):
    monkeypatch.setitem(sys.modules, "cv2", None)
    (tmp_path / "a.mp4").touch()
    look(image_folder / "green.png", tmp_path / "a.mp4")
    assert "videos need OpenCV: pip install 'ssd-tf[video]'" in caplog.text


def test_globs(look, image_folder):
    rows, drawn = look(str(image_folder / "*.jpg"))
    assert list(drawn) == ["0042.jpg"]
    assert {row["image_id"] for row in rows} == {42}


@pytest.mark.parametrize(
    ("form", "converter", "flags"),
    [
        ("coco", "coco", ["--images={images}", "--annotations={out}/annotations.json"]),
        ("yolo", "yolo", ["--yolo={out}"]),
        ("voc", "voc", ["--voc={out}"]),
        ("csv", "csv", ["--csv={out}/labels.csv", "--images={images}"]),
    ],
)
def test_label_files_are_read_by_our_converters(
    look, image_folder, tmp_path, form, converter, flags
):
    from ssd_tf.data import dataset_json, split_examples

    Image.fromarray(IMAGES[3]).save(image_folder / "nothing.png")
    rows, _ = look(f"--format={form}", image_folder)
    out = tmp_path / "out"
    images = {"yolo": out / "images", "voc": out / "JPEGImages"}.get(form, image_folder)
    if images != image_folder:
        shutil.copytree(image_folder, images)
    main = importlib.import_module(f"data_tools.{converter}_to_tfrecord").main
    argv = [flag.format(images=images, out=out) for flag in flags]
    assert main(["convert", *argv, f"--output={tmp_path / 'data'}"]) == 0
    names = dataset_json.read_dataset(tmp_path / "data").names
    found = []
    for example in split_examples.read_examples(tmp_path / "data", "train").as_numpy_iterator():
        height, width = example["image"].shape[:2]
        for box, label in zip(example["boxes"], example["labels"], strict=True):
            ymin, xmin, ymax, xmax = box * np.array([height, width, height, width])
            place = [xmin, ymin, xmax - xmin, ymax - ymin]
            found.append((example["file_name"].decode(), names[label - 1], place))
    expected = [(Path(row["file_name"]).name, row["class"], row["bbox"]) for row in rows]
    assert [row[:2] for row in sorted(found)] == [row[:2] for row in sorted(expected)]
    # VOC has whole pixels, the others fractions.
    tolerance = 1.01 if form == "voc" else 0.01
    for (*_, box), (*_, other) in zip(sorted(found), sorted(expected), strict=True):
        assert box == pytest.approx(other, abs=tolerance)


def test_what_format_rejects(fails, image_folder, tmp_path):
    def refuse(*argv):
        return fails(detect.main, "--model=any", f"--output={tmp_path / 'out'}", *argv, code=2)

    assert "unknown format 'yolov5'; did you mean 'yolo'?" in refuse(
        "--format=yolov5", image_folder
    )
    (tmp_path / "a.mp4").touch()
    assert "a.mp4 is a video" in refuse("--format=yolo", image_folder, tmp_path / "a.mp4")
    Image.fromarray(IMAGES[0]).save(tmp_path / "green.jpg")
    line = refuse("--format=yolo", image_folder, tmp_path / "green.jpg")
    assert "several images are named green" in line


def test_an_image_of_too_many_pixels_is_skipped(look, image_folder, monkeypatch, caplog):
    # Pillow refuses more than twice this number as a possible attack.
    Image.fromarray(IMAGES[0]).save(image_folder / "small.png")  # 64 x 96
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 96)
    Image.fromarray(np.zeros((200, 200, 3), np.uint8)).save(image_folder / "large.png")
    rows, drawn = look(image_folder / "small.png", image_folder / "large.png")
    assert list(drawn) == ["small.png"]
    assert [row["class"] for row in rows] == ["red"]
    assert "large.png cannot be read (too large: " in caplog.text


def test_drawn_copies_have_the_format_of_the_image(look, tmp_path):
    for name in ("a.jpg", "b.JPEG", "c.png", "d.webp", "e.tif", "f.bmp", "g.jfif"):
        image_format = "JPEG" if name == "g.jfif" else None
        Image.fromarray(IMAGES[0]).save(tmp_path / name, image_format)
    look(*sorted(tmp_path.glob("?.*")))
    drawn = sorted((tmp_path / "out").glob("?.*"))
    names = ["a.jpg", "b.JPEG", "c.png", "d.png", "e.png", "f.png", "g.jfif"]
    assert [path.name for path in drawn] == names
    is_jpeg = [path.read_bytes().startswith(b"\xff\xd8\xff") for path in drawn]
    assert is_jpeg == [True, True, False, False, False, False, True]


def test_every_suffix_of_an_image_in_a_folder_is_read_and_the_others_are_counted(
    look, image_folder, caplog
):
    for name in ("a.TIFF", "b.jfif", "c.pgm", "d.Jpg", "e.avif"):
        image_format = {"b.jfif": "JPEG", "c.pgm": "PPM", "e.avif": "AVIF"}.get(name)
        Image.fromarray(IMAGES[0]).save(image_folder / name, image_format)
    (image_folder / "notes.txt").write_text("not looked at")
    (image_folder / "more").mkdir()
    _, drawn = look(image_folder)
    assert len(drawn) == 7
    skipped = [record.args for record in caplog.records if "skipped: %d" in record.msg]
    assert skipped == [(image_folder, 7, 2, "more")]


def test_sixteen_bits_are_read_by_the_gray_range_of_the_data(look, tmp_path, monkeypatch):
    from ssd_tf.inference import detect as library

    loaded = library.load_detector("any")
    monkeypatch.setattr(loaded, "gray_range", (0, 4095))
    gray = np.full((40, 60), 2048, np.uint16)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    _, drawn = look(tmp_path / "gray.png")
    assert (drawn["gray.png"] == 128).all()


def test_one_corrupt_image_does_not_end_the_command(look, image_folder):
    # Pillow raises SyntaxError for a checksum, and nothing for EXIF that it cannot read.
    data = (image_folder / "green.png").read_bytes()
    (image_folder / "checksum.png").write_bytes(data[:40] + b"?" + data[41:])
    exif = b"\0\0\0\x08eXIfgarbage!" + zlib.crc32(b"eXIfgarbage!").to_bytes(4, "big")
    (image_folder / "exif.png").write_bytes(data[:33] + exif + data[33:])
    _, drawn = look(image_folder)
    assert sorted(drawn) == ["0042.jpg", "exif.png", "green.png"]


FILES = {
    "coco": ["annotations.json"],
    "yolo": ["classes.txt", "labels/0042.txt", "labels/green.txt"],
    "voc": ["Annotations/0042.xml", "Annotations/green.xml"],
    "csv": ["labels.csv"],
}


@pytest.mark.parametrize(
    ("form", "name"),
    [(form, name) for form, names in FILES.items() for name in names]
    + [("yolo", name) for name in ("green.png", "detections.json")],
)
def test_what_somebody_corrected_is_not_overwritten(
    look, fails, image_folder, tmp_path, form, name
):
    out = tmp_path / "out"
    look(f"--format={form}", image_folder)
    written = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    listed = [str(path.relative_to(out)) for path in sorted(written)]
    expected = ["0042.jpg", "detections.json", "green.png", "overview.html", "written.sha256"]
    assert listed == sorted([*expected, *FILES[form]])
    look(f"--format={form}", image_folder)  # nobody changed a file: all are replaced
    (out / name).write_bytes(written[out / name] + b"corrected")
    argv = ["--model=any", f"--output={out}", f"--format={form}", image_folder]
    assert f"{name} was changed" in fails(detect.main, *argv, code=1)
    for path, content in written.items():
        if path.name not in (Path(name).name, "written.sha256"):
            assert path.read_bytes() == content
    assert (out / name).read_bytes() == written[out / name] + b"corrected"


@pytest.mark.parametrize(
    "name", ["green.png", "detections.json", "overview.html", "labels/green.txt"]
)
def test_files_of_others_are_not_overwritten(fails, image_folder, tmp_path, name):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    argv = ["--model=any", f"--output={tmp_path / 'out'}", "--format=yolo", image_folder]
    assert f"{name} exists" in fails(detect.main, *argv, code=1)
    assert path.read_text() == "mine"
    assert [found for found in (tmp_path / "out").rglob("*") if found.is_file()] == [path]


def test_an_evaluation_keeps_its_detections(fails, look, image_folder, tmp_path):
    look(image_folder)
    written = (tmp_path / "out" / "detections.json").read_bytes()
    (tmp_path / "out" / "metrics.json").write_text("{}")
    line = fails(detect.main, "--model=any", f"--output={tmp_path / 'out'}", image_folder, code=1)
    assert "holds an evaluation" in line
    assert (tmp_path / "out" / "detections.json").read_bytes() == written


def test_an_evaluation_does_not_replace_detections(fails, look, image_folder, tmp_path):
    look(image_folder)
    written = (tmp_path / "out" / "detections.json").read_bytes()
    argv = ["--annotations=any", "--detections=any", f"--output={tmp_path / 'out'}"]
    assert "ssd detect" in fails(evaluate.main, *argv, code=1)
    assert (tmp_path / "out" / "detections.json").read_bytes() == written


def test_inputs_in_a_folder_below_are_not_overwritten(fails, image_folder, tmp_path):
    (tmp_path / "out").mkdir()
    names = tmp_path / "out" / "classes.txt"
    names.write_text("red\ngreen\nblue\n")
    digest = hashlib.sha256(names.read_bytes()).hexdigest()
    (tmp_path / "out" / "written.sha256").write_text(f"{digest}  classes.txt\n")
    argv = ["--model=any", f"--output={tmp_path / 'out'}", f"--labels={names}", "--format=yolo"]
    assert "classes.txt is an input" in fails(detect.main, *argv, image_folder, code=1)


def test_labels_of_other_classes_do_not_stay_beside_new_ones(look, fails, image_folder, tmp_path):
    look("--format=yolo", image_folder)
    out = tmp_path / "out"
    old = "a\nb\n"
    (out / "classes.txt").write_text(old)
    with open(out / "written.sha256", "a") as manifest:
        manifest.write(f"{hashlib.sha256(old.encode()).hexdigest()}  classes.txt\n")
    argv = ["--model=any", f"--output={out}", "--format=yolo"]
    line = fails(detect.main, *argv, image_folder / "green.png", code=1)
    assert "labels/0042.txt is of other classes" in line
    assert (out / "classes.txt").read_text() == old
    look("--format=yolo", image_folder)  # of all of them
    assert (out / "classes.txt").read_text() == "red\ngreen\nblue\n"


class Overview(html.parser.HTMLParser):
    """What overview.html of a folder shows.

    enlarged: the addresses behind its thumbnails. thumbnails: (their source, their text). links:
    all other addresses. classes: its list of them.
    """

    def __init__(self, folder):
        super().__init__()
        self.enlarged = []
        self.thumbnails = []
        self.links = []
        self.classes = []
        self._is_list = False
        self.feed((folder / "overview.html").read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "a":
            links = self.enlarged if attributes.get("class") == "zoom" else self.links
            links.append(attributes["href"])
        elif tag == "img" and "src" in attributes:
            self.thumbnails.append((attributes["src"], attributes["alt"]))
        elif tag == "ul" and attributes.get("class") == "chips":
            self._is_list = True

    def handle_data(self, data):
        if self._is_list and data.strip():
            self.classes.append(data.strip())

    def handle_endtag(self, tag):
        self._is_list = self._is_list and tag != "ul"


def test_the_overview_shows_all_images_and_counts_classes(look, image_folder, tmp_path):
    name = "a b#1%.jpg"  # characters with a meaning in addresses
    Image.fromarray(IMAGES[2]).resize((1800, 1920)).save(image_folder / name, quality=95)
    Image.fromarray(IMAGES[3]).save(image_folder / "nothing.png")
    look(image_folder)
    page = Overview(tmp_path / "out")
    assert page.enlarged == ["0042.jpg", "a%20b%231%25.jpg", "green.png", "nothing.png"]
    assert page.links == page.enlarged
    sources, texts = zip(*page.thumbnails, strict=True)
    counts = [text.partition(": ")[2] for text in texts]
    assert sorted(counts[0].split(", ")) == sorted(counts[1].split(", ")) == ["1 blue", "1 red"]
    assert counts[2] == "1 green" and len(counts) == 4
    assert page.classes == ["red: 2 in 2 files", "green: 1 in 1 file", "blue: 2 in 2 files"]
    sizes = []
    for source in sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as thumbnail:
            sizes.append(thumbnail.size)
    assert sizes == [(90, 96), (244, 260), (96, 128), (96, 64)]  # shrunk, never enlarged


def test_beyond_a_number_the_overview_has_links_only(look, image_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("ssd_tf.inference.overview._MAX_IMAGES", 1)
    look(image_folder)
    page = Overview(tmp_path / "out")
    assert page.enlarged == ["0042.jpg"] and len(page.thumbnails) == 1
    assert page.links == ["0042.jpg", "green.png"]
    assert [text.partition(":")[0] for text in page.classes] == ["red", "green", "blue"]


def test_a_video_has_a_link_in_the_overview(look, tmp_path):
    frames = [draw(128, 192, ("red", 0, 0)), draw(128, 192), draw(128, 192, ("blue", 1, 2))]
    write_video(tmp_path / "two.mp4", frames * 2)
    look(tmp_path / "two.mp4")
    page = Overview(tmp_path / "out")
    assert (page.links, page.thumbnails) == (["two.mp4"], [])
    assert page.classes == ["red: 2 in 1 file", "blue: 2 in 1 file"]


def many_images(folder, count):
    folder.mkdir()
    for number in range(1, count + 1):
        Image.fromarray(IMAGES[1]).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize(("end", "code"), [(interrupt, 130), (terminate, 143), (crash, 1)])
def test_an_end_before_the_last_image_keeps_the_others(ends_at, capsys, tmp_path, end, code):
    folder = many_images(tmp_path / "many", 5)
    out = tmp_path / "out"
    for number in (3, 4):  # twice: what an ended run wrote is replaced
        ends_at(number, end)
        argv = ["--model=any", f"--output={out}", "--format=yolo,voc,csv,coco", str(folder)]
        assert detect.main(["detect", *argv]) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") == (end is crash)
        stems = [str(image) for image in range(1, number)]
        rows = json.loads((out / "detections.json").read_text())
        assert [row["image_id"] for row in rows] == list(range(1, number))
        assert sorted(path.stem for path in out.glob("*.png")) == stems
        assert [Path(address).stem for address in Overview(out).enlarged] == stems
        assert sorted(path.stem for path in (out / "labels").iterdir()) == stems
        assert sorted(path.stem for path in (out / "Annotations").iterdir()) == stems
        lines = (out / "labels.csv").read_text().splitlines()[1:]
        assert [line.split(".")[0] for line in lines] == stems
        content = json.loads((out / "annotations.json").read_text())
        assert [row["file_name"] for row in content["images"]] == [f"{x}.png" for x in stems]
        assert [row["image_id"] for row in content["annotations"]] == list(range(1, number))
        assert [path for path in out.rglob(".*")] == []


@pytest.mark.parametrize(("end", "code"), [(interrupt, 130), (terminate, 143), (crash, 1)])
def test_an_end_in_a_video_keeps_its_frames(ends_at, tmp_path, end, code):
    write_video(tmp_path / "a.mp4", [draw(128, 192, ("red", 0, 0))] * 8)
    from ssd_tf.inference.inputs import Video

    out = tmp_path / "out"
    ends_at(6, end)
    argv = ["--model=any", f"--output={out}", str(tmp_path / "a.mp4")]
    assert detect.main(["detect", *argv]) == code
    rows = json.loads((out / "detections.json").read_text())
    assert [row["frame"] for row in rows] == [0, 1, 2, 3, 4]
    assert len(list(Video(out / "a.mp4"))) == 5
    ends_at(0, end)
    assert detect.main(["detect", *argv]) == 0
    assert len(json.loads((out / "detections.json").read_text())) == 8


def test_an_end_before_the_first_image_keeps_the_rows_of_the_last_call(ends_at, look, tmp_path):
    folder = many_images(tmp_path / "many", 2)
    rows, _ = look(folder)
    ends_at(1, interrupt)
    argv = ["--model=any", f"--output={tmp_path / 'out'}", str(folder)]
    assert detect.main(["detect", *argv]) == 130
    assert json.loads((tmp_path / "out" / "detections.json").read_text()) == rows


def test_ids_of_images_beside_videos(look, tmp_path):
    Image.fromarray(IMAGES[1]).save(tmp_path / "5.png")
    write_video(tmp_path / "a.mp4", [draw(128, 192, ("red", 0, 0))] * 2)
    rows, _ = look(tmp_path / "5.png", tmp_path / "a.mp4")
    assert [(row["image_id"], row.get("frame")) for row in rows] == [(5, None), (6, 0), (7, 1)]
