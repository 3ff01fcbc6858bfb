"""The page of `export.py --formats web` in a real browser; `make test-browser`.

Needs the npm package @mediapipe/tasks-vision in the folder TASKS_VISION.
"""

import functools
import http.server
import os
import pathlib
import threading

import fixed_detector
import pytest
from PIL import Image

from ssd_tf.export import tflite, web

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tiny_config, tmp_path_factory):
    package = os.environ.get("TASKS_VISION")
    if package is None:
        pytest.skip("needs the npm package @mediapipe/tasks-vision, its folder in TASKS_VISION")
    path = tmp_path_factory.mktemp("export") / "web"
    network = fixed_detector.make_network()
    converter = tflite.Converter(tiny_config, network, fixed_detector.NAMES)
    web.export_page(path, converter, package)
    for index, image in enumerate(fixed_detector.IMAGES):
        Image.fromarray(image).save(path.parent / f"{index}.png")
    return path


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(folder):
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


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
