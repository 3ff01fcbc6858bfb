"""The flags that all converters share, and what runs a converter's command."""

import math

from absl import flags

from data_tools.readers import labels
from ssd_tf import commandline


def new_converter_flags() -> flags.FlagValues:
    """The flags of every converter; each adds its own, which say where the labels are."""
    values = commandline.new_flags()
    _define_output_flags(values)
    _define_selection_flags(values)
    _define_check_flags(values)
    return values


def _define_output_flags(values):
    flags.DEFINE_string(
        "output",
        None,
        "Folder for the shards, dataset.json and report.json.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "shards",
        0,
        "Number of files; 0: one per 1,000 images, at least 8.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "workers",
        0,
        "Number of processes; 0: one per core.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_string(
        "beam_runner",
        "",
        "Run on Apache Beam with this runner; its own options follow after --.",
        flag_values=values,
    )


def _define_selection_flags(values):
    flags.DEFINE_string("split", "train", "Name of the split to write.", flag_values=values)
    flags.DEFINE_float(
        "val_fraction",
        0.0,
        "Fraction of the images to put into a split `val` instead, stratified by class, with "
        "identical files on the same side.",
        lower_bound=0.0,
        upper_bound=0.95,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "split_seed",
        0,
        "Seed of the order of the training images and of the choice of the `val` images.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_string(
        "classes",
        None,
        'File with one class name per line, or a,"b, with a comma",c: keep only these, in this '
        "order.",
        flag_values=values,
    )
    flags.DEFINE_bool("drop_empty", False, "Leave out images without objects.", flag_values=values)


def _define_check_flags(values):
    flags.DEFINE_bool(
        "no-verify",
        False,
        "Trust images that look sound: do not decode each of them completely.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "strict",
        False,
        "Stop with exit code 1 at the first image or box that would be dropped.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "allow_outside",
        False,
        "Read images outside the image folder if the labels name them, instead of dropping them.",
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
    flags.DEFINE_string(
        "gray_range",
        None,
        "LOW,HIGH: the values of 16-bit images that become black and white. Default: that of the "
        "splits already in --output, else 0,65535, which keeps the upper eight bits.",
        flag_values=values,
    )


def run_converter(values, usage, required, open_source, argv=None) -> int:
    """Run a converter's command and return its exit code.

    values: its flags; required: names of those that must be given; open_source(values) -> a
    labels.Source.
    """
    shared = set(new_converter_flags())
    own = [name for name in values if name not in shared]

    def main(values, rest):
        from data_tools.conversion import convert, report

        config = read_config(values, rest)
        source_flags = {
            name: values[name].value for name in own if values[name].value not in (None, "", False)
        }
        conversion = convert.convert(lambda: open_source(values), config, source_flags)
        report.print_report(conversion)
        print(f"details: {values.output}/dataset.json and report.json")

    return commandline.run(main, values, usage, required=(*required, "output"), argv=argv)


def read_config(values, rest):
    """The convert.ConversionConfig of parsed flags. rest: what follows after --, for Beam."""
    from data_tools.conversion import classes, convert

    if rest and not values.beam_runner:
        raise flags.Error(f"unexpected argument {rest[0]!r} (see --help)")
    if not values.split.replace("-", "").replace("_", "").isalnum():
        raise flags.Error(
            f"--split: expected a name of letters, digits, - and _, got {values.split!r}"
        )
    if not math.isfinite(values.val_fraction):
        raise flags.Error(f"--val_fraction: expected a fraction, got {values.val_fraction}")
    return convert.ConversionConfig(
        output=values.output,
        split=values.split,
        shards=values.shards,
        workers=values.workers,
        val_fraction=values.val_fraction,
        split_seed=values.split_seed,
        classes=classes.read_names(values.classes),
        verify=not values["no-verify"].value,
        drop_empty=values.drop_empty,
        strict=values.strict,
        exif_boxes=values.exif_boxes,
        gray_range=commandline.read_gray_range(values),
        boxes=values.boxes,
        beam_runner=values.beam_runner,
        beam_arguments=tuple(rest),
    )
