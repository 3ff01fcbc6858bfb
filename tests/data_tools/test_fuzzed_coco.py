"""COCO files with everything wrong: read, or rejected in one line, and every label counted."""

import json
import random

import pytest
from coco_reading import read_with_converter, read_with_evaluation

from data_tools import shapes
from ssd_tf.evaluation import coco_results
from ssd_tf.evaluation.coco_instances import make_truth

INTEGRATION = pytest.mark.integration
NUM_IMAGES = 12
ODD = [
    *(None, True, False, "", " ", "x", "1", "1.0", "0", -1, 0, 1.5, 1e308, -1e308, 5e-324),
    *(float("nan"), float("inf"), 2**63, -(2**63), 2**70, 10**400, "9" * 5000, "\ud800", "a\x00b"),
    *([], {}, [[]], [None], {"a": 1}, ["1", "2", "3", "4"], [1, 2], [1, 2, 3, 4, 5], [0, 0, 0, 0]),
    *("1,5", "1_0", "0x10", "\u0663", "\u00b2", "nan", "-inf", "background", [[1, 2, 3, 4, 5, 6]]),
]
ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "shift-jis"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The annotations of a generated data set, with outlines."""
    folder = tmp_path_factory.mktemp("drawn")
    shapes.write_dataset(folder, NUM_IMAGES, seed=0)
    content = json.loads((folder / "annotations.json").read_text())
    for row in content["annotations"]:
        x, y, width, height = row["bbox"]
        row["segmentation"] = [[x, y, x + width, y, x + width / 2, y + height]]
    return content


@pytest.fixture(scope="module", params=["drawn", pytest.param("real", marks=INTEGRATION)])
def content(request, drawn):
    """The first images of drawn data or of coco128, their annotations and all categories."""
    full = drawn
    if request.param == "real":
        folder = request.getfixturevalue("shared_data") / "coco128"
        full = json.loads((folder / "instances_train2017.json").read_text())
    images = full["images"][:NUM_IMAGES]
    ids = {row["id"] for row in images}
    rows = [row for row in full["annotations"] if row["image_id"] in ids]
    for row in rows:  # long ones would take all flips
        row["segmentation"] = row["segmentation"][:1] if row["id"] % 3 == 0 else []
    return {"images": images, "annotations": rows, "categories": full["categories"]}


def rows_of(rng, content):
    return rng.choice([rows for rows in content.values() if isinstance(rows, list) and rows])


def remove_fields(rng, content):
    for _ in range(rng.choice([1, 5, 50])):
        row = rng.choice(rows_of(rng, content))
        if row:
            del row[rng.choice(list(row))]


def change_types(rng, content):
    for _ in range(rng.choice([1, 5, 50])):
        row = rng.choice(rows_of(rng, content))
        if row:
            row[rng.choice(list(row))] = rng.choice(ODD)


def change_a_field_everywhere(rng, content):
    rows = rows_of(rng, content)
    key = rng.choice(list(rows[0]))
    change = rng.choice([str, lambda value: [value], lambda value: {"$oid": value}])
    for row in rows:
        row[key] = change(row.get(key))


def change_boxes(rng, content):
    for row in content["annotations"]:
        if rng.random() < 0.3:
            row["bbox"] = list(row["bbox"])
            row["bbox"][rng.randrange(4)] = rng.choice(ODD)


def change_rows(rng, content):
    rows = rows_of(rng, content)
    place = rng.randrange(len(rows))
    row = rows[place]
    rows[place : place + 1] = rng.choice([[], [row, row], [rng.choice(ODD)], [{}], [[row]]])


def change_lists(rng, content):
    key = rng.choice(list(content))
    content[key] = rng.choice([*ODD, dict(enumerate(content[key])), content[key] * 2])
    if rng.random() < 0.2:
        del content[key]


def leave(_rng, _content):
    pass


def flip_bytes(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice([1, 3, 30])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def flip_digits(rng, data):
    """Bytes that keep the file JSON."""
    data = bytearray(data)
    places = [place for place, byte in enumerate(data) if 48 <= byte <= 57]
    for place in rng.sample(places, 30):
        data[place] = rng.choice(b"0123456789" * 9 + b"eE.-")
    return bytes(data)


def cut(rng, data):
    return data[: rng.randrange(len(data))]


def encode(rng, data):
    text = data.decode().replace("person", "p\u00e9rson").replace("car", "\u8eca")
    return text.encode(rng.choice(ENCODINGS), "replace")


def keep(_rng, data):
    return data


CONTENT = [remove_fields, change_types, change_a_field_everywhere, change_boxes, change_rows]
CONTENT += [change_lists, leave]
BYTES = [flip_bytes, flip_digits, flip_digits, cut, encode, *[keep] * 9]


def spoil(rng, content, path):
    """Write a spoilt copy; returns the number of its annotations, None if it is no COCO file."""
    content = json.loads(json.dumps(content))
    rng.choice(CONTENT)(rng, content)
    path.write_bytes(rng.choice(BYTES)(rng, json.dumps(content).encode()))
    try:
        return len(json.loads(path.read_bytes())["annotations"])
    except (ValueError, TypeError, KeyError):
        return None


def attempt(read, path, *more):
    """What is read; the line of the error instead, which must name the file."""
    try:
        return read(path, *more)
    except (OSError, ValueError) as error:
        assert str(path) in str(error), error
        return f"{type(error).__name__}: {error}"


def check_annotations(content, path, caplog, seed):
    num_rows = spoil(random.Random(seed), content, path)
    reads = [
        attempt(read_with_converter, path),
        attempt(read_with_evaluation, path, caplog),
    ]
    for read in reads:
        if not isinstance(read, str):
            kept, num_left_out, _ = read
            assert len(kept) + num_left_out == num_rows, seed
    if not any(isinstance(read, str) for read in reads):
        assert reads[0] == reads[1], seed
    return [isinstance(read, str) for read in reads]


def check_results(rows, truth, path, caplog, seed):
    rng = random.Random(seed)
    content = {"rows": json.loads(json.dumps(rows))}
    rng.choice([*CONTENT[:3], change_rows, leave])(rng, content)
    path.write_bytes(rng.choice(BYTES)(rng, json.dumps(content["rows"]).encode()))
    caplog.clear()
    found = attempt(coco_results.read_results, path, truth)
    if isinstance(found, str):
        return True
    ignored = [int(text.split(": ")[1].split()[0]) for text in caplog.messages]
    assert len(found.scores) + sum(ignored) == len(json.loads(path.read_bytes())), seed
    return False


@pytest.fixture
def check(content, tmp_path, caplog):
    """A function: try the files of these seeds; returns how many of each reader were rejected."""
    path = tmp_path / "a.json"

    def call(seeds):
        truth = make_truth({**content, "annotations": []})
        rows = [{**row, "score": 0.5} for row in content["annotations"]]
        counts = [0, 0, 0]
        for seed in seeds:
            rejected = check_annotations(content, path, caplog, seed)
            rejected.append(check_results(rows, truth, path, caplog, seed))
            counts = [count + one for count, one in zip(counts, rejected, strict=True)]
        return counts

    return call


def test_fuzzed_files(check):
    counts = check(range(60))
    assert all(10 < count < 50 for count in counts), counts


@pytest.mark.slow
def test_more_fuzzed_files(check):
    counts = check(range(1000, 1500))
    assert all(80 < count < 420 for count in counts), counts
