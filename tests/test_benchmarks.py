"""The benchmarks, which no test runs, use names of the package that exist."""

import ast
import importlib
import pathlib

import pytest

BENCHMARKS = sorted((pathlib.Path(__file__).parents[1] / "benchmarks").glob("*.py"))
PACKAGES = ("ssd_tf", "data_tools")


def resolve(module, name):
    """The attribute or submodule of that name."""
    found = importlib.import_module(module)
    return getattr(found, name, None) or importlib.import_module(f"{module}.{name}")


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_names_exist(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {
        alias.asname or alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names
    }
    imported = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in PACKAGES:
            for alias in node.names:
                imported[alias.asname or alias.name] = resolve(node.module, alias.name)
    modules = {name: found for name, found in imported.items() if type(found) is type(ast)}
    used = [
        (node.value.id, node.attr)
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    missing = [
        f"{name}.{attribute}"
        for name, attribute in used
        if name in modules and name not in plain and not hasattr(modules[name], attribute)
    ]
    assert missing == []
