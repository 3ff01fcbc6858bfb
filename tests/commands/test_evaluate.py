import json
import shutil

import numpy as np
import pytest

from ssd_tf.commands import evaluate
from ssd_tf.inference.detector import Detector

TRUTH = {
    "images": [{"id": 4, "height": 60, "width": 100}],
    "annotations": [
        {
            "id": 1,
            "image_id": 4,
            "category_id": 9,
            "bbox": [10, 10, 40, 20],
            "area": 800,
            "iscrowd": 0,
        }
    ],
    "categories": [{"id": 9, "name": "cat"}],
}
FOUND = [{"image_id": 4, "category_id": 9, "bbox": [10, 10, 40, 20], "score": 0.9}]


@pytest.fixture
def files_refused(fails, tmp_path):
    """A function: evaluate files of this content, which must fail and write nothing; gives the line."""

    def call(truth, found):
        for name, content in (("truth", truth), ("found", found)):
            (tmp_path / name).write_text(
                content if isinstance(content, str) else json.dumps(content)
            )
        output = tmp_path / "out"
        argv = [
            f"--annotations={tmp_path / 'truth'}",
            f"--detections={tmp_path / 'found'}",
            f"--output={output}",
        ]
        line = fails(evaluate.main, *argv, code=1)
        assert not output.exists()
        return line

    return call


def test_a_run_on_its_own_data(tiny_run, tiny_data, tmp_path):
    assert (
        evaluate.main(
            ["evaluate", f"--model={tiny_run}", f"--data={tiny_data}", f"--output={tmp_path}"]
        )
        == 0
    )
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert sorted(content) == ["coco", "latency_ms", "per_class", "settings", "voc"]
    assert content["coco"]["AP50"] == pytest.approx(1)
    assert sorted(content["per_class"]) == ["green", "red"]  # no picture of this split shows blue
    assert content["settings"]["kind"] == "keras"
    assert (content["settings"]["images"], content["settings"]["max_detections"]) == (4, 20)
    assert content["latency_ms"]["per_image"] > 0
    rows = json.loads((tmp_path / "detections.json").read_text())
    assert {tuple(sorted(row)) for row in rows} == {("bbox", "category_id", "image_id", "score")}
    # Picture 101 of 96 x 64: green, category id 3, columns 10 to 42 and rows 30 to 78.
    (green,) = [row for row in rows if row["image_id"] == 101 and row["score"] > 0.5]
    assert green["category_id"] == 3
    assert green["bbox"] == pytest.approx([10, 30, 32, 48], abs=4)


def test_bad_records_are_skipped_by_flag_and_by_the_runs_config(
    fails, tiny_run, with_bad_record, tmp_path
):
    data, run = with_bad_record("val"), shutil.copytree(tiny_run, tmp_path / "run")

    def images(*flags, model=tiny_run):
        argv = [f"--model={model}", f"--data={data}", f"--output={tmp_path / 'out'}", *flags]
        assert evaluate.main(["evaluate", *argv]) == 0
        settings = json.loads((tmp_path / "out" / "metrics.json").read_text())["settings"]
        return settings["images"], settings["skipped"]

    argv = [f"--data={data}", f"--output={tmp_path / 'none'}"]
    assert "val-00000-of-00001.tfrecord: record 1 (from 0)" in fails(
        evaluate.main, f"--model={tiny_run}", *argv, code=1
    )
    assert images("--on_bad_record=skip") == (3, 1)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("on_bad_record: stop", "on_bad_record: skip"))
    assert images(model=run) == (3, 1)
    assert "record 1 (from 0)" in fails(
        evaluate.main, f"--model={run}", *argv, "--on_bad_record=stop", code=1
    )


def test_classes_in_another_order(tiny_run, blue_first, tmp_path):
    assert (
        evaluate.main(
            ["evaluate", f"--model={tiny_run}", f"--data={blue_first}", f"--output={tmp_path}"]
        )
        == 0
    )
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["coco"]["AP50"] == pytest.approx(1)
    rows = json.loads((tmp_path / "detections.json").read_text())
    assert [
        row["category_id"] for row in rows if row["image_id"] == 101 and row["score"] > 0.5
    ] == [2]


def found_one_of_each(images):
    boxes = np.array([[0.1, 0.1, 0.2, 0.2], [0.3, 0.3, 0.4, 0.4], [0.5, 0.5, 0.6, 0.6]])
    return [
        {"boxes": boxes, "scores": np.array([0.9, 0.8, 0.7]), "labels": np.array([1, 2, 3])}
        for _ in images
    ]


def test_classes_are_matched_by_name():
    detector = Detector(found_one_of_each, "test", ["dog", "cat", "owl"])
    run = evaluate._in_order_of(detector, ["cat", "bat", "dog"])
    (found,) = run([np.zeros((4, 6, 3), np.uint8)])
    assert found["labels"] == [3, 1]
    assert found["scores"].tolist() == [0.9, 0.8]
    np.testing.assert_array_equal(found["boxes"], [[0.1, 0.1, 0.2, 0.2], [0.3, 0.3, 0.4, 0.4]])


def test_labels_beyond_the_names_are_left_out():
    run = evaluate._in_order_of(Detector(found_one_of_each, "test", ["cat", "dog"]), ["dog", "cat"])
    assert run([np.zeros((4, 6, 3), np.uint8)])[0]["labels"] == [2, 1]


def test_no_class_in_common_and_no_names():
    with pytest.raises(
        ValueError, match=r"no class in common: the model knows owl, ..., the data cat, dog, ..."
    ):
        evaluate._in_order_of(Detector(None, "test", ["owl"]), ["cat", "dog"])
    with pytest.raises(ValueError, match="give them with --labels FILE"):
        evaluate._in_order_of(Detector(None, "test"), ["cat"])


def test_files_are_measured(tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    (tmp_path / "found.json").write_text(json.dumps(FOUND))
    argv = [
        "evaluate",
        f"--annotations={tmp_path / 'truth.json'}",
        f"--detections={tmp_path / 'found.json'}",
    ]
    assert evaluate.main([*argv, f"--output={tmp_path}"]) == 0
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["per_class"]["cat"]["AP50"] == pytest.approx(1)
    assert content["voc"] == {"AP50_11point": 1, "AP50_all": 1}


@pytest.mark.parametrize(
    ("truth", "wanted"),
    [
        ("{", "truth is not JSON"),
        ([], "not a COCO instances file: wanted 'images', a list of id"),
        ({**TRUTH, "annotations": None}, "wanted 'annotations'"),
        ({"images": [], "annotations": []}, "wanted 'categories', a list of id, name"),
        ({**TRUTH, "images": {"4": "a.jpg"}}, "wanted 'images'"),
        (
            {**TRUTH, "annotations": [{"id": 1, "image_id": 4}]},
            "wanted 'annotations', a list of area, bbox, category_id, id",
        ),
    ],
)
def test_annotations_that_are_no_coco_file(files_refused, truth, wanted):
    assert wanted in files_refused(truth, FOUND)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ("[", "found is not JSON"),
        (
            TRUTH,
            "not a COCO results file: wanted a list of rows with bbox, category_id, image_id, score",
        ),
        ([1], "not a COCO results file"),
        ([{"image_id": 4}], "not a COCO results file"),
        ([{**FOUND[0], "image_id": 5}], "has detections of image 5 that"),
    ],
)
def test_detections_that_are_no_results_file(files_refused, found, wanted):
    assert wanted in files_refused(TRUTH, found)


def test_what_is_not_there(fails, tiny_run, tiny_data, tmp_path):
    def refuse(*argv, code=1):
        line = fails(evaluate.main, *argv, f"--output={tmp_path / 'out'}", code=code)
        assert not (tmp_path / "out").exists()
        return line

    assert "give --model and --data, or --detections and --annotations" in refuse(code=2)
    assert "unexpected 'more'" in refuse("more", code=2)
    gone = tmp_path / "gone"
    assert f"no file at {gone}" in refuse(f"--annotations={gone}", f"--detections={gone}")
    assert f"no model at {gone}" in refuse(f"--model={gone}", f"--data={tiny_data}")
    assert f"no data folder at {gone}" in refuse(f"--model={tiny_run}", f"--data={gone}")
    assert "has no split 'test'; it has train, val" in refuse(
        f"--model={tiny_run}", f"--data={tiny_data}", "--split=test"
    )
