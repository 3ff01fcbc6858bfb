"""Numbers and flags as people write them."""

import pytest

from ssd_tf import parsing


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", 12),
        (" 1.5 ", 1.5),
        ("1e3", 1000),
        ("0,5", 0.5),
        (",5", 0.5),
        ("-31,25", -31.25),
        ("0,125", 0.125),
        (7, 7),
        ("1,024", None),  # or a thousand and 24
        ("1,5,2", None),
        ("1_0", None),
        ("", None),
        (None, None),
        (True, None),
        ([1], None),
        (10**400, None),
    ],
)
def test_numbers(text, number):
    found = parsing.to_number(text)
    assert found == number if number is not None else found != found


@pytest.mark.parametrize(
    ("value", "is_set"),
    [(v, True) for v in ("1", "true", "True", " yes ", "1.0", "Y", 1, 1.0, True, "2")]
    + [(v, False) for v in ("0", "", "false", "no", "0.0", 0, None, False, "maybe", [])],
)
def test_flags(value, is_set):
    assert parsing.to_flag(value) is is_set
