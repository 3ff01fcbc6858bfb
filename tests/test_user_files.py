import pytest

from ssd_tf import user_files


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", ""),
        (b"\xef\xbb\xbf", ""),
        ("für\n".encode(), "für\n"),
        ("\ufeffcat\r\ndog".encode(), "cat\r\ndog"),
        ("\ufeff人\n".encode("utf-16-le"), "人\n"),
        ("\ufeff人\n".encode("utf-16-be"), "人\n"),
    ],
)
def test_text_of_every_encoding(tmp_path, content, text):
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    assert user_files.read_text(path) == text


@pytest.mark.parametrize("content", [b"f\xfcr", b"\xff\xfe\x00", b"\x80"])
def test_another_encoding_is_named_with_the_file(tmp_path, content):
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"labels\.txt"):
        user_files.read_text(path)


def test_lines_end_at_line_breaks_only():
    assert user_files.split_lines("") == []
    assert user_files.split_lines("\n") == [""]
    assert user_files.split_lines("a\r\nb\rc\n\nd") == ["a", "b", "c", "", "d"]
    name = "a\u2028b\x85c\x0bd\x0ce\x1cf"
    assert user_files.split_lines(f"{name}\nx\n") == [name, "x"]


def test_lines_are_stripped(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbf cat \r\n\tdog\xc2\xa0\n")
    assert user_files.read_lines(path) == ["cat", "dog"]
    with pytest.raises(user_files.FileTooLargeError):
        user_files.read_lines(path, limit=10)


def test_the_nearest_path_is_another_one(tmp_path):
    (tmp_path / "runs").mkdir()
    assert user_files.suggest_path(tmp_path / "runs") == ""
    assert user_files.suggest_path(tmp_path / "rums").endswith(f"{tmp_path / 'runs'}?")
    assert user_files.suggest_path(tmp_path / "zebra") == ""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_in_parts(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes("人\r\nb".encode(encoding))
    with user_files.open_text(path) as file:
        assert (file.read(1), file.read()) == ("人", "\nb")
    with user_files.open_text(path, newline="") as file:
        assert file.read() == "人\r\nb"


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("runs/mine", "mine"),
        ("photos-ssd/run", "photos-ssd"),
        ("photos-ssd/data/", "photos-ssd"),
        ("run/2", "2"),
        ("/run", "run"),
    ],
)
def test_the_name_to_show_is_one_that_the_user_gave(folder, name):
    assert user_files.show_name(folder) == name
