"""The packages, of which one has its files in configs/; the metadata is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["ssd_tf*", "data_tools*"]), "ssd_tf.configs"],
    package_dir={"ssd_tf.configs": "configs"},
)
