import json
import os

import pytest

from ssd_tf.errors import ConfigError
from ssd_tf.quickstarting.state import NAME, Done, Request, State, fingerprint


@pytest.fixture
def request_(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.txt").write_text("1")
    return Request(images)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out"


def begin(folder, request):
    state = State(folder, request)
    folder.mkdir(exist_ok=True)
    state.start()
    return state


def test_a_new_folder_has_no_step_done(folder, request_):
    state = State(folder, request_)
    assert not folder.exists()
    assert not state.is_done("train")
    assert state.seconds() == {}


def test_what_was_noted_is_read_again(folder, request_):
    state = begin(folder, request_)
    (folder / "sub").mkdir()
    (folder / "sub" / "file").touch()
    state.note("look", Done(folder / "sub" / "file"), ["ssd inspect"], 1.26)
    state.note("start", Done(None, {"source": "x"}), [], 2)
    state = State(folder, request_)
    assert state.is_done("look") and state.is_done("start") and not state.is_done("train")
    assert state.result("start") == {"source": "x"}
    assert state.seconds() == {"look": 1.3, "start": 2}
    content = json.loads((folder / NAME).read_text())
    assert content["steps"]["look"]["commands"] == ["ssd inspect"]
    assert content["steps"]["look"]["output"] == "sub/file"


def test_a_step_whose_file_is_gone_is_not_done(folder, request_):
    state = begin(folder, request_)
    (folder / "file").touch()
    state.note("look", Done(folder / "file"), [], 1)
    (folder / "file").unlink()
    assert not State(folder, request_).is_done("look")


def test_a_folder_is_given_up_only_without_a_step(folder, request_):
    begin(folder, request_).abandon()
    assert list(folder.iterdir()) == []
    state = begin(folder, request_)
    state.note("look", Done(), [], 1)
    state.abandon()
    assert State(folder, request_).is_done("look")


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({"minutes": 20}, ["--minutes 15", "--minutes 20"]),
        ({"start": "scratch"}, ["no --start", "--start scratch"]),
        ({"classes": ("a", "b")}, ["--classes a,b"]),
        ({"label_format": "voc"}, ["--format voc"]),
        ({"overrides": ("train.seed=1",)}, ["--set train.seed=1"]),
    ],
)
def test_another_request_is_rejected(folder, request_, change, texts):
    state = begin(folder, request_)
    state.note("start", Done(), [], 1)
    state.note("choose", Done(), [], 1)
    with pytest.raises(ConfigError) as error:
        State(folder, request_._replace(**change))
    for text in [str(folder), "--output", *texts]:
        assert text in str(error.value)


@pytest.mark.parametrize(
    ("done", "change"),
    [
        ("convert", {"start": "scratch", "minutes": 20, "overrides": ("train.seed=1",)}),
        ("start", {"minutes": 20, "overrides": ("train.seed=1",)}),
    ],
)
def test_flags_of_steps_to_come_may_change(folder, request_, done, change):
    begin(folder, request_).note(done, Done(), [], 1)
    changed = request_._replace(**change)
    State(folder, changed).note("choose", Done(), [], 1)
    State(folder, changed)
    with pytest.raises(ConfigError, match="--minutes"):
        State(folder, changed._replace(minutes=30))


@pytest.mark.parametrize("change", [{"classes": ("a",)}, {"label_format": "voc"}])
def test_flags_of_the_conversion_are_fixed_from_its_start(folder, request_, change):
    begin(folder, request_)
    with pytest.raises(ConfigError, match="--output"):
        State(folder, request_._replace(**change))


def test_other_files_are_rejected(folder, request_):
    begin(folder, request_)
    (request_.images / "b.txt").touch()
    with pytest.raises(ConfigError, match="--output"):
        State(folder, request_)


def test_the_folder_of_images_may_move(folder, request_, tmp_path):
    begin(folder, request_)
    moved = request_.images.rename(tmp_path / "moved")
    State(folder, request_._replace(images=moved))


def test_a_folder_with_other_content_is_rejected(folder, request_):
    folder.mkdir()
    (folder / "photo.jpg").touch()
    with pytest.raises(ConfigError, match="--output"):
        State(folder, request_)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2, "steps": {}, "request": {"a": 1}}']
)
def test_a_corrupt_file_is_rejected(folder, request_, text):
    folder.mkdir()
    (folder / NAME).write_text(text)
    with pytest.raises(ConfigError, match=NAME):
        State(folder, request_)


def test_the_fingerprint_follows_names_sizes_and_times(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.txt").write_text("1")
    seen = {fingerprint(tmp_path)}
    (tmp_path / ".hidden").write_text("1")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "c").write_text("1")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert fingerprint(tmp_path) in seen
    os.utime(tmp_path / "a" / "b.txt", (1, 1))
    seen.add(fingerprint(tmp_path))
    (tmp_path / "a" / "b.txt").write_text("22")
    os.utime(tmp_path / "a" / "b.txt", (1, 1))
    seen.add(fingerprint(tmp_path))
    (tmp_path / "a" / "b.txt").rename(tmp_path / "a" / "c.txt")
    seen.add(fingerprint(tmp_path))
    assert len(seen) == 4


def test_the_time_of_a_step_is_that_of_all_calls(folder, request_):
    state = begin(folder, request_)
    state.note_stop("train", 10.04)
    state.note_stop("train", 20)
    state = State(folder, request_)
    assert state.seconds() == {}
    state.note("train", Done(), [], 5)
    assert state.seconds() == {"train": 35}
    state.note("train", Done(), [], 5)  # again, after its files were removed
    assert state.seconds() == {"train": 5}
