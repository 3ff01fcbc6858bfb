"""The flags that all converters share, and the run of a converter's command."""

import math

from absl import flags

from ssd_tf import commandline


def new_converter_flags() -> flags.FlagValues:
    """Flags of a converter; its own file adds those that say where the labels are."""
    values = commandline.new_flags()

    def define(kind, name, default, text, **limits):
        kind(name, default, text, flag_values=values, **limits)

    define(
        flags.DEFINE_string, "output", None, "Folder for the shards, dataset.json and report.json."
    )
    define(flags.DEFINE_string, "split", "train", "Name of the split that is written.")
    define(
        flags.DEFINE_integer,
        "shards",
        0,
        "Number of files; 0: one per 1,000 images, at least 8.",
        lower_bound=0,
    )
    define(
        flags.DEFINE_integer, "workers", 0, "Number of processes; 0: one per core.", lower_bound=0
    )
    define(
        flags.DEFINE_float,
        "val_fraction",
        0.0,
        "Share of the images that goes into a split `val` instead, stratified by class, equal files on one side.",
        lower_bound=0.0,
        upper_bound=0.95,
    )
    define(
        flags.DEFINE_integer,
        "split_seed",
        0,
        "Another seed chooses other images for `val`.",
        lower_bound=0,
    )
    define(
        flags.DEFINE_string,
        "classes",
        None,
        "File with one class name a line, or a,b,c: keep these, in this order.",
    )
    define(
        flags.DEFINE_bool,
        "no-verify",
        False,
        "Trust images that look sound: do not decode each in full.",
    )
    define(flags.DEFINE_bool, "drop_empty", False, "Leave out images without objects.")
    define(
        flags.DEFINE_bool,
        "strict",
        False,
        "End with exit code 1 at the first image or box that would be dropped.",
    )
    text = "Boxes of an image that EXIF turns, where the labels give no size that tells: drawn on it as stored, or as shown?"
    flags.DEFINE_enum("exif_boxes", "stored", ["stored", "shown"], text, flag_values=values)
    define(
        flags.DEFINE_string,
        "beam_runner",
        "",
        "Run on Apache Beam with this runner; its own options follow after --.",
    )
    return values


def run_converter(values, usage, required, open_source, argv=None) -> int:
    """open_source(flag values) -> labels.Source. Returns the exit code."""
    names = [name for name in values if name not in new_converter_flags()]

    def main(values, rest):
        from data_tools.conversion import convert, report

        options = _read_options(values, rest)
        source_flags = {
            name: values[name].value
            for name in names
            if values[name].value not in (None, "", False)
        }
        entries = convert.convert(lambda: open_source(values), options, source_flags)
        label_names = [
            entry["name"] for entry in convert.dataset_json.read_dataset(values.output).classes
        ]
        report.print_report(entries, label_names)
        print(f"{values.output}/dataset.json and report.json tell the rest")

    return commandline.run(main, values, usage, required=(*required, "output"), argv=argv)


def _read_options(values, rest):
    from data_tools.conversion import classes, convert

    if rest and not values.beam_runner:
        raise flags.Error(f"unexpected argument {rest[0]!r} (see --help)")
    if not values.split.replace("-", "").replace("_", "").isalnum():
        raise flags.Error(
            f"--split wants a name of letters, digits, - and _, found {values.split!r}"
        )
    if not math.isfinite(values.val_fraction):
        raise flags.Error(f"--val_fraction wants a share, found {values.val_fraction}")
    return convert.Options(
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
        beam_runner=values.beam_runner,
        beam_arguments=tuple(rest),
    )
