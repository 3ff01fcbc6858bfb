import contextlib
import io
import json
import shutil

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ssd_tf.commands import evaluate
from ssd_tf.evaluation import verdict
from ssd_tf.inference.loading import load_detector
from ssd_tf.weights import run_files, runs

pytestmark = pytest.mark.usefixtures("loaded_once", "quick_report")

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
LARGE = 10**400  # larger than any float
POLYGON = [[10, 10, 50, 10, 50, 30], [12, 12, 13, 13, 12, 13]]


def with_annotation(**changes):
    """TRUTH with other values in its annotation."""
    return {**TRUTH, "annotations": [{**TRUTH["annotations"][0], **changes}]}


def without(key):
    """TRUTH without this key in its annotation."""
    row = {name: value for name, value in TRUTH["annotations"][0].items() if name != key}
    return {**TRUTH, "annotations": [row]}


def five_images(ids, dropped=()):
    """One object in each of five images, with these annotation ids; a detection of each object."""
    boxes = [[10 + k, 20, 40, 30] for k in range(5)]
    rows = [{"id": ids[k], "image_id": 1 + k, "category_id": 9, "bbox": boxes[k]} for k in range(5)]
    for row in rows:
        row |= {"area": 1200, "iscrowd": 0}
        for key in dropped:
            del row[key]
    truth = {
        "images": [{"id": 1 + k, "height": 100, "width": 100} for k in range(5)],
        "annotations": rows,
        "categories": TRUTH["categories"],
    }
    return truth, [
        {"image_id": 1 + k, "category_id": 9, "bbox": boxes[k], "score": 0.9 - 0.1 * k}
        for k in range(5)
    ]


def pycocotools_stats(folder):
    """The twelve numbers of pycocotools for the pair of files that `ssd evaluate` wrote."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(folder / "ground_truth.json")
        results = truth.loadRes(str(folder / "detections.json"))
        evaluation = COCOeval(truth, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def read(folder, name):
    return json.loads((folder / name).read_text())


def write_files(folder, truth, found):
    """The arguments that evaluate these contents."""
    for name, content in (("truth", truth), ("found", found)):
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return [f"--annotations={folder / 'truth'}", f"--detections={folder / 'found'}"]


@pytest.fixture
def files_refused(fails, tmp_path):
    """A function: evaluate files, which must fail and write nothing; returns the line."""

    def call(truth, found):
        output = tmp_path / "out"
        argv = write_files(tmp_path, truth, found)
        line = fails(evaluate.main, *argv, f"--output={output}", code=1)
        assert not output.exists()
        return line

    return call


def run(*argv):
    assert evaluate.main(["evaluate", *map(str, argv)]) == 0


@pytest.fixture(scope="module")
def evaluated(tiny_run, tiny_data, tmp_path_factory):
    """The output folder of a run evaluated on its own data, with low scores to have detections."""
    output = tmp_path_factory.mktemp("evaluated")
    argv = [f"--model={tiny_run}", f"--data={tiny_data}", f"--output={output}"]
    run(*argv, "--set=eval.score_floor=0.0001")
    return output


def test_metrics_of_a_run(evaluated):
    content = read(evaluated, "metrics.json")
    assert {"coco", "voc", "per_class", "thresholds", "errors", "settings"} < set(content)
    assert sorted(content["per_class"]) == ["green", "red"]  # no image of this split shows blue
    assert content["settings"]["kind"] == "keras"
    assert (content["settings"]["images"], content["settings"]["max_detections"]) == (4, 20)
    assert content["latency_ms"]["per_image"] > 0


def test_thresholds_of_a_run(tiny_run, tiny_data, tmp_path, fails):
    argv = [f"--model={tiny_run}", f"--data={tiny_data}", "--set=eval.score_floor=0.0001"]
    path = tiny_run / "thresholds.json"
    run(*argv, "--split=train", f"--output={tmp_path / 'train'}")
    assert read(tmp_path / "train", "thresholds.json")["split"] == "train"
    assert not path.exists()
    run(*argv, f"--output={tmp_path / 'val'}")
    of_val = read(tiny_run, "thresholds.json")
    assert of_val == read(tmp_path / "val", "thresholds.json")
    # No class has ten objects.
    assert of_val["classes"] == dict.fromkeys(["red", "green", "blue"], of_val["all"])
    assert (of_val["split"], of_val["data"], of_val["rule"]) == ("val", str(tiny_data), "best F1")
    run(*argv, "--precision=0.9", f"--output={tmp_path / 'val'}")
    assert read(tiny_run, "thresholds.json")["rule"] == "precision 0.9"
    # Those of val hold for other splits.
    run(*argv, "--split=train", f"--output={tmp_path / 'train'}")
    assert read(tmp_path / "train", "thresholds.json") == read(tiny_run, "thresholds.json")
    path.write_text('{"all": 0.123}')  # by hand: it stays
    run(*argv, f"--output={tmp_path / 'val'}")
    assert read(tiny_run, "thresholds.json") == {"all": 0.123}
    path.write_text('{"all": 12}')
    assert str(path) in fails(evaluate.main, *argv, f"--output={tmp_path / 'val'}", code=1)


def test_the_verdict_comes_first(tmp_path, capsys, monkeypatch):
    monkeypatch.undo()  # no quick_report
    run(*write_files(tmp_path, TRUTH, FOUND), f"--output={tmp_path / 'out'}")
    verdict = read(tmp_path / "out", "metrics.json")["verdict"]
    assert capsys.readouterr().out.splitlines()[:2] == [verdict["sentence"], verdict["suggestion"]]
    assert "1 of 1 object" in verdict["sentence"] and "cat" in verdict["sentence"]
    assert all(text in (tmp_path / "out" / "report.html").read_text() for text in verdict.values())


def test_the_suggestion_takes_the_input_and_the_best_ap_of_the_run(
    tiny_run, tiny_data, tiny_config, tmp_path, monkeypatch
):
    taken = []

    def suggest(*arguments):
        taken.append(arguments[2:])
        return verdict.Suggestion("good", "Nothing.")

    monkeypatch.setattr(verdict, "suggest", suggest)
    run(f"--model={tiny_run}", f"--data={tiny_data}", f"--output={tmp_path / 'out'}")
    peak = run_files.find_peak(tiny_run)
    assert peak.last == tiny_config.train.steps
    assert taken == [(tiny_config.model.input_hw, peak)]


def test_precision_of_files(tmp_path, fails):
    truth, found = five_images([1, 2, 3, 4, 5])
    # The best of .9 is wrong, the others are right: precision 4/5 from 0 to .50, 0 from .81 on.
    found[0]["bbox"] = [60, 60, 10, 10]
    argv = write_files(tmp_path, truth, found)
    run(*argv, "--precision=0.8", f"--output={tmp_path / 'out'}")
    assert read(tmp_path / "out", "thresholds.json")["all"] == 0
    assert "--precision" in fails(evaluate.main, *argv, "--precision=1.5", code=2)
    compared = ["--compare", str(tmp_path / "out"), str(tmp_path / "out")]
    argv = [*compared, "--precision=0.5", f"--output={tmp_path / 'c'}"]
    assert "--precision" in fails(evaluate.main, *argv, code=2)


def test_from_python_without_files(tiny_run, tiny_data, evaluated, tmp_path, monkeypatch, capsys):
    from ssd_tf.evaluation.evaluate import evaluate as evaluate_model

    monkeypatch.chdir(tmp_path)
    metrics = evaluate_model(tiny_run, tiny_data, overrides=["eval.score_floor=0.0001"])
    expected = read(evaluated, "metrics.json")
    assert metrics.keys() == expected.keys()
    assert metrics["coco"] == expected["coco"]
    assert f"AP {metrics['coco']['AP']:.3f}" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="reference"):
        evaluate_model(tiny_run, tiny_data, reference=True)
    with pytest.raises(ValueError, match="'ignore'"):
        evaluate_model(tiny_run, tiny_data, on_bad_record="ignore")


def test_detections_of_a_run(evaluated, tiny_run, images):
    detector = load_detector(tiny_run, overrides=["eval.score_floor=0.0001"])
    rows = read(evaluated, "detections.json")
    for index in (0, 1, 3, 4):
        found = detector(images[index])
        own = [row for row in rows if row["image_id"] == 100 + index]
        assert {(row["file_name"], row["source_id"]) for row in own} == {
            (f"{index}.png", str(100 + index))
        }
        # Labels 1, 2, 3 have the category ids 7, 3, 12.
        assert [row["category_id"] for row in own] == [
            [7, 3, 12][label - 1] for label in found.labels
        ]
        assert [row["score"] for row in own] == pytest.approx(found.scores.tolist(), abs=1e-4)
        height, width = images[index].shape[:2]
        for row, (ymin, xmin, ymax, xmax) in zip(own, found.boxes.astype(float), strict=True):
            box = [xmin * width, ymin * height, (xmax - xmin) * width, (ymax - ymin) * height]
            assert row["bbox"] == pytest.approx(box, abs=0.1)


def test_any_coco_tool_can_be_run_on_the_written_pair(evaluated):
    expected = read(evaluated, "metrics.json")["coco"]
    assert pycocotools_stats(evaluated) == pytest.approx(list(expected.values()), abs=1e-9)


def test_the_written_pair_evaluates_to_the_same_metrics(evaluated, tmp_path):
    annotations = evaluated / "ground_truth.json"
    detections = evaluated / "detections.json"
    run(f"--annotations={annotations}", f"--detections={detections}", f"--output={tmp_path}")
    for key in ("coco", "voc", "per_class"):
        assert read(tmp_path, "metrics.json")[key] == read(evaluated, "metrics.json")[key]


def test_bad_records_are_skipped_by_flag_and_by_the_config_of_the_run(
    fails, tiny_run, with_bad_record, tmp_path
):
    data = with_bad_record("val")

    def counts(*argv, model=tiny_run):
        run(f"--model={model}", f"--data={data}", f"--output={tmp_path / 'out'}", *argv)
        settings = read(tmp_path / "out", "metrics.json")["settings"]
        return settings["images"], settings["skipped"]

    argv = [f"--data={data}", f"--output={tmp_path / 'none'}"]
    line = fails(evaluate.main, f"--model={tiny_run}", *argv, code=1)
    assert "val-00000-of-00001.tfrecord: record 1 (from 0)" in line
    assert counts("--on_bad_record=skip") == (3, 1)
    copied = shutil.copytree(tiny_run, tmp_path / "run")
    config = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(
        config.replace("on_bad_record: stop", "on_bad_record: skip")
    )
    assert counts(model=copied) == (3, 1)
    line = fails(evaluate.main, f"--model={copied}", *argv, "--on_bad_record=stop", code=1)
    assert "record 1 (from 0)" in line


def test_classes_in_another_order(tiny_run, blue_first, evaluated, tmp_path):
    run(
        f"--model={tiny_run}",
        f"--data={blue_first}",
        f"--output={tmp_path}",
        "--set=eval.score_floor=0.0001",
    )
    # Red, green and blue have the ids 3, 2 and 1 in this data set.
    other_id = {7: 3, 3: 2, 12: 1}
    expected = [
        {**row, "category_id": other_id[row["category_id"]]}
        for row in read(evaluated, "detections.json")
    ]
    assert read(tmp_path, "detections.json") == expected
    expected = read(evaluated, "metrics.json")["coco"]
    assert read(tmp_path, "metrics.json")["coco"] == pytest.approx(expected)


def test_set_replaces_settings_of_the_run(tiny_run, tiny_data, tmp_path):
    argv = [f"--model={tiny_run}", f"--data={tiny_data}", f"--output={tmp_path}"]
    run(*argv, "--set=eval.max_detections=2", "--set=eval.nms_iou=0.7", "--set=eval.score_floor=0")
    settings = read(tmp_path, "metrics.json")["settings"]
    assert (settings["max_detections"], settings["nms_iou"]) == (2, 0.7)
    image_ids = [row["image_id"] for row in read(tmp_path, "detections.json")]
    assert image_ids == [100, 100, 101, 101, 103, 103, 104, 104]


def test_what_set_rejects(fails, tiny_run, tiny_data, tmp_path):
    def refuse(model, override):
        argv = [f"--model={model}", f"--data={tiny_data}", f"--output={tmp_path / 'out'}"]
        line = fails(evaluate.main, *argv, f"--set={override}", code=2)
        assert not (tmp_path / "out").exists()
        return line

    assert "expected a key of eval or export" in refuse(tiny_run, "train.steps=5")
    assert "unknown key eval.nms_iuo; did you mean 'nms_iou'?" in refuse(
        tiny_run, "eval.nms_iuo=0.5"
    )
    assert "eval.nms_iou" in refuse(tiny_run, "eval.nms_iou=2")
    (tmp_path / "model.tflite").touch()
    assert "is an exported model with fixed settings" in refuse(
        tmp_path / "model.tflite", "eval.nms_iou=0.5"
    )
    argv = [*write_files(tmp_path, TRUTH, FOUND), f"--output={tmp_path / 'out'}"]
    line = fails(evaluate.main, *argv, "--set=eval.nms_iou=0.5", code=2)
    assert "--set" in line and "--detections" in line


@pytest.mark.parametrize(
    "truth",
    [
        TRUTH,
        with_annotation(id=0),
        with_annotation(id=None),
        with_annotation(id=LARGE),
        with_annotation(id=[1]),
        with_annotation(iscrowd=None),
        with_annotation(area=None),
        with_annotation(area="800"),
        with_annotation(area="big"),
        with_annotation(area=LARGE),
        with_annotation(area=0),
        with_annotation(iscrowd="0"),
        with_annotation(bbox=["10", 10.0, "40.0", 20]),
        with_annotation(bbox=[0, 0, 0, 0], segmentation=POLYGON),
        with_annotation(bbox=[10, 10], segmentation=POLYGON),
        with_annotation(bbox=None, segmentation=POLYGON),
        with_annotation(image_id="4", category_id=9.0),
        with_annotation(image_id="004", category_id="9"),
        without("id"),
        without("iscrowd"),
        without("area"),
    ],
)
def test_files(truth, tmp_path):
    run(*write_files(tmp_path, truth, FOUND), f"--output={tmp_path / 'out'}")
    content = read(tmp_path / "out", "metrics.json")
    assert content["coco"]["AP"] == pytest.approx(1)
    assert content["per_class"]["cat"]["AP50"] == pytest.approx(1)
    assert content["voc"] == {"AP50_11point": 1, "AP50_all": 1}
    # Id 1, the box's own area of 40 x 20 and no crowd, whether the file says so or not.
    written = read(tmp_path / "out", "ground_truth.json")
    for row in written["annotations"]:
        row.pop("segmentation", None)
    assert written == TRUTH
    assert read(tmp_path / "out", "detections.json") == FOUND


@pytest.mark.parametrize(
    ("truth", "found"),
    [
        five_images(range(5)),
        five_images([7] * 5),
        five_images("abcde"),
        five_images(range(1, 6), ["iscrowd"]),
        five_images(range(1, 6), ["id", "area", "iscrowd"]),
    ],
)
def test_pycocotools_gives_the_same_numbers_for_files_with_gaps(truth, found, tmp_path):
    run(*write_files(tmp_path, truth, found), f"--output={tmp_path / 'out'}")
    stats = read(tmp_path / "out", "metrics.json")["coco"]
    assert (stats["AP"], stats["AR100"]) == (pytest.approx(1), 1)
    assert pycocotools_stats(tmp_path / "out") == list(stats.values())


def test_annotations_of_unlisted_images_are_ignored(caplog, tmp_path):
    (row,) = TRUTH["annotations"]
    others = [{**row, "id": 2, "image_id": 8}, {**row, "id": 3, "image_id": 7}]
    truth = {**TRUTH, "annotations": [row, *others]}
    run(*write_files(tmp_path, truth, FOUND), f"--output={tmp_path / 'out'}")
    content = read(tmp_path / "out", "metrics.json")
    assert content["coco"]["AP"] == pytest.approx(1)
    assert content["voc"] == {"AP50_11point": 1, "AP50_all": 1}
    assert read(tmp_path / "out", "ground_truth.json") == TRUTH
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "2 of 3 annotations left out" in caplog.messages[0]
    assert "annotations[1], image_id 8" in caplog.messages[0]


@pytest.mark.parametrize(
    "row",
    [
        {"image_id": "4", "category_id": "9"},
        {"image_id": 4.0, "category_id": 9.0},
        {"image_id": "000004"},
        {"bbox": ["10", "10", "40", "20"], "score": "0.9"},
        {"bbox": [10.0, 10, 40.0, 20], "score": 0.9000000001},
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_results_as_tools_write_them(tmp_path, row, mark):
    argv = write_files(tmp_path, mark + json.dumps(TRUTH), mark + json.dumps([{**FOUND[0], **row}]))
    run(*argv, f"--output={tmp_path / 'out'}")
    (written,) = read(tmp_path / "out", "detections.json")
    assert written == {**FOUND[0], "score": pytest.approx(0.9)}
    assert read(tmp_path / "out", "metrics.json")["coco"]["AP"] == pytest.approx(1)


def test_a_score_that_rounding_made_larger_than_1(tmp_path):
    run(*write_files(tmp_path, TRUTH, [{**FOUND[0], "score": 1 + 1e-7}]), f"--output={tmp_path}/o")
    assert read(tmp_path / "o", "detections.json") == [{**FOUND[0], "score": 1}]


@pytest.mark.parametrize(
    ("found", "hint"),
    [
        ([[0.1, 0.17, 0.4, 0.33]], "0 to 1"),
        ([[10, 10, 90, 20]] * 2 + [[10, 10, 94, 51]], ""),  # overhangs by less than 5 %
        ([[10, 10, 90, 20]] * 2 + [[30, 10, 90, 20]] * 2, "2 of 4 boxes end beyond their image"),
        ([[10, 20, 40, 60]], "1 of 1 boxes end beyond their image"),
    ],
)
def test_boxes_in_another_unit(caplog, tmp_path, found, hint):
    rows = [{**FOUND[0], "bbox": box} for box in found]
    run(*write_files(tmp_path, TRUTH, rows), f"--output={tmp_path / 'out'}")
    assert len(caplog.messages) == bool(hint)
    assert not hint or hint in caplog.messages[0]


def test_category_0_without_objects_is_left_out(tmp_path):
    roots = {"background": ["cat"], "dog": ["dog", "cat"], "Background ": ["cat"]}
    for name, names in roots.items():
        truth = {**TRUTH, "categories": [{"id": 0, "name": name}, *TRUTH["categories"]]}
        run(*write_files(tmp_path, truth, FOUND), f"--output={tmp_path / 'out'}")
        written = read(tmp_path / "out", "ground_truth.json")["categories"]
        assert [row["name"] for row in written] == names


def test_ids_that_are_strings(tmp_path):
    truth = {
        "images": [{"id": "a", "height": 60, "width": 100}],
        "annotations": [{"image_id": "a", "category_id": "c", "bbox": [10, 10, 40, 20]}],
        "categories": [{"id": "c", "name": "cat"}],
    }
    found = [{**FOUND[0], "image_id": "a", "category_id": "c"}]
    run(*write_files(tmp_path, truth, found), f"--output={tmp_path / 'out'}")
    assert read(tmp_path / "out", "metrics.json")["coco"]["AP"] == pytest.approx(1)


def test_files_without_rows(capsys, tmp_path):
    run(*write_files(tmp_path, TRUTH, []), f"--output={tmp_path / 'missed'}")
    assert read(tmp_path / "missed", "metrics.json")["coco"]["AP"] == 0
    capsys.readouterr()
    run(*write_files(tmp_path, {**TRUTH, "annotations": []}, []), f"--output={tmp_path / 'none'}")
    assert read(tmp_path / "none", "metrics.json")["coco"]["AP"] == -1
    printed = capsys.readouterr().out
    assert "-1.0" not in printed and "AP -  AP50 -" in printed
    assert "no objects" in printed


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        ("", "truth is not JSON"),
        ("{", "truth is not JSON"),
        ([], "not a COCO instances file: expected an object with images, annotations, categories"),
        (
            {**TRUTH, "annotations": None},
            "annotations: expected a list of objects with image_id, category_id, bbox, got nothing",
        ),
        (
            {"images": TRUTH["images"], "annotations": []},
            "categories: expected a list of objects with id, name, got nothing",
        ),
        (
            {**TRUTH, "images": {"4": "a.jpg"}},
            "images: expected a list of objects with id, got an object",
        ),
        ({**TRUTH, "images": []}, "truth has no images"),
        (
            {**TRUTH, "annotations": [{"id": 1, "image_id": 4}]},
            "category is not listed; the first is annotations[0], category_id nothing",
        ),
        ({**TRUTH, "annotations": [{}]}, "image is not listed; the first is annotations[0]"),
        ({**TRUTH, "images": [7]}, "images[0]: expected an object, got 7"),
        (with_annotation(bbox=[1, 2, 3]), "not a box; the first is annotations[0], bbox [1, 2, 3]"),
        (with_annotation(bbox=[1, 2, 3, "wide"]), "not a number; the first is annotations[0]"),
        (with_annotation(bbox=[1, 2, 3, LARGE]), "not a number; the first is annotations[0]"),
        (with_annotation(bbox=[1, 2, 3, 0]), "degenerate; the first is annotations[0]"),
        (with_annotation(bbox=[1, 2, 3, -4]), "negative; the first is annotations[0]"),
        (without("bbox"), "no box; the first is annotations[0], bbox nothing"),
        (with_annotation(image_id=[4]), "annotations[0], image_id [4]"),
        (with_annotation(image_id=True), "annotations[0], image_id true"),
        (with_annotation(image_id=LARGE), "annotations[0], image_id 1000"),
        (with_annotation(category_id=LARGE), "annotations[0], category_id 1000"),
        ({**TRUTH, "images": [{"id": None}]}, "no id; the first is images[0], id nothing"),
        ({**TRUTH, "images": [{"id": 4}, {"id": "4"}]}, "two images have the id 4"),
        (
            {**TRUTH, "categories": [{"id": 9, "name": "cat"}, {"id": "9", "name": "dog"}]},
            "two categories have the id 9",
        ),
        (
            {**TRUTH, "categories": [{"id": 9, "name": "cat"}, {"id": 8, "name": "cat"}]},
            "two categories have the name 'cat'",
        ),
        ({**TRUTH, "categories": [{"id": 9}]}, "expected a category with a `name` and an `id`"),
        ({**TRUTH, "categories": [{"name": "a"}]}, "expected a category with a `name` and an `id`"),
        ({**TRUTH, "categories": [{"id": 9, "name": " "}]}, "the class name '' is empty"),
        ({**TRUTH, "categories": [{"id": 9, "name": "a\nb"}]}, "U+000A"),
        ("[" * 100_000, "truth is not JSON: it is nested too deeply"),
    ],
)
def test_files_that_are_not_coco_instances(files_refused, truth, expected):
    assert expected in files_refused(truth, FOUND)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("[", "found is not JSON"),
        (TRUTH, "expected a COCO results file: a list of objects with image_id, category_id"),
        ([1], "found[0]: expected an object with image_id, category_id, bbox, score, got 1"),
        ([{}], "found[0]: expected image_id as a number or a string, got nothing"),
        ([{**FOUND[0], "image_id": True}], "found[0]: expected image_id as a number or a string"),
        ([{**FOUND[0], "image_id": LARGE}], 'image_id of the annotations (4), got "1000'),
        ([FOUND[0], {"image_id": 4}], "found[1]: expected category_id"),
        ([{**FOUND[0], "bbox": [10, 10, 40]}], "found[0]: expected bbox as four finite numbers"),
        ([{**FOUND[0], "bbox": [10, 10, 1e200, 1e200]}], "found[0]: expected bbox as four finite"),
        (
            [FOUND[0], {**FOUND[0], "image_id": 5}],
            "found[1]: expected an image_id of the annotations (4), got 5",
        ),
        (
            [{**FOUND[0], "category_id": 1}] * 2,
            "2 detections ignored, of categories that the annotations lack: 1; they have 9",
        ),
        ("[" * 100_000, "found is not JSON: it is nested too deeply"),
        *(
            (
                [FOUND[0], {**FOUND[0], "score": score}],
                "found[1]: expected score as a number from 0",
            )
            for score in (float("nan"), float("inf"), 87.5, -1, 1.001, LARGE, "high", None, True)
        ),
    ],
)
def test_files_that_are_not_coco_results(files_refused, found, expected):
    assert expected in files_refused(TRUTH, found)


def test_what_is_missing(fails, tiny_run, tiny_data, tmp_path):
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


@pytest.mark.parametrize(
    ("first", "flag"),
    [
        (["--model=m", "--data=d"], "--images=i"),
        (["--model=m", "--data=d"], "--annotations=a"),
        (["--model=m", "--data=d"], "--gray_range=0,9"),
        (["--detections=d", "--annotations=a"], "--labels=l"),
        (["--detections=d", "--annotations=a"], "--split=val"),
        (["--detections=d", "--annotations=a"], "--data=d"),
        (["--detections=d", "--annotations=a"], "--raw_weights"),
        (["--detections=d", "--annotations=a"], "--on_bad_record=skip"),
        (["--detections=d", "--annotations=a"], "--input_range=0,1"),
        (["--compare", "a", "b"], "--model=m"),
        (["--compare", "a", "b"], "--reference"),
    ],
)
def test_flags_without_effect_are_errors(fails, tmp_path, first, flag):
    line = fails(evaluate.main, *first, flag, f"--output={tmp_path / 'out'}", code=2)
    assert flag.partition("=")[0] in line and first[0].partition("=")[0] in line
    assert not (tmp_path / "out").exists()


@pytest.fixture
def run_with_averages(tiny_run, tmp_path):
    """A copy of the tiny run whose last checkpoint has averages that detect nothing."""
    import tensorflow as tf

    run = shutil.copytree(tiny_run, tmp_path / "averaged")
    weights = runs.read_weights(runs.find_checkpoint(run))
    shutil.rmtree(run / "checkpoints")
    state = tf.train.Checkpoint(
        weights={path: tf.Variable(value) for path, value in weights.items()},
        averages={path: tf.Variable(tf.zeros_like(value)) for path, value in weights.items()},
    )
    state.write(str(run / "checkpoints" / "last" / "ckpt-80"))
    return run


def test_raw_weights(run_with_averages, evaluated, tiny_data, tmp_path):
    argv = [f"--model={run_with_averages}", f"--data={tiny_data}"]
    run(*argv, f"--output={tmp_path / 'averaged_out'}")
    assert read(tmp_path / "averaged_out", "metrics.json")["coco"]["AP"] < 0.1
    run(*argv, f"--output={tmp_path / 'raw_out'}", "--raw_weights")
    content = read(tmp_path / "raw_out", "metrics.json")
    assert content["coco"] == pytest.approx(read(evaluated, "metrics.json")["coco"])
    assert content["settings"]["raw_weights"] is True


def test_an_exported_model_has_no_raw_weights(fails, tiny_data, tmp_path):
    model = tmp_path / "model.tflite"
    model.write_bytes(b"")
    argv = [f"--model={model}", f"--data={tiny_data}", f"--output={tmp_path / 'out'}"]
    line = fails(evaluate.main, *argv, "--raw_weights", code=2)
    assert f"--raw_weights needs a run folder; {model} is an exported model" in line


FILES = (
    "detections.json",
    "ground_truth.json",
    "metrics.json",
    "per_class.csv",
    "thresholds.json",
    "report.html",
)


def file_contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_same_evaluation_twice_and_another_one(tmp_path):
    out = tmp_path / "out"
    argv = write_files(tmp_path, TRUTH, FOUND)
    run(*argv, f"--output={out}")
    first = file_contents(out)
    assert sorted(first) == sorted([*FILES, "written.sha256"])
    run(*argv, f"--output={out}")
    second = file_contents(out)
    assert {name: second[name] for name in FILES} == {name: first[name] for name in FILES}
    run(*write_files(tmp_path, TRUTH, []), f"--output={out}")
    third = file_contents(out)
    assert "thresholds.json" not in third  # nothing is detected
    assert all(third.get(name) != first[name] for name in FILES[:1] + FILES[2:])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("is_ours", [True, False])
def test_files_that_somebody_changed_are_not_overwritten(fails, tmp_path, name, is_ours):
    out = tmp_path / "out"
    out.mkdir()
    argv = write_files(tmp_path, TRUTH, FOUND)
    if is_ours:
        run(*argv, f"--output={out}")
    (out / name).write_text("mine")
    before = file_contents(out)
    assert f": {name} " in fails(evaluate.main, *argv, f"--output={out}", code=1)
    assert file_contents(out) == before


@pytest.mark.parametrize("name", ["detections.json", "ground_truth.json"])
def test_inputs_are_not_overwritten(fails, tmp_path, name):
    out = tmp_path / "out"
    run(*write_files(tmp_path, TRUTH, FOUND), f"--output={out}")
    before = file_contents(out)
    paths = {"detections.json": tmp_path / "found", "ground_truth.json": tmp_path / "truth"}
    paths[name] = out / name
    argv = [
        f"--detections={paths['detections.json']}",
        f"--annotations={paths['ground_truth.json']}",
    ]
    line = fails(evaluate.main, *argv, f"--output={out}", code=1)
    assert f"{name} is an input" in line
    assert file_contents(out) == before


@pytest.mark.parametrize("broken", ["images", "report", "figures"])
def test_numbers_are_kept_when_the_report_fails(tmp_path, monkeypatch, broken, capsys):
    from ssd_tf.evaluation.report import figures, report

    def fail(*_arguments, **_more):
        raise TypeError("no such glyph")

    places = {
        "images": (report, "choose_images"),
        "report": (report, "render_report"),
        "figures": (figures, "error_costs"),
    }
    argv = write_files(tmp_path, TRUTH, FOUND)
    out = tmp_path / "out"
    run(*argv, f"--output={out}")
    argv = write_files(tmp_path, TRUTH, [])
    monkeypatch.undo()  # no quick_report
    monkeypatch.setattr(*places[broken], fail)
    capsys.readouterr()
    assert evaluate.main(["evaluate", *argv, f"--output={out}"]) == 1
    printed, error = capsys.readouterr()
    assert "AP 0.000" in printed and "written" not in printed
    (line,) = error.splitlines()
    assert line.startswith("error: ") and "report.html" in line and "no such glyph" in line
    # Of the new evaluation; the report of the old one is gone.
    assert read(out, "metrics.json")["coco"]["AP"] == 0
    assert sorted(file_contents(out)) == sorted([*FILES[:-2], "written.sha256"])


def test_nothing_of_an_earlier_evaluation_stays_when_the_analysis_fails(tmp_path, monkeypatch):
    from ssd_tf.evaluation import analysis

    def fail(*_arguments):
        raise RuntimeError("calibration")

    out = tmp_path / "out"
    run(*write_files(tmp_path, TRUTH, FOUND), f"--output={out}")
    argv = write_files(tmp_path, TRUTH, [])
    monkeypatch.setattr(analysis, "analyse", fail)
    assert evaluate.main(["evaluate", *argv, f"--output={out}"]) == 1
    assert read(out, "detections.json") == []
    assert sorted(file_contents(out)) == ["detections.json", "ground_truth.json", "written.sha256"]


@pytest.mark.parametrize("scores", [[87.5], [-0.1], [float("nan")], [0.5, 1.01]])
def test_a_model_with_scores_that_are_no_probabilities(
    fails, tmp_path, scores, tiny_data, monkeypatch
):
    import numpy as np

    from ssd_tf.evaluation import evaluate as module
    from ssd_tf.inference.detections import Detections

    class Wrong:
        classes = ("red", "green", "blue")
        config = None

        def batch(self, images):
            count = len(scores)
            boxes = np.tile(np.array([0, 0, 0.5, 0.5], np.float32), (count, 1))
            found = Detections(boxes, np.array(scores, np.float32), np.ones(count, int))
            return [found] * len(images)

    monkeypatch.setattr(module, "load_detector", lambda *_flags: Wrong())
    argv = [f"--model={tmp_path}", f"--data={tiny_data}", f"--output={tmp_path / 'out'}"]
    line = fails(evaluate.main, *argv, code=1)
    assert "0.png" in line and "from 0 to 1" in line
    assert not (tmp_path / "out").exists()
