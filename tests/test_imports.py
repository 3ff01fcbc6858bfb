"""`import ssd_tf` stays light. Which file may import which is in pyproject.toml (lint-imports)."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def test_importing_the_package_does_not_import_tensorflow():
    modules = ["config", "commandline", "draw", "files", "pixels", "boxes.default_boxes"]
    code = (
        f"import sys, ssd_tf, {', '.join(f'ssd_tf.{name}' for name in modules)};"
        "ssd_tf.load_config;"
        "print([name for name in ('tensorflow', 'keras') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
