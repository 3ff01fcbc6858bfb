"""The report holds the numbers, works without a network, and has sensible empty sections."""

import html.parser
import json
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ssd_tf.commands import evaluate

CATEGORIES = [{"id": 1, "name": "<b>cat</b>"}, {"id": 2, "name": "dog"}]
CAT = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 20]}
DOG = {"image_id": 2, "category_id": 2, "bbox": [5, 30, 20, 30]}


class Sections(html.parser.HTMLParser):
    """The text of each section by the id of its heading, and every address in the page."""

    def __init__(self, text):
        super().__init__()
        self.texts = {"": ""}
        self.addresses = []
        self.tags = []
        self._section = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag == "h2":
            self._section = attributes["id"]
            self.texts[self._section] = ""
        self.addresses += [attributes[key] for key in ("src", "href") if attributes.get(key)]

    def handle_data(self, data):
        self.texts[self._section] += " ".join(data.split()) + " "


@pytest.fixture(autouse=True)
def empty_plots(request, monkeypatch):
    """Plots are empty, as one takes a tenth of a second, but in tests with `drawn_plots`."""
    if "drawn_plots" not in request.fixturenames:
        monkeypatch.setattr(Figure, "savefig", lambda _self, file, **_: file.write(b"<svg/>"))


@pytest.fixture
def drawn_plots():
    """For tests of whole reports."""


@pytest.fixture
def report(tmp_path):
    """A function: evaluate these annotations and detections -> Sections, metrics.json."""

    def call(annotations, found, *argv, categories=CATEGORIES, names=("one.png", "two.png")):
        images = [
            {"id": 1, "file_name": names[0], "height": 60, "width": 100},
            {"id": 2, "file_name": names[1], "height": 100, "width": 50},
        ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        paths = [tmp_path / "truth.json", tmp_path / "found.json"]
        for path, value in zip(paths, (content, found), strict=True):
            path.write_text(json.dumps(value))
        output = tmp_path / "out"
        flags = [f"--annotations={paths[0]}", f"--detections={paths[1]}", f"--output={output}"]
        assert evaluate.main(["evaluate", *flags, *argv]) == 0
        text = (output / "report.html").read_text()
        return Sections(text), json.loads((output / "metrics.json").read_text())

    return call


def check_offline(sections):
    assert sections.addresses
    assert all(address.startswith("data:") for address in sections.addresses)


@pytest.mark.usefixtures("drawn_plots")
def test_without_objects_and_detections(report):
    sections, metrics = report([], [])
    check_offline(sections)
    assert "The split has no objects that count" in sections.texts[""]
    assert "Nothing was detected" in sections.texts[""]
    assert "No detection is right" in sections.texts["score"]
    assert sections.texts["errors"].strip().endswith("No errors to break down.")
    assert (metrics["coco"]["AP"], metrics["thresholds"]) == (-1, None)


def test_without_detections(report):
    sections, metrics = report([CAT, DOG], [])
    assert "The split has no objects" not in sections.texts[""]
    assert "Nothing was detected" in sections.texts[""]
    assert metrics["errors"]["missed"]["count"] == 2


def test_without_categories(report):
    sections, _ = report([], [], categories=[])
    check_offline(sections)


@pytest.mark.usefixtures("drawn_plots")
def test_numbers_and_names(report):
    wrong = {**DOG, "category_id": 1, "score": 0.8}
    sections, metrics = report([CAT, DOG], [{**CAT, "score": 0.9}, wrong])
    check_offline(sections)
    assert metrics["coco"]["AP"] == pytest.approx(0.5)
    # The middle of .81 to .90, where one detection is right of two objects.
    assert metrics["thresholds"]["best"] == pytest.approx(
        {"score": 0.85, "precision": 1, "recall": 0.5, "f1": 2 / 3}
    )
    numbers = " ".join(sections.texts["numbers"].split())
    assert re.search(r"0\.500 AP 0\.500 AP50 1 of 2 objects", numbers)
    # At .85 one of two objects is found, and the wrong detection of .8 is not shown.
    assert " 0 false alarms" in numbers and re.search(r"AR100 0\.500 ", numbers)
    # A name is text, whatever it looks like.
    assert "<b>cat</b> 1 2 1.000 1.000" in sections.texts["classes"].replace("  ", " ")
    assert "two.png <b>cat</b> 0.80 dog" in " ".join(sections.texts["labels"].split())
    assert "No images: give --images DIR" in " ".join(sections.texts["worst"].split())


def test_errors_are_counted_as_in_the_sentence(report):
    """The third detection, of nothing, is below the threshold, and costs AP50 all the same."""
    wrong = {**DOG, "category_id": 1, "score": 0.95}
    nothing = {**CAT, "bbox": [70, 2, 9, 9], "score": 0.02}
    sections, metrics = report([CAT, DOG], [{**CAT, "score": 0.9}, wrong, nothing])
    assert "1 of 2 objects with 1 false alarm" in metrics["verdict"]["sentence"]
    assert "1 of 2 objects found 1 false alarms" in " ".join(sections.texts["numbers"].split())
    counts = dict(re.findall(r"([a-z]+) ([0-9]+) 0\.[0-9]+ ", sections.texts["errors"]))
    assert {kind: int(count) for kind, count in counts.items() if count != "0"} == {
        "classification": 1
    }
    assert metrics["errors"]["background"]["count"] == 1


def test_the_best_and_the_worst_images_are_shown(report, tmp_path):
    for name, size in (("one.png", (100, 60)), ("two.png", (50, 100))):
        Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8)).save(tmp_path / name)
    sections, _ = report([CAT, DOG], [{**CAT, "score": 0.9}], f"--images={tmp_path}")
    assert sections.texts["worst"].strip().endswith("two.png: 0 right, 0 wrong, 1 missed")
    assert sections.texts["best"].strip().endswith("one.png: 1 right, 0 wrong, 0 missed")
    check_offline(sections)


@pytest.mark.parametrize(
    ("flags", "gray"),
    [([], 7000 // 256), (["--gray_range=6000,7999"], 128), (["--gray_range=0,7000"], 255)],
)
def test_images_of_16_bits(report, tmp_path, monkeypatch, flags, gray):
    from ssd_tf.evaluation import evaluate_files

    shown = []
    read = evaluate_files._read_images

    def spy(*arguments):
        shown.append(read(*arguments))
        return shown[-1]

    monkeypatch.setattr(evaluate_files, "_read_images", spy)
    for name in ("one.png", "two.png"):
        Image.fromarray(np.full((60, 100), 7000, np.uint16)).save(tmp_path / name)
    report([CAT], [{**CAT, "score": 0.9}], f"--images={tmp_path}", *flags)
    (images,) = shown
    assert images and all((image == gray).all() for image in images.values())


@pytest.mark.parametrize("flags", [["--gray_range=9"], ["--gray_range=0,9"]])
def test_a_gray_range_without_images_is_rejected(fails, tmp_path, flags):
    paths = [f"--annotations={tmp_path / 'a'}", f"--detections={tmp_path / 'b'}"]
    line = fails(evaluate.main, *paths, *flags, f"--output={tmp_path / 'c'}", code=2)
    assert "--gray_range" in line


def test_images_come_first_and_can_be_enlarged(report, tmp_path):
    for name in ("one.png", "two.png"):
        Image.new("RGB", (100, 60)).save(tmp_path / name)
    sections, _ = report([CAT, DOG], [{**CAT, "score": 0.9}], f"--images={tmp_path}")
    ids = [attributes["id"] for tag, attributes in sections.tags if tag == "h2"]
    assert ids[:3] == ["worst", "best", "numbers"]
    enlarged = [tag for tag, attributes in sections.tags if attributes.get("class") == "zoom"]
    images = [attributes for tag, attributes in sections.tags if tag == "img"]
    assert enlarged == ["a", "a"]
    assert sum(each.get("src", "").startswith("data:image/jpeg") for each in images) == 2
    assert [tag for tag, _ in sections.tags].count("dialog") == 1


def test_the_surest_of_the_best_images_comes_first(report, tmp_path):
    for name in ("one.png", "two.png"):
        Image.new("RGB", (100, 100)).save(tmp_path / name)
    found = [{**CAT, "score": 0.6}, {**DOG, "score": 0.7}]
    sections, _ = report([CAT, DOG], found, f"--images={tmp_path}")
    text = sections.texts["best"]
    assert 0 < text.index("two.png: 1 right") < text.index("one.png: 1 right")


@pytest.mark.parametrize("num_classes", [1, 2])
def test_what_needs_several_classes(report, num_classes):
    categories = CATEGORIES[:num_classes]
    sections, _ = report([CAT], [{**CAT, "score": 0.9}], categories=categories)
    inputs = [attributes for tag, attributes in sections.tags if tag == "input"]
    assert len(inputs) == num_classes - 1
    assert ("confusion" in sections.texts) == (num_classes == 2)
    swatches = [
        attributes for _, attributes in sections.tags if attributes.get("class") == "swatch"
    ]
    colors = ["background: #e6194b", "background: #3cb44b"]
    assert [attributes["style"] for attributes in swatches] == colors[:num_classes]


def test_the_verdict_is_the_first_sentence(report, monkeypatch):
    from ssd_tf.evaluation import outputs

    written = outputs.report.render_report

    def with_verdict(analysis, metrics, *others):
        verdict = {"sentence": "finds <1> of 2", "suggestion": "more dogs"}
        return written(analysis, {**metrics, "verdict": verdict}, *others)

    monkeypatch.setattr(outputs.report, "render_report", with_verdict)
    sections, _ = report([CAT, DOG], [{**CAT, "score": 0.9}])
    text = " ".join(sections.texts[""].split())
    title = text.rindex("found.json")  # the heading
    assert title < text.index("finds <1> of 2") < text.index("more dogs") < text.index("2 images")


def test_an_image_that_cannot_be_read_is_left_out(report, tmp_path, caplog):
    sections, _ = report([CAT], [{**CAT, "score": 0.9}], f"--images={tmp_path}")
    assert "one.png" not in sections.texts["best"]
    assert "one.png cannot be read for the report" in caplog.text


def test_images_are_found_by_other_spellings(report, tmp_path, caplog):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for path in (folder / "sub" / "one.png", folder / "two.png"):
        Image.new("RGB", (100, 60)).save(path)
    sections, _ = report([CAT, DOG], [], f"--images={folder}", names=["sub\\one.png", "/x/two.png"])
    assert "one.png: 0 right" in sections.texts["worst"]
    assert "/x/two.png: 0 right" in sections.texts["worst"]
    assert "cannot be read" not in caplog.text


def test_images_outside_the_folder_are_not_read(report, tmp_path, caplog):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (100, 60)).save(tmp_path / "one.png")
    (folder / "two.png").symlink_to(tmp_path / "one.png")
    names = ["../one.png", "sub/../two.png"]
    sections, _ = report([CAT, DOG], [], f"--images={folder}", names=names)
    assert "../one.png" not in sections.texts["worst"]
    assert "sub/../two.png: 0 right" in sections.texts["worst"]
    (line,) = [text for text in caplog.messages if "cannot be read" in text]
    assert "../one.png" in line and "outside" in line and str(folder) in line


@pytest.mark.usefixtures("drawn_plots")
def test_equal_evaluations_give_equal_reports(report, tmp_path):
    report([CAT, DOG], [{**CAT, "score": 0.9}])
    first = (tmp_path / "out" / "report.html").read_text()
    report([CAT, DOG], [{**CAT, "score": 0.9}])
    assert (tmp_path / "out" / "report.html").read_text() == first


def test_rows_of_per_class_csv(report, tmp_path):
    report([CAT, DOG], [{**CAT, "score": 0.9}])
    lines = (tmp_path / "out" / "per_class.csv").read_text().splitlines()
    assert lines[0] == (
        "class,objects,detections,AP,AP50,AP50_11point,AP50_all,threshold,precision,recall,f1"
    )
    # Whatever is found from 0 to .90 is right.
    assert lines[1].startswith("<b>cat</b>,1,1,1.0,1.0,1.0,1.0,0.45,1.0,1.0,1.0")
    assert lines[2] == "dog,1,0,0.0,0.0,0.0,0.0,0.45,,0.0,0.0"


@pytest.mark.usefixtures("drawn_plots")
def test_comparison(fails, report, tmp_path, capsys):
    for name, found in (("a", [{**CAT, "score": 0.9}]), ("b", [])):
        report([CAT, DOG], found)
        (tmp_path / "out").rename(tmp_path / name)
    paths = [str(tmp_path / "a" / "metrics.json"), str(tmp_path / "b")]
    assert evaluate.main(["evaluate", "--compare", *paths, f"--output={tmp_path / 'c'}"]) == 0
    printed = capsys.readouterr().out
    assert "a: AP 0.500" in printed and "b: AP 0.000" in printed
    sections = Sections((tmp_path / "c" / "report.html").read_text())
    check_offline(sections)
    assert "a 0.500 0.500" in " ".join(sections.texts[""].split())
    assert "<b>cat</b> 1.000 0.000 1.000 dog 0.000 0.000 0.000" in " ".join(
        sections.texts["classes"].split()
    )
    before = {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()}
    argv = [f"--annotations={tmp_path / 'truth.json'}", f"--detections={tmp_path / 'found.json'}"]
    line = fails(evaluate.main, *argv, f"--output={tmp_path / 'c'}", code=1)
    assert f"{tmp_path / 'c'} holds a comparison" in line
    assert {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()} == before


def test_what_comparison_rejects(fails, report, tmp_path):
    report([CAT], [])
    output = f"--output={tmp_path / 'c'}"
    path = str(tmp_path / "out" / "metrics.json")
    line = fails(evaluate.main, "--compare", path, output, code=2)
    assert "--compare: expected at least two metrics.json" in line
    line = fails(evaluate.main, "--compare", path, str(tmp_path / "gone"), output, code=1)
    assert "no metrics.json at" in line
    (tmp_path / "other.json").write_text('{"coco": {}}')
    line = fails(evaluate.main, "--compare", path, str(tmp_path / "other.json"), output, code=1)
    assert "other.json is not a metrics.json" in line
    assert not (tmp_path / "c").exists()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    line = fails(evaluate.main, "--compare", path, path, f"--output={tmp_path / 'out'}", code=1)
    assert "holds an evaluation" in line
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_worst_image_comes_first(report, tmp_path):
    for name in ("one.png", "two.png"):
        Image.fromarray(np.full((100, 100, 3), 90, np.uint8)).save(tmp_path / name)
    other = {**CAT, "bbox": [60, 30, 20, 20]}
    # One of two is found in the first image, none of one in the second.
    sections, _ = report([CAT, other, DOG], [{**CAT, "score": 0.9}], f"--images={tmp_path}")
    text = sections.texts["worst"]
    assert 0 < text.index("two.png: 0 right") < text.index("one.png: 1 right")


def test_reference_fails_when_a_number_differs(fails, report, tmp_path, monkeypatch):
    from ssd_tf.evaluation import metrics

    report([CAT], [{**CAT, "score": 0.9}], "--reference")
    right = metrics.coco_metrics

    def wrong(*tables):
        stats, *others = right(*tables)
        return stats | {"AP75": 0.5}, *others

    monkeypatch.setattr(metrics, "coco_metrics", wrong)
    report([CAT], [{**CAT, "score": 0.9}])
    paths = [tmp_path / "truth.json", tmp_path / "found.json"]
    argv = [f"--annotations={paths[0]}", f"--detections={paths[1]}", f"--output={tmp_path / 'b'}"]
    line = fails(evaluate.main, *argv, "--reference", code=1)
    assert "differ by more than 1e-06: AP75 0.5000000 and 1.0000000" in line
