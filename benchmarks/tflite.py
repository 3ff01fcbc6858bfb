"""TFLite files of one export folder beside each other: milliseconds of network and operator.

    python benchmarks/tflite.py FOLDER [FOLDER ...] [--threads 1] [--layers]

FOLDER is what `ssd export --formats tflite_float32,tflite_float32_raw,...` wrote. The files take
turns on one thread, with an input of noise. The network's time is that of the `_raw` file; the
operator's, with the scores before it, is the difference to the file that has it. Ratios are those
of medians to float32.

--layers also times float32 and int8 after each of the network's operators, by files that end there,
and sums the differences by kind of operator and size of its map.
"""

import collections
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
from absl import flags

from ssd_tf import commandline

FLAGS = commandline.new_flags()
flags.DEFINE_integer("threads", 1, "Threads of the interpreter.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("rounds", 31, "Rounds, after three to warm up.", flag_values=FLAGS)
flags.DEFINE_bool("layers", False, "Time float32 and int8 layer by layer.", flag_values=FLAGS)

PRECISIONS = ("float32", "float16", "dynamic", "int8")


def main(argv=None):
    return commandline.run(_main, FLAGS, __doc__, argv=argv)


def _main(values, positional):
    if not positional:
        raise flags.Error("name at least one export folder (see --help)")
    commandline.import_tensorflow()
    for folder in map(pathlib.Path, positional):
        compare_forms(folder, values)
        if values.layers:
            compare_layers(folder, values)


def compare_forms(folder, values):
    paths = {
        (precision, suffix): folder / f"model_{precision}{suffix}.tflite"
        for precision in PRECISIONS
        for suffix in ("", "_raw")
    }
    calls = {
        key: make_call(path.read_bytes(), values.threads)
        for key, path in paths.items()
        if path.is_file()
    }
    medians = time_in_turns(calls, values.rounds)
    print(f"{folder}, threads: {values.threads}; milliseconds, and ratios to float32")
    for precision in PRECISIONS:
        if (precision, "_raw") not in medians:
            continue
        network = medians[precision, "_raw"]
        line = f"  {precision:8s} network {network:7.2f}"
        line += f" ({network / medians['float32', '_raw']:.2f})"
        if (precision, "") in medians:
            whole = medians[precision, ""]
            line += f"  operator {whole - network:6.2f}  whole {whole:7.2f}"
            line += f" ({whole / medians['float32', '']:.2f})"
        print(line)


def compare_layers(folder, values):
    times = {}
    counts = {}
    for precision in ("float32", "int8"):
        content = (folder / f"model_{precision}_raw.tflite").read_bytes()
        times[precision], counts[precision] = time_layers(content, values)
    print("  layers: milliseconds of float32 and int8, ratio, number")
    for kind in sorted(times["float32"], key=lambda kind: -times["float32"][kind]):
        before = times["float32"][kind]
        after = times["int8"].get(kind, 0.0)
        ratio = f"{after / before:.2f}" if before > 0.01 else "-"
        print(f"    {kind:32s} {before:7.2f} {after:7.2f}  {ratio:>5s}  {counts['float32'][kind]}")
    only = {kind: ms for kind, ms in times["int8"].items() if kind not in times["float32"]}
    for kind, milliseconds in only.items():
        print(f"    {kind:32s}       - {milliseconds:7.2f}      -  {counts['int8'][kind]}")


def time_layers(content, values):
    """{kind and map of an operator: milliseconds, summed}, and how many there are."""
    from tensorflow.lite.python import schema_py_generated as schema

    from ssd_tf.exporting.tflite_file import pack

    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    num_operators = len(schema.ModelT.InitFromPackedBuf(content, 0).subgraphs[0].operators)
    calls = {}
    kinds = []
    for end in range(1, num_operators + 1):
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        graph = model.subgraphs[0]
        last = graph.operators[end - 1]
        graph.operators = graph.operators[:end]
        graph.outputs = np.array(last.outputs, np.int32)
        model.signatureDefs = []
        kind = names[model.operatorCodes[last.opcodeIndex].builtinCode].lower()
        shape = graph.tensors[last.outputs[0]].shape
        size = f" {shape[1]}x{shape[2]}" if len(shape) == 4 else ""
        kinds.append(kind + size)
        calls[end] = make_call(pack(model), values.threads)
    ends = time_in_turns(calls, max(values.rounds // 2, 5))
    sums = collections.Counter()
    previous = 0.0
    for end, kind in enumerate(kinds, start=1):
        # Branches are not in order: an operator may cost less than the noise of the one before.
        sums[kind] += ends[end] - previous
        previous = ends[end]
    return sums, collections.Counter(kinds)


def make_call(content, num_threads):
    """A function that runs a file on noise."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=num_threads)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    noise = np.random.default_rng(0).integers(0, 256, entry["shape"])
    interpreter.set_tensor(entry["index"], noise.astype(entry["dtype"]))
    return interpreter.invoke


def time_in_turns(calls, rounds):
    """Median milliseconds of each."""
    times = collections.defaultdict(list)
    for _ in range(3 + rounds):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            times[key].append((time.perf_counter() - start) * 1000)
    return {key: statistics.median(values[3:]) for key, values in times.items()}


if __name__ == "__main__":
    sys.exit(main())
