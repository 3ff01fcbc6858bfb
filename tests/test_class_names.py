import pytest

from ssd_tf import class_names

GOOD = ["cat", "traffic light", "background", "???", "人,物", "US$ {1$}", "0", "a" * 300]
GOOD += ["\u0645\u06cc\u200c\u062e", "👩\u200d🚒", "na\u00efve", "# no comment"]
BAD = ["", " cat", "cat ", "cat\n", "x\ny", "a\rb", "a\tb", "a\u2028b", "a\u0085b", "a\x0bb"]
BAD += ["a\x0cb", "a\x1cb", "a\x00b", "\ufeffcat", "a\u200bb", "nai\u0308ve", "cat\u00a0big"]
BAD += [True, 7, None, "\ud800"]


@pytest.mark.parametrize("name", GOOD)
def test_good_names_stay_as_they_are(name):
    assert class_names.find_fault(name) == ""
    assert class_names.normalize(name) == name


@pytest.mark.parametrize("name", BAD)
def test_faults(name):
    assert class_names.find_fault(name)
    with pytest.raises(ValueError, match=r"labels\.txt"):
        class_names.check_names(["dog", name], "labels.txt")


def test_normalize():
    assert class_names.normalize("  cat\n") == "cat"
    assert class_names.normalize("nai\u0308ve") == "na\u00efve"
    assert class_names.normalize("cat\u00a0big\u3000") == "cat big"
    assert class_names.normalize("x\ny") == "x\ny"


def test_no_two_names_are_equal():
    class_names.check_names([], "x")
    class_names.check_names(["a", "A", "b"], "x")
    with pytest.raises(ValueError, match="'a'"):
        class_names.check_names(["a", "b", "a"], "x")
