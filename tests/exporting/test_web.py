"""The folder of `--formats web`, without a browser."""

import json

import pytest

from ssd_tf.draw import color_of
from ssd_tf.exporting import web


class NoConverter:
    """Writes no model."""

    def __init__(self, names):
        self.names = names

    def export(self, path, _form):
        path.touch()


NAMES = ["</script>", "\u4eba,\u7269", 'a "b"', "__proto__", *"efghijkl"]


@pytest.mark.parametrize("names", [["red"], NAMES])
def test_the_page_has_the_colours_in_which_classes_are_drawn(tmp_path, names):
    web.export_page(tmp_path / "web", NoConverter(names))
    page = (tmp_path / "web" / "index.html").read_text(encoding="utf-8")
    (line,) = [line for line in page.split("\n") if line.startswith("const COLORS = ")]
    content = line.removeprefix("const COLORS = new Map(").removesuffix(");")
    assert json.loads(content) == [
        [name, color_of(label)] for label, name in enumerate(names, start=1)
    ]
    assert page.count("</script>") == 1
    assert page.endswith("</html>\n")


@pytest.mark.parametrize(("flags", "score"), [({}, 0.5), ({"score": 0.68}, 0.68)])
def test_the_page_has_the_threshold(tmp_path, flags, score):
    web.export_page(tmp_path / "web", NoConverter(["red"]), **flags)
    page = (tmp_path / "web" / "index.html").read_text(encoding="utf-8")
    (line,) = [line for line in page.split("\n") if line.startswith("const SCORE = ")]
    assert json.loads(line.removeprefix("const SCORE = ").removesuffix(";")) == score
