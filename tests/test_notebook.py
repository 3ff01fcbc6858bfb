"""docs/own_images.ipynb runs from the first cell to the last, on the drawn images and on others."""

import inspect
import json
import pathlib
from unittest import mock

import pytest

import ssd_tf
from ssd_tf.quickstarting import summary
from ssd_tf.results import Result

NOTEBOOK = pathlib.Path(__file__).parents[1] / "docs" / "own_images.ipynb"
SHORT = 'SETTINGS = ["train.steps=4", "train.warmup_steps=2", "train.batch_size=4"]'


@pytest.fixture
def run(tmp_path):
    """A function: run the notebook in a folder, with short trainings; returns the folder.

    settings: lines of code that come after those of the notebook.
    """
    nbformat = pytest.importorskip("nbformat", reason="needs the extra `dev`")
    nbclient = pytest.importorskip("nbclient", reason="needs the extra `dev`")

    def call(*settings):
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert "SETTINGS = [" in cells[0].source and '"--images=240"' in cells[1].source
        cells[0].source += "\n".join(["", SHORT, *settings])
        cells[1].source = cells[1].source.replace('"--images=240"', '"--images=24"')
        for cell in cells:
            cell.source = cell.source.replace('"train.steps=200"', '"train.steps=6"')
        folder = tmp_path / "with a space"
        folder.mkdir()
        client = nbclient.NotebookClient(
            notebook, timeout=900, resources={"metadata": {"path": str(folder)}}
        )
        client.execute()
        shown = [output for cell in cells for output in cell.outputs if "data" in output]
        # Tables of the results, and images: of the labels, of the detections.
        assert sum("<table>" in output.data.get("text/html", "") for output in shown) == 4
        assert sum("data:image/jpeg" in output.data.get("text/html", "") for output in shown) >= 3
        assert sum("image/png" in output.data for output in shown) == 1
        return folder / "own_images"

    return call


def read_cells():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.fixture
def calls(monkeypatch, tiny_detector, tiny_run, tiny_data, tiny_config_file):
    """(name, arguments) of each call of the functions that take minutes, which do nothing here."""
    made = []

    def quickstart(images, output, **_):
        paths = dict.fromkeys(summary._list_paths(mock.MagicMock(), "val"), output)
        photo = next(pathlib.Path(images).rglob("*.jpg"))
        paths |= {"run": tiny_run, "data": tiny_data, "config": tiny_config_file, "labels": photo}
        return Result(output, {}, paths)

    def export(output, formats, **_):
        return Result(output, {}, {name: output / name for name in formats})

    def replace(name, make_result):
        signature = inspect.signature(getattr(ssd_tf, name))

        def call(*arguments, **more):
            bound = signature.bind(*arguments, **more).arguments
            made.append((name, bound))
            return make_result(**bound)

        monkeypatch.setitem(vars(ssd_tf), name, call)

    replace("quickstart", quickstart)
    replace("load_detector", lambda **_: tiny_detector)
    replace("train", lambda **_: None)
    replace("evaluate", lambda **_: None)
    replace("export", export)
    return made


def test_every_cell_calls_what_there_is(calls, tiny_run, tmp_path, monkeypatch):
    pytest.importorskip("IPython", reason="needs the extra `dev`")
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for index, source in enumerate(read_cells()):
        code = source.replace('"--images=240"', '"--images=4"')
        exec(compile(code, f"cell {index}", "exec"), namespace)
    names = ["quickstart", "load_detector", "train", "evaluate", "export", "load_detector"]
    assert [name for name, _ in calls] == names
    given = [arguments for _, arguments in calls]
    assert (given[0]["minutes"], given[0]["start"], given[0]["overrides"]) == (3, "scratch", [])
    assert given[1]["path"] == tiny_run
    assert (given[2]["config"].train.steps, given[2]["config"].eval.patience) == (200, 3)
    assert given[5]["path"] == pathlib.Path("own_images", "exports", "tflite_float32")


@pytest.mark.slow
def test_every_cell_runs(run):
    folder = run()
    assert (folder / "evaluation" / "report.html").is_file()
    assert (folder / "exports" / "model_float32.tflite").is_file()
    assert (folder / "run" / "live.html").is_file()


@pytest.mark.slow
def test_voc_labels_of_photos(run, shared_data):
    folder = run(f"IMAGES = pathlib.Path({str(shared_data / 'voc14')!r})")
    assert (folder / "quickstart" / "exports" / "export.json").is_file()
    assert not (folder / "shapes").exists()


def test_the_outputs_are_stored():
    nbformat = pytest.importorskip("nbformat", reason="needs the extra `dev`")
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("<table>" in output.get("data", {}).get("text/html", "") for output in outputs) == 4
    assert str(NOTEBOOK.parents[1]) not in NOTEBOOK.read_text()  # paths of one machine
