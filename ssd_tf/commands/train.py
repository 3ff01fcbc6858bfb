"""python train.py --config C --data DIR --workdir RUN [--set KEY=VALUE ...]"""

import contextlib
import dataclasses
import pathlib
import sys

from absl import flags, logging

from ssd_tf import commandline, files
from ssd_tf.config import Config, load_config
from ssd_tf.data import dataset_json

USAGE = """
Train a detector on TFRecords. The same command on an existing run folder resumes from its last
checkpoint. SIGINT (Ctrl-C) and SIGTERM save, then end it.

  python train.py --config configs/NAME.yaml --data DIR --workdir runs/NAME [--set KEY=VALUE ...]
    [--hosts HOST:PORT,HOST:PORT --task N]
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
flags.DEFINE_list(
    "hosts",
    None,
    "Several machines: host:port of each, the same list everywhere. TF_CONFIG and SLURM work too.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "task", None, "Index of this machine in --hosts, from 0.", lower_bound=0, flag_values=FLAGS
)
flags.DEFINE_string(
    "profile_steps",
    None,
    "A:B records a profile of the steps from A to B for TensorBoard.",
    flag_values=FLAGS,
)


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("config", "data", "workdir"), argv)


def _main(values, positional):
    config = load_config(values.config, commandline.read_overrides(values, positional))
    run_training(
        config,
        values.data,
        pathlib.Path(values.workdir),
        hosts=values.hosts,
        task=values.task,
        profile_steps=values.profile_steps,
    )


def run_training(config: Config, data, workdir, hosts=None, task=None, profile_steps=None):
    """Train from scratch, or resume from the last checkpoint of `workdir`.

    hosts, task: as `make_strategy` takes them. profile_steps: "A:B", or None.
    """
    dataset_info = dataset_json.read_dataset(data)
    split = config.data.train_split
    dataset_info.shards(split)
    commandline.import_tensorflow()
    from ssd_tf.data import bad_records
    from ssd_tf.training import agreement, distribution, memory, restart, trainer

    state = restart.check_restart(config, dataset_info, workdir)
    strategy = distribution.make_strategy(config.train.strategy, hosts, task)
    with contextlib.ExitStack() as stack:
        if distribution.is_chief(strategy):
            refusal = f"another process is training in {workdir}: wait for it, or stop it"
            stack.enter_context(files.lock_folder(workdir, refusal))
        stack.enter_context(distribution.explain_lost_worker(strategy))
        stack.enter_context(memory.explain_out_of_memory(config))
        agreement.check_agreement(strategy, config, dataset_info, state, profile_steps)
        num_workers = distribution.count_workers(strategy)
        num_replicas = strategy.num_replicas_in_sync
        restart.check_replicas(config, state, num_workers, num_replicas, workdir)
        run = _prepare(config, dataset_info, workdir, state, strategy, profile_steps)
        if distribution.is_chief(strategy):
            restart.write_settings(config, dataset_info, state, workdir)
        stack.enter_context(bad_records.explain_record_errors(data, split))
        trainer.train(run)
    logging.info("done: %s (curves: tensorboard --logdir %s)", workdir, workdir / "tensorboard")


def _prepare(config, dataset_info, workdir, state, strategy, profile_steps):
    """Build the network and all else that the trainer needs."""
    import tensorflow as tf

    from ssd_tf.data import pipeline
    from ssd_tf.training import advice, distribution, restart, trainer
    from ssd_tf.training.learner import make_learner

    if config.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    starts = not restart.can_resume(workdir)
    learner = make_learner(config, dataset_info.names, strategy, initial_weights=starts)
    network = learner.network
    data = dataset_info.folder
    split = config.data.train_split
    advice.log_settings(config, network, strategy.num_replicas_in_sync)
    num_workers = distribution.count_workers(strategy)

    def make_dataset(stream_slice):
        return pipeline.build_dataset(config, data, split, network.default_boxes, stream_slice)

    return trainer.Run(
        config=config,
        learner=learner,
        workdir=workdir,
        state=state,
        make_dataset=make_dataset,
        evaluation=_make_evaluation(config, dataset_info, network),
        name_images=lambda step: pipeline.name_batch(config, data, split, step, num_workers),
        profiler=_make_profiler(profile_steps, config, workdir),
    )


def _make_profiler(profile_steps, config, workdir):
    if profile_steps is None:
        return None
    from ssd_tf.training import profiling

    first, last = profiling.parse_steps(profile_steps, config.train.steps)
    return profiling.Profiler(workdir, first, last)


def _make_evaluation(config, dataset_info, network):
    """How the trainer evaluates; None, with a warning, without a val split."""
    from ssd_tf.data import bad_records, split_examples
    from ssd_tf.evaluation import metrics
    from ssd_tf.evaluation.run_detector import run_detector
    from ssd_tf.inference.detector import keras_detector
    from ssd_tf.models import folding
    from ssd_tf.training import events, trainer

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
    examples = split_examples.read_examples(dataset_info.folder, split, skipped)
    folded = folding.fold_batch_norm(network.model)
    folded_network = dataclasses.replace(network, model=folded)
    detector = keras_detector(config, folded_network, dataset_info.names)

    def run():
        folding.assign_folded(folded, network.model)
        with bad_records.explain_record_errors(dataset_info.folder, split):
            truth, found = run_detector(
                detector.batch, examples, dataset_info.classes, config.eval.batch_size
            )
        shown = examples.take(config.watch.images)
        return metrics.measure(truth, found), _drawn(detector, shown)

    num_images = dataset_info.splits[config.data.train_split]["images"]
    return trainer.Evaluation(run, events.evaluation_interval(config, num_images))


def _drawn(detector, examples):
    """Ground truth and detections of Examples, side by side."""
    from ssd_tf.draw import draw_comparison

    return [
        draw_comparison(example["image"], example, detector(example["image"]), detector.classes)
        for example in examples.as_numpy_iterator()
    ]


if __name__ == "__main__":
    sys.exit(main())
