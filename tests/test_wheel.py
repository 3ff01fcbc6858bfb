"""The wheel holds configs, templates and types. Building it needs a package index."""

import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LOAD = """
import ssd_tf
from ssd_tf.config import load_config
print(ssd_tf.__file__)
print(load_config("configs/finetune_imagenet.yaml").model.backbone.name)
print(load_config("ssd640_mobilenet_v2_fpnlite_coco").model.input_hw)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built of a copy: setuptools leaves a folder build/ behind."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("ssd_tf", "data_tools", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*build, "--wheel-dir", folder, source], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.integration
def test_the_wheel_has_every_file_that_is_read_at_run_time(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    configs = {f"ssd_tf/configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")}
    assert len(configs) > 10
    others = {
        path.relative_to(ROOT).as_posix()
        for package in ("ssd_tf", "data_tools")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert configs | others <= names


@pytest.mark.integration
def test_configs_of_an_installed_package_load_anywhere(wheel, tmp_path):
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOAD],
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    where, backbone, input_hw = done.stdout.splitlines()
    assert pathlib.Path(where).is_relative_to(installed)
    assert (backbone, input_hw) == ("mobilenet_v2", "(640, 640)")
