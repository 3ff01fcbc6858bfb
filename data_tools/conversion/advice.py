"""Warnings about a converted split: what training or measuring on it will suffer from."""

from data_tools.conversion import survey
from data_tools.readers import labels

_NAMES_SHOWN = 5
# Fewer of them than this are few: fine-tuning a pretrained detector needs some tens of examples of
# a class, and the AP of a handful of images or objects is mostly chance.
_FEW_IMAGES = {"train": 50, "val": 20, "test": 20}
_FEW_OBJECTS = {"train": 20, "val": 5, "test": 5}
TINY = 0.03  # of the image, as the square root of areas: 9 pixels at an input of 300 x 300
_MANY_TINY = 0.2  # of the objects of a split
_MANY_EMPTY = 0.3  # of its images


def find_warnings(split, entry, class_names, left_out=()) -> list[dict]:
    """The warnings about a split as report.json holds them: {"what", "count", "names", "text"}.

    entry: of report.json; class_names: of the data set; left_out: ImageSets that were not converted
    and of which the user may not know. `names` are those of classes, files or splits.
    """
    return [
        *_warn_of_few_images(split, entry),
        *_warn_of_classes(split, entry, class_names),
        *_warn_of_tiny(split, entry["tiny_objects"], entry["boxes"] + entry["ignored"]),
        *_warn_of_unlabelled(split, entry),
        *map(_warn_of_set, left_out),
    ]


def _make(what, count, names, text):
    return {"what": what, "count": count, "names": list(names), "text": text}


def _warn_of_few_images(split, entry):
    count = entry["images"]
    if count < _FEW_IMAGES.get(split, 0):
        effect = "training needs more" if split == "train" else "metrics on them are mostly chance"
        text = f"{split}: only {labels.count_of(count, 'image')}; {effect}"
        yield _make("few_images", count, [], text)


def _warn_of_classes(split, entry, class_names):
    num_objects = {name: entry["classes"].get(name, {}).get("objects", 0) for name in class_names}
    without = [name for name, count in num_objects.items() if not count]
    few = {
        name: count
        for name, count in sorted(num_objects.items(), key=lambda item: item[1])
        if 0 < count < _FEW_OBJECTS.get(split, 0)
    }
    if without:
        effect = "they cannot be learned" if split == "train" else "they are not measured"
        text = f"{split}: {_count(without)} without objects ({_list(without)}); {effect}"
        yield _make("classes_without_objects", len(without), without, text)
    if few:
        listed = _list([f"{name} {count}" for name, count in few.items()])
        text = f"{split}: {_count(few)} with under {_FEW_OBJECTS[split]} objects ({listed})"
        yield _make("few_objects", len(few), few, text)


def _count(class_names):
    return f"{len(class_names)} {'class' if len(class_names) == 1 else 'classes'}"


def _list(names):
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def _warn_of_tiny(split, tiny, num_objects):
    if tiny["objects"] and tiny["objects"] >= _MANY_TINY * num_objects:
        by_class = [f"{name} {count:,}" for name, count in tiny["classes"].items()]
        yield _make(
            "tiny_objects",
            tiny["objects"],
            tiny["classes"],
            f"{split}: {tiny['objects']:,} of {num_objects:,} objects are tiny, under "
            f"{TINY:.0%} of their image's side ({_list(by_class)}), such as in {tiny['files'][0]}; "
            "detecting them needs a large input",
        )


def _warn_of_unlabelled(split, entry):
    unnamed = entry["findings"].get(survey.UNLABELLED)
    if unnamed:
        text = (
            f"{split}: {labels.count_of(unnamed['count'], 'image')} of the folder not converted, "
            f"as the labels do not name them, the first {unnamed['first'][0]}"
        )
        yield _make("unlabelled_images", unnamed["count"], unnamed["first"], text)
    if entry["empty"] > _MANY_EMPTY * entry["images"]:
        text = (
            f"{split}: {entry['empty']:,} of {entry['images']:,} images have no objects and are "
            "taken as background; --drop_empty leaves them out"
        )
        yield _make("images_without_objects", entry["empty"], [], text)


def _warn_of_set(image_set):
    is_counted = image_set.num_images >= 0
    size = f" ({labels.count_of(image_set.num_images, 'image')})" if is_counted else ""
    flags = f"--split {image_set.split} --image_set {image_set.name}"
    text = f"the set {image_set.name}{size} was not converted; {flags} adds it"
    return _make("set_left_out", max(image_set.num_images, 0), [image_set.name], text)
