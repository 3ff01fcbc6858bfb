"""Runs the shards of a conversion as tasks of an Apache Beam pipeline.

Its workers must see the images and the output folder under the same paths as this process.
"""

import pathlib
import pickle


def run_tasks(function, tasks, runner, arguments):
    """Yield function(task, tick) of each task, in order, once the whole pipeline has run.

    runner: name of a Beam runner; arguments: its own options. Raises OSError if the pipeline fails,
    ValueError if apache-beam is not installed.
    """
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise ValueError(
            "--beam_runner needs apache-beam, which is not installed: pip install 'ssd-tf[beam]'"
        ) from None
    pipeline_options = PipelineOptions([f"--runner={runner}", *arguments])
    try:
        with apache_beam.Pipeline(options=pipeline_options) as pipeline:
            _ = (
                pipeline
                | apache_beam.Create([pickle.dumps((function, task)) for task in tasks])
                | apache_beam.Reshuffle()
                | apache_beam.Map(_run_task)
            )
    except Exception as error:
        raise OSError(f"the Beam pipeline on {runner} failed: {_first_line(error)}") from None
    for task in tasks:
        path = _result_path(task)
        yield pickle.loads(path.read_bytes())
        path.unlink()


def _run_task(pickled):
    function, task = pickle.loads(pickled)
    _result_path(task).write_bytes(pickle.dumps(function(task, lambda: None)))


def _result_path(task):
    return pathlib.Path(task.path + ".result")


def _first_line(error):
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
