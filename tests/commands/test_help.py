"""--help of every command, without TensorFlow; the scripts of the root folder."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
HELP = """
import importlib, sys
for name in sys.argv[1:]:
    code = importlib.import_module(name).main([name, "--help"])
    print(name, "ended with", code)
print("imported:", [name for name in ("tensorflow", "keras") if name in sys.modules])
"""


def commands():
    """The modules that have a `main`."""
    paths = sorted(
        [*(ROOT / "ssd_tf" / "commands").glob("*.py"), *(ROOT / "data_tools").glob("*.py")]
    )
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths if has_main(path)
    ]


def has_main(path):
    tree = ast.parse(path.read_text())
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)


def test_help_of_every_command_without_tensorflow():
    names = commands()
    assert {
        "ssd_tf.commands.train",
        "ssd_tf.commands.demo",
        "data_tools.coco_to_tfrecord",
        "data_tools.shapes",
    } <= set(names)
    done = subprocess.run(
        [sys.executable, "-c", HELP, *names], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    for name in names:
        assert f"{name} ended with 0\n" in done.stdout
    assert done.stdout.count("flags:\n") == len(names)
    assert done.stdout.endswith("imported: []\n")
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["train", "evaluate", "detect", "export"])
def test_help_of_the_scripts_in_the_root_folder(name):
    done = subprocess.run(
        [sys.executable, f"{name}.py", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(rf"{name}(\.py)? --", done.stdout)
