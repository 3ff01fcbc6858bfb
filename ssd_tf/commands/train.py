"""python train.py --config C --data DIR --workdir RUN [--set KEY=VALUE ...]"""

import pathlib

from absl import flags, logging

from ssd_tf import commandline
from ssd_tf.config import Config, load_config

USAGE = """
Train a detector on TFRecords. The same command on an existing run folder resumes from its last
checkpoint.

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


def _main(values, positional):
    config = load_config(values.config, commandline.read_overrides(values, positional))
    run_training(config, values.data, pathlib.Path(values.workdir))


def run_training(config: Config, data, workdir):
    """Train from scratch, or resume from the last checkpoint of `workdir`."""
    commandline.import_tensorflow()
    from ssd_tf.data import bad_records, dataset_json, pipeline
    from ssd_tf.training import distribution, restart, trainer
    from ssd_tf.training.learner import make_learner

    dataset_info = dataset_json.read_dataset(data)
    split = config.data.train_split
    dataset_info.shards(split)
    restart.check_restart(config, dataset_info, workdir)
    strategy = distribution.make_strategy(config.train.strategy)
    learner = make_learner(config, len(dataset_info.classes), strategy)
    network = learner.network
    evaluate = _make_evaluate(config, dataset_info, network)
    if distribution.is_chief(strategy):
        restart.write_settings(config, dataset_info, workdir)
    num_parameters = network.model.count_params()
    logging.info(
        "%d default boxes, %.2f million parameters",
        len(network.default_boxes),
        num_parameters / 1e6,
    )

    def make_dataset(stream_slice):
        return pipeline.build_dataset(config, data, split, network.default_boxes, stream_slice)

    with (
        bad_records.explain_record_errors(data, split),
        distribution.explain_lost_worker(strategy),
    ):
        trainer.train(config, learner, make_dataset, workdir, evaluate)
    logging.info("done: %s (curves: tensorboard --logdir %s)", workdir, workdir / "tensorboard")


def _make_evaluate(config, dataset_info, network):
    """The function that evaluates for the trainer; None, with a warning, without a val split."""
    from ssd_tf.data import bad_records, pipeline
    from ssd_tf.evaluation import evaluator
    from ssd_tf.inference.detector import keras_detector

    split = config.data.val_split
    if not dataset_info.splits.get(split, {}).get("images"):
        logging.warning(
            "%s has no images in a split %r: training keeps checkpoints/last only",
            dataset_info.folder,
            split,
        )
        return None
    # Missing shards and, if bad records are skipped, what skipping does not repair are reported
    # now, not after hours of training.
    skipped = bad_records.scan_bad_records(dataset_info, split, config.data.on_bad_record)
    examples = pipeline.read_examples(dataset_info.folder, split, skipped)
    detector = keras_detector(config, network, dataset_info.names)

    def evaluate(monitor, step):
        with bad_records.explain_record_errors(dataset_info.folder, split):
            ground_truth, results = evaluator.run_detector(
                detector.batch, examples, dataset_info.classes, config.eval.batch_size
            )
        shown = examples.take(config.watch.images)
        monitor.report_images(step, "detections", _drawn(detector, shown))
        return evaluator.metrics(ground_truth, results)["coco"]

    return evaluate


def _drawn(detector, examples):
    """Draw the detections of Examples on their images."""
    from ssd_tf.draw import draw_detections

    images = (example["image"] for example in examples.as_numpy_iterator())
    return [draw_detections(image, detector(image), detector.classes) for image in images]
