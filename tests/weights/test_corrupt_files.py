"""Corrupt files of every format through `ssd import`: one line, an exit code, little memory."""

import json
import os
import pathlib
import subprocess
import sys

import fuzzed_files
import numpy as np
import od_files
import pytest
import run_importer
import test_od_tflite as tflite_files
from safetensors.numpy import save

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE.parent / "golden" / "pytorch"
# Above the memory in use, for files of a few kilobytes or of a few megabytes.
LARGEST_MB = 100


def state_dicts():
    return [(GOLDEN / f"{name}.pth").read_bytes() for name in ("zip", "legacy", "wrapped")]


def safetensors_files():
    arrays = {
        "x.weight": np.ones((3, 4), "float16"),
        "y.weight": np.zeros((12, 3, 1, 1), "float32"),
        "num_batches_tracked": np.array(3),
    }
    return [save(arrays)]


def tflite_detectors(tmp_path):
    file = tflite_files.with_postprocess(tflite_files.ANCHORS)
    return [file.write(tmp_path / "intact.tflite").read_bytes()]


def graphs():
    arrays = {
        f"{od_files.V1}/MobilenetV1/Conv2d_0/weights": np.ones((3, 3, 3, 8), "float32"),
        "BoxPredictor_0/BoxEncodingPredictor/weights": np.ones((1, 1, 8, 12), "float32"),
        "BoxPredictor_0/BoxEncodingPredictor/biases": np.ones(12, "float32"),
        "Preprocessor/map/while/ResizeImage/stack": np.array([96, 128], np.int32),
    }
    return [od_files.make_graph(arrays).SerializeToString()]


def whole_graph():
    model = od_files.make_network("ssd_mobilenet_v1")
    graph = od_files.make_graph(od_files.arrays_of("ssd_mobilenet_v1", model))
    return graph.SerializeToString()


def write_corrupt(folder, suffix, corrupt, intact, count, seed=0):
    """`count` corrupt files from the intact ones in turn."""
    folder.mkdir(exist_ok=True)
    for index in range(count):
        rng = np.random.default_rng(seed + index)
        content = corrupt(intact[index % len(intact)], rng)
        (folder / f"{seed + index:04d}.{suffix}").write_bytes(content)


def import_in_a_process(folder):
    """Import each file of a folder; one that ended the process would end no test."""
    done = subprocess.run(
        [sys.executable, str(HERE / "run_importer.py"), str(folder)],
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        check=False,
    )
    last = done.stderr.splitlines()[-3:]
    assert done.returncode == 0, last
    return check_rows(folder, done.stdout, done.stderr)


def check_rows(folder, out, err):
    """Check what run_importer.py writes of a folder; returns how many files that is."""
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["name"] for row in rows] == sorted(path.name for path in folder.iterdir())
    assert [row for row in rows if row["code"] not in (0, 1, 2)] == []
    assert [row for row in rows if row["megabytes"] > LARGEST_MB] == []
    assert "Traceback" not in err
    assert "--traceback shows where" not in err
    return len(rows)


def test_a_few_of_every_format(tmp_path, capfd):
    folder = tmp_path / "files"
    write_corrupt(folder, "pth", fuzzed_files.corrupt_pth, state_dicts(), 24)
    write_corrupt(folder, "safetensors", fuzzed_files.corrupt_safetensors, safetensors_files(), 24)
    write_corrupt(folder, "pb", fuzzed_files.corrupt_graph, graphs(), 24)
    write_corrupt(folder, "tflite", fuzzed_files.corrupt_tflite, tflite_detectors(tmp_path), 24)
    capfd.readouterr()
    run_importer.main(folder)  # here, as a process would import TensorFlow for several seconds
    assert check_rows(folder, *capfd.readouterr()) == 96


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["pth", "safetensors", "pb", "tflite"])
def test_three_hundred(tmp_path, shared_data, suffix):
    weights = shared_data / "weights"
    real = {
        "pth": "mobilenet_v2-b0353104.pth",
        "pb": "ssdlite_mobilenet_v2_pedestrian.pb",
        "tflite": "ftc_skystone_v1_quant.tflite",
    }
    small = {
        "pth": state_dicts,
        "safetensors": safetensors_files,
        "pb": lambda: [whole_graph()],
        "tflite": lambda: tflite_detectors(tmp_path),
    }
    corrupt = {
        "pth": fuzzed_files.corrupt_pth,
        "safetensors": fuzzed_files.corrupt_safetensors,
        "pb": fuzzed_files.corrupt_graph,
        "tflite": fuzzed_files.corrupt_tflite,
    }[suffix]
    folder = tmp_path / "files"
    write_corrupt(folder, suffix, corrupt, small[suffix](), 260, seed=1000)
    intact = [(weights / real[suffix]).read_bytes()] if suffix in real else small[suffix]()
    write_corrupt(folder, suffix, corrupt, intact, 40, seed=2000)
    assert import_in_a_process(folder) == 300
