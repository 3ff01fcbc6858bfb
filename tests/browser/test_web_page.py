"""The page of `ssd export --formats web` in a real browser; `make test-browser`.

The tests of detections need the npm package @mediapipe/tasks-vision in the folder TASKS_VISION; the
others put a stand-in of the same interface in its place.
"""

import contextlib
import functools
import http.server
import os
import pathlib
import threading

import fixed_detector
import numpy as np
import pytest
from PIL import Image

from ssd_tf.draw import color_of
from ssd_tf.exporting import tflite, web

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tiny_config, tmp_path_factory):
    package = os.environ.get("TASKS_VISION")
    if package is None:
        pytest.skip("needs the npm package @mediapipe/tasks-vision, its folder in TASKS_VISION")
    path = tmp_path_factory.mktemp("export") / "web"
    network = fixed_detector.make_network()
    converter = tflite.Converter(tiny_config, network, fixed_detector.NAMES)
    web.export_page(path, converter, package, "shapes")
    for index, image in enumerate(fixed_detector.IMAGES):
        Image.fromarray(image).save(path.parent / f"{index}.png")
    return path


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(folder):
    """A context with the address at which a folder is served."""
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def address(folder):
    with serving(folder) as url:
        yield url


@pytest.fixture(params=[1280, 400])
def page(browser, address, request):
    context = browser.new_context(viewport={"width": request.param, "height": 900})
    opened = context.new_page()
    complaints = []
    # MediaPipe itself logs, as warnings, which backend it takes.
    opened.on(
        "console", lambda message: message.type == "error" and complaints.append(message.text)
    )
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(address)
    opened.get_by_role("status").get_by_text("Ready.").wait_for(timeout=60_000)
    yield opened
    context.close()
    assert [text for text in complaints if "INFO:" not in text] == []


def choose(page, path):
    page.locator("#file").set_input_files(path)
    page.get_by_text("ms per frame").wait_for()


@pytest.mark.parametrize("index", range(len(fixed_detector.IMAGES)))
def test_a_photo(page, folder, index):
    choose(page, folder.parent / f"{index}.png")
    expected = sorted(name for name, *_ in fixed_detector.OBJECTS[index])
    page.wait_for_function(f"document.querySelectorAll('#list li').length === {len(expected)}")
    assert (
        sorted(text.split()[0] for text in page.locator("#list li").all_inner_texts()) == expected
    )
    shown = page.evaluate("detections().filter((d) => d.categories[0].score >= 0.5)")
    height, width = fixed_detector.IMAGES[index].shape[:2]
    boxes = {found["categories"][0]["categoryName"]: found["boundingBox"] for found in shown}
    for name, row, column in fixed_detector.OBJECTS[index]:
        ymin, xmin, ymax, xmax = fixed_detector.box_of(row, column)
        box = boxes[name]
        corners = [box["originY"], box["originX"], box["height"], box["width"]]
        sides = [ymin * height, xmin * width, (ymax - ymin) * height, (xmax - xmin) * width]
        assert corners == pytest.approx(sides, abs=1.5)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_slider_hides_detections(page, tmp_path):
    # A pale red: its logit is 3.8, the background's 3, so its score is .69.
    image = fixed_detector.draw(64, 96)
    image[:32, :32] = (165, 70, 70)
    Image.fromarray(image).save(tmp_path / "pale.png")
    choose(page, tmp_path / "pale.png")
    assert page.locator("#list li").all_inner_texts() == ["red 0.69"]
    page.locator("#score").fill("0.75")
    assert page.locator("#list li").count() == 0
    assert page.locator("#shown").inner_text() == "0.75"
    assert page.locator("#status").inner_text().startswith("0 objects, ")


def test_a_file_that_is_no_image(page, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no image")
    page.locator("#file").set_input_files(pathlib.Path(path))
    page.get_by_text("notes.txt is not an image that this browser can read.").wait_for()


def test_the_camera_starts_and_stops(page):
    page.locator("#camera").click()
    page.get_by_text("ms per frame").wait_for()
    assert page.locator("#camera").inner_text() == "Stop the camera"
    page.locator("#camera").click()
    assert page.locator("#camera").inner_text() == "Start the camera"


# The interface of the package that the page uses. The model is loaded when a test calls `finish`;
# each image then has a dog at the right edge.
STAND_IN = """
export const FilesetResolver = { forVisionTasks: async () => ({}) };
const box = { originX: 80, originY: 40, width: 20, height: 20 };
const categories = [{ index: -1, categoryName: "dog", score: 0.9 }];
const dog = { boundingBox: box, categories };
window.found = [dog];
export const ObjectDetector = {
  createFromOptions: () => new Promise((resolve, reject) => {
    window.finish = () => resolve({ detect: () => ({ detections: found }) });
    window.fail = () => reject(new Error("no model"));
  }),
};
"""


class NoConverter:
    """Writes no model: the stand-in reads none."""

    names = ("cat", "emu", "dog")

    def export(self, path, _form):
        path.touch()


@pytest.fixture
def loading(browser, tmp_path):
    """The page while it loads its model."""
    package = tmp_path / "package"
    (package / "wasm").mkdir(parents=True)
    (package / "vision_bundle.mjs").write_text(STAND_IN)
    web.export_page(tmp_path / "web", NoConverter(), package, "runs & <more>", 0.68)
    Image.new("RGB", (100, 80), (10, 20, 30)).save(tmp_path / "photo.png")
    complaints = []
    context = browser.new_context(viewport={"width": 400, "height": 900})
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    with serving(tmp_path / "web") as url:
        page.goto(url)
        page.wait_for_function("typeof finish === 'function'")
        yield page
    context.close()
    assert complaints == []


def test_an_image_that_is_chosen_while_the_model_loads(loading, tmp_path):
    loading.locator("#file").set_input_files(tmp_path / "photo.png")
    loading.locator("#canvas").wait_for(state="visible")
    assert loading.locator("#status").inner_text().startswith("Loading")
    assert loading.locator("#list li").count() == 0
    loading.evaluate("finish()")
    loading.get_by_text("ms per frame").wait_for()
    assert loading.locator("#list li").all_inner_texts() == ["dog 0.90"]


def test_the_page_tells_its_model_and_what_it_finds(loading):
    assert loading.title() == loading.locator("h1").inner_text() == "runs & <more>"
    assert loading.locator("#classes .class").all_inner_texts() == ["cat", "emu", "dog"]
    assert loading.locator("#shown").inner_text() == "0.68"
    assert loading.locator("#score").input_value() == "0.68"
    assert loading.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_hint_fills_the_stage_and_chooses_a_file(loading, tmp_path):
    stage = loading.locator("#stage").bounding_box()
    hint = loading.locator("#hint").bounding_box()
    assert hint["height"] >= 0.9 * stage["height"] > 200
    assert hint["width"] >= 0.9 * stage["width"]
    assert not loading.locator("#save").is_visible()
    with loading.expect_file_chooser() as chooser:
        loading.locator("#hint").click()
    chooser.value.set_files(tmp_path / "photo.png")
    loading.locator("#canvas").wait_for(state="visible")
    assert not loading.locator("#hint").is_visible()


@pytest.mark.parametrize(
    ("name", "saved", "image_format"),
    [("photo.png", "photo_detected.png", "PNG"), ("a.b.JPG", "a.b_detected.jpg", "JPEG")],
)
def test_the_picture_is_saved(loading, tmp_path, name, saved, image_format):
    Image.new("RGB", (100, 80), (10, 20, 30)).save(tmp_path / name)
    loading.evaluate("finish()")
    choose(loading, tmp_path / name)
    with loading.expect_download() as download:
        loading.locator("#save").click()
    assert download.value.suggested_filename == saved
    with Image.open(download.value.path()) as image:
        assert (image.size, image.format) == ((100, 80), image_format)


def test_the_camera_and_the_slider_while_the_model_loads(loading):
    loading.locator("#camera").click()
    loading.locator("#canvas").wait_for(state="visible")
    loading.locator("#score").fill("0.75")
    loading.evaluate("finish()")
    loading.get_by_text("ms per frame").wait_for()


def test_a_model_that_cannot_be_loaded(loading, tmp_path):
    loading.evaluate("fail()")
    loading.get_by_text("could not be loaded (no model)").wait_for()
    loading.locator("#file").set_input_files(tmp_path / "photo.png")
    loading.locator("#canvas").wait_for(state="visible")
    assert "could not be loaded" in loading.locator("#status").inner_text()


def test_colours_and_captions(loading, tmp_path):
    """As `draw` draws the class; all of the caption is in the image, the box at its right edge."""
    loading.evaluate("finish()")
    choose(loading, tmp_path / "photo.png")
    width, height, *pixels = loading.evaluate(
        "[canvas.width, canvas.height, ...canvas.getContext('2d').getImageData(0, 0, 100, 80).data]"
    )
    assert (width, height) == (100, 80)
    image = np.reshape(pixels, (80, 100, 4))[..., :3]
    is_drawn = (image == list(bytes.fromhex(color_of(3)[1:]))).all(-1)
    assert is_drawn[50, 80]  # the box
    # The caption, 18 pixels high, is above the box and as far left of it as it needs.
    filled = np.flatnonzero(is_drawn[39])
    assert filled[0] < 80 - 20 and filled[-1] == 99


def test_two_classes_on_one_object_are_both_seen(loading, tmp_path):
    Image.new("RGB", (200, 150), (10, 20, 30)).save(tmp_path / "photo.png")
    box = "{ originX: 60, originY: 50, width: 80, height: 60 }"
    loading.evaluate(
        f"found = [['cat', 0.8], ['dog', 0.7]].map(([categoryName, score]) => "
        f"({{ boundingBox: {box}, categories: [{{ index: -1, categoryName, score }}] }}))"
    )
    loading.evaluate("finish()")
    choose(loading, tmp_path / "photo.png")
    assert loading.locator("#list li").all_inner_texts() == ["cat 0.80", "dog 0.70"]
    image = np.reshape(
        loading.evaluate("[...canvas.getContext('2d').getImageData(0, 0, 200, 150).data]"),
        (150, 200, 4),
    )[..., :3]
    is_cat = (image == list(bytes.fromhex(color_of(1)[1:]))).all(-1)
    is_dog = (image == list(bytes.fromhex(color_of(3)[1:]))).all(-1)
    # Lines of 2 pixels, centred on the box and 2 pixels inside it.
    assert is_cat[100, [59, 60, 139, 140]].all()
    assert is_dog[100, [61, 62, 137, 138]].all()
    # Labels of 12 + 6 pixels: one above the box, the other below that.
    assert is_cat[33].sum() > 30 and is_dog[51].sum() > 30
