"""A folder with a page that runs the model in any browser, by MediaPipe Tasks."""

import json
import pathlib
import shutil

from absl import logging

from ssd_tf import files
from ssd_tf.draw import color_of
from ssd_tf.exporting import folder
from ssd_tf.exporting.tflite import Converter
from ssd_tf.inference.thresholds import DEFAULT_SCORE

_PAGE = pathlib.Path(__file__).with_name("page") / "index.html"


def _make_page(names, score):
    """The page with the colours in which `draw` draws the classes, and the slider at a score."""
    colors = json.dumps([(name, color_of(label)) for label, name in enumerate(names, 1)])
    # `</script>` within a name would end the page's own script.
    colors = colors.replace("<", "\\u003c")
    lines = _PAGE.read_text(encoding="utf-8").split("\n")
    for name, value in (("COLORS", f"new Map({colors})"), ("SCORE", json.dumps(score))):
        (index,) = [i for i, line in enumerate(lines) if line.startswith(f"const {name} = ")]
        lines[index] = f"const {name} = {value};"
    return "\n".join(lines)


def export_page(path, converter: Converter, web_files=None, score=DEFAULT_SCORE):
    """Write the folder: index.html, model.tflite, and mediapipe/ from the folder web_files.

    score: the minimum that the page's slider starts with. The model is float16: half the download
    of float32.
    """
    path = pathlib.Path(path)
    path.mkdir()
    files.write_text(path / "index.html", _make_page(converter.names, score))
    converter.export(path / "model.tflite", "float16")
    if web_files is None:
        logging.info(
            "%s: put %s and wasm/ of the npm package %s into mediapipe/, or give --web_files",
            path.name,
            folder.WEB_BUNDLE,
            folder.WEB_PACKAGE,
        )
        return
    target = path / "mediapipe"
    target.mkdir()
    shutil.copyfile(pathlib.Path(web_files) / folder.WEB_BUNDLE, target / folder.WEB_BUNDLE)
    shutil.copytree(pathlib.Path(web_files) / "wasm", target / "wasm")
