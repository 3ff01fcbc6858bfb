"""The start of a quickstart with default settings: from a download by name to a filled network."""

import functools
import http.server
import shutil
import tarfile
import threading

import numpy as np
import od_files
import pytest

from ssd_tf.config import load_config
from ssd_tf.models import ssd
from ssd_tf.quickstarting import starts, steps
from ssd_tf.quickstarting.job import Job
from ssd_tf.quickstarting.state import Request
from ssd_tf.training.state import load_initial_weights
from ssd_tf.weights.importers import downloads

NUM_COCO_IDS = 90
FOLDER = "ssd_of_a_test_coco17"


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def arrays():
    """The detector's, by the names of the TF Object Detection API."""
    model = od_files.make_network("ssd_mobilenet_v1", NUM_COCO_IDS)
    return od_files.arrays_of("ssd_mobilenet_v1", model)


@pytest.fixture
def published(arrays, tmp_path, monkeypatch):
    """An archive as the zoo has them, which a server offers under the name of the best start."""
    served = tmp_path / "served"
    checkpoint = served / FOLDER / "checkpoint"
    checkpoint.mkdir(parents=True)
    od_files.write_checkpoint(checkpoint / "ckpt-0", arrays)
    with tarfile.open(served / f"{FOLDER}.tar.gz", "w:gz") as archive:
        archive.add(served / FOLDER, FOLDER)
    shutil.rmtree(served / FOLDER)
    handler = functools.partial(Handler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{FOLDER}.tar.gz"
        entry = downloads.Published(url, 22.2, 1, "Apache-2.0")
        monkeypatch.setitem(downloads.DETECTORS, starts.BEST_NAME, entry)
        yield
        server.shutdown()


@pytest.mark.usefixtures("published")
def test_from_a_name_to_the_weights_of_a_training(arrays, tmp_path, monkeypatch):
    weights = tmp_path / "weights"
    weights.mkdir()
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(weights))
    job = Job(Request(tmp_path / "photos"), tmp_path / "photos-ssd", None, "ssd quickstart photos")
    job.folder.mkdir()
    done = steps.find_start(job)
    assert [path.name for path in weights.iterdir()] == [f"{FOLDER}.tar.gz"]
    assert done.output == job.start / "config.yaml"
    assert (done.result["base"], done.result["source"]) == ("finetune.yaml", starts.BEST_NAME)
    assert done.result["values"] == {"init_from": str(job.start)}
    assert job.commands == [f"ssd import --source {starts.BEST_NAME} --output {job.start}"]

    config = load_config(done.result["base"], [f"init_from={job.start}"])
    assert config.model.backbone.name == "mobilenet"
    network = ssd.build_model(config, 2)
    assert load_initial_weights(config, network, ["cat", "unicorn"]) == []
    first = network.model.get_layer("conv1").get_weights()[0]
    np.testing.assert_array_equal(first, arrays[f"{od_files.V1}/MobilenetV1/Conv2d_0/weights"])
    # Rows for each of 3 default boxes: background, cat, which is COCO's 17, and a new class.
    bias = network.model.get_layer("logits0_conv").get_weights()[1].reshape(3, 3)
    old_bias = arrays["BoxPredictor_0/ClassPredictor/biases"].reshape(3, NUM_COCO_IDS + 1)
    np.testing.assert_array_equal(bias[:, :2], old_bias[:, [0, 17]])
