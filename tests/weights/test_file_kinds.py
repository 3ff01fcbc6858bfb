"""What a source is said to be that cannot be imported."""

import io
import tarfile
import zipfile

import numpy as np
import pytest

from ssd_tf.errors import ConfigError
from ssd_tf.weights.importers.file_kinds import check_source, checkpoint_prefix


def archive(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, "x")
    return buffer.getvalue()


def tar(mode):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:
        file.addfile(tarfile.TarInfo("frozen_inference_graph.pb"))
    return buffer.getvalue()


def npz():
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.pb", b"", "empty"),
        ("a.tar.xz", tar("w:xz"), "unpack it"),
        ("a.tar.bz2", tar("w:bz2"), "unpack it"),
        ("a.zip", archive("saved_model/saved_model.pb"), "unpack it"),
        ("a.task", archive("detector.tflite"), "unpack it"),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(9), "init_from"),
        ("a.keras", archive("config.json", "model.weights.h5"), "init_from"),
        ("a.npz", npz(), "init_from"),
        ("a.pt", archive("m/data.pkl", "m/code/m.py", "m/constants.pkl"), "state_dict"),
        ("a.onnx", b"\x08\x07\x12\x07pytorch", "another framework"),
        ("yolov3.weights", b"\x00\x00\x00\x00\x02", "another framework"),
        ("a.pb", b"<!DOCTYPE html><html>", "web page"),
        ("a.pb", b"\n<HTML>", "web page"),
        ("a.tflite", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("checkpoint", b'model_checkpoint_path: "ckpt-0"', "such as ckpt-0"),
        ("a.pbtxt", b"node {\n  name:", "written as text"),
        ("pipeline.config", b"# SSD\n\nmodel {\n  ssd {", "ckpt-0"),
        ("labels.pbtxt", b"item {\n  name:", "--labels"),
        ("LICENSE", "MIT \u00a9".encode()[:-1], "text"),
        ("a.tar.gz", b"not found", "text"),
        ("a.tgz", b"<html>", "web page"),
    ],
)
def test_files_of_other_kinds(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        check_source(path)
    message = str(caught.value)
    assert message.startswith(f"--source: {path} is ")
    assert words in message and "\n" not in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pb", b"\n\x05graph"),
        ("a.tflite", b"\x20\x00\x00\x00TFL3"),
        ("a.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{"),
        ("a.pth", archive("m/data.pkl", "m/data/0")),
        ("a.pth", b"\x80\x02\x8a\nl"),
        ("a.pth", b"PK\x03\x04 broken"),
        ("a.tar.gz", tar("w:gz")),
        ("a.tar", tar("w")),
    ],
)
def test_files_for_a_reader(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    check_source(tmp_path / name)


@pytest.mark.parametrize(
    ("inside", "hint"),
    [
        ("checkpoint/model.index", "checkpoint/model.index"),
        ("detect.tflite", "detect.tflite"),
        ("notes.txt", None),
    ],
)
def test_folders_around_a_model(tmp_path, inside, hint):
    (tmp_path / inside).parent.mkdir(exist_ok=True)
    (tmp_path / inside).write_bytes(b"x")
    with pytest.raises(ConfigError) as caught:
        check_source(tmp_path)
    assert (f"did you mean {tmp_path / hint}?" in str(caught.value)) if hint else True
    assert ("did you mean" in str(caught.value)) == (hint is not None)


def test_a_saved_model_and_a_checkpoint_are_for_a_reader(tmp_path):
    for name in ("a/saved_model.pb", "b/saved_model/saved_model.pb", "c/frozen_inference_graph.pb"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
        check_source(tmp_path / name[0])
    (tmp_path / "model.ckpt-7.index").write_bytes(b"x")
    for suffix in ("", ".index", ".data-00000-of-00002"):
        check_source(tmp_path / f"model.ckpt-7{suffix}")
        path = checkpoint_prefix(tmp_path / f"model.ckpt-7{suffix}")
        assert path == str(tmp_path / "model.ckpt-7")


def test_a_typo(tmp_path):
    (tmp_path / "detector.pb").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"at .*detectr.pb; did you mean .*detector.pb\?"):
        check_source(tmp_path / "detectr.pb")
