"""python detect.py --model M --output DIR IMAGE|DIR ..."""

import pathlib

from absl import flags, logging

from ssd_tf import commandline, files
from ssd_tf.config import nearest
from ssd_tf.draw import draw_detections, name_of

USAGE = """
Detect objects in images; writes a drawn copy of each image, and detections.json.

  python detect.py --model runs/NAME|SAVED_MODEL_DIR|FILE.tflite --output DIR [--score 0.5]
    [--max 100] [--classes a,b] [--labels FILE] IMAGE|DIR ...
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string(
    "model", None, "Run folder, SavedModel folder or .tflite file.", flag_values=FLAGS
)
flags.DEFINE_string(
    "output", None, "Folder for the drawn images and detections.json.", flag_values=FLAGS
)
flags.DEFINE_float(
    "score", 0.5, "Lowest score to report.", lower_bound=0, upper_bound=1, flag_values=FLAGS
)
flags.DEFINE_integer(
    "max", 100, "Largest number of detections per image.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_list("classes", [], "Report these classes only.", flag_values=FLAGS)
flags.DEFINE_string(
    "labels",
    None,
    "File of class names, one per line, for a model that has none.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "raw_weights",
    False,
    "Use the weights of the last step, not the averaged ones (train.ema).",
    flag_values=FLAGS,
)

_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("model", "output"), argv)


def _main(values, positional):
    paths = find_images(positional)
    output = pathlib.Path(values.output)
    if output.resolve() in [path.resolve().parent for path in paths]:
        raise flags.Error(
            f"--output {output} holds input images, which drawn ones could replace; "
            "name another folder"
        )
    commandline.import_tensorflow()
    from ssd_tf.inference.detector import load_detector

    detector = load_detector(values.model, values.labels, raw_weights=values.raw_weights)
    for name in values.classes:
        names = detector.classes or []
        if name not in names:
            raise flags.Error(f"--classes: the model has no class {name!r}{nearest(name, names)}")
    output.mkdir(parents=True, exist_ok=True)
    rows = detect_files(detector, paths, output, values)
    files.write_json(output / "detections.json", rows)


def find_images(arguments):
    """Files, and the image files of folders. Raises flags.Error or FileNotFoundError."""
    if not arguments:
        raise flags.Error("name at least one image or folder of images (see --help)")
    paths = []
    for argument in map(pathlib.Path, arguments):
        if argument.is_dir():
            images = [path for path in argument.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES]
            paths += sorted(images)
        elif argument.is_file():
            paths.append(argument)
        else:
            raise FileNotFoundError(f"no image or folder at {argument}")
    if not paths:
        suffixes = ", ".join(sorted(_IMAGE_SUFFIXES))
        raise FileNotFoundError(f"no images ({suffixes}) in {', '.join(arguments)}")
    return paths


def detect_files(detector, paths, output, values):
    """Draw what is detected in each file -> rows of detections.json; unreadable files are skipped.

    Raises ValueError when no file can be read.
    """
    from ssd_tf.evaluation.coco_format import image_ids
    from ssd_tf.inference.image_files import read_image

    names = detector.classes or []
    rows = []
    drawn = set()
    num_failed = 0
    ids = image_ids([path.stem for path in paths])
    for index, (path, image_id) in enumerate(zip(paths, ids, strict=True)):
        try:
            image = read_image(path)
        except (OSError, ValueError) as error:
            logging.error("%s cannot be read (%s); skipped", path, error)
            num_failed += 1
            continue
        detections = _select(detector(image), names, values)
        target = _free_path(output / f"{path.stem}.png", index + 1, drawn)
        drawn.add(target)
        draw_detections(image, detections, names, score=0).save(target)
        rows += _make_rows(detections, image.shape[:2], names, image_id, path)
        logging.info("%s: %s", path, _count_classes(detections, names) or "nothing")
    if num_failed == len(paths):
        raise ValueError(f"none of the {num_failed} images could be read")
    logging.info("%d images -> %s", len(paths) - num_failed, output)
    return rows


def _select(detections, names, values):
    """The detections that --score, --classes and --max let through."""
    keep = detections["scores"] >= values.score
    if values.classes:
        keep &= [name_of(label, names) in values.classes for label in detections["labels"]]
    rows = keep.nonzero()[0][: values.max]
    return {key: array[rows] for key, array in detections.items()}


def _free_path(path, suffix, taken):
    """The path, with a suffix until no other image of this call has the same name."""
    while path in taken:
        path = path.with_stem(f"{path.stem}_{suffix}")
    return path


def _make_rows(detections, image_hw, names, image_id, path):
    """The rows of detections.json for one image; category ids are the labels, from 1."""
    from ssd_tf.evaluation.coco_format import to_xywh_pixels

    boxes = to_xywh_pixels(detections["boxes"], image_hw)
    return [
        {
            "image_id": image_id,
            "file_name": str(path),
            "category_id": int(label),
            "class": name_of(label, names),
            "bbox": box.tolist(),
            "score": float(score),
        }
        for box, label, score in zip(boxes, detections["labels"], detections["scores"], strict=True)
    ]


def _count_classes(detections, names):
    detected = [name_of(label, names) for label in detections["labels"]]
    return ", ".join(f"{detected.count(name)} {name}" for name in dict.fromkeys(detected))
