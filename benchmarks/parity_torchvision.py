"""Compares our models, default boxes, losses and detections with torchvision's.

Both sides get the same NumPy-seeded weights and images. The script has two halves, so that torch
does not have to be installed beside TensorFlow:

  python benchmarks/parity_torchvision.py torch FOLDER     needs torch and torchvision;
                                                           writes FOLDER/*.npz
  python benchmarks/parity_torchvision.py compare FOLDER   needs ssd_tf; prints the differences,
                                                           exit code 1 if one exceeds its limit

If there is a module `torchvision_ops` on the path, the torch half imports it first: it may supply
compiled operators that a build of torchvision lacks. With --golden the torch half keeps a few
hundred entries of each array, enough for tests/weights/test_torchvision.py.
"""

import contextlib
import pathlib
import sys
import typing
import zlib

import numpy as np

TOLERANCE = 1e-4
# Height and width of the images: none is square.
SIZES = ((375, 500), (480, 333))
# The objects of each image, normalised: ymin, xmin, ymax, xmax, label. No two of them have the same
# best default box.
OBJECTS = (
    ((0.05, 0.1, 0.45, 0.4, 3), (0.5, 0.55, 0.95, 0.9, 17), (0.1, 0.7, 0.2, 0.8, 44)),
    ((0.2, 0.15, 0.85, 0.75, 1),),
)
# torchvision's mean of ssd300_vgg16, times 255.
VGG_MEAN = (255 * 0.48235, 255 * 0.45882, 255 * 0.40784)
DETECTORS = {
    "ssd300_vgg16": {
        "model": {"backbone": {"name": "vgg16", "mean_rgb": VGG_MEAN}},
        "boxes": {"preset": "torchvision"},
        "loss": {"normalizer": "torchvision", "min_negatives": 0},
        "eval": {"clip_first": True, "size_limit": 62.5},
    },
    "ssdlite320_mobilenet_v3_large": {
        "model": {
            "input_hw": [320, 320],
            "backbone": {"name": "mobilenet_v3_large"},
            "head": "separable",
        },
        "boxes": {"preset": "torchvision_ssdlite"},
        "loss": {"normalizer": "torchvision", "min_negatives": 0},
        "eval": {
            "clip_first": True,
            "size_limit": 62.5,
            "score_floor": 0.001,
            "nms_iou": 0.55,
            "pre_nms_top_k": 300,
            "max_detections": 300,
        },
    },
}
TRUNKS = ("resnet18", "resnet34", "resnet50")
# Classifiers: our backbone, and our layers whose outputs are the maps of strides 16 and 32.
MOBILENETS = {
    "mobilenet_v2": (
        {"name": "mobilenet_v2", "padding": "torch"},
        ("block_13_expand_relu6", "Conv_1_relu6"),
    ),
    "mobilenet_v3_large": (
        {"name": "mobilenet_v3_large", "reduced_tail": False},
        ("block13_expand_hard_swish", "last_hard_swish"),
    ),
}
# The arrays that --golden samples; the others are small.
SAMPLED = ("offsets", "logits", "default_boxes", "conv3", "conv4", "conv5", "conv4_ssd")


class Comparison(typing.NamedTuple):
    """How much one quantity differs from torchvision's."""

    quantity: str
    difference: float
    limit: float


def seeded_array(name, shape):
    """An array of a state dict, drawn from its name and shape only.

    Its scale keeps the activations alive through every layer.
    """
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        value = random.uniform(0.5, 1.5, shape)
    elif name.endswith("scale_weight"):
        value = random.uniform(15, 25, shape)
    elif len(shape) == 4:
        value = random.normal(0, np.sqrt(_gain(name, shape) / np.prod(shape[1:])), shape)
    elif name.endswith("weight"):
        value = random.uniform(0.8, 1.2, shape)
    else:
        value = random.normal(0, 0.1, shape)
    return value.astype(np.float32)


def _gain(name, shape):
    """What keeps activations and logits near 1.

    Larger ones would drown the comparison in rounding and saturate every score. VGG's activations
    are of the size of pixels, in the hundreds.
    """
    if "head." in name and shape[1] > 1:
        return 5e-4 if shape[2] == 3 else 10.0
    return 1.0 if shape[1] == 1 else 2.0


def make_images():
    """uint8 images [H, W, 3] of SIZES: coarse random colours, enlarged."""
    random = np.random.default_rng(7)
    images = []
    for height, width in SIZES:
        coarse = random.integers(0, 256, (height // 15 + 1, width // 15 + 1, 3))
        enlarged = np.kron(coarse, np.ones((15, 15, 1)))
        images.append(enlarged[:height, :width].astype(np.uint8))
    return images


def sample(name, array):
    """300 entries of an array, drawn by its name."""
    flat = np.asarray(array).reshape(-1)
    random = np.random.default_rng(zlib.crc32(name.encode()))
    return flat[np.sort(random.integers(0, len(flat), 300))]


# The torch half.


def run_torch(folder, golden):
    """Write one .npz for each detector and trunk."""
    with contextlib.suppress(ModuleNotFoundError):
        import torchvision_ops  # noqa: F401
    import torch
    from torchvision.models import detection

    folder.mkdir(parents=True, exist_ok=True)
    for name in DETECTORS:
        model = getattr(detection, name)(weights=None, weights_backbone=None)
        _fill(model)
        with torch.no_grad():
            arrays = _torch_detector(model.eval())
        _save(folder / f"{name}.npz", arrays, golden)
    for name in TRUNKS:
        with torch.no_grad():
            _save(folder / f"{name}.npz", _torch_trunk(name), golden)
    for name in MOBILENETS:
        with torch.no_grad():
            _save(folder / f"{name}.npz", _torch_mobilenet(name), golden)


def _fill(model):
    import torch

    state = model.state_dict()
    for name, value in state.items():
        if "num_batches" not in name:
            state[name] = torch.from_numpy(seeded_array(name, tuple(value.shape)))
    model.load_state_dict(state)


def _torch_images():
    """The images as float tensors [3, H, W] in 0..1."""
    import torch

    return [
        torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 255 for image in make_images()
    ]


def _torch_detector(model):
    import torch

    images = _torch_images()
    batch, _ = model.transform(images)
    features = list(model.backbone(batch.tensors).values())
    outputs = model.head(features)
    boxes = model.anchor_generator(batch, features)[0]
    boxes = boxes / torch.tensor(batch.tensors.shape[-2:]).flip(0).repeat(2)
    trainable = [p.numel() for p in model.parameters() if p.requires_grad]
    arrays = {
        "offsets": outputs["bbox_regression"][..., [1, 0, 3, 2]],
        "logits": outputs["cls_logits"],
        "default_boxes": boxes[:, [1, 0, 3, 2]],
        "size": torch.tensor([sum(trainable)]),
        "losses": _torch_losses(model, batch, features, outputs),
    }
    for index, found in enumerate(model(images)):
        height, width = SIZES[index]
        normalized = found["boxes"] / torch.tensor([width, height, width, height])
        arrays[f"boxes{index}"] = normalized[:, [1, 0, 3, 2]]
        arrays[f"scores{index}"] = found["scores"]
        arrays[f"labels{index}"] = found["labels"]
    return {name: value.numpy() for name, value in arrays.items()}


def _torch_losses(model, batch, features, outputs):
    """Classification and localization loss of a model in evaluation mode.

    Batch norm uses its statistics; the loss is that of the training mode.
    """
    import torch
    from torchvision.ops import box_iou

    targets = []
    for (height, width), objects in zip(batch.image_sizes, OBJECTS, strict=True):
        rows = [
            [xmin * width, ymin * height, xmax * width, ymax * height]
            for ymin, xmin, ymax, xmax, _ in objects
        ]
        labels = torch.tensor([label for *_, label in objects])
        targets.append({"boxes": torch.tensor(rows), "labels": labels})
    default_boxes = model.anchor_generator(batch, features)
    matched = [
        model.proposal_matcher(box_iou(target["boxes"], boxes))
        for target, boxes in zip(targets, default_boxes, strict=True)
    ]
    loss = model.compute_loss(targets, outputs, default_boxes, matched)
    return torch.stack([loss["classification"], loss["bbox_regression"]])


def _torch_trunk(name):
    """conv3, conv4 and conv5 of the classifier; conv4 also without its stride (NVIDIA's SSD300)."""
    import torchvision

    model = getattr(torchvision.models, name)(weights=None).eval()
    _fill(model)
    x = model.maxpool(model.relu(model.bn1(model.conv1(_torch_input()))))
    conv3 = model.layer2(model.layer1(x))
    conv4 = model.layer3(conv3)
    arrays = {"conv3": conv3, "conv4": conv4, "conv5": model.layer4(conv4)}
    first = model.layer3[0]
    for convolution in (first.conv1, first.conv2, first.downsample[0]):
        convolution.stride = (1, 1)
    arrays["conv4_ssd"] = model.layer3(conv3)
    return {key: value.permute(0, 2, 3, 1).numpy() for key, value in arrays.items()}


def _torch_input():
    """An image normalised for ImageNet's classifiers, cropped so that strides meet odd sides."""
    import torch

    mean = torch.tensor((0.485, 0.456, 0.406)).reshape(1, 3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225)).reshape(1, 3, 1, 1)
    return (_torch_images()[0][None, :, :203, :300] - mean) / std


def _torch_mobilenet(name):
    """conv4, the expansion of the block with the stride to 32, and conv5, the last convolution."""
    import torchvision

    model = getattr(torchvision.models, name)(weights=None).eval()
    _fill(model)
    split = 14 if name == "mobilenet_v2" else 13
    x = model.features[:split](_torch_input())
    block = model.features[split]
    expand = block.conv[0] if name == "mobilenet_v2" else block.block[0]
    arrays = {"conv4": expand(x), "conv5": model.features[split:](x)}
    return {key: value.permute(0, 2, 3, 1).numpy() for key, value in arrays.items()}


def _save(path, arrays, golden):
    content = {}
    for name, array in arrays.items():
        content[name] = sample(name, array) if golden and name in SAMPLED else array
        content[f"{name}_shape"] = np.array(array.shape)
    np.savez_compressed(path, **content)
    print(f"written: {path} ({path.stat().st_size / 1e3:.0f} kB)")


# Our half.


def compare(folder):
    """Print one line per quantity; returns how many exceed their limit."""
    from ssd_tf import commandline

    commandline.import_tensorflow()
    num_failed = 0
    comparisons = (
        (DETECTORS, compare_detector),
        (TRUNKS, compare_trunk),
        (MOBILENETS, compare_mobilenet),
    )
    for name, compare_one in [(name, one) for names, one in comparisons for name in names]:
        for quantity, difference, limit in compare_one(name, np.load(folder / f"{name}.npz")):
            is_ok = difference <= limit
            verdict = "ok" if is_ok else f"MORE THAN {limit:g}"
            print(f"{name:30s} {quantity:15s} {difference:9.2e} {verdict}")
            num_failed += not is_ok
    return num_failed


def compare_detector(name, theirs):
    """The Comparisons of a detector with the arrays `theirs`.

    Raw outputs, default boxes, losses, detections and trainable parameters.
    """
    import tensorflow as tf

    from ssd_tf.config import check_config
    from ssd_tf.data.images import resize
    from ssd_tf.inference.detector import keras_detector

    config = check_config(DETECTORS[name], name)
    network = filled_network(config, 90)
    images = tf.stack([resize(image, config.model.input_hw) for image in make_images()])
    predictions = network.model(images, training=False)
    predictions = {key: np.array(value) for key, value in predictions.items()}
    for key in ("offsets", "logits"):
        yield Comparison(key, relative_difference(key, predictions[key], theirs), TOLERANCE)
    difference = largest_difference("default_boxes", network.default_boxes, theirs)
    yield Comparison("default boxes", difference, 1e-5)
    losses = losses_of(config, network, predictions)
    yield Comparison("losses", relative_difference("losses", losses, theirs), TOLERANCE)
    for index, found in enumerate(keras_detector(config, network, None).batch(make_images())):
        their_detections = {key: theirs[f"{key}{index}"] for key in ("boxes", "scores", "labels")}
        ours = {key: getattr(found, key) for key in their_detections}
        yield Comparison(f"detections {index}", num_unpaired(ours, their_detections), 0.0)
    num_trainable = sum(
        int(np.prod(variable.shape)) for variable in network.model.trainable_variables
    )
    yield Comparison("parameters", abs(num_trainable - int(theirs["size"][0])), 0.0)


def losses_of(config, network, predictions):
    """Classification and localization loss of the predictions for OBJECTS."""
    import tensorflow as tf

    from ssd_tf.boxes.matching import make_targets
    from ssd_tf.training.losses import image_weights
    from ssd_tf.training.step import make_loss

    targets = [
        make_targets(make_example(objects), network.default_boxes, config.boxes.variances, False)
        for objects in OBJECTS
    ]
    targets = {key: tf.stack([target[key] for target in targets]) for key in targets[0]}
    losses = make_loss(config, network.default_boxes)(predictions, targets)
    positives = tf.reduce_sum(tf.cast(targets["labels"] > 0, tf.float32), 1)
    weights, divisor = image_weights(config.loss.normalizer, positives)
    return np.array([tf.reduce_sum(weights * part) / divisor for part in losses])


def compare_trunk(name, theirs):
    """The Comparisons of a ResNet's feature maps with the arrays `theirs`."""
    import keras
    import tensorflow as tf

    from ssd_tf.config import check_config

    image = tf.cast(make_images()[0][None, :203, :300], tf.float32)
    for neck, stages in (("none", {"conv4_ssd": 3}), ("fpn", {"conv3": 2, "conv4": 3, "conv5": 4})):
        model = {
            "input_hw": [203, 300],
            "num_levels": 3,
            "neck": neck,
            "backbone": {"name": name},
        }
        config = check_config({"model": model, "boxes": {"levels": [{"size": 30}] * 3}}, name)
        model = filled_network(config, 2).model
        for key, stage in stages.items():
            output = model.get_layer(_last_relu(model, stage)).output
            features = np.array(keras.Model(model.input, output)(image))
            yield Comparison(key, relative_difference(key, features, theirs), TOLERANCE)


def compare_mobilenet(name, theirs):
    """The Comparisons of a MobileNet's feature maps with the arrays `theirs`."""
    import keras
    import tensorflow as tf

    from ssd_tf.config import check_config

    image = tf.cast(make_images()[0][None, :203, :300], tf.float32)
    backbone, layers = MOBILENETS[name]
    model = {"input_hw": [203, 300], "num_levels": 2, "backbone": backbone}
    config = check_config({"model": model, "boxes": {"levels": [{"size": 30}] * 2}}, name)
    model = filled_network(config, 2).model
    for key, layer in zip(("conv4", "conv5"), layers, strict=True):
        features = np.array(keras.Model(model.input, model.get_layer(layer).output)(image))
        yield Comparison(key, relative_difference(key, features, theirs), TOLERANCE)


def _last_relu(model, stage):
    """Name of the layer that ends a ResNet's stage: the last of layer3_0_relu, layer3_1_relu ..."""
    names = [
        layer.name
        for layer in model.layers
        if layer.name.startswith(f"layer{stage}_") and layer.name.endswith("_relu")
    ]
    return max(names, key=lambda name: int(name.split("_")[1]))


def filled_network(config, num_classes):
    """Our network with torchvision's arrays, drawn by their names and the shapes of our layers."""
    from ssd_tf.models import ssd
    from ssd_tf.weights.assign import assign
    from ssd_tf.weights.importers import torchvision

    network = ssd.build_model(config, num_classes)
    state = seeded_state(network.model, config)
    backbone = {layer.name for layer in ssd.backbone_layers(network.model, config)}
    arrays = torchvision.convert(state, config.model, "the state dict")
    assign(network.model, arrays, "the state dict", required=backbone)
    return network


def seeded_state(model, config):
    """The state dict that the torch half draws, for the layers that have a counterpart there."""
    from ssd_tf.weights.importers import torchvision

    is_resnet = config.model.backbone.name.startswith("resnet")
    state = {}
    if not is_resnet:
        state["backbone.scale_weight"] = seeded_array("backbone.scale_weight", (512,))
    if is_resnet:
        modules = {layer.name: layer.name.replace("_", ".") for layer in model.layers}
    else:
        modules = torchvision.module_names(config.model, state)
    for layer in model.layers:
        module = modules.get(layer.name, "")
        if module in state or (is_resnet and not module.startswith(("conv1", "bn1", "layer"))):
            continue
        for weight in layer.weights if module else ():
            part, shape = _torch_part(weight)
            state[f"{module}.{part}"] = seeded_array(f"{module}.{part}", shape)
    return state


def _torch_part(weight):
    """Name and shape that PyTorch gives one of our weights."""
    parts = {
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
        "kernel": "weight",
    }
    part = parts.get(weight.name, weight.name)
    shape = tuple(weight.shape)
    if len(shape) == 4:
        height, width, num_inputs, num_outputs = shape
        if "depthwise" in weight.path:
            shape = (num_inputs, 1, height, width)
        else:
            shape = (num_outputs, num_inputs, height, width)
    return part, shape


def make_example(objects):
    """Rows of OBJECTS -> what matching needs of an Example."""
    import tensorflow as tf

    rows = np.array(objects, "float32")
    none = tf.zeros([len(rows)], tf.bool)
    return {
        "boxes": tf.constant(rows[:, :4]),
        "labels": tf.constant(rows[:, 4].astype("int64")),
        "crowd": none,
        "difficult": none,
    }


def largest_difference(name, ours, theirs):
    """The largest absolute difference of all entries, or of those that --golden kept."""
    expected = theirs[name]
    shape = tuple(theirs[f"{name}_shape"])
    if ours.shape != shape:
        raise SystemExit(f"{name}: ours has shape {ours.shape}, torchvision's {shape}")
    kept = ours.reshape(-1) if expected.size == ours.size else sample(name, ours)
    return float(np.abs(kept - expected.reshape(-1)).max())


def relative_difference(name, ours, theirs):
    """largest_difference in units of the largest magnitude of theirs."""
    return largest_difference(name, ours, theirs) / float(np.abs(theirs[name]).max())


def num_unpaired(ours, theirs, tolerance=1e-3):
    """Number of detections without a partner of the same class, score and box on the other side.

    Only detections that score clearly above the lowest one kept count.
    """
    lowest = max(ours["scores"].min(), theirs["scores"].min()) + 1e-5
    missing = 0
    for side, other in ((ours, theirs), (theirs, ours)):
        for box, score, label in zip(side["boxes"], side["scores"], side["labels"], strict=True):
            near_box = np.abs(other["boxes"] - box).max(1) < tolerance
            near_score = np.abs(other["scores"] - score) < tolerance * score
            has_partner = (near_box & near_score & (other["labels"] == label)).any()
            missing += bool(score > lowest and not has_partner)
    return missing


def main(arguments):
    golden = "--golden" in arguments
    half, folder = [argument for argument in arguments if argument != "--golden"]
    if half == "torch":
        return run_torch(pathlib.Path(folder), golden)
    return 1 if compare(pathlib.Path(folder)) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
