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
