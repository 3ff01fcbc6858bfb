"""SavedModel with the output names of the TF Object Detection API.

Shapes: `B` batch, `K` detections kept, `A` default boxes, `C` foreground classes.
"""

import pathlib
import shutil

import tensorflow as tf

from ssd_tf.data.images import decode_image, resize
from ssd_tf.inference.detector import make_detect


class Server(tf.Module):
    """What is saved: the model (so that its variables are tracked) and three signatures."""

    def __init__(self, config, network):
        super().__init__()
        self.model = network.model
        self._detect = make_detect(config, network)
        self._hw = config.model.input_hw

    def serve(self, input_tensor):
        """uint8 [B, H, W, 3] of any size -> detections."""
        images = resize(input_tensor, self._hw)
        size = tf.cast(tf.shape(input_tensor)[1:3], tf.float32)
        return _named(self._detect(images), tf.tile(size[None], [tf.shape(input_tensor)[0], 1]))

    def serve_bytes(self, image_bytes):
        """Encoded pictures [B] string, each of its own size -> detections."""

        def read(encoded):
            image = decode_image(encoded)
            return resize(image, self._hw), tf.cast(tf.shape(image)[:2], tf.float32)

        signature = (tf.TensorSpec([*self._hw, 3], tf.float32), tf.TensorSpec([2], tf.float32))
        images, sizes = tf.map_fn(read, image_bytes, fn_output_signature=signature)
        return _named(self._detect(images), sizes)

    def raw(self, image):
        """float32 [B, H, W, 3] RGB in 0..255 at the model's size -> offsets [B, A, 4], logits [B, A, C + 1]."""
        return self.model(image, training=False)


def export_saved_model(config, network, names, path):
    """Writes the SavedModel folder, whole or not at all; class names go into assets.extra/labels.txt."""
    path = pathlib.Path(path)
    temporary = path.with_name(path.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    server = Server(config, network)
    specs = {
        "serving_default": (
            server.serve,
            tf.TensorSpec([None, None, None, 3], tf.uint8, "input_tensor"),
        ),
        "serving_bytes": (server.serve_bytes, tf.TensorSpec([None], tf.string, "image_bytes")),
        "raw": (server.raw, tf.TensorSpec([None, *config.model.input_hw, 3], tf.float32, "image")),
    }
    signatures = {
        name: tf.function(function).get_concrete_function(spec)
        for name, (function, spec) in specs.items()
    }
    tf.saved_model.save(server, str(temporary), signatures=signatures)
    extra = temporary / "assets.extra"
    extra.mkdir()
    (extra / "labels.txt").write_text("".join(f"{name}\n" for name in names))
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)


def _named(detections, sizes):
    """Detections and the pictures' height and width [B, 2] -> the outputs of the TF Object Detection API, and pixel boxes."""
    return {
        "detection_boxes": detections["boxes"],
        "detection_boxes_pixels": detections["boxes"] * tf.tile(sizes, [1, 2])[:, None],
        "detection_scores": detections["scores"],
        "detection_classes": tf.cast(detections["labels"], tf.float32),
        "num_detections": tf.cast(detections["count"], tf.float32),
    }
