"""Run own_images.ipynb in an empty folder, and store what it shows (`make notebook`)."""

import pathlib
import tempfile

import nbclient
import nbformat

NOTEBOOK = pathlib.Path(__file__).with_name("own_images.ipynb")


def main():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        nbclient.NotebookClient(
            notebook,
            timeout=None,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        ).execute()
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
