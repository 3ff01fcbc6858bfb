import json
import pathlib
import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf import tflite_metadata
from ssd_tf.commands import detect, evaluate, export
from ssd_tf.exporting.tflite_graphs import convert_network
from ssd_tf.inference.loading import load_detector

pytestmark = pytest.mark.usefixtures("loaded_once")


def run(workdir, output, *argv):
    assert export.main(["export", f"--workdir={workdir}", f"--output={output}", *argv]) == 0
    return json.loads((output / "export.json").read_text())


@pytest.fixture(scope="module", autouse=True)
def converted_once():
    """A network with the same weights is converted once; test_tflite.py has many conversions."""
    contents = {}

    def convert(model, precision, calibration=()):
        weights = b"".join(value.tobytes() for value in model.get_weights())
        key = (precision, len(calibration), weights)
        if key not in contents:
            contents[key] = convert_network(model, precision, calibration)
        return contents[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssd_tf.exporting.tflite.convert_network", convert)
        yield


@pytest.fixture(scope="module")
def exported(tiny_run, tiny_data, tmp_path_factory):
    output = tmp_path_factory.mktemp("exports")
    formats = "--formats=saved_model,tflite_float32"
    run(tiny_run, output, f"--data={tiny_data}", "--verify_split=train", formats)
    return output


def test_files(exported, tiny_run):
    names = {
        "saved_model",
        "model_float32.tflite",
        "default_boxes.json",
        "labels.txt",
        "export.json",
    }
    assert {path.name for path in exported.iterdir()} == names
    assert (exported / "labels.txt").read_text() == "red\ngreen\nblue\n"
    report = json.loads((exported / "export.json").read_text())
    assert {name.split("/")[0] for name in report["files"]} == names - {"export.json"}
    assert "saved_model/saved_model.pb" in report["files"]
    assert (report["workdir"], report["classes"]) == (str(tiny_run), ["red", "green", "blue"])
    assert report["settings"]["eval"]["max_detections"] == 20
    assert report["settings"]["export"] == {"max_detections": 20, "score_floor": 0.01}
    for name in ("saved_model", "tflite_float32"):
        assert report["verify"][name]["images"] == 6
        assert report["verify"][name]["detections"] > 0
        assert report["verify"][name]["unpaired"] == 0


def test_default_boxes(exported):
    content = json.loads((exported / "default_boxes.json").read_text())
    boxes = np.array(content["boxes"])
    assert content["score_activation"] == "softmax"
    assert content["variances"] == [0.1, 0.1, 0.2, 0.2]
    # Maps of 8 x 12, 4 x 6 and 2 x 3 cells with four boxes each: squares of two sizes, 2:1 and 1:2.
    assert boxes.shape == ((96 + 24 + 6) * 4, 4)
    # The first: centre at half a cell of 8 pixels in an input of 64 x 96, side 0.4 * 64 = 25.6.
    np.testing.assert_allclose(boxes[0], [-8.8 / 64, -8.8 / 96, 16.8 / 64, 16.8 / 96], atol=1e-6)


@pytest.mark.usefixtures("quick_report")
def test_exports_evaluate_to_what_the_run_does(exported, tiny_run, tiny_data, tmp_path):
    numbers = []
    for model in (tiny_run, exported / "saved_model", exported / "model_float32.tflite"):
        argv = [f"--model={model}", f"--data={tiny_data}", f"--output={tmp_path}"]
        assert evaluate.main(["evaluate", *argv]) == 0
        numbers.append(json.loads((tmp_path / "metrics.json").read_text())["coco"])
    assert numbers[1] == pytest.approx(numbers[0], abs=0.02)
    assert numbers[2] == pytest.approx(numbers[0], abs=0.02)


def test_settings_by_set_and_thresholds_of_the_run(tiny_run, images, tmp_path, caplog):
    thresholds = {"all": 0.4, "classes": {"red": 0.6}, "split": "val"}
    (tiny_run / "thresholds.json").write_text(json.dumps(thresholds))
    overrides = ["eval.max_detections=3", "eval.score_floor=0", "export.max_detections=2"]
    settings = [f"--set={override}" for override in overrides]
    report = run(tiny_run, tmp_path, "--formats=saved_model,tflite_float32,web", *settings)
    assert report["settings"]["eval"]["max_detections"] == 3
    assert report["settings"]["export"] == {"max_detections": 2, "score_floor": 0}
    (line,) = [text for text in caplog.messages if "its post-processing differs" in text]
    # 400 candidates are fewer than the 504 default boxes, which loses nothing.
    assert "2" in line and "3" in line and "400" not in line and line.count(";") == 0
    classes = {"red": 0.6, "green": 0.4, "blue": 0.4}
    assert report["thresholds"]["classes"] == classes
    assert json.loads((tmp_path / "thresholds.json").read_text())["classes"] == classes
    assert {"thresholds.json", "saved_model/assets.extra/thresholds.json"} < set(report["files"])
    for name, num_detections in (("saved_model", 3), ("model_float32.tflite", 2)):
        detector = load_detector(tmp_path / name)
        assert detector.thresholds.of(["red", "green"]) == [0.6, 0.4]
        assert len(detector(images[3]).scores) == num_detections
    content = json.loads((tmp_path / "default_boxes.json").read_text())
    assert content["thresholds"] == [0.6, 0.4, 0.4]
    assert '"score": 0.4}' in (tmp_path / "web" / "index.html").read_text()
    metadata = tflite_metadata.find_buffer((tmp_path / "model_float32.tflite").read_bytes())
    assert struct.pack("<f", 0.4) in bytes(metadata)


def test_bad_input(fails, exported, tiny_run, tiny_data, tmp_path):
    def refuse(*argv, code, workdir=tiny_run, output=tmp_path / "out"):
        line = fails(export.main, f"--workdir={workdir}", f"--output={output}", *argv, code=code)
        assert not (tmp_path / "out").exists()
        return line

    assert "unknown format 'tflite_float23'; did you mean 'tflite_float32'?" in refuse(
        "--formats=tflite_float23", code=2
    )
    line = refuse("--formats=tflite", code=2)
    assert all(f"tflite_{end}" in line for end in ("float32", "float16_raw", "dynamic", "int8"))
    assert "saved_model" in refuse("--formats=", code=2)
    assert "unexpected 'tflite_float32'; lists take commas" in refuse(
        "--formats=saved_model", "tflite_float32", code=2
    )
    assert "already exists and is not empty; give --overwrite" in refuse(output=exported, code=1)
    gone = tmp_path / "gone"
    assert str(gone) in refuse(workdir=gone, code=1)
    assert f"no data folder at {gone}" in refuse(f"--data={gone}", code=1)
    assert "has no split 'test'" in refuse(f"--data={tiny_data}", "--verify_split=test", code=1)
    assert "--set model.num_levels=2: expected a key of eval or export" in refuse(
        "--set=model.num_levels=2", code=2
    )
    assert "export.score_floor" in refuse("--set=export.score_floor=2", code=2)


def test_a_broken_record(fails, tiny_run, tiny_data, tmp_path):
    edited = shutil.copytree(tiny_data, tmp_path / "edited")
    shard = next(edited.glob("val*.tfrecord"))
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for _ in range(4):
            writer.write(b"\xff")
    argv = [f"--workdir={tiny_run}", f"--output={tmp_path / 'out'}", f"--data={edited}"]
    line = fails(export.main, *argv, code=1)
    assert f"{shard}: record 0 (from 0), source_id 'unknown'" in line
    assert not (tmp_path / "out").exists()


ODD_NAMES = ["background", "\u4eba,\u7269", "1 ???"]


def rename_classes(folder):
    content = json.loads((folder / "dataset.json").read_text())
    for entry, name in zip(content["classes"], ODD_NAMES, strict=True):
        entry["name"] = name
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def odd_run(tiny_run, tmp_path_factory):
    """The run with class names that other label files give a meaning to."""
    return rename_classes(shutil.copytree(tiny_run, tmp_path_factory.mktemp("odd") / "run"))


FILES = {
    "saved_model": "saved_model",
    "tflite_dynamic": "model_dynamic.tflite",
    "tflite_float16_raw": "model_float16_raw.tflite",
    "tflite_int8": "model_int8.tflite",
}


@pytest.fixture(scope="module")
def all_forms(odd_run, tiny_data, tmp_path_factory):
    """The current folder, in which every form of the odd run replaces earlier files."""
    folder = tmp_path_factory.mktemp("all_forms")
    data = rename_classes(shutil.copytree(tiny_data, folder / "data"))
    output = folder / "here"
    (output / "saved_model").mkdir(parents=True)
    (output / "saved_model" / "old").touch()
    (output / "notes.txt").write_text("mine")
    flags = [f"--data={data}", "--verify_images=2", "--calibration_split=val", "--overwrite"]
    with pytest.MonkeyPatch.context() as patch:
        # Four images are too few for people, and enough to see that the split is used.
        patch.setattr("ssd_tf.exporting.folder.MIN_CALIBRATION_IMAGES", 4)
        patch.chdir(output)
        run(odd_run, pathlib.Path(), f"--formats={','.join(FILES)},web", *flags)
    assert {path.name for path in folder.iterdir()} == {"data", "here"}
    return output


@pytest.mark.integration
def test_all_forms_are_measured(all_forms):
    verified = json.loads((all_forms / "export.json").read_text())["verify"]
    assert sorted(verified) == ["keras", *sorted(FILES)]
    for name, entry in verified.items():
        assert 0 <= entry["AP"] <= entry["AP50"] <= 1
        assert entry["megabytes"] > 0
        threads = entry["latency_ms"]
        assert "1" in threads if name.startswith("tflite") else list(threads) == ["all"]
        assert all(value > 0 for value in threads.values())
    assert verified["tflite_dynamic"]["images"] == 2
    assert verified["tflite_int8"]["detections"] > 0
    others = {"notes.txt", "raw_decoder.py", "web", "default_boxes.json", "labels.txt"}
    others.add("export.json")
    assert {path.name for path in all_forms.iterdir()} == {*FILES.values(), *others}
    assert {path.name for path in (all_forms / "web").iterdir()} == {"index.html", "model.tflite"}


@pytest.mark.integration
def test_overwriting_keeps_other_files(all_forms):
    assert (all_forms / "notes.txt").read_text() == "mine"
    assert not (all_forms / "saved_model" / "old").exists()
    assert (all_forms / "saved_model" / "saved_model.pb").is_file()


@pytest.mark.integration
def test_exports_name_their_classes_as_the_run_does(all_forms, tmp_path, monkeypatch):
    # Some files are copied to where the labels of another model lie.
    (tmp_path / "labels.txt").write_text("???\nperson\n")
    shutil.copyfile(all_forms / "default_boxes.json", tmp_path / "default_boxes.json")
    monkeypatch.chdir(all_forms)
    for name in FILES.values():
        assert load_detector(name).classes == ODD_NAMES
        if name.endswith(".tflite"):
            shutil.copyfile(name, tmp_path / name)
            assert load_detector(tmp_path / name).classes == ODD_NAMES
    verified = json.loads((all_forms / "export.json").read_text())["verify"]["tflite_int8"]
    assert load_detector(FILES["tflite_int8"]).size_mb == pytest.approx(verified["megabytes"])


def test_labels_for_our_own_exports_and_runs(fails, odd_run, exported, tmp_path):
    labels = tmp_path / "names.txt"
    labels.write_text("background\na\nb\nc\n")
    for name in ("saved_model", "model_float32.tflite"):
        assert load_detector(exported / name, labels).classes == ["a", "b", "c"]
    argv = (f"--output={tmp_path / 'out'}", f"--labels={labels}", __file__)
    line = fails(detect.main, f"--model={odd_run}", argv[0], "--input_range=0,1", __file__, code=2)
    assert "--input_range" in line and str(odd_run) in line
    for model in (odd_run, exported / "saved_model", exported / "model_float32.tflite"):
        if model != odd_run:
            labels.write_text("a\nb\nc\nd\n")
        line = fails(detect.main, f"--model={model}", *argv, code=2)
        assert "--labels" in line and str(model) in line


def test_names_that_cannot_be_read_back_end_the_export(fails, tiny_run, tmp_path, monkeypatch):
    from ssd_tf.exporting import tflite_file

    monkeypatch.setattr(tflite_file, "format_names", lambda _: "red\nblue\ngreen\n")
    argv = [f"--workdir={tiny_run}", f"--output={tmp_path / 'out'}"]
    argv += ["--formats=tflite_float32"]
    assert "does not name the classes" in fails(export.main, *argv, code=1)
    assert list(tmp_path.iterdir()) == []


def test_a_drop_in_ap_leaves_nothing(
    fails, exported, tiny_run, tiny_data, tmp_path, monkeypatch, caplog, capsys
):
    from ssd_tf.exporting import tflite, verify

    numbers = iter([0.5, 0.45, 0.5, 0.48])
    others = {"AP50": 0.6, "most_objects": 5}
    monkeypatch.setattr(verify, "measure", lambda *_: {"AP": next(numbers), **others})
    converted = exported / "model_float32.tflite"
    monkeypatch.setattr(
        tflite.Converter, "export", lambda _, path, *_a: shutil.copy(converted, path)
    )
    output = tmp_path / "out"
    argv = [f"--workdir={tiny_run}", f"--output={output}", f"--data={tiny_data}"]
    argv += ["--formats=tflite_float32", "--max_ap_drop=0.03"]
    line = fails(export.main, *argv, code=1)
    assert "AP drops by more than 0.03 from 0.5000: tflite_float32 0.4500; nothing was" in line
    assert list(tmp_path.iterdir()) == []
    caplog.clear()
    assert export.main(["export", *map(str, argv)]) == 0
    assert (output / "export.json").is_file()
    # Of the run's own model and of each format, before it is measured.
    assert sum(text.startswith("verifying: ") for text in caplog.messages) == 2
    assert "verifying: tflite_float32" in caplog.messages
    printed = capsys.readouterr().out
    assert "tflite_float32" in printed and "ms per image" in printed


def test_a_full_disk_leaves_nothing(fails, tiny_run, tmp_path, monkeypatch):
    from ssd_tf.exporting import tflite

    def fill(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tflite.files, "write_bytes", fill)
    argv = [f"--workdir={tiny_run}", f"--output={tmp_path / 'out'}", "--formats=tflite_float32_raw"]
    assert "No space left on device" in fails(export.main, *argv, code=1)
    assert list(tmp_path.iterdir()) == []


def test_bad_input_of_forms(fails, tiny_run, tiny_data, tmp_path):
    output = tmp_path / "out"

    def refuse(*argv, code):
        line = fails(export.main, f"--workdir={tiny_run}", f"--output={output}", *argv, code=code)
        assert not list(tmp_path.glob("out*"))
        return line

    assert "tflite_int8 needs --data DIR, whose images calibrate it" in refuse(
        "--formats=tflite_int8", code=2
    )
    assert "--max_ap_drop needs --data" in refuse("--max_ap_drop=0.1", code=2)
    data = f"--data={tiny_data}"
    assert (
        f"int8 needs at least 10 images to calibrate on, split train of {tiny_data} has 6; "
        "--calibration_split names another"
    ) in refuse("--formats=tflite_int8_raw", data, code=1)
    assert "has no split 'test'" in refuse(
        "--formats=tflite_int8", data, "--calibration_split=test", code=1
    )
    line = refuse("--formats=web", f"--web_files={tmp_path}", code=1)
    assert "expected the npm package @mediapipe/tasks-vision, found no vision_bundle.mjs" in line
    assert "--web_files" in refuse(f"--web_files={tmp_path}", code=2)
    output.touch()
    line = fails(export.main, f"--workdir={tiny_run}", f"--output={output}", code=1)
    assert f"--output: {output} is a file" in line
