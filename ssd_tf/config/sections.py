"""All keys of an experiment with their ranges, defaults and descriptions.

A new key needs three places: here, where it is used, and a test. The mathematics receives numbers,
arrays, or the leaf section made for it (`loss`, `eval`, `data.augment.crop`, ...), and repeats no
default of this package.
"""

import itertools
import re
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from ssd_tf.config.augmentation import Augment
from ssd_tf.config.keys import (
    AFTER_DIVERGENCE,
    MAY_CHANGE,
    Count,
    Fraction,
    MayChange,
    Momentum,
    Needs,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Probability,
    Section,
    list_keys,
    only_if,
    only_with,
)

_BACKBONE = "model.backbone.name"
_NOT_ON_VGG = Needs("on vgg16", (_BACKBONE,), lambda name: name != "vgg16")
_ON_MOBILENETS = only_with(_BACKBONE, "mobilenet", "mobilenet_v2", "mobilenet_v3_large")
_ON_MOBILENET_V1_OR_V2 = only_with(_BACKBONE, "mobilenet", "mobilenet_v2")


class Backbone(Section):
    """The feature extractor; [models.md](models.md) compares them."""

    name: Literal[
        "vgg16",
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "mobilenet",
        "mobilenet_v2",
        "mobilenet_v3_large",
        "plain",
    ] = "vgg16"
    """Name of the backbone."""
    alpha: Annotated[PositiveFloat, _NOT_ON_VGG] = 1.0
    """Width multiplier. Below 1 for phones and CPUs."""
    first_stride: Annotated[
        Literal[8, 16],
        only_with(_BACKBONE, "mobilenet", "mobilenet_v2", "mobilenet_v3_large", "plain"),
        Needs("with a model.neck", ("model.neck",), lambda neck: neck == "none"),
    ] = 16
    """Stride of the finest feature map: 16, or 8 for small objects. A neck starts at 8."""
    padding: Annotated[Literal["keras", "same", "torch"], _ON_MOBILENET_V1_OR_V2] = "keras"
    """Padding of strided convolutions, as the weights were trained: `keras`, as in
    `keras.applications`; `same`, TensorFlow's SAME, as in the TF Object Detection API; `torch`, by
    half the kernel on every side, as in torchvision."""
    min_channels: Annotated[PositiveInt | None, _ON_MOBILENET_V1_OR_V2] = None
    """Minimum channels of a layer, whatever `alpha`; default: 64 in extra layers, no minimum in the
    backbone. TF Object Detection API: 16."""
    last_channels: Annotated[PositiveInt | None, only_with(_BACKBONE, "mobilenet_v2")] = None
    """Channels of the last convolution; default: 1280, times `alpha` if that is above 1. TF Object
    Detection API: 1280 * `alpha`."""
    variant: Annotated[
        Literal["torchvision", "od_api"],
        only_with(_BACKBONE, "resnet50", "resnet101"),
        Needs("without a model.neck", ("model.neck",), lambda neck: neck != "none"),
    ] = "torchvision"
    """Kind of ResNet: v1.5 as in torchvision, or v1 as in the TF Object Detection API, with strides
    in the first convolution of a bottleneck and with ReLU6."""
    reduced_tail: Annotated[bool, only_with(_BACKBONE, "mobilenet_v3_large")] = True
    """Whether the last three blocks have half the channels, as in SSDLite, not in classifiers."""
    extra_layers: Annotated[Literal["separable", "conv"], _ON_MOBILENETS] = "separable"
    """Layers after the backbone: a depthwise and a 1x1 convolution (`separable`), or a full 3x3
    convolution (`conv`), as in the SSDs, not the SSDLites, of the TF Object Detection API."""
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = 0
    """Number of first stages that are not trained, for fine-tuning on few images."""
    mean_rgb: tuple[float, float, float] | None = None
    """Subtracted from the input (0 to 255); default: the backbone's own mean. For weights trained
    with another mean, such as torchvision's VGG16 and SSD300."""
    std_rgb: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """Divides the input after that; default: the backbone's own standard deviation."""

    @property
    def is_torchvision_classifier(self) -> bool:
        """Whether a MobileNet is built as torchvision's classifiers, not as Keras' or SSDLite's."""
        if self.name == "mobilenet_v2":
            return self.padding == "torch"
        return self.name == "mobilenet_v3_large" and not self.reduced_tail


class Tower(Section):
    """Convolutions before heads that all feature maps share, of the kind that `model.head` names,
    with batch norm of its own for each map (RetinaNet).
    """

    num_layers: Count = 4
    """Number of convolutions."""
    channels: PositiveInt = 256
    """Channels of each. TF Object Detection API: 256, FPN-lite: 128."""
    shared: bool = False
    """One tower for boxes and classes, as in FPN-lite, instead of two."""
    per_map: bool = False
    """Kernels of its own for each map, in tower and heads. `ssd import` sets it for TFLite files in
    which quantisation left no common ones."""


class Model(Section):
    """The network."""

    input_hw: tuple[PositiveInt, PositiveInt] = (300, 300)
    """Height and width of the input in pixels. Small objects need large inputs."""
    backbone: Backbone = Backbone()
    num_levels: Annotated[int, Field(ge=2, le=8)] = 6
    """Number of feature maps that are predicted from, 2 to 8. SSD300: 6; SSD512: 7."""
    head: Literal["conv", "separable", "pointwise"] = "conv"
    """Last layers: 3x3 convolutions (`conv`), depthwise 3x3 and 1x1 (`separable`, the heads of
    SSDLite, for MobileNets), or 1x1 (`pointwise`, the SSDs of the TF Object Detection API)."""
    neck: Literal["none", "fpn", "fpn_lite"] = "none"
    """A feature pyramid of 3 to 5 maps from stride 8 on, for small objects, of ordinary (`fpn`) or
    separable (`fpn_lite`) convolutions; not for `vgg16`."""
    neck_channels: Annotated[PositiveInt, only_with("model.neck", "fpn", "fpn_lite")] = 256
    """Channels of the pyramid's maps. TF Object Detection API: 256, FPN-lite: 128."""
    neck_upsampling: Annotated[
        Literal["nearest", "bilinear"], only_with("model.neck", "fpn", "fpn_lite")
    ] = "nearest"
    """How the pyramid enlarges a map. TF Object Detection API: `nearest`; ST's model zoo:
    `bilinear`."""
    tower: Tower | None = None
    """Heads shared over the maps, after a tower of convolutions; default: heads per map."""
    score_activation: Literal["softmax", "sigmoid"] = "softmax"
    """Turns logits into scores: `softmax`, or `sigmoid`, an independent score per class, as in the
    TF Object Detection API and with the focal loss."""


class Level(Section):
    """The default boxes of one feature map, in pixels of the model's input: either `size` with its
    ratios, or `shapes`.
    """

    size: PositiveFloat | None = None
    """Side of the square default box."""
    next_size: PositiveFloat | None = None
    """Adds a square of side sqrt(`size` * `next_size`). The references use the next map's size."""
    aspect_ratios: tuple[PositiveFloat, ...] = ()
    """Ratios width / height of more boxes; each adds its reciprocal, too. Most references: 2, 3."""
    shapes: tuple[tuple[PositiveFloat, PositiveFloat], ...] | None = None
    """Height and width of each box of a cell, instead of the keys above, as in imported files."""
    step: PositiveFloat | None = None
    """Distance of neighbouring centres; default: input size / map size. Original Caffe code at
    300x300: 8, 16, 32, 64, 100, 300."""

    @pydantic.model_validator(mode="after")
    def _require_one_source(self):
        if (self.size is None) == (not self.shapes):
            raise ValueError("give either size or shapes, and not both")
        for name in ("next_size", "aspect_ratios") if self.shapes else ():
            if getattr(self, name):
                raise ValueError(f"{name} has no effect with shapes: leave it out")
        return self


_WITH_PAPER = only_with("boxes.preset", "paper")
Scale = Annotated[float, Field(gt=0, le=1.5)]
Variances = tuple[PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat]
BoxPreset = Literal[
    "paper",
    "caffe_voc",
    "caffe_coco",
    "torchvision",
    "torchvision_ssdlite",
    "nvidia",
    "od_api",
    "od_api_fpn",
]


class Boxes(Section):
    """The default boxes: give either `preset` or `levels`. [models.md](models.md) describes the
    presets.
    """

    preset: BoxPreset | None = None
    """The default boxes of a reference."""
    s_min: Annotated[Scale, _WITH_PAPER] = 0.2
    """Scale of the first map, relative to the input's shorter side. Lower for small objects."""
    s_max: Annotated[Scale, _WITH_PAPER] = 0.9
    """Scale of the last map."""
    aspect_ratios: Annotated[tuple[PositiveFloat, ...], _WITH_PAPER] = (2.0, 3.0)
    """Ratios besides 1; the first map and the last two use only the first (Liu et al. 2016)."""
    integer_sizes: Annotated[bool, only_with("boxes.preset", "caffe_voc", "caffe_coco")] = False
    """Whether sizes are truncated to whole pixels, as in the released SSD512 of Liu et al."""
    levels: tuple[Level, ...] | None = None
    """One entry per feature map, such as `ssd fit-boxes` prints for a data set."""
    assigner: Literal["multibox", "atss", "auto"] = "multibox"
    """Which boxes are trained on an object: `multibox`, those with an IoU of at least .5 and
    the best one of each object (Liu et al. 2016), or `atss`, those near its centre whose IoU stands
    out among their neighbours (Zhang et al. 2020). With `atss` an object with a side
    shorter than a cell of the finest feature map may get none. `auto`: `atss` with a model.neck,
    unless data.keep_classes."""
    rounding: Annotated[float, Field(gt=0, lt=0.1)] | None = None
    """Centres and sizes become multiples of this fraction of the input, below 0.1. `ssd import`
    writes it for quantised TFLite files."""
    variances: Variances = (0.1, 0.1, 0.2, 0.2)
    """The offsets (y, x, height, width) are divided by them. All references use the default (scale
    factors 10, 10, 5, 5 in the TF Object Detection API)."""
    coding: Literal["centre_and_size", "corners"] = "centre_and_size"
    """What box heads predict: the distance of the centres and the logarithm of the size ratio
    (Liu et al. 2016), or the distance of each corner, as in ST's model zoo. The network turns
    `corners` into the former, which losses and exports take."""

    @pydantic.model_validator(mode="after")
    def _check(self):
        if (self.preset is None) == (self.levels is None):
            raise ValueError("give either preset or levels, and not both")
        if self.s_min > self.s_max:
            raise ValueError(f"expected s_min <= s_max, got {self.s_min} and {self.s_max}")
        return self


_BACKBONE_FILES = (".h5", ".hdf5", ".pth", ".pt", ".safetensors", ".npz")


def is_run(init_from) -> bool:
    """Whether a value of init_from names a run folder, not the weights of a backbone."""
    if not isinstance(init_from, str) or init_from == "imagenet":
        return False
    return not init_from.endswith(_BACKBONE_FILES)


class Data(Section):
    """The splits and how they are read."""

    augment: Augment = Augment()
    train_split: str = "train"
    """Split to train on."""
    val_split: Annotated[str, MAY_CHANGE] = "val"
    """Split to evaluate on during training."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of the training split to train on, to see what more images bring. Always the same
    images; those of a smaller part are also in a larger one."""
    keep_classes: Annotated[
        bool, Needs("unless init_from names a run folder", ("init_from",), is_run)
    ] = False
    """Whether the classes of the run that `init_from` names are kept, beside those of the data,
    which are the only ones that are trained: see [training.md](training.md#adding-classes)."""
    train_difficult: bool = False
    """Whether difficult objects are trained, not ignored. Original Caffe code on VOC: true."""
    repeat_threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """Images with a class that fewer than this fraction of the images have come more often per
    epoch: sqrt(threshold / fraction) times (Gupta et al. 2019, with 0.001). Reads the split once
    before the first step. `eval.every` and the passes in the log count images without repeats."""
    shuffle_buffer: PositiveInt = 2048
    """Number of encoded records in the shuffle buffer. Lower if memory is short."""
    shard: Annotated[
        Literal["record", "file"], only_with("train.strategy", "auto", "multi_worker")
    ] = "record"
    """Records read by each of several workers: all, of which it keeps its slice of each batch
    (`record`), or files of its own (`file`), for data that one machine cannot read fast enough; the
    run then keeps its number of workers."""
    on_bad_record: Annotated[
        Literal["stop", "skip"], MayChange(consequence="skipped records change the order of images")
    ] = "stop"
    """A record that cannot be parsed or decoded: `stop` with an error, or `skip` it, after decoding
    both splits once before the first step."""


_ONLY_MINED = Needs(
    "with loss.focal_gamma, as the focal loss takes every box instead of mined negatives",
    ("loss.focal_gamma",),
    lambda gamma: gamma is None,
)
_WITH_FOCAL = Needs(
    "without loss.focal_gamma", ("loss.focal_gamma",), lambda gamma: gamma is not None
)


class Loss(Section):
    """The MultiBox loss of Liu et al. 2016, sec. 2.2, and its variants."""

    negatives_per_positive: Annotated[NonNegativeFloat, _ONLY_MINED] = 3.0
    """Mined negatives per positive of an image. All references: 3."""
    min_negatives: Annotated[Count, _ONLY_MINED] = 3
    """Minimum number of mined negatives per image, so that images without objects count. TF Object
    Detection API: 3; most other references: 0."""
    localization_weight: NonNegativeFloat = 1.0
    """Weight of the box loss. Liu et al. 2016: 1; TF Model Garden with its Huber loss: 50."""
    focal_gamma: NonNegativeFloat | None = None
    """Exponent of the focal loss, which replaces mined negatives. Lin et al. 2017: 2."""
    focal_alpha: Annotated[Fraction | None, _WITH_FOCAL] = None
    """Weight of objects; the background has 1 - `focal_alpha`. Lin et al. 2017: 0.25."""
    box_loss: Literal["smooth_l1", "giou"] = "smooth_l1"
    """Distance of boxes: `smooth_l1` of the offsets, or `giou` of the decoded boxes (Rezatofighi et
    al. 2019)."""
    normalizer: Literal["global", "torchvision", "nvidia"] = "global"
    """Divisor of the loss: the positives of the `global` batch, or, to train exactly as a
    reference, that of `torchvision`, which is also the original Caffe code's, or `nvidia`."""

    @pydantic.model_validator(mode="after")
    def _check_negatives(self):
        mines_none = self.negatives_per_positive == self.min_negatives == 0
        if self.focal_gamma is None and mines_none:
            raise ValueError(
                "expected negatives_per_positive or min_negatives above 0, got 0 and 0: no "
                "background would be trained"
            )
        return self


def _check_increasing(steps):
    if any(later <= step for step, later in itertools.pairwise(steps)):
        raise ValueError("expected increasing steps")
    return steps


Steps = Annotated[tuple[PositiveInt, ...], pydantic.AfterValidator(_check_increasing)]


class Train(Section):
    """Steps, batches, optimizer and learning rate."""

    steps: Annotated[
        PositiveInt, MayChange(consequence="the schedule of the learning rate follows")
    ] = 120_000
    """Number of training steps."""
    batch_size: PositiveInt = 32
    """Images per step, of all replicas together."""
    accumulate: PositiveInt = 1
    """Number of micro-batches that each replica processes one after the other: less memory, the
    same gradient. With `bn: train` the statistics are those of the micro-batches."""
    seed: Count = 0
    """Seed of initial weights, shuffling and augmentation."""
    strategy: Annotated[Literal["auto", "one", "mirrored", "multi_worker"], MAY_CHANGE] = "auto"
    """Devices: `one`, all GPUs of a machine (`mirrored`), or several machines (`multi_worker`).
    `auto` chooses `multi_worker` if `--hosts`, `TF_CONFIG` or SLURM list workers, else `mirrored`
    if there are several GPUs."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Type of the computation: `float32`, `mixed_bfloat16` for GPUs and processors with bfloat16,
    or `mixed_float16` with a scaled loss. TF Object Detection API: bfloat16 for its ResNet-50 FPN.
    """
    steps_per_call: Annotated[PositiveInt, MAY_CHANGE] = 1
    """Steps per call of the training function, at most `watch.log_every`. A report, a save or an
    evaluation ends a call; a signal waits for its end. 10 or more if a step takes milliseconds."""
    xla: Annotated[bool, MAY_CHANGE] = False
    """Whether XLA compiles the network and the loss; on a CPU it was 7 times slower."""
    deterministic: Annotated[bool, MAY_CHANGE] = False
    """Whether every run on the same device gives the same bits, at the cost of speed. Needed on
    GPUs, and on processors with AMX, where SSDLite took a fifth longer."""
    bn: Annotated[
        Literal["train", "frozen", "synchronized"],
        Needs(
            "as synchronized with train.strategy=one, which has one replica",
            ("train.bn", "train.strategy"),
            lambda bn, strategy: not (bn == "synchronized" and strategy == "one"),
        ),
    ] = "train"
    """Statistics of batch norm: those of each replica's batch (`train`), the ones it has
    (`frozen`), or those of all replicas together (`synchronized`). `frozen` or `synchronized` for
    few images per replica."""
    bn_momentum: Annotated[Momentum, only_with("train.bn", "train", "synchronized")] = 0.9
    """Momentum of the statistics of batch norm. torchvision's SSDLite: 0.97."""
    optimizer: Literal["SGD", "AdamW"] = "SGD"
    """`SGD` with a momentum of 0.9, as in all references here, or `AdamW` for short fine-tuning."""
    learning_rate: Annotated[PositiveFloat, AFTER_DIVERGENCE] = 1e-3
    """Full learning rate, after the warm-up."""
    base_batch: PositiveInt | None = None
    """Batch size that `learning_rate` is meant for: it is multiplied by `batch_size` / `base_batch`
    (Goyal et al. 2017). NVIDIA: 32."""
    weight_decay: NonNegativeFloat = 5e-4
    """Decay of kernels: L2 in the gradient; decoupled, thus multiplied by the learning rate, with
    AdamW, which needs 0.01 to 0.05."""
    pretrained_rate: PositiveFloat = 1.0
    """Factor of the learning rate of the layers that `init_from` fills: the backbone, or, of a run,
    those before the heads. `finetune.yaml`, for new classes: 0.04."""
    bias_rate: PositiveFloat = 1.0
    """Factor of the learning rate of biases. Original Caffe code: 2."""
    schedule: Literal["step", "cosine"] = "step"
    """Decay of the learning rate. torchvision's SSDLite, TF Object Detection API: `cosine`."""
    decay_steps: Annotated[Steps, only_with("train.schedule", "step")] = ()
    """Steps at which the rate falls to a tenth (Liu et al. 2016); an empty list keeps it constant.
    """
    warmup_steps: Annotated[Count, AFTER_DIVERGENCE] = 0
    """Number of steps in which the learning rate rises linearly."""
    warmup_from: Annotated[Momentum, AFTER_DIVERGENCE, only_if("train.warmup_steps")] = 0.001
    """First learning rate, as a fraction of the full one. torchvision: 0.001; TF Object Detection
    API's FPN configs: 0.3333."""
    clip_norm: Annotated[PositiveFloat | None, AFTER_DIVERGENCE] = None
    """Maximum norm of the whole gradient, summed over replicas. For a loss that diverges."""
    ema: Fraction | None = None
    """Maximum decay of the averaged weights (EMA), which warms up as (1 + n) / (10 + n) with the
    step n. 0.99 to 0.995 for short schedules; at most 1 - 5 / `steps`."""
    checkpoint_every: Annotated[PositiveInt, MAY_CHANGE] = 1000
    """Steps between checkpoints."""
    keep_checkpoints: Annotated[int, Field(ge=2), MAY_CHANGE] = 2
    """Number of latest checkpoints to keep, at least 2, as the last may be corrupt."""

    @pydantic.model_validator(mode="after")
    def _check_schedule(self):
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"expected warmup_steps below steps, got {self.warmup_steps} and {self.steps}: "
                "the full learning rate would never be reached"
            )
        decay_steps = self.decay_steps if self.schedule == "step" else ()
        if max(decay_steps, default=0) >= self.steps:
            raise ValueError(
                f"expected decay_steps below steps, got {list(decay_steps)} and {self.steps}: the "
                "schedule is longer than the run; for a short trial set train.decay_steps=[]"
            )
        if decay_steps and decay_steps[0] <= self.warmup_steps:
            raise ValueError(
                f"expected decay_steps after warmup_steps, got {list(decay_steps)} and "
                f"{self.warmup_steps}"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _check_batches(self):
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"expected a batch_size that accumulate divides, got {self.batch_size} and "
                f"{self.accumulate}"
            )
        if self.xla and self.bn == "synchronized":
            raise ValueError("xla cannot compile bn: synchronized, which talks to other replicas")
        return self


class PostProcessing(Section):
    """The keys of `eval` that turn predictions into detections; AP depends on them."""

    score_floor: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Detections score more than this. torchvision's SSDLite: 0.001; NVIDIA: 0.05."""
    nms_iou: Probability = 0.45
    """Of two boxes of a class with a higher IoU, NMS drops the one with the lower score. NVIDIA:
    0.5; torchvision's SSDLite: 0.55; TF Object Detection API: 0.6."""
    class_agnostic: bool = False
    """Whether each default box has only its best class, and boxes of all classes suppress each
    other, as TFLite's operator does by default; if objects of different classes never overlap."""
    pre_nms_top_k: PositiveInt = 400
    """Number of candidates that enter NMS, per class unless `class_agnostic`. NVIDIA: 200;
    torchvision's SSDLite: 300; mmdetection: 1000."""
    max_detections: PositiveInt = 200
    """Maximum detections per image. TF Object Detection API: 100; torchvision's SSDLite: 300."""
    clip_first: bool = False
    """Whether boxes are clipped to the image before NMS, as in torchvision, instead of after it, as
    in the original DetectionOutput layer, whose NMS sees whole boxes."""
    size_limit: PositiveFloat | None = None
    """Maximum ratio of a box's side to its default box's; default: none. torchvision: 62.5."""


def _check_interval(value):
    is_steps = isinstance(value, int) and not isinstance(value, bool) and value > 0
    is_epochs = isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)? epochs?", value)
    if value is None or is_steps or (is_epochs and float(value.split()[0]) > 0):
        return value
    raise ValueError("expected a number of steps, or e.g. `2 epochs`")


class Eval(PostProcessing):
    """Post-processing, and evaluation during training."""

    may_change = MAY_CHANGE

    every: Annotated[int | str | None, pydantic.BeforeValidator(_check_interval)] = None
    """Steps between evaluations, or e.g. `2 epochs`; default: a tenth of the run."""
    patience: PositiveInt | None = None
    """Training ends after this many evaluations without a better AP; default: never."""
    batch_size: PositiveInt = 8
    """Images per batch of an evaluation. 1 if memory is short."""


class Export(Section):
    """Limits of TFLite files, whose operator keeps at most 100 detections per class."""

    may_change = MAY_CHANGE

    max_detections: PositiveInt | None = None
    """Maximum number of detections per image; default: `eval.max_detections`, at most 100. TF
    Object Detection API: 10 in its files for phones."""
    score_floor: Probability | None = None
    """Default: `eval.score_floor`. Higher for fewer detections on a phone."""
    score_threshold: Probability | None = None
    """Score threshold for clients that take one number, in the TFLite metadata and on the web page;
    default: `all` of the run's `thresholds.json`, else 0.3 and 0.5."""


class Watch(Section):
    """Reports during training."""

    may_change = MAY_CHANGE

    log_every: PositiveInt = 20
    """Steps between lines of progress."""
    images: Count = 4
    """Number of held-out images drawn at each evaluation, in TensorBoard and `live.html`."""
    live_page: bool = True
    """Write `live.html` into the run folder, a page that shows the run while it trains."""


class Config(Section):
    """An experiment: two keys of its own, and the sections."""

    init_from: str | None = None
    """Weights to start from: a run folder, `imagenet`, or a backbone's file of Keras (`.h5`) or
    torchvision (`.pth`, `.safetensors`, `.npz`). If the file has no `model.backbone.name`, network
    and default boxes are those of the run. See [training.md](training.md#fine-tuning) and
    [models.md](models.md#weights-init_from)."""
    imported_from: str | None = None
    """File that the weights of an imported model came from; only `ssd import` writes it."""
    model: Model = Model()
    boxes: Boxes
    data: Data = Data()
    loss: Loss = Loss()
    train: Train = Train()
    eval: Eval = Eval()
    export: Export = Export()
    watch: Watch = Watch()

    @property
    def assigner(self) -> str:
        """`boxes.assigner`, or what `auto` means here."""
        if self.boxes.assigner != "auto":
            return self.boxes.assigner
        has_pyramid = self.model.neck != "none"
        return "atss" if has_pyramid and not self.data.keep_classes else "multibox"

    @property
    def starts_from_run(self) -> bool:
        """Whether init_from names a run folder, not the weights of a backbone."""
        return is_run(self.init_from)


KEYS = list_keys(Config)
