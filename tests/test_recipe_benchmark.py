"""benchmarks/recipe.py, with commands that train nothing."""

import importlib.util
import itertools
import json
import pathlib
import shutil
import struct

import pytest

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = str(ROOT / "configs" / "finetune_imagenet.yaml")
COCO = {"AP": 0.25, "AP50": 0.5, "AP75": 0.125, "APs": -1.0, "APm": 0.25, "APl": 0.375}
HEADER = (
    "recipe,data,start,seed,images,split,config,steps,parameters,minutes,ms_per_step,"
    "AP,AP50,AP75,APs,APm,APl"
)


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("recipe", ROOT / "benchmarks" / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def frame(content):
    """A record of a TFRecord file, with wrong checksums, which nobody reads here."""
    return struct.pack("<Q", len(content)) + b"head" + content + b"tail"


@pytest.fixture
def data(tmp_path):
    """A data set of the records a to e, and one of the split val."""
    folder = tmp_path / "cells"
    folder.mkdir()
    (folder / "train-0").write_bytes(frame(b"a") + frame(b"bb"))
    (folder / "train-1").write_bytes(frame(b"ccc") + frame(b"") + frame(b"e"))
    (folder / "val-0").write_bytes(frame(b"v"))
    splits = {
        "train": {"images": 5, "boxes": 9, "shards": ["train-0", "train-1"]},
        "val": {"images": 1, "boxes": 2, "shards": ["val-0"]},
    }
    content = {"version": 1, "classes": [{"name": "cell", "id": 1}], "splits": splits}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def commands(recipe, monkeypatch):
    """The arguments of the commands that would have run; `evaluate` writes its metrics."""
    called = []

    def call(_workdir, *arguments):
        called.append([str(argument) for argument in arguments])
        if arguments[0] == "evaluate":
            output = pathlib.Path(arguments[-1])
            output.mkdir(parents=True, exist_ok=True)
            (output / "metrics.json").write_text(json.dumps({"coco": COCO}))

    monkeypatch.setattr(recipe, "call", call)
    monkeypatch.setattr(recipe, "count_parameters", lambda _config, _names: 123)
    return called


@pytest.fixture
def arguments(tmp_path, data):
    """Two recipes, one data set, two seeds."""
    return [
        *("--recipe", "now", CONFIG),
        *("--recipe", "new", CONFIG, "boxes.assigner=atss", "train.steps=400"),
        *("--data", f"cells={data}", "--seeds", "0", "1", "--steps", "300"),
        *("--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "out.csv")),
    ]


def lines(tmp_path):
    return (tmp_path / "out.csv").read_text().splitlines()


def sets(command):
    return [word for before, word in itertools.pairwise(command) if before == "--set"]


def test_a_row_per_run(recipe, commands, arguments, tmp_path):
    recipe.main(arguments)
    header, *rows = lines(tmp_path)
    assert header == HEADER
    cells = [row.split(",") for row in rows]
    assert [row[:6] + row[7:10] for row in cells] == [
        ["now", "cells", "config", "0", "5", "val", "300", "123", "0.0"],
        ["new", "cells", "config", "0", "5", "val", "400", "123", "0.0"],
        ["now", "cells", "config", "1", "5", "val", "300", "123", "0.0"],
        ["new", "cells", "config", "1", "5", "val", "400", "123", "0.0"],
    ]
    assert {tuple(row[11:]) for row in cells} == {("0.25", "0.5", "0.125", "-1.0", "0.25", "0.375")}
    # The settings of a recipe have one hash, whatever the seed.
    assert cells[0][6] == cells[2][6] != cells[1][6] == cells[3][6]
    assert [command[0] for command in commands] == ["train", "evaluate"] * 4
    assert sets(commands[2]) == [
        "train.steps=300",
        "boxes.assigner=atss",
        "train.steps=400",
        "train.seed=0",
        "watch.images=0",
        "data.val_split=none",
    ]


def test_finished_runs_are_not_repeated(recipe, commands, arguments, tmp_path):
    recipe.main(arguments)
    whole = lines(tmp_path)
    (tmp_path / "out.csv").write_text("\n".join(whole[:3]) + "\n")
    del commands[:4]
    repeated = commands.copy()
    commands.clear()
    recipe.main(arguments)
    assert commands == repeated
    assert lines(tmp_path) == whole


def test_other_settings_under_one_name(recipe, commands, arguments, tmp_path):
    recipe.main(arguments)
    before = lines(tmp_path)
    commands.clear()
    with pytest.raises(SystemExit, match=r"now-cells-config-5-0\b"):
        recipe.main([*arguments, "--set", "train.learning_rate=0.02"])
    assert commands == []
    assert lines(tmp_path) == before


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize(
    "words",
    [
        ("--recipe", "now", CONFIG, "train.steps=600"),
        ("--data", "cells=a", "cells=b"),
        ("--start", "s=imagenet", "s=runs/a"),
    ],
)
def test_names_differ(recipe, arguments, tmp_path, words):
    with pytest.raises(SystemExit, match=r"^2$"):
        recipe.main([*arguments, *words])
    assert not (tmp_path / "out.csv").exists()


def test_other_settings_have_other_folders(recipe, commands, arguments, tmp_path):
    """The second output begins anew, instead of going on with the runs of the first one."""
    recipe.main(arguments)
    recipe.main([*arguments, "--output", str(tmp_path / "longer.csv"), "--steps", "350"])
    folders = [command[6] for command in commands if command[0] == "train"]
    # `new` sets its steps itself, so it is the same run both times.
    assert len(folders) == 8
    assert len(set(folders)) == 6


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize("num_bytes", [0, 1, 40, len(HEADER)])
def test_a_line_that_is_not_complete_is_written_again(recipe, arguments, tmp_path, num_bytes):
    recipe.main(arguments)
    whole = (tmp_path / "out.csv").read_bytes()
    (tmp_path / "out.csv").write_bytes(whole[:num_bytes])
    recipe.main(arguments)
    assert (tmp_path / "out.csv").read_bytes() == whole
    for cut in (1, 2, 8, 25):
        (tmp_path / "out.csv").write_bytes(whole[:-cut])
        recipe.main(arguments)
        assert (tmp_path / "out.csv").read_bytes() == whole


def test_a_row_of_before_the_column_config(recipe, commands, arguments, tmp_path):
    recipe.main(arguments)
    commands.clear()
    rows = [
        ",".join(["" if n == 6 else c for n, c in enumerate(row.split(","))])
        for row in lines(tmp_path)[1:]
    ]
    (tmp_path / "out.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    recipe.main(arguments)
    assert commands == []


@pytest.mark.usefixtures("commands")
def test_the_table_has_the_rows_of_the_split(recipe, arguments, tmp_path, capsys):
    recipe.main(arguments)
    shown = capsys.readouterr().out.splitlines()[-2:]
    other = lines(tmp_path)[1].replace(",val,", ",test,").replace("0.25,0.5", "0.75,0.5")
    with (tmp_path / "out.csv").open("a") as file:
        file.write(other + "\n")
    recipe.main(arguments)
    assert capsys.readouterr().out.splitlines()[-2:] == shown


def test_the_same_run_twice_is_one(recipe, commands, arguments):
    recipe.main(
        [*arguments[:2], CONFIG, *arguments[8:], "--images", "5", "all", "--seeds", "0", "0"]
    )
    assert [command[0] for command in commands] == ["train", "evaluate"]


@pytest.mark.usefixtures("commands")
def test_the_others_go_on_after_a_failure(recipe, arguments, tmp_path, monkeypatch, capsys):
    working = recipe.call

    def call(workdir, *words):
        if workdir.name.startswith("new-cells-config-5-0-"):
            raise recipe.RunError("no memory")
        working(workdir, *words)

    monkeypatch.setattr(recipe, "call", call)
    with pytest.raises(SystemExit, match=r"\b1\b"):
        recipe.main(arguments)
    assert "new-cells-config-5-0: no memory" in capsys.readouterr().err
    assert [row.split(",")[0] for row in lines(tmp_path)] == ["recipe", "now", "now", "new"]


def test_starts_subsets_and_validation(recipe, commands, data, tmp_path):
    recipe.main(
        [
            *("--recipe", "r", CONFIG, "--data", f"cells={data}", "--start", "i=imagenet"),
            *("--images", "2", "4", "all", "--seeds", "3", "--best", "--split", "val"),
            *("--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "out.csv")),
        ]
    )
    assert [row.split(",")[2:5] for row in lines(tmp_path)[1:]] == [
        ["i", "3", "2"],
        ["i", "3", "4"],
        ["i", "3", "5"],
    ]
    folders = [command[4] for command in commands if command[0] == "train"]
    assert folders[2] == str(data)
    assert sets(commands[0]) == ["train.seed=3", "watch.images=0", "init_from=imagenet"]
    contents = [json.loads(pathlib.Path(each, "dataset.json").read_text()) for each in folders]
    assert [content["splits"]["train"]["images"] for content in contents] == [2, 4, 5]
    assert contents[0]["splits"]["val"]["shards"] == [str(data / "val-0")]
    small, large = (list(recipe.read_records(f"{each}/train.tfrecord")) for each in folders[:2])
    assert large[:2] == small
    assert len(set(large)) == 4
    assert set(large) < {frame(each) for each in (b"a", b"bb", b"ccc", b"", b"e")}


def test_a_subset_belongs_to_its_data(recipe, data, tmp_path):
    first = recipe.write_subset(data, 2, 0, tmp_path / "subsets")
    before = (first / "train.tfrecord").stat().st_mtime_ns
    assert recipe.write_subset(data, 2, 0, tmp_path / "subsets") == first
    assert (first / "train.tfrecord").stat().st_mtime_ns == before
    assert recipe.write_subset(data, 2, 1, tmp_path / "subsets") != first  # another seed
    copy = shutil.copytree(data, tmp_path / "copy")
    assert recipe.write_subset(copy, 2, 0, tmp_path / "subsets") != first

    content = json.loads((data / "dataset.json").read_text())
    content["splits"]["test"] = {"images": 0, "boxes": 0, "shards": []}
    (data / "dataset.json").write_text(json.dumps(content))
    second = recipe.write_subset(data, 2, 0, tmp_path / "subsets")
    assert second != first
    written = json.loads((second / "dataset.json").read_text())
    assert list(written["splits"]) == ["train", "val"]  # a split without images is left out


def test_the_log_has_all_commands(recipe, tmp_path):
    workdir = tmp_path / "runs" / "now"
    for word in ("first", "second"):
        with pytest.raises(recipe.RunError, match=word):
            recipe.call(workdir, word)
    log = (tmp_path / "runs" / "now.log").read_text()
    assert "first" in log
    assert "second" in log


def test_more_images_than_there_are(recipe, commands, arguments):
    with pytest.raises(SystemExit, match=r"\b5\b.*\b6\b"):
        recipe.main([*arguments, "--images", "6"])
    assert commands == []


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "my notes", "\nrecipe,data\n"])
def test_another_file_is_kept(recipe, commands, arguments, tmp_path, text):
    (tmp_path / "out.csv").write_text(text)
    with pytest.raises(SystemExit, match=r"out\.csv"):
        recipe.main(arguments)
    assert (tmp_path / "out.csv").read_text() == text
    assert commands == []


@pytest.mark.usefixtures("commands")
def test_a_cut_within_a_character(recipe, arguments, tmp_path):
    arguments[arguments.index("new")] = "n\u00e9w"
    recipe.main(arguments)
    whole = (tmp_path / "out.csv").read_bytes()
    (tmp_path / "out.csv").write_bytes(whole[: whole.rindex(b"\xa9")])
    recipe.main(arguments)
    assert (tmp_path / "out.csv").read_bytes() == whole


@pytest.mark.usefixtures("commands")
def test_nothing_to_draw(recipe, arguments, tmp_path, monkeypatch):
    monkeypatch.setitem(COCO, "AP", -1.0)
    recipe.main([*arguments, "--figure", str(tmp_path / "figure.png")])
    assert not (tmp_path / "figure.png").exists()


def row(name, data, seed, ap, images=5):
    return dict(recipe=name, data=data, start="s", seed=str(seed), images=str(images), AP=str(ap))


def test_table(recipe):
    rows = [
        *(row("now", "a", seed, ap) for seed, ap in enumerate((0.1, 0.2, 0.3))),
        *(row("now", "b", seed, ap) for seed, ap in enumerate((0.5, 0.6, 0.7))),
        *(row("new", "a", seed, ap) for seed, ap in enumerate((0.3, 0.2, 0.4))),
        row("new", "b", 0, 0.7),
    ]
    # Of .1, .2, .3 the standard deviation is .1, and .1 * 4.303 / sqrt(3) = .248; of .3, .2, .4,
    # too. Both data sets have seed 0 of `new` only: (.3 + .7) / 2 - (.1 + .5) / 2 = .2.
    assert recipe.make_table(rows).splitlines() == [
        "| recipe | start | a, 5 images | b, 5 images | mean | difference |",
        "| -- | -- | -- | -- | -- | -- |",
        "| now | s | .200 ± .248 | .600 ± .248 | .400 ± .248 |  |",
        "| new | s | .300 ± .248 | .700 | .500 | .200 |",
    ]


def test_nothing_to_measure_is_not_averaged(recipe):
    rows = [row("now", "a", seed, ap) for seed, ap in enumerate((-1.0, 0.5, 0.0))]
    assert recipe.group_rows(rows) == {("now", "s"): {("a", 5): {1: 0.5, 2: 0.0}}}


def test_interval(recipe):
    # Mean .2; standard deviation sqrt((4 * .04 + .64) / 4) = .4472, times 2.776 / sqrt(5).
    assert recipe.interval([0, 0, 0, 0, 1]) == pytest.approx((0.2, 0.5552), abs=1e-4)
    # Twelve values with the quantile of ten: .5222 * 2.262 / sqrt(12).
    assert recipe.interval([0, 1] * 6) == pytest.approx((0.5, 0.3410), abs=1e-4)


@pytest.mark.parametrize("counts", [(5,), (5, 2)])
def test_figure(recipe, tmp_path, counts):
    rows = [row("now", data, 0, 0.5, count) for data in "ab" for count in counts]
    recipe.draw_figure(rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_times_of_an_interrupted_run(recipe, tmp_path):
    import tensorflow as tf

    assert recipe.read_times(tmp_path, 8) == (0.0, "")
    (tmp_path / "events.out.tfevents.0").touch()  # of a process that was stopped at once
    speeds = {"a": [(100.0, None), (130.0, 40.0), (190.0, 80.0)], "b": [(500.0, None), (530.0, 20)]}
    for name, events in speeds.items():
        with tf.io.TFRecordWriter(str(tmp_path / f"events.out.tfevents.{name}")) as writer:
            for time, speed in events:
                event = tf.compat.v1.Event(wall_time=time)
                if speed is not None:
                    event.summary.value.add(tag="train/images_per_second", simple_value=speed)
                writer.write(event.SerializeToString())
    # 90 and 30 seconds; 8 images at the median of 40 images per second.
    assert recipe.read_times(tmp_path, 8) == (2.0, 200.0)
