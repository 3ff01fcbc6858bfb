"""`ssd serve`: files of one folder, and the QR code of its address."""

import threading
import urllib.error
import urllib.request

import numpy as np
import pytest

from ssd_tf.commands import serve


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "index.html").write_text("<p>page")
    (tmp_path / "web" / "a b.html").write_text("<p>other")
    (tmp_path / "web" / "bundle.mjs").write_text("")
    (tmp_path / "web" / "a.wasm").write_bytes(b"")
    (tmp_path / "web" / "more").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "web"


@pytest.fixture
def server(folder):
    with serve.make_server(folder, 0, is_local=True) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def get(address):
    with urllib.request.urlopen(address, timeout=20) as answer:
        return answer.read().decode(), answer.headers


def test_the_address_opens_the_page(server):
    port = server.server_address[1]
    address = serve.address_of(server, "index.html")
    assert address == f"http://127.0.0.1:{port}/"
    assert get(address)[0] == "<p>page"
    address = serve.address_of(server, "a b.html")
    assert address == f"http://127.0.0.1:{port}/a%20b.html"
    assert get(address)[0] == "<p>other"


@pytest.mark.parametrize(
    ("name", "kind"), [("bundle.mjs", "text/javascript"), ("a.wasm", "application/wasm")]
)
def test_browsers_get_the_types_that_they_need(server, name, kind):
    _, headers = get(f"{serve.address_of(server, 'index.html')}{name}")
    assert headers["Content-Type"] == kind
    assert headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", ["more/", "../secret.txt", "%2e%2e/secret.txt", "gone"])
def test_nothing_else_is_served(server, path):
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(f"{serve.address_of(server, 'index.html')}{path}")
    assert caught.value.code == 404
    caught.value.close()


def test_a_port_that_is_taken(server, folder, fails):
    port = server.server_address[1]
    line = fails(serve.main, str(folder), f"--port={port}", "--local", code=1)
    assert f"--port {port}" in line


def test_what_cannot_be_served(folder, fails):
    assert "one folder" in fails(serve.main, code=2)
    assert "one folder" in fails(serve.main, str(folder), str(folder), code=2)
    for name in ("more", "gone", "bundle.mjs"):
        assert str(folder / name) in fails(serve.main, str(folder / name), code=1)
    assert "--port" in fails(serve.main, str(folder), "--port=70000", code=2)


def test_pages_are_found(folder):
    assert serve.find_page(folder) == folder / "index.html"
    assert serve.find_page(folder / "a b.html") == folder / "a b.html"


def test_ctrl_c_is_the_end(folder, monkeypatch, capsys):
    def end(_server):
        raise KeyboardInterrupt

    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", end)
    assert serve.main(["serve", str(folder / "a b.html"), "--port=0", "--local"]) == 0
    address = capsys.readouterr().out.strip()
    assert address.startswith("http://127.0.0.1:") and address.endswith("/a%20b.html")


def test_other_machines_get_an_address_of_this_one(folder):
    with serve.make_server(folder, 0) as running:
        address = serve.address_of(running, "index.html")
        host, _, port = address.removeprefix("http://").rstrip("/").partition(":")
        assert host != "0.0.0.0" and int(port) == running.server_address[1]
        here = serve.address_of(running, "index.html", is_here=True)
        assert here == f"http://127.0.0.1:{port}/"


def test_the_code_is_that_of_the_address():
    # Half blocks, two rows of modules a line: OpenCV reads the picture that they make.
    cv2 = pytest.importorskip("cv2", reason="needs the extra `video`")
    address = "http://192.168.178.23:8000/"
    dark = {" ": (0, 0), "\u2580": (1, 0), "\u2584": (0, 1), "\u2588": (1, 1)}
    rows = []
    for line in serve.qr_code(address).splitlines():
        pairs = [dark[letter] for letter in line if letter in dark]
        rows += [[pair[half] for pair in pairs] for half in (0, 1)]
    width = max(map(len, rows))
    code = np.array([row for row in rows if len(row) == width], np.uint8)
    image = np.kron(code * 255, np.ones((8, 8), np.uint8))
    found = {cv2.QRCodeDetector().detectAndDecode(each)[0] for each in (image, 255 - image)}
    assert address in found
