"""Are our models, default boxes, losses and detections those of torchvision? From the same NumPy-seeded weights and images.

Two halves, so that torch need not live beside TensorFlow:

  python benchmarks/parity_torchvision.py torch FOLDER     where torch and torchvision are installed: writes FOLDER/*.npz
  python benchmarks/parity_torchvision.py compare FOLDER   where ssd_tf is installed: prints differences; exit code 1 above 1e-4

A module `torchvision_ops` on the path, where there is one, is imported first: it may supply compiled operators that a build of
torchvision lacks. With --golden the torch half keeps a few hundred of each array's entries, enough for
tests/weights/test_torchvision.py.
"""

import contextlib
import pathlib
import sys
import zlib

import numpy as np

from ssd_tf.data.images import resize

TOLERANCE = 1e-4
# Height and width of the pictures: none is square.
SIZES = ((375, 500), (480, 333))
# Objects of the two pictures, in shares: ymin, xmin, ymax, xmax, label. No two of them want the same default box.
OBJECTS = (
    ((0.05, 0.1, 0.45, 0.4, 3), (0.5, 0.55, 0.95, 0.9, 17), (0.1, 0.7, 0.2, 0.8, 44)),
    ((0.2, 0.15, 0.85, 0.75, 1),),
)
VGG_MEAN = tuple(255 * mean for mean in (0.48235, 0.45882, 0.40784))
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
            **{"clip_first": True, "size_limit": 62.5},
            **{"score_floor": 0.001, "nms_iou": 0.55, "pre_nms_top_k": 300, "max_detections": 300},
        },
    },
}
TRUNKS = ("resnet18", "resnet34", "resnet50")


def seeded_array(name, shape):
    """An array of a state dict from its name and shape alone, of a scale that keeps activations alive through every layer."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        value = random.uniform(0.5, 1.5, shape)
    elif name.endswith("scale_weight"):
        value = random.uniform(15, 25, shape)
    elif len(shape) == 4:
        # Lone channels and heads get what keeps activations and logits near 1: larger ones drown the comparison in rounding, and
        # make every score 1. VGG's activations are those of pixels, in the hundreds.
        gain = 1.0 if shape[1] == 1 else 2.0
        if "head." in name and shape[1] > 1:
            gain = 5e-4 if shape[2] == 3 else 10.0
        value = random.normal(0, np.sqrt(gain / np.prod(shape[1:])), shape)
    elif name.endswith("weight"):
        value = random.uniform(0.8, 1.2, shape)
    else:
        value = random.normal(0, 0.1, shape)
    return value.astype(np.float32)


def pictures():
    """uint8 pictures [H, W, 3] of SIZES: coarse random colours, enlarged."""
    random = np.random.default_rng(7)
    return [
        np.kron(random.integers(0, 256, (h // 15 + 1, w // 15 + 1, 3)), np.ones((15, 15, 1)))[
            :h, :w
        ].astype(np.uint8)
        for h, w in SIZES
    ]


def sampled(name, array, golden):
    """(indices, values): all entries, or 300 of them drawn by the array's name."""
    flat = np.asarray(array).reshape(-1)
    if not golden:
        return np.arange(len(flat)), flat
    chosen = np.sort(np.random.default_rng(zlib.crc32(name.encode())).integers(0, len(flat), 300))
    return chosen, flat[chosen]


# The torch half.


def run_torch(folder, golden):
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


def _fill(model):
    import torch

    state = model.state_dict()
    filled = {
        name: torch.from_numpy(seeded_array(name, tuple(v.shape)))
        for name, v in state.items()
        if "num_batches" not in name
    }
    model.load_state_dict({**state, **filled})


def _torch_detector(model):
    import torch

    images = [
        torch.from_numpy(picture.transpose(2, 0, 1).copy()).float() / 255 for picture in pictures()
    ]
    batch, _ = model.transform(images)
    features = list(model.backbone(batch.tensors).values())
    outputs = model.head(features)
    boxes = model.anchor_generator(batch, features)[0] / torch.tensor(
        batch.tensors.shape[-2:]
    ).flip(0).repeat(2)
    arrays = {
        "offsets": outputs["bbox_regression"][..., [1, 0, 3, 2]],
        "logits": outputs["cls_logits"],
        "default_boxes": boxes[:, [1, 0, 3, 2]],
        "size": torch.tensor([sum(p.numel() for p in model.parameters() if p.requires_grad)]),
    }
    for index, found in enumerate(model(images)):
        height, width = SIZES[index]
        share = found["boxes"] / torch.tensor([width, height, width, height])
        arrays |= {
            f"boxes{index}": share[:, [1, 0, 3, 2]],
            f"scores{index}": found["scores"],
            f"labels{index}": found["labels"],
        }
    # The model in its evaluation mode (batch norm by its statistics) and the loss of its training mode.
    targets = []
    for (height, width), objects in zip(batch.image_sizes, OBJECTS, strict=True):
        rows = torch.tensor(
            [[x0 * width, y0 * height, x1 * width, y1 * height] for y0, x0, y1, x1, _ in objects]
        )
        targets.append({"boxes": rows, "labels": torch.tensor([label for *_, label in objects])})
    from torchvision.ops import box_iou

    anchors = model.anchor_generator(batch, features)
    matched = [
        model.proposal_matcher(box_iou(t["boxes"], a))
        for t, a in zip(targets, anchors, strict=True)
    ]
    loss = model.compute_loss(targets, outputs, anchors, matched)
    arrays["losses"] = torch.stack([loss["classification"], loss["bbox_regression"]])
    return {name: value.numpy() for name, value in arrays.items()}


def _torch_trunk(name):
    """conv3, conv4 and conv5 of the classifier, and conv4 without its stride as NVIDIA's SSD300 has it."""
    import torch
    import torchvision

    model = getattr(torchvision.models, name)(weights=None).eval()
    _fill(model)
    mean, std = (
        torch.tensor(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    # One picture of each size, cut so that strides meet odd sides.
    images = [torch.from_numpy(p.transpose(2, 0, 1).copy())[None].float() / 255 for p in pictures()]
    x = model.maxpool(
        model.relu(model.bn1(model.conv1((images[0][:, :, :203, :300] - mean) / std)))
    )
    conv3 = model.layer2(model.layer1(x))
    conv4 = model.layer3(conv3)
    arrays = {"conv3": conv3, "conv4": conv4, "conv5": model.layer4(conv4)}
    first = model.layer3[0]
    first.conv1.stride = first.conv2.stride = first.downsample[0].stride = (1, 1)
    arrays["conv4_ssd"] = model.layer3(conv3)
    return {key: value.permute(0, 2, 3, 1).numpy() for key, value in arrays.items()}


def _save(path, arrays, golden):
    content = {}
    for name, array in arrays.items():
        keep = golden and name in (
            "offsets",
            "logits",
            "default_boxes",
            "conv3",
            "conv4",
            "conv5",
            "conv4_ssd",
        )
        content[name] = sampled(name, array, golden)[1] if keep else array
        content[f"{name}_shape"] = np.array(array.shape)
    np.savez_compressed(path, **content)
    print(f"written: {path} ({path.stat().st_size / 1e3:.0f} kB)")


# Our half.


def compare(folder):
    """Prints one line per quantity; returns how many differ by more than their limit."""
    from ssd_tf import commandline

    commandline.import_tensorflow()
    failed = 0
    for name in DETECTORS:
        for quantity, difference, limit in compare_detector(name, np.load(folder / f"{name}.npz")):
            failed += not report(name, quantity, difference, limit)
    for name in TRUNKS:
        for quantity, difference, limit in compare_trunk(name, np.load(folder / f"{name}.npz")):
            failed += not report(name, quantity, difference, limit)
    return failed


def report(name, quantity, difference, limit):
    good = difference <= limit
    print(f"{name:30s} {quantity:15s} {difference:9.2e} {'ok' if good else f'MORE THAN {limit:g}'}")
    return good


def compare_detector(name, theirs):
    """(quantity, difference, limit) of a detector: raw outputs, default boxes, losses, detections, trainable parameters."""
    import tensorflow as tf

    from ssd_tf.boxes import matching
    from ssd_tf.config import check_config
    from ssd_tf.inference.detector import keras_detector
    from ssd_tf.training import losses

    config = check_config(DETECTORS[name], name)
    network = filled_network(config, 90)
    model = network.model
    default_boxes = network.default_boxes
    images = [resized(picture, config.model.input_hw) for picture in pictures()]
    raw = {key: np.array(value) for key, value in model(tf.stack(images), training=False).items()}
    for key in ("offsets", "logits"):
        yield key, relative(key, raw[key], theirs), TOLERANCE
    yield "default boxes", relative("default_boxes", default_boxes, theirs, absolute=True), 1e-5
    targets = [matching.make_targets(example(objects), default_boxes) for objects in OBJECTS]
    targets = {key: tf.stack([target[key] for target in targets]) for key in targets[0]}
    found = losses.multibox_loss(raw, targets, **config.loss.model_dump())
    yield (
        "losses",
        relative("losses", np.array([found["classification"], found["localization"]]), theirs),
        TOLERANCE,
    )
    detections = keras_detector(config, network, None).batch(pictures())
    for index, found in enumerate(detections):
        yield (
            f"detections {index}",
            unpaired(found, {k: theirs[f"{k}{index}"] for k in ("boxes", "scores", "labels")}),
            0.0,
        )
    trainable = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    yield "parameters", abs(trainable - int(theirs["size"][0])), 0.0


def compare_trunk(name, theirs):
    import keras
    import tensorflow as tf

    from ssd_tf.config import check_config

    image = tf.cast(pictures()[0][None, :203, :300], tf.float32)
    for neck, layers in (("none", {"conv4_ssd": 3}), ("fpn", {"conv3": 2, "conv4": 3, "conv5": 4})):
        levels = {"size": 30}
        config = check_config(
            {
                "model": {
                    "input_hw": [203, 300],
                    "num_levels": 3,
                    "neck": neck,
                    "backbone": {"name": name},
                },
                "boxes": {"levels": [levels] * 3},
            },
            name,
        )
        model = filled_network(config, 2).model
        names = {layer.name for layer in model.layers}
        for key, stage in layers.items():
            last = max(
                (n for n in names if n.startswith(f"layer{stage}_") and n.endswith("_relu")),
                key=lambda n: int(n.split("_")[1]),
            )
            output = keras.Model(model.input, model.get_layer(last).output)(image)
            yield key, relative(key, np.array(output), theirs), TOLERANCE


def filled_network(config, num_classes):
    """Our network with torchvision's arrays, drawn by their names and by the shapes that our layers want of them."""
    from ssd_tf.models import ssd
    from ssd_tf.weights import torchvision

    network = ssd.build_model(config, num_classes)
    torchvision.load(network.model, config, seeded_state(network.model, config))
    return network


def seeded_state(model, config):
    """The state dict that torchvision's half draws, as far as our layers have a partner there."""
    from ssd_tf.weights import torchvision

    trunk = config.model.backbone.name.startswith("resnet")
    state = (
        {} if trunk else {"backbone.scale_weight": seeded_array("backbone.scale_weight", (512,))}
    )
    modules = torchvision.module_names(model, config, state)
    for layer in model.layers:
        module = modules.get(layer.name, "")
        if module in state or (trunk and not module.startswith(("conv1", "bn1", "layer"))):
            continue
        for weight in layer.weights if module else ():
            part, shape = _theirs(weight)
            state[f"{module}.{part}"] = seeded_array(f"{module}.{part}", shape)
    return state


def _theirs(weight):
    """Name and shape that PyTorch gives one of our weights."""
    parts = {
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
        "kernel": "weight",
    }
    part, shape = parts.get(weight.name, weight.name), tuple(weight.shape)
    if len(shape) == 4:
        depthwise = "depthwise" in weight.path
        shape = (shape[2], 1, *shape[:2]) if depthwise else (shape[3], shape[2], *shape[:2])
    return part, shape


def resized(picture, input_hw):

    return resize(picture, input_hw)


def example(objects):
    import tensorflow as tf

    rows = np.array(objects, "float32")
    none = tf.zeros([len(rows)], tf.bool)
    return {
        "boxes": tf.constant(rows[:, :4]),
        "labels": tf.constant(rows[:, 4].astype("int64")),
        "crowd": none,
        "difficult": none,
    }


def relative(name, ours, theirs, absolute=False):
    """The largest difference, in units of the largest magnitude of theirs, of all entries or of those that were kept."""
    expected, shape = theirs[name], tuple(theirs[f"{name}_shape"])
    if ours.shape != shape:
        raise SystemExit(f"{name}: ours has shape {ours.shape}, torchvision's {shape}")
    kept = ours.reshape(-1) if expected.size == ours.size else sampled(name, ours, golden=True)[1]
    return float(
        np.abs(kept - expected.reshape(-1)).max() / (1.0 if absolute else np.abs(expected).max())
    )


def unpaired(found, theirs, tolerance=1e-3):
    """How many detections, clearly above the lowest kept, have no partner of the same class, score and box on the other side."""
    lowest = max(found["scores"].min(), theirs["scores"].min()) + 1e-5
    missing = 0
    for side, other in ((found, theirs), (theirs, found)):
        for box, score, label in zip(side["boxes"], side["scores"], side["labels"], strict=True):
            near = (np.abs(other["boxes"] - box).max(1) < tolerance) & (
                np.abs(other["scores"] - score) < tolerance * score
            )
            missing += bool(score > lowest and not (near & (other["labels"] == label)).any())
    return missing


def main(arguments):
    golden = "--golden" in arguments
    half, folder = [argument for argument in arguments if argument != "--golden"]
    if half == "torch":
        return run_torch(pathlib.Path(folder), golden)
    return 1 if compare(pathlib.Path(folder)) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
