"""A folder with a page that runs the model in any browser, by MediaPipe Tasks."""

import json
import pathlib

from absl import logging

from ssd_tf import files
from ssd_tf.draw import color_of, text_color_of
from ssd_tf.exporting import mediapipe_files
from ssd_tf.exporting.tflite import Converter
from ssd_tf.inference.thresholds import DEFAULT_SCORE

_PAGE = pathlib.Path(__file__).with_name("page") / "index.html"
_BEGIN = "const MODEL = "  # of the line of the page that is filled in


def _make_page(model):
    """The page of a model: what `const MODEL` of the page describes."""
    # `</script>` within a name would end the page's own script.
    text = json.dumps(model).replace("<", "\\u003c")
    lines = _PAGE.read_text(encoding="utf-8").split("\n")
    (index,) = [i for i, line in enumerate(lines) if line.startswith(_BEGIN)]
    lines[index] = f"{_BEGIN}{text};"
    return "\n".join(lines)


def export_page(
    path, converter: Converter, web_files=None, name="Object detector", score=DEFAULT_SCORE
):
    """Write the folder: index.html, model.tflite, and mediapipe/ unless the page takes a CDN's.

    web_files: a folder or an archive of the npm package, "cdn", or None: the user puts them there.
    name: of the model, shown on the page. score: the lowest that it shows at first. The model is
    float16: half the download of float32.
    """
    path = pathlib.Path(path)
    path.mkdir()
    classes = [
        (each, color_of(label), text_color_of(label))
        for label, each in enumerate(converter.names, start=1)
    ]
    address = mediapipe_files.address_of(web_files)
    model = {"name": name, "classes": classes, "mediapipe": address, "score": score}
    files.write_text(path / "index.html", _make_page(model))
    converter.export(path / "model.tflite", "float16")
    if web_files is None:
        logging.info(
            "%s: put %s and %s/ of the npm package %s into %s/, or give --web_files",
            path.name,
            mediapipe_files.BUNDLE,
            mediapipe_files.WASM,
            mediapipe_files.PACKAGE,
            mediapipe_files.FOLDER,
        )
        return
    mediapipe_files.copy_files(web_files, path / mediapipe_files.FOLDER)
