"""Conversion with full verification beside a bare loop that only reads and decodes the same files, in one run; and its memory.

    python benchmarks/convert.py [--photos DIR] [--images 20000] [--workers 2] [--rounds 2]
    python benchmarks/convert.py --memory [--images 10000,200000]

The first: links to the photos of DIR under as many names as asked for, each side a command of its own with the same number of
processes, start-up included; the ratio is images per second of the conversion over those of the bare loop. The second: generated
pictures of 16 x 16 pixels; the sum of the proportional set sizes (PSS) of all processes, at its peak.
"""

import io
import json
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from absl import app, flags
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
PHOTOS = ROOT.parent / "shared" / "data" / "coco128" / "images"
COLUMNS = 64  # shapes of the tiny pictures, so that they are not all one file

FLAGS = flags.FLAGS
flags.DEFINE_string("photos", str(PHOTOS), "Folder of photos to link to.")
flags.DEFINE_list("images", None, "Number of images; several for --memory.")
flags.DEFINE_integer("workers", len(os.sched_getaffinity(0)), "Processes on either side.")
flags.DEFINE_integer("rounds", 2, "Runs of either side; the medians count.")
flags.DEFINE_bool("memory", False, "Measure memory instead of speed.")
flags.DEFINE_string("scratch", None, "Folder for the links and the output; default: a temporary one.")
flags.DEFINE_string("bare", None, "Only read and decode the pictures of this folder (what the benchmark runs for itself).")


def write_labels(folder, names, size_wh):
    """Two boxes for every picture, as COCO JSON."""
    width, height = size_wh
    images = [{"id": k, "file_name": name, "width": width, "height": height} for k, name in enumerate(names, 1)]
    boxes = ([1, 2, width / 2, height / 3], [width / 3, height / 4, width / 2, height / 2])
    annotations = [
        {"image_id": k, "category_id": 1 + j, "bbox": box} for k in range(1, len(names) + 1) for j, box in enumerate(boxes)
    ]
    categories = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
    (folder / "annotations.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def link_photos(folder, number):
    photos = sorted(path.resolve() for path in pathlib.Path(FLAGS.photos).iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    if not photos:
        raise app.UsageError(f"--photos: no JPEG files in {FLAGS.photos}")
    (folder / "images").mkdir(parents=True)
    names = [f"{k:07d}.jpg" for k in range(number)]
    for k, name in enumerate(names):
        (folder / "images" / name).symlink_to(photos[k % len(photos)])
    write_labels(folder, names, (200, 200))
    for path in photos:
        path.read_bytes()  # either side finds them in memory


def write_tiny(folder, number):
    (folder / "images").mkdir(parents=True)
    names = [f"{k:07d}.jpg" for k in range(number)]
    for k, name in enumerate(names):
        color = (k % COLUMNS * 4, k // COLUMNS % 256, k // COLUMNS // 256)
        Image.new("RGB", (16, 16), color).save(folder / "images" / name)
    write_labels(folder, names, (16, 16))


def decode(path):
    Image.open(io.BytesIO(pathlib.Path(path).read_bytes())).load()


def run_bare(folder):
    paths = [entry.path for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)]
    with multiprocessing.Pool(FLAGS.workers) as pool:
        for _ in pool.imap_unordered(decode, paths, chunksize=200):
            pass


def command_of_bare(folder):
    return [sys.executable, __file__, f"--bare={folder / 'images'}", f"--workers={FLAGS.workers}"]


def command_of_conversion(folder):
    given = {"images": folder / "images", "annotations": folder / "annotations.json", "output": folder / "out"}
    flags_given = [f"--{name}={value}" for name, value in given.items()]
    return [sys.executable, "-m", "data_tools.coco_to_tfrecord", *flags_given, f"--workers={FLAGS.workers}"]


def time_command(command):
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure_speed(folder, number):
    link_photos(folder, number)
    seconds = {"bare": [], "conversion": []}
    for _ in range(FLAGS.rounds):
        seconds["bare"].append(time_command(command_of_bare(folder)))
        seconds["conversion"].append(time_command(command_of_conversion(folder)))
    rates = {name: number / statistics.median(times) for name, times in seconds.items()}
    for name, times in seconds.items():
        print(f"{name}: {rates[name]:.0f} images/s (seconds: {', '.join(f'{value:.1f}' for value in times)})")
    print(f"{number:,} images, {FLAGS.workers} processes: ratio {rates['conversion'] / rates['bare']:.2f}")


def measure_memory(folder, number):
    """-> the peak of the processes' proportional set sizes together, in MB."""
    write_tiny(folder, number)
    process = subprocess.Popen(command_of_conversion(folder), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    peak, ended = [0], threading.Event()

    def watch():
        while not ended.wait(0.3):
            peak[0] = max(peak[0], sum(map(proportional_size, session_of(process.pid))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    ended.set()
    watcher.join()
    if code:
        raise SystemExit(f"the conversion ended with {code}")
    return peak[0] / 1e3


def session_of(leader):
    """Process ids of a session."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = pathlib.Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == leader:
                yield int(entry.name)


def proportional_size(pid):
    """In kB; 0 for a process that has ended."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def main(_):
    if FLAGS.bare:
        return run_bare(FLAGS.bare)
    with tempfile.TemporaryDirectory(dir=FLAGS.scratch) as scratch:
        if not FLAGS.memory:
            return measure_speed(pathlib.Path(scratch), int((FLAGS.images or ["20000"])[0]))
        peaks = {}
        for number in map(int, FLAGS.images or ["10000", "200000"]):
            peaks[number] = measure_memory(pathlib.Path(scratch, str(number)), number)
            print(f"{number:,} tiny images, {FLAGS.workers} processes: peak {peaks[number]:.0f} MB", flush=True)
        first, last = min(peaks), max(peaks)
        print(f"{last:,} against {first:,} images: ratio {peaks[last] / peaks[first]:.2f}")


if __name__ == "__main__":
    app.run(main)
