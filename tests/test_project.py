"""The files around the code agree: versions, supported Pythons, hooks, pages of the website."""

import pathlib
import re
import tomllib

import yaml

import ssd_tf

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read_yaml(name):
    return yaml.safe_load((ROOT / name).read_text())


def test_citation_and_changelog_have_the_version_of_the_package():
    assert read_yaml("CITATION.cff")["version"] == ssd_tf.__version__
    newest = re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest[1] == ssd_tf.__version__


def test_the_workflow_runs_on_every_supported_python():
    matrix = read_yaml(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]
    prefix = "Programming Language :: Python :: "
    classifiers = [line for line in PROJECT["classifiers"] if line.startswith(prefix)]
    assert [prefix + version for version in matrix["python"]] == classifiers
    assert PROJECT["requires-python"] == ">=3.11,<3.14"


def test_hooks_have_the_versions_of_the_constraints():
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    hooks = read_yaml(".pre-commit-config.yaml")["repos"][0]["hooks"]
    linters = {
        package
        for hook in hooks
        for package in hook["additional_dependencies"]
        if not package.startswith("pre_commit_hooks")
    }
    assert len(linters) >= 2
    assert linters <= set(constraints)


def test_every_page_of_the_website_exists():
    other_pages = re.findall(r'"(\w+\.md)",', (ROOT / "docs" / "website.py").read_text())
    sections = read_yaml("mkdocs.yml")["nav"]
    pages = set()
    for section in sections:
        for entries in section.values():
            pages |= {entries} if isinstance(entries, str) else {*map(only_value, entries)}
    written = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert len(other_pages) >= 4
    assert pages == written | set(other_pages)


def only_value(mapping):
    (value,) = mapping.values()
    return value


def test_the_api_reference_names_what_exists():
    names = re.findall(r"^::: (\S+)\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert len(names) >= 5
    for module, name in names:
        path = ROOT / module.replace(".", "/")
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        assert re.search(rf"\b{name}\b", source.read_text()), f"{module}.{name}"


def test_the_stub_types_the_public_names():
    stub = (ROOT / "ssd_tf" / "__init__.pyi").read_text()
    imports = re.findall(r"^from (\S+) import (\w+) as \2$", stub, re.MULTILINE)
    assert {name: module for module, name in imports} == ssd_tf._MODULE_OF


def test_the_api_reference_lists_the_public_names():
    text = (ROOT / "docs" / "api.md").read_text()
    assert [name for name in ssd_tf.__all__ if f"`{name}`" not in text] == []
