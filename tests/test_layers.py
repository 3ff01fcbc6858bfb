"""Which file may import which, read from the source with `ast`; `import ssd_tf` stays light."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Lowest layer first. A file imports from its own package or from a lower layer only. When several
# entries match a module, the longest applies.
LAYERS = (
    (
        "ssd_tf.__version__",
        "ssd_tf.__main__",
        "ssd_tf.cli",
        "ssd_tf.config",
        "ssd_tf.config_effects",
        "ssd_tf.config_files",
        "ssd_tf.errors",
        "ssd_tf.commandline",
        "ssd_tf.draw",
        "ssd_tf.errors",
        "ssd_tf.files",
        "ssd_tf.pixels",
        "ssd_tf.user_files",
        "ssd_tf.parsing",
        "ssd_tf.class_names",
        "ssd_tf.coco_rows",
        "ssd_tf.output_folder",
        "ssd_tf.onednn",
        "ssd_tf.boxes",
        "ssd_tf.replicas",
    ),
    ("ssd_tf.data", "ssd_tf.models", "ssd_tf.training.losses"),
    ("ssd_tf.weights",),
    ("ssd_tf.inference",),
    ("ssd_tf.training", "ssd_tf.evaluation"),
    ("ssd_tf.exporting",),
    ("ssd_tf.commands",),
)
# Within the lowest layer, what each package may import besides itself.
LOWEST_IMPORTS = {
    "ssd_tf.errors": (),
    "ssd_tf.files": (),
    "ssd_tf.user_files": (),
    "ssd_tf.pixels": ("ssd_tf.user_files",),
    "ssd_tf.class_names": (),
    "ssd_tf.parsing": (),
    "ssd_tf.coco_rows": ("ssd_tf.class_names", "ssd_tf.parsing"),
    "ssd_tf.output_folder": (),
    "ssd_tf.draw": ("ssd_tf.pixels",),
    "ssd_tf.onednn": (),
    "ssd_tf.boxes": (),
    "ssd_tf.replicas": (),
    "ssd_tf.config_files": ("ssd_tf.errors", "ssd_tf.user_files"),
    "ssd_tf.config_effects": (),
    "ssd_tf.config": (
        "ssd_tf.config_effects",
        "ssd_tf.config_files",
        "ssd_tf.errors",
        "ssd_tf.files",
        "ssd_tf.user_files",
    ),
    "ssd_tf.cli": ("ssd_tf.__version__",),
    "ssd_tf.__main__": ("ssd_tf.cli",),
    "ssd_tf.commandline": ("ssd_tf.errors", "ssd_tf.onednn", "ssd_tf.pixels"),
}
# The mathematics receives numbers and arrays; see the config rule in ssd_tf/config.py.
MATHEMATICS = (
    "ssd_tf.boxes",
    "ssd_tf.training.losses",
    "ssd_tf.training.schedules",
    "ssd_tf.models.postprocess",
    "ssd_tf.data.crops",
    "ssd_tf.data.colors",
    "ssd_tf.data.images",
    "ssd_tf.data.records",
)
# What all of data_tools may import of ssd_tf, and what only the inspection tools may.
CONVERTER_IMPORTS = (
    "ssd_tf.boxes",
    "ssd_tf.commandline",
    "ssd_tf.files",
    "ssd_tf.pixels",
    "ssd_tf.user_files",
    "ssd_tf.parsing",
    "ssd_tf.class_names",
    "ssd_tf.coco_rows",
    "ssd_tf.data.dataset_json",
    "ssd_tf.data.images",
    "ssd_tf.data.records",
)
INSPECTION_IMPORTS = (
    *CONVERTER_IMPORTS,
    "ssd_tf.config",
    "ssd_tf.draw",
    "ssd_tf.models",
    "ssd_tf.data.bad_records",
)
INSPECTION_TOOLS = (
    "data_tools.inspect_tfrecord",
    "data_tools.fit_anchors",
    "data_tools.analysis",
)
ENTRY_SCRIPTS = ("train", "evaluate", "detect", "export")


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(path):
    """The full names that a file imports, inside functions too; `from a import b` gives `a.b`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def is_within(name, packages):
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def package_of(name):
    """The entry of LAYERS that a module, or a name imported from it, belongs to; None if none."""
    packages = [package for layer in LAYERS for package in layer if is_within(name, [package])]
    return max(packages, key=len, default=None)


def height_of(package):
    return next(height for height, layer in enumerate(LAYERS) if package in layer)


IMPORTS = {
    module_name(path): imported_names(path)
    for folder in ("ssd_tf", "data_tools")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
# (module, imported name, package of the module, package of the name), within ssd_tf.
EDGES = [
    (module, name, package_of(module), package_of(name))
    for module, names in IMPORTS.items()
    for name in sorted(names)
    if package_of(module) and is_within(name, ["ssd_tf"])
]


def forbidden(is_forbidden):
    """The edges for which is_forbidden(package of the module, package of the name) is true."""
    return [f"{module} imports {name}" for module, name, *pair in EDGES if is_forbidden(*pair)]


def reachable(names):
    """The modules of the project that importing `names` runs, also inside functions."""
    seen = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        # `from module import function` gives a name below a module.
        module = name if name in IMPORTS else name.rpartition(".")[0]
        if module in IMPORTS and module not in seen:
            seen.add(module)
            queue += IMPORTS[module]
    return seen


def test_every_module_has_a_layer():
    assert len(IMPORTS) > 40
    assert [m for m in IMPORTS if is_within(m, ["ssd_tf"]) and not package_of(m)] == ["ssd_tf"]
    assert len(EDGES) > 50
    assert [name for _, name, _, package in EDGES if package is None] == []


def test_imports_point_down():
    assert forbidden(lambda own, other: height_of(other) > height_of(own)) == []


def test_packages_of_one_layer_do_not_import_each_other():
    found = forbidden(lambda own, other: own != other and height_of(own) == height_of(other) > 0)
    assert found == []


def test_imports_within_the_lowest_layer():
    def is_forbidden(own, other):
        return own in LOWEST_IMPORTS and other != own and other not in LOWEST_IMPORTS[own]

    assert forbidden(is_forbidden) == []


def test_boxes_are_numbers_only():
    for module, names in IMPORTS.items():
        if is_within(module, ["ssd_tf.boxes"]):
            outside = ["keras", "absl", "pathlib", "yaml", "ssd_tf.config", "ssd_tf.files"]
            assert [name for name in names if is_within(name, outside)] == [], module
    default_boxes = IMPORTS["ssd_tf.boxes.default_boxes"]
    assert [name for name in default_boxes if is_within(name, ["tensorflow"])] == []


def test_the_mathematics_receives_no_config():
    checked = [module for module in IMPORTS if is_within(module, MATHEMATICS)]
    assert {package for package in MATHEMATICS if is_within(package, checked)} == set(MATHEMATICS)
    for module in checked:
        configs = ["ssd_tf.config", "ssd_tf.config_files", "ssd_tf.load_config"]
        assert [name for name in IMPORTS[module] if is_within(name, configs)] == [], module


def test_train_does_not_reach_the_exports():
    reached = reachable(imported_names(ROOT / "train.py"))
    assert {"ssd_tf.commands.train", "ssd_tf.training.trainer", "ssd_tf.boxes.coding"} <= reached
    assert [module for module in sorted(reached) if is_within(module, ["ssd_tf.exporting"])] == []


def test_nothing_in_ssd_tf_imports_data_tools():
    assert [
        module
        for module, names in IMPORTS.items()
        if is_within(module, ["ssd_tf"]) and any(is_within(name, ["data_tools"]) for name in names)
    ] == []


@pytest.mark.parametrize("module", [name for name in IMPORTS if is_within(name, ["data_tools"])])
def test_what_data_tools_import_of_ssd_tf(module):
    allowed = INSPECTION_IMPORTS if is_within(module, INSPECTION_TOOLS) else CONVERTER_IMPORTS
    ours = [name for name in sorted(IMPORTS[module]) if is_within(name, ["ssd_tf"])]
    assert [name for name in ours if not is_within(name, allowed)] == []


def test_commands_of_data_tools_are_imported_by_nothing():
    commands = [
        module_name(path)
        for path in (ROOT / "data_tools").glob("*.py")
        if path.name != "__init__.py"
    ]
    assert len(commands) >= 7
    importers = {
        **IMPORTS,
        **{script: imported_names(ROOT / f"{script}.py") for script in ENTRY_SCRIPTS},
    }
    assert [
        f"{module} imports {name}"
        for module, names in importers.items()
        for name in sorted(names)
        if is_within(name, commands)
    ] == []


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
