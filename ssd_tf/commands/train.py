"""python train.py --config C --data DIR --workdir RUN [--set KEY=VALUE ...]"""

import pathlib
import shutil

from absl import flags, logging

from ssd_tf import commandline
from ssd_tf.config import Config, ConfigError, load_config, save_config

USAGE = """
Train a detector on TFRecords; the same command on an existing run folder goes on from its last checkpoint.

  python train.py --config configs/NAME.yaml --data DIR --workdir runs/NAME [--set KEY=VALUE ...]
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string("config", None, "Experiment file (YAML).", flag_values=FLAGS)
flags.DEFINE_string("data", None, "Folder of TFRecords with dataset.json.", flag_values=FLAGS)
flags.DEFINE_string(
    "workdir", None, "Run folder: checkpoints, metrics.csv, tensorboard.", flag_values=FLAGS
)
flags.DEFINE_multi_string(
    "set",
    [],
    "Replace a value of the config, e.g. train.steps=500; may be repeated.",
    flag_values=FLAGS,
)


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("config", "data", "workdir"), argv)


def _main(options, rest):
    config = load_config(options.config, [*options.set, *rest])
    run_training(config, options.data, pathlib.Path(options.workdir))


def run_training(config: Config, data, workdir):
    """One run, from nothing or from the last checkpoint of `workdir`."""
    commandline.import_tensorflow()
    from ssd_tf.data import bad_records, dataset_json, pipeline
    from ssd_tf.training import distribution, trainer

    info = dataset_json.read_dataset(data)
    info.shards(config.data.train_split)
    _check_same_run(config, info, workdir)
    strategy = distribution.make_strategy(config)
    with strategy.scope():
        network = trainer.make_network(config, len(info.classes))
        _initialize(config, network.model, info)
        optimizer = trainer.make_optimizer(config, network.model)
    default_boxes = network.default_boxes
    evaluate = _make_evaluate(config, data, info, network)
    if distribution.is_chief(strategy):
        _write_run(config, info, workdir)
    logging.info(
        "%d default boxes, %.2f million parameters",
        len(default_boxes),
        network.model.count_params() / 1e6,
    )

    def make_dataset(start_step, machines, machine):
        return pipeline.build_dataset(
            config, data, config.data.train_split, default_boxes, start_step, machines, machine
        )

    with (
        bad_records.explain_record_errors(data, config.data.train_split),
        distribution.explain_lost_worker(),
    ):
        trainer.train(config, network, optimizer, strategy, make_dataset, workdir, evaluate)
    logging.info("done: %s (curves: tensorboard --logdir %s)", workdir, workdir / "tensorboard")


def _check_same_run(config, info, workdir):
    """Refuses to go on with another run's checkpoint: only eval.*, watch.* and data.on_bad_record may differ on a restart."""
    from ssd_tf.data import dataset_json

    if not any((workdir / "checkpoints" / "last").glob("*.index")):
        return  # a run that failed before its first checkpoint may be mended and started again
    before = load_config(workdir / "config.yaml").model_dump(mode="json")
    for path, old, new in _differences(before, config.model_dump(mode="json")):
        if path == "data.on_bad_record":
            logging.warning(
                "%s was %s, now it is %s: where a record is skipped, the order of pictures changes",
                path,
                old,
                new,
            )
        elif not path.startswith(("eval.", "watch.")):
            raise ConfigError(
                f"{workdir} was started with {path} = {old}, now it is {new}: use another --workdir"
            )
    old_names = dataset_json.read_dataset(workdir).names
    if old_names != info.names:
        raise ConfigError(
            f"{workdir} was trained on {len(old_names)} classes ({', '.join(old_names[:5])}, ...), "
            f"{info.folder} has {len(info.names)} ({', '.join(info.names[:5])}, ...): use another --workdir"
        )


def _write_run(config, info, workdir):
    workdir.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(info.folder / "dataset.json", workdir / "dataset.json")
    save_config(config, workdir / "config.yaml")


def _differences(old, new, path=""):
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path, old, new


def _initialize(config, model, info):
    """Weights of the backbone, then those of another run where `init_from` names one."""
    from ssd_tf.models import ssd
    from ssd_tf.weights import imagenet, runs

    imagenet.load_backbone(model, config)
    if config.init_from is None:
        return
    weights = runs.read_weights(runs.find_checkpoint(config.init_from))
    mismatches = runs.assign_weights(model, weights, allow_partial=True)
    wrong = [
        mismatch
        for mismatch in mismatches
        if not mismatch.variable.path.startswith(ssd.CLASS_HEAD_PREFIX)
    ]
    if wrong:
        raise ConfigError(
            f"init_from {config.init_from}: {wrong[0]} ({len(wrong)} arrays do not fit)"
        )
    logging.info(
        "init_from %s: %d arrays start anew for %d classes",
        config.init_from,
        len(mismatches),
        len(info.classes),
    )


def _make_evaluate(config, data, info, network):
    """The evaluation that the trainer calls; None where the data set has no pictures of such a split, which is said."""
    from ssd_tf.data import bad_records, pipeline
    from ssd_tf.evaluation import evaluator
    from ssd_tf.inference.detector import keras_detector

    split = config.data.val_split
    if not info.splits.get(split, {}).get("images"):
        logging.warning(
            "%s has no pictures in a split %r: training keeps checkpoints/last only",
            info.folder,
            split,
        )
        return None
    # What is wrong with the split is told now, not after hours: shards that are gone, and, where they are skipped, bad records.
    examples = pipeline.read_examples(
        data, split, bad_records.scan_bad_records(info, split, config.data.on_bad_record)
    )
    detector = keras_detector(config, network, info.names)

    def evaluate(monitor, step):
        with bad_records.explain_record_errors(data, split):
            truth, found = evaluator.run_detector(
                detector.batch, examples, info.classes, config.eval.batch_size
            )
        monitor.pictures(
            step, "detections", _drawn(detector, examples.take(config.watch.images), info.names)
        )
        return evaluator.metrics(truth, found)["coco"]

    return evaluate


def _drawn(detector, examples, names):
    from ssd_tf.draw import draw_detections

    return [
        draw_detections(image, detector(image), names)
        for image in (e["image"] for e in examples.as_numpy_iterator())
    ]
