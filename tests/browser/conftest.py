import pathlib
import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# A camera that films a test pattern, and leave to use it.
FAKE_CAMERA = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs chromium on the path")
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", *FAKE_CAMERA]
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(params=[1280, 400])
def open_page(browser, request):
    """A function: open a file at one of two widths; fails for console messages and requests."""
    context = browser.new_context(offline=True, viewport={"width": request.param, "height": 900})
    page = context.new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda failed: complaints.append(failed.url[:80]))

    def call(path: pathlib.Path):
        page.goto(path.resolve().as_uri())
        return page

    yield call
    context.close()
    assert complaints == []
