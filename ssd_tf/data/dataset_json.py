"""`dataset.json`: the classes and splits of a folder of TFRecords.

It is written last, so its presence means that the data set is complete.
"""

import dataclasses
import json
import pathlib

from ssd_tf import pixels
from ssd_tf.class_names import check_names
from ssd_tf.user_files import suggest_path


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """The content of a `dataset.json`.

    classes: {"name", "id"} in label order (label 1 is classes[0]); splits: name -> counts, shards.
    gray_range: how 16-bit images became 8-bit ones, as `pixels.to_rgb` takes it.
    """

    folder: pathlib.Path
    classes: tuple[dict, ...]
    splits: dict
    gray_range: tuple[int, int] = pixels.FULL_RANGE

    @property
    def names(self):
        return [entry["name"] for entry in self.classes]

    @property
    def category_ids(self):
        return [entry["id"] for entry in self.classes]

    def shards(self, split):
        """Return the paths of a split's shards.

        Raises ValueError if the split is unknown or empty, FileNotFoundError if a shard is missing.
        """
        if split not in self.splits:
            raise ValueError(
                f"{self.folder} has no split {split!r}; it has {', '.join(self.splits) or 'none'}"
            )
        if not self.splits[split]["images"]:
            raise ValueError(f"the split {split!r} of {self.folder} has no images")
        paths = [self.folder / name for name in self.splits[split]["shards"]]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{self.folder} lacks {missing[0]}, which its dataset.json lists; "
                "convert the split again"
            )
        return [str(path) for path in paths]


def read_dataset(folder) -> DatasetInfo:
    """Read the `dataset.json` of a folder. Raises FileNotFoundError or ValueError."""
    folder = pathlib.Path(folder)
    path = folder / "dataset.json"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no data folder at {folder}{suggest_path(folder)}; create one with `ssd convert`"
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no dataset.json: it is not a converted data set, or its conversion did "
            "not finish"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        classes = tuple(_check_class(entry) for entry in content["classes"])
        gray_range = pixels.check_gray_range(content.get("gray_range", pixels.FULL_RANGE))
        splits = {name: _check_split(entry) for name, entry in content["splits"].items()}
        dataset_info = DatasetInfo(folder, classes, splits, gray_range)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a dataset.json of this package ({error!r}); convert the data again"
        ) from None
    if not dataset_info.classes:
        raise ValueError(
            f"{path} has no classes, so there is nothing to learn or measure; "
            "convert data that has objects"
        )
    check_names(dataset_info.names, path)
    return dataset_info


def with_classes(dataset_info: DatasetInfo, classes) -> DatasetInfo:
    """The same with other classes, {"name", "id"} in label order."""
    return dataclasses.replace(dataset_info, classes=tuple(classes))


def _check_class(entry):
    if not isinstance(entry["id"], int):
        raise ValueError(f"expected a whole number as id, got {entry['id']!r}")
    return {"name": entry["name"], "id": entry["id"]}


def _check_split(entry):
    images = entry["images"]
    shards = entry["shards"]
    if not (isinstance(images, int) and all(isinstance(name, str) for name in shards)):
        raise ValueError(f"expected a number of images and names of shards, got {images}, {shards}")
    return entry
