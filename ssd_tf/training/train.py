"""`train(config, data, workdir)`: prepares data, network and evaluation, and runs the loop."""

import contextlib
import os
import pathlib
import shlex

import tensorflow as tf
from absl import logging

from ssd_tf import files
from ssd_tf.config import Config, load_config
from ssd_tf.data import bad_records, dataset_json, pipeline
from ssd_tf.models.ssd import SSD
from ssd_tf.results import Result
from ssd_tf.training import (
    advice,
    device_errors,
    distribution,
    events,
    kept_classes,
    outcome,
    restart,
)
from ssd_tf.training.loop import Loop
from ssd_tf.training.run_evaluation import make_evaluate
from ssd_tf.training.state import make_train_state
from ssd_tf.user_files import check_output_folder


def train(
    config: Config | str | os.PathLike[str],
    data: str | os.PathLike[str],
    workdir: str | os.PathLike[str],
    hosts: list[str] | None = None,
    task: int | None = None,
    profile_steps: str | None = None,
) -> Result:
    """Train from scratch, or resume from the last checkpoint of `workdir`.

    config: a Config, or the path of an experiment file. data: a folder of TFRecords with its
    dataset.json. workdir: the run folder. hosts, task: as `make_strategy` takes them.
    profile_steps: "A:B" records a profile of the steps from A to B.

    Returns a Result with the step and the metrics of the best weights, or of the last ones without
    a val split.
    Raises ConfigError for settings that cannot be used or do not fit the run in `workdir`,
    DivergedError if the loss or the weights diverge, ValueError or OSError for data, machines and
    disks that cannot be used, Interrupted after SIGINT or SIGTERM; each message is one line.
    """
    if not isinstance(config, Config):
        config = load_config(config)
    check_output_folder(workdir, "--workdir")
    workdir = pathlib.Path(workdir)
    dataset_info = dataset_json.read_dataset(data)
    split = config.data.train_split
    dataset_info.shards(split)
    profiler = None
    if profile_steps is not None:
        folder = workdir / "tensorboard"
        profiler = events.Profiler.parse(profile_steps, config.train.steps, folder)
    run_info = kept_classes.list_classes(config, dataset_info, workdir)
    run_state = restart.check_restart(config, run_info, workdir)
    strategy = distribution.make_strategy(config.train.strategy, hosts, task)
    with contextlib.ExitStack() as stack:
        if distribution.is_chief(strategy):
            message = f"another process is training in {workdir}: wait for it, or stop it"
            stack.enter_context(files.lock_folder(workdir, message))
        stack.enter_context(device_errors.explain_lost_worker(strategy))
        stack.enter_context(device_errors.explain_out_of_memory(config))
        resumes = restart.can_resume(workdir)
        restart.check_agreement(strategy, config, run_info, run_state, resumes, profile_steps)
        restart.check_replicas(config, run_state, strategy, workdir)
        if config.train.deterministic:
            tf.config.experimental.enable_op_determinism()
        names = run_info.names
        rows = kept_classes.find_trained_rows(config, names, dataset_info.names)
        new_layers = run_state.new_layers if resumes else None
        state = make_train_state(config, names, strategy, new_layers, trained_rows=rows)
        run_state.new_layers = list(state.new_layers)
        advice.log_settings(config, state.network, strategy.num_replicas_in_sync)
        loop = _make_loop(config, dataset_info, names, workdir, state, run_state, profiler)
        if distribution.is_chief(strategy):
            restart.write_settings(config, run_info, run_state, workdir)
        stack.enter_context(bad_records.explain_record_errors(data, split))
        loop.run()
    result = outcome.read_result(workdir)
    logging.info("%s", outcome.describe(result))
    curves = shlex.join(["tensorboard", "--logdir", str(workdir.parent)])
    logging.info("done: %s (curves: %s)", workdir, curves)
    return result


def dataset_maker(config: Config, data, network: SSD):
    """The function StreamSlice -> batches of the training split, as `Loop` takes it."""

    def make_dataset(stream_slice):
        return pipeline.build_dataset(
            config,
            data,
            config.data.train_split,
            network.default_boxes,
            stream_slice,
            level_of_box=network.level_of_box,
        )

    return make_dataset


def _make_loop(config, dataset_info, names, workdir, state, run_state, profiler):
    """The loop with what it needs of the data: batches, names of images, evaluations.

    names: the classes of the run.
    """
    split = config.data.train_split
    num_workers = distribution.count_workers(state.strategy)
    num_images = config.data.fraction * dataset_info.splits[split]["images"]

    def name_images(step):
        return pipeline.name_batch(config, dataset_info.folder, split, step, num_workers)

    return Loop(
        config=config,
        state=state,
        workdir=workdir,
        run_state=run_state,
        make_dataset=dataset_maker(config, dataset_info.folder, state.network),
        evaluate=make_evaluate(config, dataset_info, state.network, names),
        evaluate_every=events.evaluation_interval(config, num_images),
        num_images=round(num_images),
        name_images=name_images,
        profiler=profiler,
    )
