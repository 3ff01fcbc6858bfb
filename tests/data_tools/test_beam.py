"""A conversion on Beam writes the same files as a local one."""

import hashlib
import pathlib
import subprocess
import sys

import pytest

from data_tools import shapes

pytestmark = pytest.mark.integration

pytest.importorskip("apache_beam", reason="apache-beam (the extra `beam`) is not installed")


def convert(source, output, *more):
    flags = [
        f"--images={source / 'images'}",
        f"--annotations={source / 'annotations.json'}",
        f"--output={output}",
        "--shards=3",
    ]
    command = [sys.executable, "-m", "data_tools.coco_to_tfrecord", *flags, *more]
    done = subprocess.run(
        command, cwd=pathlib.Path(__file__).parents[2], capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stderr.splitlines()[-1:]


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def test_direct_runner_gives_the_same_files(tmp_path, run):
    shapes.write_dataset(tmp_path, 30, seed=0)
    flags = {
        "images": tmp_path / "images",
        "annotations": tmp_path / "annotations.json",
        "output": tmp_path / "local",
    }
    assert run("coco_to_tfrecord", **flags, shards=3, workers=1) == (0, "")
    assert (
        convert(
            tmp_path, tmp_path / "beam", "--beam_runner=DirectRunner", "--", "--job_name=convert"
        )[0]
        == 0
    )
    assert digests(tmp_path / "beam") == digests(tmp_path / "local")


def test_no_such_runner(tmp_path):
    shapes.write_dataset(tmp_path, 2, seed=0)
    code, last = convert(tmp_path, tmp_path / "beam", "--beam_runner=NoRunner")
    assert code == 1 and last[0].startswith(
        "error: the Beam pipeline on NoRunner failed: Unexpected pipeline runner"
    )
    assert not (tmp_path / "beam").exists()
