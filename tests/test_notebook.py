"""docs/own_images.ipynb runs from the first cell to the last, on the drawn images and on others."""

import pathlib

import pytest

pytestmark = pytest.mark.integration

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
