"""Metadata and extras. pyproject.toml configures the tools, constraints.txt has exact versions."""

import pathlib

from setuptools import find_packages, setup

commands = {
    "ssd-train": "ssd_tf.commands.train:main",
    "ssd-evaluate": "ssd_tf.commands.evaluate:main",
    "ssd-detect": "ssd_tf.commands.detect:main",
    "ssd-export": "ssd_tf.commands.export:main",
    "ssd-coco-to-tfrecord": "data_tools.coco_to_tfrecord:main",
    "ssd-voc-to-tfrecord": "data_tools.voc_to_tfrecord:main",
    "ssd-yolo-to-tfrecord": "data_tools.yolo_to_tfrecord:main",
    "ssd-csv-to-tfrecord": "data_tools.csv_to_tfrecord:main",
    "ssd-import-weights": "ssd_tf.commands.import_weights:main",
    "ssd-show-input": "ssd_tf.commands.show_input:main",
    "ssd-summary": "ssd_tf.commands.summary:main",
    "ssd-shapes": "data_tools.shapes:main",
    "ssd-inspect-tfrecord": "data_tools.inspect_tfrecord:main",
    "ssd-fit-anchors": "data_tools.fit_anchors:main",
}

setup(
    name="ssd-tf",
    version="0.1.0",
    description="SSD (Single Shot MultiBox Detector) in TensorFlow and Keras",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["ssd_tf", "ssd_tf.*", "data_tools", "data_tools.*"]),
    package_data={
        "ssd_tf.evaluation.report": ["templates/*.html"],
        "ssd_tf.export": ["page/*.html"],
    },
    python_requires=">=3.11,<3.14",
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "keras>=3.15,<3.16",
        "numpy>=2",
        "absl-py",
        "ai-edge-litert>=2.3",
        "flatbuffers",
        "hotcoco>=1.3,<2",
        "jinja2",
        "matplotlib",
        "pillow",
        "pycocotools>=2.0.11",
        "pydantic>=2",
        "pyyaml",
        "rich>=14.1",
        "safetensors>=0.8",
        "tensorboard>=2.21",
    ],
    extras_require={
        "dev": [
            "codespell",
            "import-linter>=2.17",
            "ipykernel",
            "nbclient",
            "opencv-python-headless",
            "pre-commit",
            "pytest",
            "pytest-xdist",
            "ruff",
        ],
        "browser": ["playwright"],
        "video": ["opencv-python-headless>=4.12"],
        "beam": ["apache-beam>=2.77"],
    },
    entry_points={"console_scripts": [f"{name} = {target}" for name, target in commands.items()]},
)
