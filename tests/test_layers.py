"""Who may look into whom, read from the source with `ast`; and that `import ssd_tf` stays light."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Lowest floor first; a file imports only from its own room or a lower floor. A file may stand on a floor of its own.
FLOORS = (
    {"ssd_tf.config", "ssd_tf.draw", "ssd_tf.commandline", "ssd_tf.boxes"},
    {"ssd_tf.data", "ssd_tf.models", "ssd_tf.training.losses"},
    {"ssd_tf.weights"},
    {"ssd_tf.training", "ssd_tf.evaluation"},
    {"ssd_tf.export"},
    {"ssd_tf.commands"},
)
# Strangers on the same floor.
APART = (
    ("ssd_tf.data", "ssd_tf.models"),
    ("ssd_tf.training", "ssd_tf.evaluation"),
    ("ssd_tf.boxes", "ssd_tf.config"),
)
# commandline hands ConfigError's exit code out; boxes, config and draw are for themselves.
GROUND = {
    "ssd_tf.config": set(),
    "ssd_tf.draw": set(),
    "ssd_tf.boxes": set(),
    "ssd_tf.commandline": {"ssd_tf.config"},
}

DOORS = {
    "ssd_tf.boxes",
    "ssd_tf.data.records",
    "ssd_tf.data.dataset_json",
    "ssd_tf.commandline",
    "ssd_tf.draw",
}
MORE_DOORS = {
    "ssd_tf.config",
    "ssd_tf.models",
    "ssd_tf.data.bad_records",
}  # they read records, and name a damaged one
WITH_MORE_DOORS = {"data_tools.inspect_tfrecord", "data_tools.fit_anchors"}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Full names that a file imports, at its top or inside of functions; `from a import b` gives `a.b`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name, packages):
    return any(name == package or name.startswith(package + ".") for package in packages)


def room(name):
    """The package of FLOORS that a module or an imported name belongs to, the most particular one."""
    rooms = [package for floor in FLOORS for package in floor if within(name, [package])]
    return max(rooms, key=len, default=None)


def floor(room_name):
    return next(height for height, rooms in enumerate(FLOORS) if room_name in rooms)


FILES = {
    module_name(path): imports(path)
    for folder in ("ssd_tf", "data_tools")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
OURS = {
    (module, name): (room(module), room(name))
    for module, names in FILES.items()
    for name in names
    if room(module) and within(name, ["ssd_tf"])
}


def test_every_file_has_a_room():
    assert len(FILES) > 40
    assert [name for name in FILES if within(name, ["ssd_tf"]) and room(name) is None] == ["ssd_tf"]


def test_imports_go_down():
    assert len(OURS) > 50
    upwards = [
        f"{module} imports {name}"
        for (module, name), (own, other) in OURS.items()
        if floor(other) > floor(own)
    ]
    assert not upwards


def test_strangers_on_one_floor():
    pairs = {(a, b) for a, b in APART} | {(b, a) for a, b in APART}
    meetings = [
        f"{module} imports {name}"
        for (module, name), (own, other) in OURS.items()
        if (own, other) in pairs
    ]
    assert not meetings


def test_ground_floor():
    for (module, name), (own, other) in OURS.items():
        if own in GROUND:
            assert other == own or other in GROUND[own], f"{module} imports {name}"


def test_losses_know_nothing_of_the_trainer():
    assert not [
        name
        for name in FILES["ssd_tf.training.losses"]
        if within(name, ["ssd_tf.training", "ssd_tf.data", "ssd_tf.models"])
    ]


def test_boxes_are_numbers_only():
    for module, names in FILES.items():
        if within(module, ["ssd_tf.boxes"]):
            assert not [
                name
                for name in names
                if within(name, ["keras", "ssd_tf.config", "absl", "pathlib", "yaml"])
            ], module
    assert not [
        name for name in FILES["ssd_tf.boxes.default_boxes"] if within(name, ["tensorflow"])
    ]


@pytest.mark.parametrize("module", [name for name in FILES if within(name, ["data_tools"])])
def test_converters_use_their_doors_only(module):
    doors = DOORS | (MORE_DOORS if module in WITH_MORE_DOORS else set())
    assert not [
        name for name in FILES[module] if within(name, ["ssd_tf"]) and not within(name, doors)
    ]


def test_nothing_looks_into_the_converters():
    assert not [
        module
        for module, names in FILES.items()
        if room(module) and any(within(name, ["data_tools"]) for name in names)
    ]


def test_importing_the_package_does_not_import_tensorflow():
    code = (
        "import sys, ssd_tf, ssd_tf.config, ssd_tf.commandline, ssd_tf.draw, ssd_tf.boxes.default_boxes;"
        "ssd_tf.load_config; print([name for name in ('tensorflow', 'keras') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
