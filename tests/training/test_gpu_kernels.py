"""No operation on default boxes leaves the GPU: TensorFlow's registry knows, without a GPU.

The registry has for each kernel its device, its types and which arguments lie in host memory.
"""

import functools
import pathlib

import pytest
import tensorflow as tf
from tensorflow.python.framework import function_def_to_graph, kernels

from ssd_tf.config import Loss, load_config
from ssd_tf.inference.detector import make_detect
from ssd_tf.training.state import attach_training, make_network
from ssd_tf.training.step import make_batch_loss, make_train_step

pytestmark = pytest.mark.integration

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
SMALL = ["model.input_hw=[64,96]", "init_from=null", "train.batch_size=4"]

# Calls and edges, which compute nothing.
NO_KERNELS = ("Placeholder", "While", "StatelessWhile", "If", "StatelessIf", "PartitionedCall")
NO_KERNELS += ("StatefulPartitionedCall",)


@functools.cache
def gpu_kernels(op_type):
    found = kernels.get_registered_kernels_for_op(op_type).kernel
    # DEFAULT is for every kind of device.
    return [kernel for kernel in found if kernel.device_type in ("GPU", "DEFAULT")]


def fits(kernel, op):
    attributes = op.node_def.attr
    return all(
        attributes[constraint.name].type in constraint.allowed_values.list.type
        for constraint in kernel.constraint
        if constraint.name in attributes
    )


def spread(arguments, tensors, attributes):
    """(argument's name, tensor) pairs; an argument may stand for a list of tensors."""
    names = []
    for argument in arguments:
        count = 1
        if argument.number_attr:
            count = attributes[argument.number_attr].i
        elif argument.type_list_attr:
            count = len(attributes[argument.type_list_attr].list.type)
        names += [argument.name] * count
    return list(zip(names, tensors, strict=True))


def has_axis(tensor, size):
    return tensor.shape.rank is not None and size in tensor.shape.as_list()


def all_graphs(graph):
    """The graph and those of the functions that it calls."""
    yield graph
    for function in graph.as_graph_def(add_shapes=True).library.function:
        yield function_def_to_graph.function_def_to_graph(function)


def host_only(graph, num_boxes):
    """(type, name) of the operations that compute on the host with an axis of num_boxes."""
    found = []
    for op in (op for each in all_graphs(graph) for op in each.get_operations()):
        attributes = op.node_def.attr
        pairs = spread(op.op_def.input_arg, op.inputs, attributes)
        pairs += spread(op.op_def.output_arg, op.outputs, attributes)
        names = {name for name, tensor in pairs if has_axis(tensor, num_boxes)}
        if not names or op.type in NO_KERNELS:
            continue
        fitting = [kernel for kernel in gpu_kernels(op.type) if fits(kernel, op)]
        if not any(names.isdisjoint(kernel.host_memory_arg) for kernel in fitting):
            found.append((op.type, op.name))
    return found


def trace(function, network, input_hw, batch_size):
    """The graph of a function of a batch (images, Targets)."""
    num_boxes = len(network.default_boxes)
    targets = {
        "offsets": tf.TensorSpec([batch_size, num_boxes, 4]),
        "labels": tf.TensorSpec([batch_size, num_boxes], tf.int32),
    }
    images = tf.TensorSpec([batch_size, *input_hw, 3])
    return tf.function(function, autograph=False).get_concrete_function(images, targets).graph


@pytest.fixture
def host_only_in_step(toy_config, toy_state):
    """A function: what a training step with this loss computes on the host."""

    def find(loss, score_activation, **train):
        config = toy_config(**train)
        model = config.model.model_copy(update={"score_activation": score_activation})
        config = config.model_copy(update={"loss": loss, "model": model})
        made = toy_state(config)
        graph = trace(make_train_step(config, made), made.network, (8, 12), 4)
        return host_only(graph, len(made.network.default_boxes))

    return find


def test_a_comparison_of_int32_is_found():
    @tf.function
    def compare(labels, logits):
        return tf.where(labels > 0, logits, 0.0) + tf.cast(tf.cast(labels, tf.int64), tf.float32)

    specs = [tf.TensorSpec([2, 6], dtype) for dtype in (tf.int32, tf.float32)]
    graph = compare.get_concrete_function(*specs).graph
    assert [kind for kind, _ in host_only(graph, 6)] == ["Greater"]
    assert host_only(graph, 7) == []


def test_it_is_found_in_a_loop():
    @tf.function
    def compare(labels):
        return tf.map_fn(lambda row: tf.maximum(row, 1), labels)

    graph = compare.get_concrete_function(tf.TensorSpec([2, 6], tf.int32)).graph
    assert "Maximum" in [kind for kind, _ in host_only(graph, 6)]


def test_the_losses_of_the_configs(host_only_in_step):
    configs = [
        load_config(path, ["init_from=null"])
        for path in sorted(CONFIGS.glob("*.yaml"))
        if path.stem != "finetune"  # its network is that of a run
    ]
    losses = [(config.loss, config.model.score_activation) for config in configs]
    different = [loss for index, loss in enumerate(losses) if loss not in losses[:index]]
    assert len(different) >= 4
    for loss in different:
        assert host_only_in_step(*loss) == [], loss


FOCAL = {"focal_gamma": 2.0, "focal_alpha": 0.25}


@pytest.mark.parametrize(
    ("loss", "train"),
    [
        ({"box_loss": "giou"}, {"score_activation": "sigmoid", "bn": "frozen"}),
        ({"box_loss": "giou", **FOCAL}, {"ema": 0.9}),
        ({}, {"accumulate": 2, "batch_size": 4}),
        ({"normalizer": "nvidia", "negatives_per_positive": 2.5}, {"clip_norm": 1.0}),
        ({"normalizer": "torchvision", "min_negatives": 0}, {"precision": "mixed_float16"}),
        (FOCAL, {"score_activation": "sigmoid", "bn": "synchronized"}),
    ],
)
def test_variants_of_the_loss(host_only_in_step, loss, train):
    score_activation = train.pop("score_activation", "softmax")
    assert host_only_in_step(Loss(**loss), score_activation, **train) == []


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("shapes_plain", []),
        ("bccd_mobilenet", ["eval.class_agnostic=true"]),
    ],
)
def test_a_whole_network_its_probe_and_its_detections(name, overrides):
    config = load_config(CONFIGS / f"{name}.yaml", [*SMALL, *overrides])
    network = make_network(config, 2)
    num_boxes = len(network.default_boxes)
    assert num_boxes > 400
    made = attach_training(config, network, tf.distribute.get_strategy())
    graph = trace(make_batch_loss(config, made), network, (64, 96), 4)
    assert host_only(graph, num_boxes) == []
    detect = tf.function(make_detect(config, network))
    images = tf.TensorSpec([None, 64, 96, 3])
    assert host_only(detect.get_concrete_function(images).graph, num_boxes) == []
