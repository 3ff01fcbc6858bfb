"""Conversion with full verification against a bare loop that only reads and decodes the same files.

    python benchmarks/convert.py [--source DIR] [--images 40000] [--workers 2] [--rounds 5]
    python benchmarks/convert.py --memory [--images 10000,200000]

Speed: links to the JPEG files of DIR under as many names as asked for. Each side is a command of
its own with the same number of processes, start-up included; the ratio is images per second of the
conversion over those of the bare loop. Processor seconds give the ratio on an otherwise idle
machine.

Memory: generated images of 16 x 16 pixels; the peak of all processes together. Counted is their
proportional set size (PSS) without files mapped into memory, such as TensorFlow's libraries (about
200 MB), whose share shrinks the more other programs map them.
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
SOURCE = ROOT.parent / "shared" / "data" / "coco128" / "images"
NUM_REDS = 64  # levels of red in the tiny images, so that all files differ

FLAGS = flags.FLAGS
flags.DEFINE_string("source", str(SOURCE), "Folder of JPEG files to link to.")
flags.DEFINE_list("images", None, "Number of images; several for --memory.")
flags.DEFINE_integer("workers", len(os.sched_getaffinity(0)), "Processes of each side.")
flags.DEFINE_integer("rounds", 5, "Runs of each side; the medians count.")
flags.DEFINE_bool("memory", False, "Measure memory instead of speed.")
flags.DEFINE_string(
    "scratch", None, "Folder for the links and the output; default: a temporary one."
)
flags.DEFINE_string(
    "bare",
    None,
    "Only read and decode the images of this folder (the benchmark calls itself with it).",
)


def write_labels(folder, names, size_wh):
    """Write COCO JSON with two boxes for every image."""
    width, height = size_wh
    images = [
        {"id": image_id, "file_name": name, "width": width, "height": height}
        for image_id, name in enumerate(names, 1)
    ]
    boxes = ([1, 2, width / 2, height / 3], [width / 3, height / 4, width / 2, height / 2])
    annotations = [
        {"image_id": image_id, "category_id": category_id, "bbox": box}
        for image_id in range(1, len(names) + 1)
        for category_id, box in enumerate(boxes, 1)
    ]
    categories = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
    (folder / "annotations.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )


def link_images(folder, num_images):
    """Link to the source's files in turn, and write labels."""
    sources = sorted(
        path.resolve()
        for path in pathlib.Path(FLAGS.source).iterdir()
        if path.suffix.lower() in (".jpg", ".jpeg")
    )
    if not sources:
        raise app.UsageError(f"--source: no JPEG files in {FLAGS.source}")
    (folder / "images").mkdir(parents=True)
    names = [f"{index:07d}.jpg" for index in range(num_images)]
    for index, name in enumerate(names):
        (folder / "images" / name).symlink_to(sources[index % len(sources)])
    write_labels(folder, names, (200, 200))
    for path in sources:
        path.read_bytes()  # so that both sides find them in memory


def write_tiny(folder, num_images):
    """Write images of one colour each, and labels."""
    (folder / "images").mkdir(parents=True)
    names = [f"{index:07d}.jpg" for index in range(num_images)]
    for index, name in enumerate(names):
        rest = index // NUM_REDS
        color = (index % NUM_REDS * 4, rest % 256, rest // 256)
        Image.new("RGB", (16, 16), color).save(folder / "images" / name)
    write_labels(folder, names, (16, 16))


def decode(path):
    Image.open(io.BytesIO(pathlib.Path(path).read_bytes())).load()


def run_bare(folder):
    paths = [entry.path for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)]
    with multiprocessing.Pool(FLAGS.workers) as pool:
        for _ in pool.imap_unordered(decode, paths, chunksize=200):
            pass


def bare_command(folder):
    return [sys.executable, __file__, f"--bare={folder / 'images'}", f"--workers={FLAGS.workers}"]


def conversion_command(folder):
    return [
        sys.executable,
        "-m",
        "data_tools.coco_to_tfrecord",
        f"--images={folder / 'images'}",
        f"--annotations={folder / 'annotations.json'}",
        f"--output={folder / 'out'}",
        f"--workers={FLAGS.workers}",
    ]


@dataclasses.dataclass
class Measured:
    """A command that has run: its seconds, its processor seconds, its peak memory in MB."""

    seconds: float
    processor: float
    memory: float


def measure(command) -> Measured:
    """Run a command to its end; the memory is measured only with --memory."""
    start = time.perf_counter()
    peak = 0
    processor = {}
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None:
        found = dict(find_processes(process.pid))
        processor |= found
        if FLAGS.memory:
            peak = max(peak, sum(map(proportional_size, found)))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode}")
    return Measured(time.perf_counter() - start, sum(processor.values()), peak / 1e3)


def find_processes(session):
    """Yield (process id, processor seconds) of each process of a session."""
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


def measure_speed(folder, num_images):
    link_images(folder, num_images)
    bare = []
    conversion = []
    for _ in range(FLAGS.rounds):
        bare.append(measure(bare_command(folder)))
        conversion.append(measure(conversion_command(folder)))
    for name, runs in (("bare", bare), ("conversion", conversion)):
        seconds = ", ".join(f"{run.seconds:.1f} ({run.processor:.1f})" for run in runs)
        rate = num_images / statistics.median(run.seconds for run in runs)
        print(f"{name}: {rate:.0f} images/s; seconds (processor seconds): {seconds}")
    by_clock = median_ratio([run.seconds for run in bare], [run.seconds for run in conversion])
    by_processor = median_ratio(
        [run.processor for run in bare], [run.processor for run in conversion]
    )
    print(
        f"{num_images:,} images, {FLAGS.workers} processes: ratio {by_clock:.2f}, by processor "
        f"seconds {by_processor:.2f}"
    )


def median_ratio(bare, conversion):
    return statistics.median(bare) / statistics.median(conversion)


def measure_memory(folder, num_images):
    write_tiny(folder, num_images)
    peak = measure(conversion_command(folder)).memory
    print(f"{num_images:,} tiny images, {FLAGS.workers} processes: peak {peak:.0f} MB", flush=True)
    return peak


def main(_):
    if FLAGS.bare:
        return run_bare(FLAGS.bare)
    with tempfile.TemporaryDirectory(dir=FLAGS.scratch) as scratch:
        if not FLAGS.memory:
            return measure_speed(pathlib.Path(scratch), int((FLAGS.images or ["40000"])[0]))
        counts = [int(count) for count in FLAGS.images or ["10000", "200000"]]
        peaks = {
            count: measure_memory(pathlib.Path(scratch, str(count)), count) for count in counts
        }
        fewest = min(peaks)
        most = max(peaks)
        print(f"{most:,} against {fewest:,} images: ratio {peaks[most] / peaks[fewest]:.2f}")


if __name__ == "__main__":
    app.run(main)
