import json
import os
import pathlib

import pytest

from ssd_tf import files


def test_bytes_text_and_json(tmp_path):
    files.write_bytes(tmp_path / "a", b"\xff\x00")
    files.write_text(tmp_path / "b", "Käfer\n")
    files.write_json(tmp_path / "c", {"n": [1]})
    assert (tmp_path / "a").read_bytes() == b"\xff\x00"
    assert (tmp_path / "b").read_bytes() == b"K\xc3\xa4fer\n"
    assert (tmp_path / "c").read_text() == '{\n "n": [\n  1\n ]\n}\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_an_existing_file_is_replaced(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"long": "content"})
    files.write_json(path, 1)
    assert json.loads(path.read_text()) == 1


def test_paths_may_be_strings(tmp_path):
    files.write_text(str(tmp_path / "x"), "text")
    assert (tmp_path / "x").read_text() == "text"


def test_a_full_disk_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    write_bytes = pathlib.Path.write_bytes

    def fill_disk(self, content):
        write_bytes(self, content[:2])
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(pathlib.Path, "write_bytes", fill_disk)
    with pytest.raises(OSError, match="No space left on device"):
        files.write_bytes(path, b"new content")
    assert path.read_bytes() == b"old"


def test_content_that_is_no_json_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, 1)
    with pytest.raises(TypeError, match="not JSON serializable"):
        files.write_json(path, {"a": {1, 2}})
    assert json.loads(path.read_text()) == 1


def test_a_folder_is_locked_once(tmp_path):
    folder = tmp_path / "new"
    with files.lock_folder(folder, "in use"):
        (folder / "content").write_text("x")
        with pytest.raises(ValueError, match=r"^in use$"), files.lock_folder(folder, "in use"):
            raise AssertionError("the lock should be held")
    with files.lock_folder(folder, "in use"):
        assert (folder / "content").read_text() == "x"


def test_a_folder_that_stays_empty_is_removed(tmp_path):
    with pytest.raises(KeyError), files.lock_folder(tmp_path / "a" / "b", "in use"):
        raise KeyError
    assert not (tmp_path / "a" / "b").exists()


def test_a_new_folder_takes_its_name_at_the_end(tmp_path):
    (tmp_path / ".run.partial").mkdir()
    (tmp_path / ".run.partial" / "killed").touch()
    with files.new_folder(tmp_path / "run") as folder:
        (folder / "a").touch()
        assert not (tmp_path / "run").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "a"]
    with pytest.raises(OSError, match="run"), files.new_folder(tmp_path / "run") as folder:
        (folder / "b").touch()
    with pytest.raises(KeyError), files.new_folder(tmp_path / "run", replace=True):
        raise KeyError
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "a"]
    with files.new_folder(tmp_path / "run", replace=True) as folder:
        (folder / "b").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "b"]
