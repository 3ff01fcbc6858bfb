"""A conversion that is killed, interrupted or out of space never looks complete."""

import errno
import hashlib
import os
import pathlib
import pickle
import random
import resource
import signal
import subprocess
import sys
import time

import pytest

from data_tools import shapes
from data_tools.conversion import config, output, shard_writer
from data_tools.readers import labels

ROOT = pathlib.Path(__file__).parents[2]
NUM_DRAWN = 20
LINKS_PER_IMAGE = 30


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """600 images: 20 drawn ones under 30 names each."""
    folder = tmp_path_factory.mktemp("source")
    shapes.write_dataset(folder / "drawn", NUM_DRAWN, seed=0)
    (folder / "yolo/images").mkdir(parents=True)
    (folder / "yolo/labels").mkdir()
    for index, path in enumerate(sorted((folder / "drawn/images").iterdir())):
        for link in range(LINKS_PER_IMAGE):
            name = f"{link:02d}-{index:02d}"
            (folder / f"yolo/images/{name}.jpg").symlink_to(path)
            (folder / f"yolo/labels/{name}.txt").write_text(
                f"{index % 3} 0.5 0.5 0.25 0.{index + 10}\n"
            )
    (folder / "yolo/data.yaml").write_text("train: images\nnames: [a, b, c]\n")
    return folder / "yolo"


def start(source, output, **process):
    command = [
        sys.executable,
        "-m",
        "data_tools.yolo_to_tfrecord",
        f"--yolo={source}",
        f"--output={output}",
        "--workers=2",
    ]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        command, cwd=ROOT, **{"preexec_fn": _accept_interrupts, **pipes, **process}
    )


def _accept_interrupts():
    """Restore SIGINT, which background jobs of a shell, such as this test, may ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(process):
    _, error = process.communicate(timeout=300)
    lines = error.splitlines(keepends=True)
    return process.returncode, "".join(line for line in lines if not line.startswith("converting "))


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.name[0] != "."
    }


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed")
    begin = time.monotonic()
    assert finish(start(source, output)) == (0, "")
    return digests(output), time.monotonic() - begin, output


def kill_at_random_moments(source, output, undisturbed, times):
    expected, seconds, _ = undisturbed
    num_killed = 0
    chance = random.Random(0)
    while num_killed < times:
        process = start(source, output)
        time.sleep(chance.uniform(0, seconds))
        num_killed += process.poll() is None
        process.kill()
        finish(process)
        found = digests(output) if output.exists() else {}
        assert found.items() <= expected.items()  # what has its final name is complete
        assert "dataset.json" not in found or found == expected
    assert finish(start(source, output)) == (0, "")
    assert digests(output) == expected
    assert [path.name for path in output.iterdir() if path.name[0] == "."] == []


@pytest.mark.integration
def test_killed_once(source, undisturbed, tmp_path):
    kill_at_random_moments(source, tmp_path / "out", undisturbed, times=1)


@pytest.mark.slow
def test_killed_at_ten_random_moments(source, undisturbed, tmp_path):
    kill_at_random_moments(source, tmp_path / "out", undisturbed, times=10)


DIES = """
import os
from data_tools import yolo_to_tfrecord
from data_tools.conversion import {module}
{module}.{function} = lambda *_: os._exit(9)
yolo_to_tfrecord.main(["x", "--yolo={source}", "--output={output}", "--workers=1"])
"""


@pytest.mark.integration
@pytest.mark.parametrize(
    ("module", "function", "left"),
    [
        ("output", "withdraw", 11),
        ("report", "make_report_entry", 9),
        ("report", "make_dataset_entry", 10),
    ],
)
def test_killed_while_a_finished_split_is_rewritten(
    source, undisturbed, tmp_path, module, function, left
):
    output = tmp_path / "out"
    output.mkdir()
    for name in undisturbed[0]:
        (output / name).write_bytes((undisturbed[2] / name).read_bytes())
    code = DIES.format(module=module, function=function, source=source, output=output)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert done.returncode == 9
    # 8 shards, images.tsv, report.json and dataset.json are there until the old split is withdrawn;
    # after that nothing names it.
    assert len(digests(output)) == left and digests(output).items() <= undisturbed[0].items()
    assert (output / "dataset.json").exists() == (function == "withdraw")


@pytest.mark.integration
def test_interrupted(source, tmp_path):
    output = tmp_path / "out"
    process = start(source, output, start_new_session=True)
    while not list(output.glob(".train-0*.tmp")):
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process
    assert finish(process) == (130, "interrupted\n")
    assert not output.exists()


def limit_file_size():
    # Stands in for a full disk: no file of this process or its children may exceed 200 kB.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


@pytest.mark.integration
def test_full_disk(source, tmp_path):
    output = tmp_path / "out"
    code, error = finish(start(source, output, preexec_fn=limit_file_size))
    assert code == 1 and error.startswith("error: cannot write") and error.count("\n") == 1
    assert not output.exists()


@pytest.mark.integration
@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_folder_without_write_permission(source, tmp_path):
    tmp_path.chmod(0o555)
    code, error = finish(start(source, tmp_path / "out"))
    assert code == 1 and "Permission denied; check the path and its permissions" in error


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "No space left on device; free some space there"),
        (errno.EDQUOT, "Disk quota exceeded; free some space there"),
        (errno.EACCES, "Permission denied; check the path and its permissions"),
        (errno.EROFS, "Read-only file system; check the path and its permissions"),
    ],
)
def test_advice_on_write_errors(tmp_path, number, advice):
    with pytest.raises(OSError) as raised, output.open_folder(tmp_path, ()):
        raise OSError(number, os.strerror(number))
    assert str(raised.value) == f"cannot write to {tmp_path}: {advice} or give another --output"


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("/dev/full", "free some space there"),
        ("/dev/null/a.tfrecord", "check the path and its permissions"),
    ],
)
def test_advice_on_shards_that_cannot_be_written(source, tmp_path, path, advice):
    image = labels.LabeledImage(str(source / "images/00-00.jpg"), "00-00.jpg", "1")
    values = config.new_flags()
    values(["x", "--exif_boxes=stored", "--gray_range=0,65535"])
    rules = config.read_config(values, [])
    task = shard_writer.ShardTask(path, [pickle.dumps(image)], {}, rules)
    message = f"^cannot write to {path}: .*; {advice} or give another"
    with pytest.raises(OSError, match=message), output.open_folder(tmp_path, ()):
        shard_writer.write_shard(task, lambda: None)
