"""Runs `ssd import` on files, one after the other in one process, and writes what happened.

A process of its own, as corrupt files may end it. `python run_importer.py FOLDER` imports each of
FOLDER/* and prints a line of JSON: name, exit code, seconds, megabytes above those before.
"""

import contextlib
import json
import pathlib
import shutil
import sys
import tempfile
import time

from ssd_tf.commands import import_weights


def main(folder):
    output = pathlib.Path(tempfile.mkdtemp())
    warm_up(output / "none")
    for path in sorted(pathlib.Path(folder).iterdir()):
        report(path, output / "run")
    shutil.rmtree(output)


def warm_up(output):
    """Import all that the importer imports."""
    from ssd_tf.weights.importers import detectors  # noqa: F401

    import_weights.main(["import_weights", "--source", str(output), "--output", str(output)])


def report(path, output):
    before = reset_memory()
    start = time.perf_counter()
    print(path.name, file=sys.stderr, flush=True)
    argv = ["import_weights", "--source", str(path), "--output", str(output)]
    with contextlib.redirect_stdout(sys.stderr):  # which commands usually follow
        code = import_weights.main(argv)
    row = {
        "name": path.name,
        "code": code,
        "seconds": time.perf_counter() - start,
        "megabytes": status("VmHWM") - before,
    }
    print(json.dumps(row), flush=True)
    shutil.rmtree(output, ignore_errors=True)


def reset_memory():
    """Memory in use, in MB; the peak is counted anew from now on. 0 where there is no /proc."""
    clear = pathlib.Path("/proc/self/clear_refs")
    if not clear.exists():
        return 0
    clear.write_text("5")
    return status("VmRSS")


def status(key):
    path = pathlib.Path("/proc/self/status")
    if not path.exists():
        return 0
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    return int(lines[key].split()[0]) / 1024


if __name__ == "__main__":
    main(sys.argv[1])
