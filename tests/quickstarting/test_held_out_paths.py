import hashlib
import json

from ssd_tf.quickstarting import steps

CONTENTS = {"a/1.jpg": b"1", "b/1.jpg": b"2", "b/ü\t.jpg": b"3", "c.jpg": b"4", "d/c.jpg": b"4"}


def write(tmp_path, listed):
    images = tmp_path / "images"
    lines = []
    for name, content in CONTENTS.items():
        path = images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for name in listed:
        digest = hashlib.sha256(CONTENTS[name]).hexdigest()[:16]
        lines.append(f"{digest}\t{json.dumps(name, ensure_ascii=False)[1:-1]}\n")
    (tmp_path / "test-images.tsv").write_text("".join(lines))
    return images


def test_an_empty_split(tmp_path):
    assert steps.find_images(write(tmp_path, []), tmp_path, "test", 5) == []


def test_images_are_found_by_name_and_content(tmp_path):
    images = write(tmp_path, ["b/ü\t.jpg", "b/1.jpg", "a/1.jpg", "c.jpg"])
    found = steps.find_images(images, tmp_path, "test", 9)
    assert [path.read_bytes() for path in found] == [b"3", b"2", b"1", b"4"]
    assert found == steps.find_images(images, tmp_path, "test", 4)
    assert found[:2] == steps.find_images(images, tmp_path, "test", 2)


def test_an_image_that_has_changed_is_left_out(tmp_path):
    images = write(tmp_path, ["a/1.jpg", "c.jpg"])
    (images / "a" / "1.jpg").write_bytes(b"other")
    assert steps.find_images(images, tmp_path, "test", 9) == [images / "c.jpg"]
