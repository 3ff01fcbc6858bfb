"""The folder of `--formats web`, without a browser."""

import io
import json
import pathlib
import re
import tarfile
import zipfile

import pytest

from ssd_tf.draw import color_of, text_color_of
from ssd_tf.errors import ConfigError
from ssd_tf.exporting import mediapipe_files, web

DEPLOY = pathlib.Path(__file__).parents[2] / "docs" / "deploy.md"


class NoConverter:
    """Writes no model."""

    def __init__(self, names):
        self.names = names

    def export(self, path, _form):
        path.touch()


NAMES = ["</script>", "\u4eba,\u7269", 'a "b"', "__proto__", *"efghijkl"]


def model_of(page):
    """What the page knows of its model."""
    (line,) = [line for line in page.split("\n") if line.startswith("const MODEL = ")]
    return json.loads(line.removeprefix("const MODEL = ").removesuffix(";"))


@pytest.mark.parametrize("names", [["red"], NAMES])
def test_the_page_has_the_colours_in_which_classes_are_drawn(tmp_path, names):
    web.export_page(tmp_path / "web", NoConverter(names), name="<run>", score=0.68)
    page = (tmp_path / "web" / "index.html").read_text(encoding="utf-8")
    assert model_of(page) == {
        "name": "<run>",
        "classes": [
            [name, color_of(label), text_color_of(label)]
            for label, name in enumerate(names, start=1)
        ],
        "mediapipe": "./mediapipe",
        "score": 0.68,
    }
    assert page.count("</script>") == 1
    assert page.endswith("</html>\n")


def test_the_page_as_it_stands_has_the_same_keys():
    page = web._PAGE.read_text(encoding="utf-8")
    assert list(model_of(page)) == ["name", "classes", "mediapipe", "score"]


def test_the_page_uses_no_constant_that_it_does_not_declare():
    # Without a browser, a name that a merge left behind would end the script unnoticed.
    script = web._PAGE.read_text(encoding="utf-8").partition('<script type="module">')[2]
    used = set(re.findall(r"(?<![\w\".])[A-Z][A-Z_]+\b(?!\")", re.sub(r"//.*", "", script)))
    declared = set(re.findall(r"^const (\w+)", script, re.MULTILINE))
    assert {"MODEL", "LOWEST_SCORE"} <= used
    assert used - declared == {"URL"}


FILES = {"vision_bundle.mjs": b"bundle", "wasm/a.js": b"script", "wasm/a.wasm": b"\0asm"}
OTHERS = {"README.md": b"other", "vision_bundle.cjs": b"other", "docs/wasm/b.js": b"other"}


@pytest.fixture
def package(tmp_path):
    """A function: the npm package as a folder, .tgz, .zip or .whl with these files -> its path."""

    def make(kind, files=FILES | OTHERS, root="package/"):
        path = tmp_path / f"files.{kind}"
        if kind == "folder":
            for name, content in files.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(content)
        elif kind == "tgz":
            with tarfile.open(path, "w:gz") as archive:
                for name, content in files.items():
                    member = tarfile.TarInfo(root + name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        else:
            with zipfile.ZipFile(path, "w") as archive:
                for name, content in files.items():
                    archive.writestr(root + name, content)
        return path

    return make


def written(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("kind", ["folder", "tgz", "zip", "whl"])
def test_mediapipe_comes_from_a_folder_or_an_archive(tmp_path, package, kind):
    source = package(kind)
    mediapipe_files.check(source)
    web.export_page(tmp_path / "web", NoConverter(["red"]), source)
    assert written(tmp_path / "web" / "mediapipe") == FILES


@pytest.mark.parametrize("root", ["", "a/b/c/"])
def test_the_files_may_lie_anywhere_in_an_archive(tmp_path, package, root):
    source = package("zip", root=root)
    mediapipe_files.check(source)
    mediapipe_files.copy_files(source, tmp_path / "target")
    assert written(tmp_path / "target") == FILES


def test_an_archive_writes_nowhere_else(tmp_path, package):
    evil = {"../evil": b"", "wasm/../../evil": b"", "wasm/sub/evil": b"", "/evil": b""}
    source = package("tgz", FILES | evil, root="")
    mediapipe_files.copy_files(source, tmp_path / "target")
    assert written(tmp_path / "target") == FILES
    assert not list(tmp_path.rglob("evil"))


def test_mediapipe_from_its_cdn(tmp_path):
    mediapipe_files.check("cdn")
    web.export_page(tmp_path / "web", NoConverter(["red"]), "cdn")
    page = (tmp_path / "web" / "index.html").read_text(encoding="utf-8")
    address = model_of(page)["mediapipe"]
    host, _, version = address.partition("/npm/@mediapipe/tasks-vision@")
    assert host == "https://cdn.jsdelivr.net"
    assert f"npm pack @mediapipe/tasks-vision@{version}\n" in DEPLOY.read_text(encoding="utf-8")
    # It loads the bundle and its folder of WebAssembly from there, and nothing from elsewhere.
    assert re.findall(r"\$\{MODEL\.mediapipe\}/([\w.]+)`", page) == ["vision_bundle.mjs", "wasm"]
    assert re.findall(r"\w+://[^\"'`\s]*", page) == [address]
    assert sorted(path.name for path in (tmp_path / "web").iterdir()) == [
        "index.html",
        "model.tflite",
    ]


@pytest.mark.parametrize("missing", ["vision_bundle.mjs", "wasm"])
@pytest.mark.parametrize("kind", ["folder", "tgz", "zip"])
def test_what_is_not_the_package(package, kind, missing):
    files = {name: data for name, data in (FILES | OTHERS).items() if not name.startswith(missing)}
    source = package(kind, files)
    with pytest.raises(FileNotFoundError, match=f"{missing} in .*{source.name}"):
        mediapipe_files.check(source)


@pytest.mark.parametrize("content", [b"", b"text", b"\x1f\x8b\x08\0"])
def test_files_that_are_no_archives(tmp_path, content):
    (tmp_path / "a.tgz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.tgz"):
        mediapipe_files.check(tmp_path / "a.tgz")
    with pytest.raises(FileNotFoundError, match=r"gone\.tgz"):
        mediapipe_files.check(tmp_path / "gone.tgz")


def test_a_truncated_archive(package):
    source = package("tgz")
    source.write_bytes(source.read_bytes()[:-40])
    with pytest.raises(ConfigError, match=r"files\.tgz"):
        mediapipe_files.check(source)
