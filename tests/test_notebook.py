"""docs/own_images.ipynb runs from the first cell to the last."""

import pathlib

import pytest

pytestmark = pytest.mark.integration

NOTEBOOK = pathlib.Path(__file__).parents[1] / "docs" / "own_images.ipynb"


def test_every_cell_runs(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="needs the extra `dev`")
    nbclient = pytest.importorskip("nbclient", reason="needs the extra `dev`")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] for cell in cells)  # they would be of another version
    # Fewer images and steps: what it detects is not looked at.
    cells[0].source = cells[0].source.replace(
        '["train.steps=600"]', '["train.steps=6", "train.warmup_steps=2", "train.batch_size=4"]'
    )
    cells[1].source = cells[1].source.replace('"240"', '"12"')
    folder = tmp_path / "with a space"  # paths travel to the commands as they are
    folder.mkdir()
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    printed = "".join(
        output.text for cell in cells for output in cell.outputs if output.output_type == "stream"
    )
    assert "train.steps=6" in cells[0].source and '"12"' in cells[1].source
    assert "error: " not in printed
    assert "show detections that score at least" in printed
    images = [
        output.data["image/png"]
        for cell in cells
        for output in cell.outputs
        if output.output_type in ("execute_result", "display_data") and "image/png" in output.data
    ]
    assert len(images) == 4
    folder = folder / "own_images"
    assert (folder / "evaluation" / "report.html").is_file()
    assert (folder / "exports" / "model_float32.tflite").is_file()
