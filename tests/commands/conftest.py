import functools
import pathlib
import shutil

import pytest

from ssd_tf.inference import loading


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


@pytest.fixture(scope="module")
def loaded_once():
    """`ssd evaluate` and `ssd export` load, and trace, a model once for the same arguments."""

    def reusing(load):
        load_once = functools.cache(load)

        def call(model, *arguments, **more):
            if (pathlib.Path(model) / "thresholds.json").exists():  # they may change
                return load(model, *arguments, **more)
            hashable = [tuple(each) if isinstance(each, list) else each for each in arguments]
            return load_once(model, *hashable, **more)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssd_tf.evaluation.evaluate.load_detector", reusing(loading.load_detector))
        patch.setattr("ssd_tf.exporting.export.load_run", reusing(loading.load_run))
        yield


@pytest.fixture
def quick_report(monkeypatch):
    """A report that takes no second to make; test_report.py has real ones."""

    def render(_analysis, metrics, *_rest, **_more):
        return f"<p>{metrics['coco']}</p>"

    monkeypatch.setattr("ssd_tf.evaluation.report.report.render_report", render)


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
