"""The documentation names files, functions and pages that exist, and all packages."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def public_names(path):
    """Functions, classes and methods that a file defines."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configs_exist(page):
    names = re.findall(r"configs/(\w+\.yaml)", page.read_text())
    made_by_the_reader = {"NAME.yaml", "mine.yaml", "my_boxes.yaml"}
    assert [
        name for name in set(names) - made_by_the_reader if not (ROOT / "configs" / name).is_file()
    ] == []


def test_the_table_lists_every_package():
    listed = set(re.findall(r"^\| `((?:ssd_tf|data_tools)/[\w/]*)` \|", ARCHITECTURE, re.MULTILINE))
    packages = {
        f"{path.parent.relative_to(ROOT)}/"
        for package in ("ssd_tf", "data_tools")
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert listed == packages


def test_the_files_named_exist():
    pattern = r"`((?:ssd_tf|data_tools|tests|configs|docs|benchmarks)/[\w/.]*)`"
    named = set(re.findall(pattern, ARCHITECTURE)) - {"data_tools/NAME_to_tfrecord.py"}
    assert len(named) > 40
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_steps_name_functions_that_exist():
    steps = re.findall(r"`([\w/]+\.py)`: `(\w+)`", ARCHITECTURE)
    assert len(steps) > 15
    assert [step for step in steps if step[1] not in public_names(ROOT / step[0])] == []
