"""python detect.py --model M --output DIR IMAGE|DIR ..."""

import pathlib

from absl import flags, logging

from ssd_tf import commandline
from ssd_tf.config import nearest
from ssd_tf.draw import draw_detections, name_of

USAGE = """
Draw what a model finds in pictures; writes one drawn picture per input, and detections.json.

  python detect.py --model runs/NAME|SAVED_MODEL_DIR|FILE.tflite --output DIR [--score 0.5] [--max 100] [--classes a,b]
    IMAGE|DIR ...
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string(
    "model", None, "Run folder, SavedModel folder or .tflite file.", flag_values=FLAGS
)
flags.DEFINE_string(
    "output", None, "Folder for the drawn pictures and detections.json.", flag_values=FLAGS
)
flags.DEFINE_float(
    "score", 0.5, "Least score that is shown.", lower_bound=0, upper_bound=1, flag_values=FLAGS
)
flags.DEFINE_integer("max", 100, "Most detections per picture.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_list("classes", [], "Show these classes only.", flag_values=FLAGS)
flags.DEFINE_string(
    "labels",
    None,
    "Class names of a model that does not carry them, one a line.",
    flag_values=FLAGS,
)

_PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("model", "output"), argv)


def _main(options, rest):
    paths, output = find_pictures(rest), pathlib.Path(options.output)
    if output.resolve() in [path.resolve().parent for path in paths]:
        raise flags.Error(
            f"--output {output} holds pictures to look at, which drawn ones could replace; name another folder"
        )
    commandline.import_tensorflow()
    from ssd_tf.files import write_json
    from ssd_tf.inference.detector import load_detector

    detector = load_detector(options.model, options.labels)
    names = detector.classes or []
    for name in options.classes:
        if name not in names:
            raise flags.Error(f"--classes: the model has no class {name!r}{nearest(name, names)}")
    output.mkdir(parents=True, exist_ok=True)
    rows, drawn, failed = [], set(), 0
    for number, path in enumerate(paths, start=1):
        try:
            image = _read(path)
        except (OSError, ValueError) as error:
            logging.error("%s cannot be read (%s); left out", path, error)
            failed += 1
            continue
        found = _select(detector(image), names, options)
        drawn.add(target := _free_name(output / f"{path.stem}.png", number, drawn))
        draw_detections(image, found, names, score=0).save(target)
        rows += _rows(image, found, path, number, names)
        logging.info("%s: %s", path, _counts(found, names) or "nothing")
    if failed == len(paths):
        raise ValueError(f"none of the {failed} pictures could be read")
    write_json(output / "detections.json", rows)
    logging.info("%d pictures -> %s", len(paths) - failed, output)


def find_pictures(arguments):
    """Files, and the pictures of folders. Raises flags.Error or FileNotFoundError where there is none."""
    if not arguments:
        raise flags.Error("name at least one picture or folder of pictures (see --help)")
    paths = []
    for argument in map(pathlib.Path, arguments):
        if argument.is_dir():
            paths += sorted(path for path in argument.iterdir() if path.suffix.lower() in _PICTURES)
        elif argument.is_file():
            paths.append(argument)
        else:
            raise FileNotFoundError(f"no picture or folder at {argument}")
    if not paths:
        raise FileNotFoundError(
            f"no pictures ({', '.join(sorted(_PICTURES))}) in {', '.join(arguments)}"
        )
    return paths


def _read(path):
    """A picture as people see it: upright by its EXIF, RGB uint8 [H, W, 3]."""
    import numpy as np
    from PIL import Image, ImageOps

    with Image.open(path) as picture:
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


def _select(found, names, options):
    keep = found["scores"] >= options.score
    if options.classes:
        keep &= [name_of(label, names) in options.classes for label in found["labels"]]
    rows = keep.nonzero()[0][: options.max]
    return {name: value[rows] for name, value in found.items()}


def _free_name(path, number, taken):
    """The path, with the picture's number where another picture of this call has the same name."""
    return path.with_stem(f"{path.stem}_{number}") if path in taken else path


def _rows(image, found, path, number, names):
    """A picture's rows of detections.json."""
    from ssd_tf.evaluation.evaluator import to_xywh_pixels

    boxes = to_xywh_pixels(found["boxes"], image.shape[:2])
    return [
        {
            "image_id": int(path.stem) if path.stem.isdecimal() else number,
            "file_name": str(path),
            "category_id": int(label),
            "class": name_of(label, names),
            "bbox": box.tolist(),
            "score": float(score),
        }
        for box, label, score in zip(boxes, found["labels"], found["scores"], strict=True)
    ]


def _counts(found, names):
    kinds = [name_of(label, names) for label in found["labels"]]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
