"""What happens to the files of an export folder that is written again."""

import json

import pytest

from ssd_tf.exporting import folder


def names_below(path):
    return {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}


def publish(output, *names):
    """Publish files of these names, and the list of them."""
    with folder.publishing(output) as partial:
        for name in names:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_text("new")
        content = {"files": folder.list_files(partial)}
        (partial / "export.json").write_text(json.dumps(content))


OLD = ("labels.txt", "model_int8_raw.tflite", "saved_model/variables/index", "web/index.html")
MINE = {"notes.txt", "web/mediapipe/bundle.mjs", "saved_model/assets.extra/requests", "int8.tflite"}


def add_mine(output):
    for name in MINE:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text("mine")


def test_a_new_folder(tmp_path):
    publish(tmp_path / "a" / "out", *OLD)
    assert names_below(tmp_path / "a" / "out") == {*OLD, "export.json"}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]


def test_what_the_last_export_wrote_is_removed_and_the_rest_stays(tmp_path):
    publish(tmp_path, *OLD)
    add_mine(tmp_path)
    (tmp_path / "saved_model" / "assets").mkdir()
    publish(tmp_path, "labels.txt", "web/model.tflite")
    assert names_below(tmp_path) == MINE | {"labels.txt", "web/model.tflite", "export.json"}
    assert (tmp_path / "labels.txt").read_text() == "new"
    publish(tmp_path)
    assert names_below(tmp_path) == MINE | {"export.json"}


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"files": [3]}', '{"classes": ["cat"]}'])
def test_without_a_list_the_names_of_all_formats_are_removed(tmp_path, text):
    publish(tmp_path, *OLD, "raw_decoder.py", "model_float32.tflite", "saved_model/saved_model.pb")
    (tmp_path / "saved_model" / "assets").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "export.json").unlink()
    if text is not None:
        (tmp_path / "export.json").write_text(text)
    publish(tmp_path, "model_float16.tflite")
    assert {path.name for path in tmp_path.iterdir()} == {
        "notes.txt",
        "model_float16.tflite",
        "export.json",
    }


def test_a_list_cannot_name_what_is_outside(tmp_path):
    outside = tmp_path / "outside.txt"
    outside.touch()
    output = tmp_path / "out"
    (output / "sub").mkdir(parents=True)
    (output / "link").symlink_to(tmp_path)
    (output / "kept.txt").touch()
    names = ["../outside.txt", str(outside), "link/outside.txt", "", ".", "..", "sub", "gone"]
    names += [str(output / "kept.txt"), "sub/../../outside.txt", "sub/../kept.txt"]
    (output / "export.json").write_text(json.dumps({"files": names}))
    publish(output, "new.txt")
    assert outside.is_file()
    assert {path.name for path in output.iterdir()} == {
        "sub",
        "link",
        "kept.txt",
        "new.txt",
        "export.json",
    }


def test_an_error_leaves_everything_as_it_was(tmp_path):
    publish(tmp_path / "out", *OLD)
    before = names_below(tmp_path)
    for output in (tmp_path / "out", tmp_path / "new"):
        with pytest.raises(OSError, match="disk full"), folder.publishing(output) as partial:
            (partial / "labels.txt").touch()
            raise OSError("disk full")
    assert names_below(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_a_similar_name_stays(tmp_path):
    for name in ("out.partial", ".partial", "partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("mine")
    publish(tmp_path / "out", "labels.txt")
    assert names_below(tmp_path) == {
        "out.partial/notes.txt",
        ".partial/notes.txt",
        "partial/notes.txt",
        "out/labels.txt",
        "out/export.json",
    }


@pytest.mark.parametrize("name", ["web", "labels.txt/notes.txt", "saved_model/variables"])
def test_what_is_in_the_way_leaves_the_old_export(tmp_path, name):
    publish(tmp_path, "model_float32.tflite")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match=name.partition("/notes")[0]):
        publish(tmp_path, *OLD)
    assert names_below(tmp_path) == {"model_float32.tflite", "export.json", name}


def test_what_a_killed_export_left_is_no_content(tmp_path):
    (tmp_path / ".export.partial").mkdir()
    (tmp_path / ".export.partial" / "model_int8.tflite").touch()
    assert not folder.has_content(tmp_path)
    publish(tmp_path, "labels.txt")
    assert names_below(tmp_path) == {"labels.txt", "export.json"}
    assert folder.has_content(tmp_path)
