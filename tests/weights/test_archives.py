"""Archives of detectors, and detectors that are downloaded by name."""

import fcntl
import hashlib
import http.server
import io
import os
import tarfile
import threading
import typing

import pytest

from ssd_tf.errors import ConfigError
from ssd_tf.weights.importers import archives, detectors, downloads

CONTENT = bytes(range(256)) * 4096  # 1 MiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def write_archive(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, kind in members.items():
            member = tarfile.TarInfo(name)
            if kind == "link":
                member.type = tarfile.SYMTYPE
                member.linkname = "/etc/passwd"
                archive.addfile(member)
            else:
                member.size = len(kind)
                archive.addfile(member, io.BytesIO(kind))


def test_an_archive_with_one_folder_gives_that_folder(tmp_path):
    write_archive(tmp_path / "a.tar.gz", {"model/pipeline.config": b"model {}"})
    with archives.unpacked(tmp_path / "a.tar.gz") as folder:
        assert folder.name == "model"
        assert (folder / "pipeline.config").read_bytes() == b"model {}"
    assert not folder.exists()


@pytest.mark.parametrize("folder", ["", "model/"])
def test_an_archive_of_another_file_is_to_be_unpacked(folder, tmp_path):
    archive = tmp_path / "a.tar.gz"
    write_archive(archive, {f"{folder}ssd.tflite": b"x", f"{folder}labels.txt": b"cat"})
    with pytest.raises(ConfigError) as caught:
        detectors.read_detector(archive)
    message = str(caught.value)
    assert message.startswith(f"--source: {archive} has ")
    assert message.endswith("unpack it and give ssd.tflite")


@pytest.mark.parametrize(
    ("members", "where"),
    [({"../evil": b"x"}, "evil"), ({"/evil": b"x"}, None), ({"model/link": "link"}, "link")],
)
def test_archives_that_lead_out_of_their_folder(members, where, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    write_archive(inside / "a.tar.gz", members)
    if where is None:  # tarfile's filter takes the leading slash off
        with archives.unpacked(inside / "a.tar.gz") as folder:
            assert [path.name for path in folder.iterdir()] == ["evil"]
    else:
        with pytest.raises(ConfigError, match=where), archives.unpacked(inside / "a.tar.gz"):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def test_a_truncated_archive(tmp_path):
    write_archive(tmp_path / "a.tar.gz", {"model/data": CONTENT})
    content = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigError, match=r"a\.tar\.gz"), archives.unpacked(tmp_path / "a.tar.gz"):
        pass


class Server(http.server.BaseHTTPRequestHandler):
    """Cuts the first connection after half of what was asked for."""

    requests: typing.ClassVar[list[str | None]] = []
    cuts = 1

    def do_GET(self):
        asked = self.headers.get("Range")
        Server.requests.append(asked)
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(CONTENT) - begin))
        self.end_headers()
        end = len(CONTENT)
        if len(Server.requests) <= Server.cuts:
            end = begin + (end - begin) // 2
        self.wfile.write(CONTENT[begin:end])

    def do_HEAD(self):
        self.send_response(200 if self.path == "/detector.bin" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def address():
    Server.requests = []
    Server.cuts = 1
    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/detector.bin"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_resumes_after_a_cut_connection(address, tmp_path):
    downloads.download(address, tmp_path / "detector.bin", DIGEST[:8])
    assert (tmp_path / "detector.bin").read_bytes() == CONTENT
    assert Server.requests == [None, f"bytes={len(CONTENT) // 2}-"]
    assert [path.name for path in tmp_path.iterdir()] == ["detector.bin"]


@pytest.mark.parametrize("algorithm", ["SHA-256", "MD5"])
def test_a_download_with_another_hash_is_deleted(address, tmp_path, algorithm):
    found = {"SHA-256": DIGEST, "MD5": hashlib.md5(CONTENT).hexdigest()}[algorithm]
    with pytest.raises(ConfigError, match=rf"{algorithm} 00000000, got {found[:12]}"):
        downloads.download(address, tmp_path / "detector.bin", "00000000", algorithm)
    assert list(tmp_path.iterdir()) == []


def test_what_was_received_is_kept_until_the_next_call(address, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_ATTEMPTS", 1)
    with pytest.raises(ConfigError, match=r"detector\.bin"):
        downloads.download(address, tmp_path / "detector.bin")
    part = tmp_path / "detector.bin.part"
    assert part.read_bytes() == CONTENT[: len(CONTENT) // 2]
    downloads.download(address, tmp_path / "detector.bin")
    assert (tmp_path / "detector.bin").read_bytes() == CONTENT


def test_a_name_is_found_in_the_cache_at_the_second_call(address, tmp_path, monkeypatch):
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(tmp_path / "cache"))
    published = downloads.Published(address, 20.0, 1, "Apache-2.0", DIGEST[:8])
    monkeypatch.setitem(downloads.DETECTORS, "tf2:test", published)
    path = downloads.find("tf2:test")
    count = len(Server.requests)
    assert downloads.find("tf2:test") == path == tmp_path / "cache" / "detector.bin"
    assert len(Server.requests) == count
    path.write_bytes(b"cut off")
    with pytest.raises(ConfigError, match=rf"{path} .* expected {DIGEST[:8]}: .*{address}"):
        downloads.find("tf2:test")


def test_two_processes_download_a_file_once(address, tmp_path, monkeypatch):
    """The second waits for the folder, and finds the file of the first."""
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(tmp_path))
    lock = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    found = []
    second = threading.Thread(target=lambda: found.append(downloads.fetch(address)))
    second.start()
    (tmp_path / "detector.bin").write_bytes(b"of the first")
    os.close(lock)
    second.join()
    assert found == [tmp_path / "detector.bin"]
    assert found[0].read_bytes() == b"of the first" and Server.requests == []


def test_a_folder_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(tmp_path / "file" / "folder"))
    with pytest.raises(ConfigError, match=r"SSD_TF_WEIGHTS: .*file"):
        downloads.fetch("http://127.0.0.1:9/a.bin")


def test_whether_a_server_answers_and_a_file_is_there(address, tmp_path, monkeypatch):
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(tmp_path))
    for url, is_reachable in (
        (address, True),
        (address.replace("detector", "absent"), False),
        ("http://127.0.0.1:9/detector.bin", False),
    ):
        published = downloads.Published(url, 20.0, 1, "Apache-2.0")
        monkeypatch.setitem(downloads.DETECTORS, "tf2:test", published)
        assert downloads.is_reachable("tf2:test") is is_reachable
    assert downloads.find_local("tf2:test") is None
    (tmp_path / "detector.bin").touch()
    assert downloads.find_local("tf2:test") == tmp_path / "detector.bin"
    assert Server.requests == []


def test_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(tmp_path))
    address = "http://127.0.0.1:9/ssd.tar.gz"
    published = downloads.Published(address, 20.0, 1, "Apache-2.0", "abcdef01")
    monkeypatch.setitem(downloads.DETECTORS, "tf2:test", published)
    with pytest.raises(ConfigError) as caught:
        downloads.find("tf2:test")
    message = str(caught.value)
    assert address in message and "abcdef01" in message and str(tmp_path) in message


def test_unknown_names():
    assert downloads.is_name("tf2:ssd") and not downloads.is_name("models/tf2.tflite")
    with pytest.raises(ConfigError, match="tf2:ssd_mobilenet_v2_fpnlite_320x320"):
        downloads.find("tf2:ssd")
