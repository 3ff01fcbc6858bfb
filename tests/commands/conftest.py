import shutil

import pytest


@pytest.fixture
def fails(capsys):
    """A function: run a command that must fail with `code` and one line on stderr; returns it."""

    def call(main, *argv, code):
        capsys.readouterr()
        assert main(["command", *map(str, argv)]) == code
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
        assert len(lines) == 1, err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in out + err
        return lines[0]

    return call


@pytest.fixture
def with_bad_record(tiny_data, tmp_path):
    """A function: copy the tiny data and overwrite one record of a split with a broken one."""

    def make(split, index=1):
        import tensorflow as tf

        folder = shutil.copytree(tiny_data, tmp_path / f"bad_{split}")
        (shard,) = map(str, folder.glob(f"{split}-*.tfrecord"))
        records = list(tf.data.TFRecordDataset(shard).as_numpy_iterator())
        records[index] = b"\xff"
        with tf.io.TFRecordWriter(shard) as writer:
            for record in records:
                writer.write(record)
        return folder

    return make
