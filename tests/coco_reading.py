"""What `ssd convert coco` and `ssd evaluate` read from a COCO file, in one form."""

import re

from data_tools.readers import coco_json
from ssd_tf.evaluation import coco_instances


def read_with_converter(path):
    """Sorted (image id, class, box, area, crowd), the number of objects left out, the classes."""
    source = coco_json.read_coco(path, path.parent)
    kept = []
    left_out = 0
    for image in source.images:
        for obj in image.objects:
            if obj.fault:
                left_out += 1
                continue
            xmin, ymin, xmax, ymax = obj.box
            area = (xmax - xmin) * (ymax - ymin) if obj.area is None else obj.area
            kept.append((image.source_id, obj.name, obj.box, area, obj.crowd))
    names = [entry["name"] for entry in source.classes]
    return _sort(kept), left_out + source.strays.count, names


def read_with_evaluation(path, caplog):
    """The same from the reader of `ssd evaluate`, whose warnings have the numbers."""
    caplog.clear()
    content = coco_instances.read_instances(path)
    names = {row["id"]: row["name"] for row in content["categories"]}
    kept = [
        (
            str(row["image_id"]),
            names[row["category_id"]],
            _to_corners(*row["bbox"]),
            row["area"],
            bool(row["iscrowd"]),
        )
        for row in content["annotations"]
    ]
    counts = [re.search(r": (\d+) of \d+ annotations left out", text) for text in caplog.messages]
    return _sort(kept), sum(int(found[1]) for found in counts if found), list(names.values())


def _to_corners(x, y, width, height):
    return x, y, x + width, y + height


def _sort(rows):
    return sorted(
        (image_id, name, [float(f"{side:.6g}") for side in box], float(f"{area:.5g}"), crowd)
        for image_id, name, box, area, crowd in rows
    )
