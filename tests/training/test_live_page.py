"""live.html: its numbers, curves and held-out images, also after a restart."""

import html.parser
import json
import math
import os

import pytest
from PIL import Image

from ssd_tf.draw import HeldOut
from ssd_tf.training.live_page import LivePage, Numbers, grid_lines, read_evaluations
from ssd_tf.training.progress import Plan

PLAN = Plan(num_steps=100, batch_size=8, num_images=160, evaluate_every=50)
ROW = {"step": "10", "loss": "4.5", "AP": ""}


class Page(html.parser.HTMLParser):
    """tags: (name, attributes); texts: the text of the page, piece by piece."""

    def __init__(self, path):
        super().__init__()
        self.tags = []
        self.texts = []
        self.source = path.read_text()
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, name, **wanted):
        return [
            attributes
            for tag, attributes in self.tags
            if tag == name and wanted.items() <= attributes.items()
        ]


@pytest.fixture
def make_page(tmp_path, tiny_config):
    return lambda start_step=0: LivePage(tmp_path, PLAN, tiny_config, start_step)


@pytest.fixture
def read(tmp_path):
    return lambda: Page(tmp_path / "live.html")


def held_out(name, gray):
    image = Image.new("RGB", (30, 20), (gray, gray, gray))
    return HeldOut(name, image, image)


def numbers(step, **others):
    return Numbers(step, others.get("speed", {}), others.get("left"), others.get("best"))


def test_before_the_first_step(make_page, read):
    make_page().write("compiling", numbers(0), [])
    page = read()
    assert page.all("meta", **{"http-equiv": "refresh"}) == [
        {"http-equiv": "refresh", "content": "10"}
    ]
    assert page.all("svg") == [] and images_of(page) == {}
    assert "0 of 100" in page.texts and "0 of 5" in page.texts
    # Nothing is fetched, and nothing leads outside.
    assert "http://" not in page.source and "https://" not in page.source


def test_numbers_and_curves(make_page, read):
    rows = [
        {"step": "0", "loss": "", "AP": "0.25"},
        ROW,
        {"step": "50", "loss": "1.5", "AP": "0.5"},
        {"step": "100", "loss": "nan", "AP": ""},
    ]
    speed = {"images_per_second": 12.34, "input_share": 0.256}
    shown = numbers(50, speed=speed, left=2640, best=(50, 0.5))
    make_page().write("training", shown, rows)
    page = read()
    for text in ("50 of 100", "400", "2.5 of 5", "44 min", "0.500", "12.3", "26%"):
        assert text in page.texts, text
    lines = [each["points"].split() for each in page.all("polyline")]
    # The view box is 480 x 220 with margins of 48 on the left, 30 below and 14 elsewhere.
    assert lines == [["48.0,102.0", "466.0,14.0"], ["131.6,14.0", "466.0,131.3"]]
    assert page.all("circle", **{"class": "best"}) == [
        {"class": "best", "cx": "466.0", "cy": "14.0", "r": "6"}
    ]


def test_long_curves_are_thinned_out(make_page, read):
    rows = [{"step": str(step), "loss": str(step % 4), "AP": ""} for step in range(1, 1201)]
    make_page().write("training", numbers(1200), rows)
    (line,) = read().all("polyline")
    points = line["points"].split()
    assert len(points) == 300
    # Each is the mean of 1, 2, 3 and 0.
    assert {point.split(",")[1] for point in points} == {"14.0"}


def test_reports_in_quick_succession_write_it_once(make_page, read, monkeypatch):
    seconds = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: seconds[0])
    page = make_page()
    for step, later, shown in ((1, 0, 1), (2, 4.9, 1), (3, 0.2, 3), (4, 1, 3)):
        seconds[0] += later
        page.write_if_due(numbers(step), [])
        assert f"{shown} of 100" in read().texts
    page.write("training", numbers(5), [])
    assert "5 of 100" in read().texts


def test_when_training_has_ended(make_page, read):
    make_page().write("stopped", numbers(40), [ROW], has_ended=True)
    page = read()
    assert page.all("meta", **{"http-equiv": "refresh"}) == []
    assert "stopped" in page.source


def test_its_title_is_that_of_the_folder_the_user_has_named(tiny_config, tmp_path):
    folder = tmp_path / "photos-ssd" / "run"
    folder.mkdir(parents=True)
    page = LivePage(folder, PLAN, tiny_config, 0)
    page.write("training", numbers(5), [])
    assert "<title>photos-ssd: training</title>" in page.path.read_text()


def images_of(page):
    """{alternative text: address} of the images."""
    return {each["alt"]: each["src"] for each in page.all("img") if "src" in each}


def test_the_first_evaluation_beside_the_latest(make_page, read, tmp_path):
    page = make_page()
    page.keep_images(0, [], [])  # watch.images: 0
    assert not (tmp_path / "live_images.json").exists()
    page.keep_images(0, [held_out("a.jpg", 10)], [])
    page.write("training", numbers(0), [])
    assert list(images_of(read())) == ["labels of a.jpg", "a.jpg at step 0"]
    for step in (50, 1000):
        page.keep_images(step, [held_out("a.jpg", step % 256)], [0])
    page.write("training", numbers(50), [])
    shown = images_of(read())
    assert list(shown) == ["labels of a.jpg", "a.jpg at step 0", "a.jpg at step 1000"]
    assert all(source.startswith("data:image/jpeg;base64,") for source in shown.values())
    assert shown["a.jpg at step 0"] != shown["a.jpg at step 1000"]


@pytest.mark.parametrize(
    ("best_steps", "kept", "shown"),
    [
        ([0, 25], [0, 25, 75], [0, 25]),
        ([0], [0, 75], [0]),
        ([0, 25, 50, 75], [0, 25, 50, 75], [0, 75]),
        ([], [0, 75], [0, 75]),
    ],
)
def test_after_the_end_the_best_evaluation_beside_the_first(
    make_page, read, tmp_path, best_steps, kept, shown
):
    page = make_page()
    for step in (0, 25, 50, 75):
        before = [each for each in best_steps if each < step]
        page.keep_images(step, [held_out("a.jpg", 10)], before)
    assert [each["step"] for each in read_evaluations(tmp_path)] == kept
    page.write("training", numbers(75), [])
    assert list(images_of(read()))[1:] == ["a.jpg at step 0", "a.jpg at step 75"]
    best = (best_steps[-1], 0.5) if best_steps else None
    page.write("finished", numbers(100, best=best), [], has_ended=True)
    assert list(images_of(read()))[1:] == [f"a.jpg at step {step}" for step in shown]


@pytest.mark.parametrize(("start_step", "kept"), [(100, [0, 25, 50]), (49, [0, 25]), (0, [0])])
def test_a_restart_keeps_the_images_up_to_its_step(make_page, tmp_path, start_step, kept):
    page = make_page()
    for step in (0, 25, 50):
        page.keep_images(step, [held_out("a.jpg", 10)], [0, 25])
    assert [each["step"] for each in read_evaluations(tmp_path, start_step)] == kept
    page = make_page(start_step)
    page.keep_images(60, [held_out("a.jpg", 20)], [0, 60])
    assert [each["step"] for each in read_evaluations(tmp_path)] == [0, 60]


def test_a_restart_before_the_best_evaluation_shows_the_best_one_before(make_page, read):
    page = make_page()
    for step, before in ((0, []), (25, [0]), (50, [0, 25])):
        page.keep_images(step, [held_out("a.jpg", 10)], before)
    page = make_page(start_step=49)
    page.keep_images(60, [held_out("a.jpg", 20)], [0, 25])
    page.write("finished", numbers(60, best=(25, 0.5)), [], has_ended=True)
    assert list(images_of(read()))[1:] == ["a.jpg at step 0", "a.jpg at step 25"]


def test_the_best_evaluation_without_images(make_page, read):
    """The page calls no other one the best, as of a folder from which the file was deleted."""
    page = make_page(start_step=30)
    page.keep_images(50, [held_out("a.jpg", 20)], [25])
    page.keep_images(75, [held_out("a.jpg", 30)], [25])
    page.write("finished", numbers(75, best=(25, 0.5)), [], has_ended=True)
    found = read()
    assert list(images_of(found))[1:] == ["a.jpg at step 50", "a.jpg at step 75"]
    assert "best evaluation" not in found.source


def test_an_evaluation_that_is_made_again_replaces_its_images(make_page, tmp_path):
    page = make_page()
    for step in (0, 0, 25, 25):
        page.keep_images(step, [held_out("a.jpg", 10)], [])
    assert [each["step"] for each in read_evaluations(tmp_path)] == [0, 25]


@pytest.mark.parametrize("content", ["", "{", "[1]", '[{"step": 1}]', "{}", "null"])
def test_a_file_of_images_that_cannot_be_used(tmp_path, content):
    (tmp_path / "live_images.json").write_text(content)
    assert read_evaluations(tmp_path) == []


def test_names_are_text(make_page, read, tmp_path):
    """File names may hold marks of HTML, and bytes that are not UTF-8."""
    page = make_page()
    page.keep_images(0, [held_out("<b>&.jpg", 10), held_out(os.fsdecode(b"\xff.jpg"), 10)], [])
    page.write("training", numbers(0), [])
    assert read().all("b", id="x") == [] and "<b>&.jpg" not in (tmp_path / "live.html").read_text()
    assert "labels of <b>&.jpg" in images_of(read())


def test_only_whole_files(make_page, tmp_path):
    page = make_page()
    page.keep_images(0, [held_out("a.jpg", 10)], [])
    page.write("training", numbers(0), [])
    assert {path.name for path in tmp_path.iterdir()} == {"live.html", "live_images.json"}
    assert len(json.loads((tmp_path / "live_images.json").read_text())) == 1


@pytest.mark.parametrize(
    ("top", "lines"),
    [
        (0.954, [0, 0.2, 0.4, 0.6, 0.8]),
        (1, [0, 0.5, 1]),
        (12.3, [0, 5, 10]),
        (80, [0, 20, 40, 60, 80]),
        (2000, [0, 1000, 2000]),
        (0.003, [0, 0.001, 0.002, 0.003]),
    ],
)
def test_the_grid_of_a_curve(top, lines):
    found = grid_lines(top)
    assert len(found) == len(lines)
    assert all(math.isclose(*pair, abs_tol=1e-12) for pair in zip(found, lines, strict=True))
