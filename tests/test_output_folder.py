import hashlib
import pathlib

import pytest

from ssd_tf.output_folder import MANIFEST, OutputFolder


def test_a_new_folder(tmp_path):
    output = OutputFolder(tmp_path / "a" / "b")
    output.check(["x.txt"])
    assert not (tmp_path / "a").exists()
    assert output.write_text("labels/x.txt", "1 2\n") == tmp_path / "a/b/labels/x.txt"
    assert (tmp_path / "a/b/labels/x.txt").read_bytes() == b"1 2\n"
    digest = hashlib.sha256(b"1 2\n").hexdigest()
    assert (tmp_path / "a/b/written.sha256").read_text() == f"{digest}  labels/x.txt\n"
    assert sorted(path.name for path in (tmp_path / "a/b/labels").iterdir()) == ["x.txt"]


def test_what_it_wrote_itself_is_replaced(tmp_path):
    for text in ("first", "second", "third"):
        OutputFolder(tmp_path).write_text("x.txt", text)
        assert (tmp_path / "x.txt").read_text() == text


@pytest.mark.parametrize("change", ["corrected", ""])
def test_what_somebody_changed_is_kept(tmp_path, change):
    OutputFolder(tmp_path).write_text("x.txt", "first")
    (tmp_path / "x.txt").write_text(change)
    output = OutputFolder(tmp_path)
    with pytest.raises(FileExistsError, match=r"x\.txt"):
        output.check(["y.txt", "x.txt"])
    with pytest.raises(FileExistsError, match=r"x\.txt"):
        output.write_text("x.txt", "second")
    assert (tmp_path / "x.txt").read_text() == change


def test_files_of_others_are_kept(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "link.txt").symlink_to(tmp_path / "absent")
    (tmp_path / "folder.txt").mkdir()
    output = OutputFolder(tmp_path)
    for name in ("mine.txt", "link.txt", "folder.txt"):
        with pytest.raises(FileExistsError, match=name):
            output.write_text(name, "text")
    output.write_text("new.txt", "text")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_inputs_are_never_replaced(tmp_path):
    OutputFolder(tmp_path).write_text("x.txt", "first")
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    output = OutputFolder(tmp_path, inputs=[tmp_path / "link" / "x.txt"])
    with pytest.raises(FileExistsError, match=r"x\.txt"):
        output.write_text("x.txt", "second")
    assert (tmp_path / "x.txt").read_text() == "first"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    OutputFolder(tmp_path).write_text("x.txt", "first")

    def fail(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        OutputFolder(tmp_path).write("x.txt", fail)
    assert (tmp_path / "x.txt").read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["written.sha256", "x.txt"]
    OutputFolder(tmp_path).write_text("x.txt", "second")


def test_killed_between_manifest_and_file(tmp_path):
    OutputFolder(tmp_path).write_text("x.txt", "first")
    with open(tmp_path / "written.sha256", "a") as manifest:
        manifest.write(f"{hashlib.sha256(b'second').hexdigest()}  x.txt\nabc")
    for text in ("third", "fourth"):
        OutputFolder(tmp_path).write_text("x.txt", text)
        assert (tmp_path / "x.txt").read_text() == text


def test_removing_what_nobody_changed(tmp_path):
    output = OutputFolder(tmp_path)
    for name in ("kept.txt", "stale.txt", "corrected.txt"):
        output.write_text(name, name)
    (tmp_path / "corrected.txt").write_text("by hand")
    (tmp_path / "mine.txt").write_text("mine")
    OutputFolder(tmp_path).remove(["stale.txt", "corrected.txt", "mine.txt", "absent.txt"])
    names = ["corrected.txt", "kept.txt", "mine.txt", "written.sha256"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(FileExistsError, match="file"):
            OutputFolder(pathlib.Path(path))


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_growing_file_keeps_what_was_written(tmp_path, error):
    def write(text):
        with OutputFolder(tmp_path).grow("a/x.txt") as path, open(path, "w") as file:
            file.write(text)
            raise error

    for text in ("first", "second"):
        with pytest.raises(error):
            write(text)
        assert (tmp_path / "a" / "x.txt").read_text() == text
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x.txt"]
    with OutputFolder(tmp_path).grow("a/x.txt"):
        pass
    assert (tmp_path / "a" / "x.txt").read_text() == "second"
    (tmp_path / "a" / "x.txt").write_text("corrected")
    with pytest.raises(FileExistsError, match=r"x\.txt"):
        write("third")
    assert (tmp_path / "a" / "x.txt").read_text() == "corrected"


@pytest.mark.parametrize("stem", ["two\nlines", "back\\nslash", "\udcff", "  ", "\u00e9" * 120])
def test_any_name_that_a_file_can_have(tmp_path, stem):
    for text in ("first", "second"):
        OutputFolder(tmp_path).write_text(f"{stem}.txt", text)
        assert (tmp_path / f"{stem}.txt").read_text() == text
    lines = (tmp_path / MANIFEST).read_bytes().splitlines()
    is_escaped = stem in ("two\nlines", "back\\nslash")
    assert [line.startswith(b"\\") for line in lines] == [is_escaped] * 2


def test_text_that_is_not_unicode(tmp_path):
    OutputFolder(tmp_path).write_text("x.txt", "a\udcffb")
    assert (tmp_path / "x.txt").read_text() == "a\\udcffb"
