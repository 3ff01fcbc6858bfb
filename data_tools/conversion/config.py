"""The flags that all converters share, and the record of what they say."""

import dataclasses
import functools
import math

from absl import flags

from data_tools.conversion import classes
from data_tools.readers import labels
from ssd_tf import commandline

VALIDATION = "val"


@dataclasses.dataclass(frozen=True)
class ConversionConfig:
    """The shared flags, parsed; their defaults are in `new_flags`.

    shards 0: by the number of images; workers 0: one per core; exif_boxes, boxes None: the
    default of the label format; gray_range None: that of the splits already there.
    """

    output: str
    split: str
    shards: int
    workers: int
    val_fraction: float
    split_seed: int
    classes: list[str] | None
    verify: bool
    drop_empty: bool
    strict: bool
    exif_boxes: str | None
    boxes: str | None
    beam_runner: str
    beam_arguments: tuple[str, ...]
    gray_range: tuple[int, int] | None = None

    @property
    def splits(self):
        return [self.split, VALIDATION] if self.val_fraction else [self.split]


def new_flags() -> flags.FlagValues:
    """The flags of every converter; each adds its own, which say where the labels are."""
    values = commandline.new_flags()
    _define_output_flags(values)
    _define_label_flags(values)
    _define_image_flags(values)
    return values


def _define_output_flags(values):
    string = functools.partial(flags.DEFINE_string, flag_values=values)
    integer = functools.partial(flags.DEFINE_integer, flag_values=values, lower_bound=0)
    string("output", None, "Folder for the shards, dataset.json and report.json.")
    string("split", "train", "Name of the split to write.")
    flags.DEFINE_float(
        "val_fraction",
        0.0,
        "Fraction of the images to put into a split `val` instead, stratified by class, with "
        "identical files on the same side.",
        lower_bound=0.0,
        upper_bound=0.95,
        flag_values=values,
    )
    integer(
        "split_seed",
        0,
        "Seed of the order of the training images and of the choice of the `val` images.",
    )
    integer("shards", 0, "Number of files; 0: one per 1,000 images, at least 8.")
    integer("workers", 0, "Number of processes; 0: one per core.")
    string(
        "beam_runner",
        "",
        "Run on Apache Beam with this runner; its own options follow after --.",
    )


def _define_label_flags(values):
    flags.DEFINE_string(
        "classes",
        None,
        'File with one class name per line, or a,"b, with a comma",c: keep only these, in this '
        "order.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "boxes",
        None,
        [labels.PIXELS, labels.NORMALISED, labels.PERCENT],
        "Unit of the boxes, if it is not the usual one of the label format: pixels, or fractions "
        "or percentages of the image's width and height.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "exif_boxes",
        None,
        ["stored", "shown"],
        "How the boxes of an EXIF-rotated image were drawn if the size in its labels does not "
        "say: on the image as stored, or as shown. Default: shown for YOLO, else stored.",
        flag_values=values,
    )


def _define_image_flags(values):
    boolean = functools.partial(flags.DEFINE_bool, flag_values=values)
    boolean("drop_empty", False, "Leave out images without objects.")
    boolean(
        "no-verify",
        False,
        "Trust images that look intact: do not decode each of them completely.",
    )
    boolean(
        "strict", False, "Stop with exit code 1 at the first image or box that would be dropped."
    )
    boolean(
        "allow_outside",
        False,
        "Read images outside the image folder if the labels name them, instead of dropping them.",
    )
    flags.DEFINE_string(
        "gray_range",
        None,
        "LOW,HIGH: the values of 16-bit images that become black and white. Default: that of the "
        "splits already in --output, else 0,65535, which keeps the upper eight bits.",
        flag_values=values,
    )


def read_config(values, rest) -> ConversionConfig:
    """The record of parsed flags. rest: what follows after --, for Beam. Raises flags.Error."""
    if rest and not values.beam_runner:
        raise flags.Error(f"unexpected argument {rest[0]!r} (see --help)")
    if not values.split.replace("-", "").replace("_", "").isalnum():
        raise flags.Error(
            f"--split: expected a name of letters, digits, - and _, got {values.split!r}"
        )
    if not math.isfinite(values.val_fraction):
        raise flags.Error(f"--val_fraction: expected a fraction, got {values.val_fraction}")
    parsed = {
        "classes": classes.read_names(values.classes),
        "verify": not values["no-verify"].value,
        "gray_range": commandline.read_gray_range(values),
        "beam_arguments": tuple(rest),
    }
    fields = {field.name for field in dataclasses.fields(ConversionConfig)}
    given = {name: values[name].value for name in fields - parsed.keys()}
    config = ConversionConfig(**(given | parsed))
    if len(set(config.splits)) < len(config.splits):
        raise flags.Error(
            f"--val_fraction writes a split {VALIDATION!r} beside --split: give --split another "
            "name"
        )
    return config
