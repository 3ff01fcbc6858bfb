"""live.html of a run in a real browser, without a network; `make test-browser`."""

import pytest
from PIL import Image

from ssd_tf.draw import HeldOut
from ssd_tf.training.live_page import LivePage, Numbers
from ssd_tf.training.progress import Plan

pytestmark = pytest.mark.browser


@pytest.fixture
def write(tmp_path, tiny_config):
    """A function: write the page of a run with two evaluations; returns its path."""
    page = LivePage(tmp_path, Plan(2000, 16, 160, 200), tiny_config, 0)
    image = Image.new("RGB", (640, 480), (90, 120, 60))
    for step in (0, 1200):
        name = f"a_rather_long_name_without_any_break_{'x' * 60}.jpg"
        images = [HeldOut(name, image, image), HeldOut("b.jpg", image, image)]
        page.keep_images(step, images, [])
    rows = [
        {"step": str(step), "loss": str(4000 / (step + 500)), "AP": str(step / 2400)}
        for step in range(0, 1201, 20)
    ]

    def call(**options):
        speed = {"images_per_second": 12.3, "input_share": 0.03}
        page.write("training", Numbers(1200, speed, 1500, (1200, 0.5)), rows, **options)
        return page.path

    return call


def test_everything_is_visible_and_nothing_is_cut_off(open_page, write):
    page = open_page(write())
    page.wait_for_load_state("load")
    shown = page.evaluate(
        "[...document.querySelectorAll('main img')]"
        ".map(i => i.complete && i.naturalWidth > 0 && i.clientWidth > 50)"
    )
    assert len(shown) == 6 and all(shown)
    assert page.locator("svg").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator("#age").is_hidden()


def test_it_reloads_itself_until_training_has_ended(open_page, write):
    page = open_page(write())
    assert page.locator("meta[http-equiv=refresh]").get_attribute("content") == "10"
    write(has_ended=True)
    page.reload()
    assert page.locator("meta[http-equiv=refresh]").count() == 0


def test_a_page_that_is_no_longer_written_says_so(open_page, write, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)
    assert open_page(write()).locator("#age").is_visible()
