"""Flags of the commands that have a model or a config, which the converters do without."""

from absl import flags


def define_overrides(values: flags.FlagValues):
    """Define --set, which `read_overrides` reads."""
    flags.DEFINE_multi_string(
        "set",
        [],
        "Replace a value of the config, KEY=VALUE; may be repeated.",
        flag_values=values,
    )


def define_raw_weights(values: flags.FlagValues):
    """Define --raw_weights."""
    flags.DEFINE_bool(
        "raw_weights",
        False,
        "Use the weights of the last step, not the averaged ones (train.ema).",
        flag_values=values,
    )


def read_overrides(values, positional) -> list[str]:
    """The `KEY=VALUE` of --set and of the arguments after it: `--set A=1 B=2` sets both."""
    for argument in positional:
        if "=" not in argument:
            raise flags.Error(f"unexpected {argument!r}; lists take commas (see --help)")
    return [*values.set, *positional]


def define_input_range(values: flags.FlagValues):
    """Define --input_range, which `read_input_range` reads."""
    flags.DEFINE_list(
        "input_range",
        None,
        "LOW,HIGH: the values of black and white for a model of floats that does not state them.",
        flag_values=values,
    )


def read_input_range(values) -> tuple[float, float] | None:
    """--input_range as two numbers. Raises flags.Error if it is anything else."""
    if values.input_range is None:
        return None
    try:
        low, high = map(float, values.input_range)
    except ValueError:
        low = high = 0.0
    if not low < high:
        raise flags.Error(
            f"--input_range: expected two numbers such as -1,1, got {','.join(values.input_range)}"
        )
    return low, high
