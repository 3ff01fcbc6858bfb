"""The shards of a conversion as tasks of an Apache Beam pipeline.

Its workers must see the pictures and the output folder under the paths that we see them under.
"""

import pathlib
import pickle


def run_tasks(function, tasks, runner, arguments):
    """Yields function(task, tick) of each task in order, once the whole pipeline has run."""
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise ValueError(
            "--beam_runner wants apache-beam, which is not installed: pip install 'ssd-tf[beam]'"
        ) from None
    try:
        with apache_beam.Pipeline(
            options=PipelineOptions([f"--runner={runner}", *arguments])
        ) as pipeline:
            _ = (
                pipeline
                | apache_beam.Create([pickle.dumps((function, task)) for task in tasks])
                | apache_beam.Reshuffle()
                | apache_beam.Map(_run_task)
            )
    except Exception as error:
        raise OSError(f"the Beam pipeline on {runner} failed: {_first_line(error)}") from None
    for task in tasks:
        account = _account_file(task)
        yield pickle.loads(account.read_bytes())
        account.unlink()


def _run_task(pickled):
    function, task = pickle.loads(pickled)
    _account_file(task).write_bytes(pickle.dumps(function(task, lambda: None)))


def _account_file(task):
    return pathlib.Path(task.path + ".account")


def _first_line(error):
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
