"""Label files, drawn and real, corrupted at random: no traceback, no object lost uncounted."""

import csv
import io
import os
import random
import re
import xml.etree.ElementTree

import pytest

NUM_FILES = 500
NUM_FAST = 40
VALUES = (
    *(b"", b"nan", b"-inf", b"1e999", b"-1", b"0", b"1_0", b"0,5", b"1,024", b"x", b"\xd9\xa3"),
    *(b"99999999999999999999", b"true", b"None", b"[1]", b'"', b"'", b";", b"\t", b"\0"),
    *(b"<", b"&", b"&x;", b"]]>", b"<!--", b"\r", b"\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\x85"),
    *("人".encode("gbk"), "é".encode("latin-1"), "\u2028".encode(), b"../../x.jpg", b"%00"),
)
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7")


def flip_bytes(data, rng):
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def cut(data, rng):
    return data[: rng.randrange(len(data))]


def remove_part(data, rng):
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, 30) :]


def repeat_part(data, rng):
    start = rng.randrange(len(data))
    end = start + rng.randint(1, 60)
    return data[:end] + data[start:end] + data[end:]


def replace_field(data, rng):
    fields = list(re.finditer(rb"[^\s,;<>]+", data))
    chosen = rng.choice(fields)
    return data[: chosen.start()] + rng.choice(VALUES) + data[chosen.end() :]


def remove_field(data, rng):
    chosen = rng.choice(list(re.finditer(rb"[^\s,;<>]+[\s,]?", data)))
    return data[: chosen.start()] + data[chosen.end() :]


def insert(data, rng):
    place = rng.randrange(len(data))
    return data[:place] + rng.choice(VALUES) + data[place:]


def encode(data, rng):
    return data.decode(errors="replace").encode(rng.choice(ENCODINGS))


MUTATIONS = (
    flip_bytes,
    cut,
    remove_part,
    repeat_part,
    replace_field,
    remove_field,
    insert,
    encode,
)


def corrupt(data, rng):
    """The bytes after one to three mutations."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        changed = rng.choice(MUTATIONS)(data, rng)
        data = changed if re.search(rb"[^\s,;<>]", changed) else b"x"
    return data


def count_objects(entry):
    return (
        entry["boxes"]
        + entry["ignored"]
        + sum(entry["dropped_boxes"].values())
        + sum(entry["unlisted_classes"].values())
        + entry["boxes_of_dropped_images"]
    )


@pytest.fixture
def convert(run, tmp_path, read_dataset):
    """A function: command, flags -> its entry of report.json, or None if it exits with an error."""

    def convert(command, **flags):
        out = tmp_path / "out"
        code, error = run(command, output=out, workers=1, shards=1, **flags, **{"no-verify": True})
        assert code in (0, 1, 2)
        lines = error.splitlines()
        assert all(line.startswith(("error: ", "WARNING: ")) for line in lines), error
        assert "--traceback shows where" not in error
        if code:
            assert lines[-1].startswith("error: ")
            return None
        entry = read_dataset(out)[1]["splits"]["train"]
        assert entry["read"] == entry["images"] + sum(entry["dropped_images"].values())
        return entry

    return convert


def numbers_of_files(slow):
    marks = [pytest.mark.slow] if slow else []
    return pytest.param(NUM_FILES if slow else NUM_FAST, marks=marks)


both = pytest.mark.parametrize("num_files", [numbers_of_files(False), numbers_of_files(True)])


def decode(data):
    """The text that the readers promise to understand, or None."""
    try:
        is_wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        return data.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError:
        return None


def count_lines(text):
    return sum(bool(line.strip()) for line in re.split(r"\r\n|\r|\n", text))


@both
def test_yolo(signs, convert, tmp_path, num_files):
    rng = random.Random(0)
    num_converted = 0
    files = sorted(file for file in (signs / "train/labels").iterdir() if file.stat().st_size)
    for start in range(0, num_files, 10):
        folder = tmp_path / f"yolo{start}"
        for name in ("images", "labels"):
            (folder / name).mkdir(parents=True)
        names = re.search(r"^names:\n( .*\n)+", (signs / "data.yaml").read_text(), re.M)[0]
        (folder / "data.yaml").write_text(f"train: images\n{names}")
        num_objects = 0
        unreadable = 0
        for index, file in enumerate(rng.sample(files, 12)):
            (image,) = (signs / "train/images").glob(f"{file.stem}.*")
            (folder / "images" / image.name).symlink_to(image)
            data = file.read_bytes() if index < 2 else corrupt(file.read_bytes(), rng)
            (folder / "labels" / file.name).write_bytes(data)
            text = decode(data)
            unreadable += text is None
            num_objects += count_lines(text or "")
        entry = convert("yolo_to_tfrecord", yolo=folder)
        num_converted += bool(entry)
        if entry:
            assert count_objects(entry) == num_objects
            assert entry["dropped_images"].get("annotation cannot be read", 0) == unreadable
    assert num_converted > num_files / 20


@both
def test_voc(cells, convert, tmp_path, num_files):
    rng = random.Random(1)
    files = sorted((cells / "Annotations").iterdir())
    num_converted = 0
    for start in range(0, num_files, 10):
        folder = tmp_path / f"voc{start}"
        folder.mkdir()
        num_objects = 0
        num_odd = 0
        for index, file in enumerate(rng.sample(files, 12)):
            image = cells / "JPEGImages" / f"{file.stem}.jpg"
            (folder / image.name).symlink_to(image)
            data = file.read_bytes() if index < 2 else corrupt(file.read_bytes(), rng)
            (folder / file.name).write_bytes(data)
            try:
                root = xml.etree.ElementTree.fromstring(data)
                num_objects += len(list(root.iter("object"))) if root.tag == "annotation" else 0
            except (xml.etree.ElementTree.ParseError, ValueError, LookupError):
                num_odd += 1
        entry = convert("voc_to_tfrecord", voc=folder)
        num_converted += bool(entry)
        if entry:
            assert entry["read"] == 12
            assert count_objects(entry) >= num_objects
            if entry["dropped_images"].get("annotation cannot be read", 0) == num_odd:
                assert count_objects(entry) == num_objects
    assert num_converted > num_files / 20


def count_rows(text):
    """How many rows name an object or could not be told apart from one."""
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    sides = ("class", "xmin", "ymin", "xmax", "ymax")
    return sum(
        bool(row.get(None)) or any((row[side] or "").strip() or row[side] is None for side in sides)
        for row in rows
    )


@both
def test_csv(cells, convert, tmp_path, num_files):
    rng = random.Random(2)
    header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    rows = []
    for file in sorted((cells / "Annotations").iterdir())[:40]:
        for node in xml.etree.ElementTree.parse(file).iter("object"):
            sides = (node.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
            rows.append(",".join((f"{file.stem}.jpg,640,480", node.findtext("name"), *sides)))
    num_compared = 0
    for index in range(num_files):
        data = corrupt((header + "\n".join(rng.sample(rows, 12)) + "\n").encode(), rng)
        path = tmp_path / f"{index}.csv"
        path.write_bytes(data)
        entry = convert("csv_to_tfrecord", csv=path, images=cells / "JPEGImages")
        text = decode(data)
        if entry and text.startswith(header.strip()):
            assert count_objects(entry) == count_rows(text), os.fspath(path)
            num_compared += 1
    assert num_compared > num_files / 5
