"""A folder with a page that runs the model in any browser, by MediaPipe Tasks."""

import json
import pathlib
import shutil

from absl import logging

from ssd_tf import files
from ssd_tf.draw import color_of
from ssd_tf.exporting.tflite import Converter

_PAGE = pathlib.Path(__file__).with_name("page") / "index.html"
_BUNDLE = "vision_bundle.mjs"
_PACKAGE = "@mediapipe/tasks-vision"


def check_web_files(web_files):
    """Raise FileNotFoundError unless the folder is that npm package."""
    if web_files is None:
        return
    folder = pathlib.Path(web_files)
    missing = [name for name in (_BUNDLE, "wasm") if not (folder / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"--web_files: expected the npm package {_PACKAGE}, found no {missing[0]} in {folder}"
        )


def _make_page(names):
    """The page with the colours in which `draw` draws the classes."""
    colors = json.dumps([(name, color_of(label)) for label, name in enumerate(names, 1)])
    # `</script>` within a name would end the page's own script.
    colors = colors.replace("<", "\\u003c")
    lines = _PAGE.read_text(encoding="utf-8").split("\n")
    (index,) = [i for i, line in enumerate(lines) if line.startswith("const COLORS = ")]
    lines[index] = f"const COLORS = new Map({colors});"
    return "\n".join(lines)


def export_page(path, converter: Converter, web_files=None):
    """Write the folder: index.html, model.tflite, and mediapipe/ from the folder web_files.

    The model is float16: half the download of float32. Raises FileNotFoundError.
    """
    check_web_files(web_files)
    path = pathlib.Path(path)
    path.mkdir()
    files.write_text(path / "index.html", _make_page(converter.names))
    converter.export(path / "model.tflite", "float16")
    if web_files is None:
        logging.info(
            "%s: put %s and wasm/ of the npm package %s into mediapipe/, or give --web_files",
            path.name,
            _BUNDLE,
            _PACKAGE,
        )
        return
    target = path / "mediapipe"
    target.mkdir()
    shutil.copyfile(pathlib.Path(web_files) / _BUNDLE, target / _BUNDLE)
    shutil.copytree(pathlib.Path(web_files) / "wasm", target / "wasm")
