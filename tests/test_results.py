"""What a notebook and a terminal show of a Result."""

import dataclasses
import io
import pathlib

import pytest
from rich.console import Console

from ssd_tf.results import Result

METRICS = {"coco": {"AP": 0.5}, "images": 4}


def test_it_is_a_mapping_of_its_metrics():
    result = Result(None, METRICS)
    assert result["coco"]["AP"] == 0.5
    assert dict(result) == METRICS == result
    assert (len(result), "images" in result, result.get("none")) == (2, True, None)
    with pytest.raises(KeyError):
        result["none"]


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Result(None, {}).folder = "other"


def test_an_empty_one_is_shown():
    result = Result(None, {})
    assert result._repr_html_() and result._repr_markdown_() is not None
    assert "None" in repr(result)


def test_as_html_and_markdown():
    result = Result(
        pathlib.Path("runs/a"),
        {},
        {"report": pathlib.Path("runs/a b/report.html")},
        ("name", "AP"),
        (("x|<y>", "0.5"), ("z", "0.25")),
        {"a <1>.jpg": "data:image/jpeg;base64,AAAA"},
    )
    page = result._repr_html_()
    assert "<tr><th>name</th><th>AP</th></tr><tr><td>x|&lt;y&gt;</td><td>0.5</td></tr>" in page
    assert '<img src="data:image/jpeg;base64,AAAA"' in page
    assert "a &lt;1&gt;.jpg" in page and "<1>" not in page
    assert "runs/a b/report.html" in page
    lines = result._repr_markdown_().splitlines()
    assert lines[:4] == ["| name | AP |", "| -- | -- |", "| x\\|<y> | 0.5 |", "| z | 0.25 |"]
    assert "- report: `runs/a b/report.html`" in lines
    assert "![a <1>.jpg](data:image/jpeg;base64,AAAA)" in lines
    assert repr(result) == "<Result in runs/a: x|<y> 0.5; z 0.25>"


def test_as_a_table_of_a_terminal():
    result = Result(None, {}, {}, ("name", "AP"), (("x", "0.5"),))
    console = Console(file=io.StringIO(), width=60)
    console.print(result.as_table())
    text = console.file.getvalue()
    assert all(word in text for word in ("name", "AP", "x", "0.5"))
