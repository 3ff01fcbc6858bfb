"""The report in a real browser, without a network; `make test-browser`."""

import json

import numpy as np
import pytest

from ssd_tf.commands import evaluate
from ssd_tf.inference.detections import Detections
from ssd_tf.inference.overview import Overview
from ssd_tf.output_folder import OutputFolder

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_run, tiny_data):
    """The output folders of two evaluations, and of their comparison."""
    folder = tmp_path_factory.mktemp("browser")
    outputs = [folder / "first", folder / "second"]
    for output, floor in zip(outputs, ("0.0001", "0.2"), strict=True):
        argv = [f"--model={tiny_run}", f"--data={tiny_data}", f"--output={output}"]
        assert evaluate.main(["evaluate", *argv, f"--set=eval.score_floor={floor}"]) == 0
    argv = ["--compare", *map(str, outputs), f"--output={folder / 'both'}"]
    assert evaluate.main(["evaluate", *argv]) == 0
    return [*outputs, folder / "both"]


def column(page, table, index):
    """The texts of a column's visible cells."""
    cells = page.locator(f"#{table} tbody tr:visible td:nth-child({index})")
    return cells.all_inner_texts()


@pytest.mark.parametrize("index", [0, 1, 2])
def test_all_plots_are_visible_and_nothing_is_cut_off(open_page, folders, index):
    page = open_page(folders[index] / "report.html")
    page.wait_for_load_state("load")
    shown = page.evaluate(
        "[...document.querySelectorAll('main img')]"
        ".map(i => i.complete && i.naturalWidth > 0 && i.clientWidth > 50)"
    )
    assert len(shown) >= 1 and all(shown)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_sorting_and_filtering(open_page, folders):
    page = open_page(folders[0] / "report.html")
    assert column(page, "class-table", 1) == ["green", "red", "blue"]
    page.get_by_text("class", exact=True).first.click()
    assert column(page, "class-table", 1) == ["red", "green", "blue"]
    page.get_by_text("class", exact=True).first.click()
    assert column(page, "class-table", 1) == ["blue", "green", "red"]
    header = page.locator("#class-table th", has_text="objects")
    header.click()
    counts = list(map(int, column(page, "class-table", 2)))
    assert counts == sorted(counts, reverse=True) and counts[-1] == 0
    assert header.get_attribute("aria-sort") == "descending"
    # A class without objects has no AP: last in either direction.
    ap = page.locator("#class-table th", has_text="AP").first
    for _ in range(2):
        ap.click()
        assert column(page, "class-table", 1)[-1] == "blue"
    page.get_by_placeholder("filter by name").fill("RE")
    assert column(page, "class-table", 1) in (["red", "green"], ["green", "red"])
    page.get_by_placeholder("filter by name").fill("nothing like it")
    assert column(page, "class-table", 1) == []


def test_the_table_has_the_numbers_of_metrics_json(open_page, folders):
    metrics = json.loads((folders[0] / "metrics.json").read_text())
    page = open_page(folders[0] / "report.html")
    shown = dict(zip(column(page, "class-table", 1), column(page, "class-table", 4), strict=True))
    for name, values in metrics["per_class"].items():
        assert shown[name] == f"{values['AP']:.3f}"


def enlarged(page):
    """The size of the image in the dialog once it is loaded, and the text below."""
    image = page.locator("#zoom img")
    image.wait_for(state="visible")
    page.wait_for_function("document.querySelector('#zoom img').complete")
    size = image.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    return size, page.locator("#zoom p").inner_text()


def test_images_of_the_report_are_enlarged_by_a_click_and_by_a_key(open_page, folders):
    page = open_page(folders[0] / "report.html")
    first = page.locator("a.zoom img").first
    small = first.bounding_box()["width"]
    natural = first.evaluate("image => image.naturalWidth")
    page.locator("a.zoom").first.click()
    size, text = enlarged(page)
    assert size[0] == natural and text == first.get_attribute("alt")
    assert page.locator("#zoom img").bounding_box()["width"] >= min(small, natural)
    page.locator("#zoom").click()
    assert not page.locator("#zoom").is_visible()
    page.locator("a.zoom").first.focus()
    page.keyboard.press("Enter")
    assert enlarged(page)[1] == text
    page.keyboard.press("ArrowRight")
    assert enlarged(page)[1] == page.locator("a.zoom img").nth(1).get_attribute("alt")
    page.keyboard.press("Escape")
    assert not page.locator("#zoom").is_visible()


def test_the_images_of_a_row_have_one_height(open_page, tmp_path):
    folder = OutputFolder(tmp_path)
    overview = Overview("runs/mine", ["cat"])
    sizes = [(900, 1200), (1200, 900), (400, 1200), (1200, 200), (900, 1200), (1200, 675)]
    with overview.written_to(folder):
        for index, size in enumerate(sizes):
            image = np.full((*size, 3), 90, np.uint8)
            boxes = np.zeros((0, 4))
            found = Detections(boxes, boxes[:, 0], boxes[:, 0].astype(int), ["cat"], image)
            overview.add_image(f"{'name ' * index}{index}.jpg", found)
    page = open_page(tmp_path / "overview.html")
    shown = page.evaluate(
        "[...document.querySelectorAll('main img')].map(i => i.getBoundingClientRect())"
        ".map(({ top, height, right }) => [top, height, right])"
    )
    rows = {}
    for top, height, right in shown:
        rows.setdefault(round(top), []).append(height)
        assert right <= page.viewport_size["width"]
    assert len(rows) == {1280: 2, 400: 6}[page.viewport_size["width"]]
    for heights in rows.values():
        assert max(heights) - min(heights) < 1.5
        assert max(heights) <= 301


def test_the_overview_of_detections(open_page, tmp_path):
    folder = OutputFolder(tmp_path)
    overview = Overview("runs/mine", ["cat"])
    box = np.array([[0.1, 0.1, 0.5, 0.5]])
    names = [f"{'long_name_' * 8}{index}.jpg" for index in range(7)]
    with overview.written_to(folder):
        for name in names:
            image = np.full((900, 1200, 3), 90, np.uint8)
            found = Detections(box, np.array([0.9]), np.array([1]), ["cat"], image)
            found.draw().save(tmp_path / name)
            overview.add_image(name, found)
    page = open_page(tmp_path / "overview.html")
    shown = page.evaluate("[...document.querySelectorAll('main img')].map(i => i.clientWidth)")
    assert len(shown) == 7 and min(shown) >= 120
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.locator("a.zoom").nth(2).click()
    # The drawn file itself, not its thumbnail.
    assert enlarged(page) == ([1200, 900], f"{names[2]}: 1 cat")
