"""Run own_images.ipynb in an empty folder, and store what it shows (`make notebook`)."""

import base64
import io
import pathlib
import re
import tempfile

import nbclient
import nbformat
import PIL.Image

MAX_SIDE = 320  # pixels of a stored image
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
    shrink(notebook)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, NOTEBOOK)


def shrink(notebook):
    """Store small images, and each once: Git keeps every version of them."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/html" in data:
                data.pop("text/markdown", None)
                data["text/html"] = re.sub(
                    r"(?<=data:image/jpeg;base64,)[\w+/=]+", shrink_image, data["text/html"]
                )
            if "image/png" in data:
                data["image/jpeg"] = shrink_image([data.pop("image/png")])


def shrink_image(match):
    """match[0]: an image file in base64 -> a smaller JPEG in base64."""
    image = PIL.Image.open(io.BytesIO(base64.b64decode(match[0]))).convert("RGB")
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=70)
    return base64.b64encode(content.getvalue()).decode()


if __name__ == "__main__":
    main()
