"""Conversion with full verification beside a bare loop that only reads and decodes the same files, in one run; and its memory.

    python benchmarks/convert.py [--photos DIR] [--images 40000] [--workers 2] [--rounds 5]
    python benchmarks/convert.py --memory [--images 10000,200000]

The first: links to the photos of DIR under as many names as asked for, each side a command of its own with the same number of
processes, start-up included; the ratio is images per second of the conversion over those of the bare loop. Processor seconds tell
what it would be if the machine did nothing else. The second: generated pictures of 16 x 16 pixels; the memory of all processes
together, at its peak: their proportional set sizes (PSS) but for files mapped into memory, such as TensorFlow's libraries (about
200 MB), which count for less the more other programs hold them.
"""

import dataclasses
import io
import json
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
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
flags.DEFINE_integer("rounds", 5, "Runs of either side; the medians count.")
flags.DEFINE_bool("memory", False, "Measure memory instead of speed.")
flags.DEFINE_string(
    "scratch", None, "Folder for the links and the output; default: a temporary one."
)
flags.DEFINE_string(
    "bare",
    None,
    "Only read and decode the pictures of this folder (what the benchmark runs for itself).",
)


def write_labels(folder, names, size_wh):
    """Two boxes for every picture, as COCO JSON."""
    width, height = size_wh
    images = [
        {"id": k, "file_name": name, "width": width, "height": height}
        for k, name in enumerate(names, 1)
    ]
    boxes = ([1, 2, width / 2, height / 3], [width / 3, height / 4, width / 2, height / 2])
    annotations = [
        {"image_id": k, "category_id": 1 + j, "bbox": box}
        for k in range(1, len(names) + 1)
        for j, box in enumerate(boxes)
    ]
    categories = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
    (folder / "annotations.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )


def link_photos(folder, number):
    photos = sorted(
        path.resolve()
        for path in pathlib.Path(FLAGS.photos).iterdir()
        if path.suffix.lower() in (".jpg", ".jpeg")
    )
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
    given = {
        "images": folder / "images",
        "annotations": folder / "annotations.json",
        "output": folder / "out",
    }
    flags_given = [f"--{name}={value}" for name, value in given.items()]
    return [
        sys.executable,
        "-m",
        "data_tools.coco_to_tfrecord",
        *flags_given,
        f"--workers={FLAGS.workers}",
    ]


@dataclasses.dataclass
class Watched:
    """A command that has run: seconds on the clock, of the processors, and the peak of its processes' memory together in MB."""

    seconds: float
    processor: float
    memory: float


def watch(command) -> Watched:
    start, peak, used = time.perf_counter(), 0, {}
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None:
        found = dict(processes_of(process.pid))
        used |= found
        peak = max(peak, sum(map(proportional_size, found))) if FLAGS.memory else 0
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode}")
    return Watched(time.perf_counter() - start, sum(used.values()), peak / 1e3)


def processes_of(session):
    """(process id, processor seconds) of a session."""
    ticks = os.sysconf("SC_CLK_TCK")
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = pathlib.Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == session:
                yield int(entry.name), (int(fields[11]) + int(fields[12])) / ticks


def proportional_size(pid):
    """PSS without mapped files, in kB; 0 for a process that has ended."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return sum(
        int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))
    )


def measure_speed(folder, number):
    link_photos(folder, number)
    runs = {"bare": [], "conversion": []}
    for _ in range(FLAGS.rounds):
        runs["bare"].append(watch(command_of_bare(folder)))
        runs["conversion"].append(watch(command_of_conversion(folder)))
    for name, made in runs.items():
        seconds = ", ".join(f"{run.seconds:.1f} ({run.processor:.1f})" for run in made)
        rate = number / statistics.median(run.seconds for run in made)
        print(f"{name}: {rate:.0f} images/s; seconds (processor seconds): {seconds}")
    ratios = [compare(runs, what) for what in ("seconds", "processor")]
    print(
        f"{number:,} images, {FLAGS.workers} processes: ratio {ratios[0]:.2f}, by processor seconds {ratios[1]:.2f}"
    )


def compare(runs, what):
    bare, conversion = (
        statistics.median(getattr(run, what) for run in made) for made in runs.values()
    )
    return bare / conversion


def measure_memory(folder, number):
    write_tiny(folder, number)
    peak = watch(command_of_conversion(folder)).memory
    print(f"{number:,} tiny images, {FLAGS.workers} processes: peak {peak:.0f} MB", flush=True)
    return peak


def main(_):
    if FLAGS.bare:
        return run_bare(FLAGS.bare)
    with tempfile.TemporaryDirectory(dir=FLAGS.scratch) as scratch:
        if not FLAGS.memory:
            return measure_speed(pathlib.Path(scratch), int((FLAGS.images or ["40000"])[0]))
        numbers = [int(number) for number in FLAGS.images or ["10000", "200000"]]
        peaks = {
            number: measure_memory(pathlib.Path(scratch, str(number)), number) for number in numbers
        }
        first, last = min(peaks), max(peaks)
        print(f"{last:,} against {first:,} images: ratio {peaks[last] / peaks[first]:.2f}")


if __name__ == "__main__":
    app.run(main)
