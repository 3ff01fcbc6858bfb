"""SavedModel with the output names of the TF Object Detection API.

Shapes: `B` batch, `K` detections kept, `A` default boxes, `C` foreground classes.
"""

import pathlib
import shutil

import tensorflow as tf

from ssd_tf import files
from ssd_tf.data.images import decode_image, resize
from ssd_tf.inference.detector import make_detect


class Server(tf.Module):
    """What is saved: the model, so that its variables are tracked, and three signatures."""

    def __init__(self, config, network):
        super().__init__()
        self.model = network.model
        self._detect = make_detect(config, network)
        self._input_hw = config.model.input_hw

    def serve(self, input_tensor):
        """uint8 [B, H, W, 3] of any size -> detections."""
        images = resize(input_tensor, self._input_hw)
        batch_size = tf.shape(input_tensor)[0]
        size_hw = tf.cast(tf.shape(input_tensor)[1:3], tf.float32)
        return _named_outputs(self._detect(images), tf.tile(size_hw[None], [batch_size, 1]))

    def serve_bytes(self, image_bytes):
        """Encoded images [B] string, each of its own size -> detections."""

        def read(encoded):
            image = decode_image(encoded)
            size_hw = tf.cast(tf.shape(image)[:2], tf.float32)
            return resize(image, self._input_hw), size_hw

        signature = (
            tf.TensorSpec([*self._input_hw, 3], tf.float32),
            tf.TensorSpec([2], tf.float32),
        )
        images, sizes_hw = tf.map_fn(read, image_bytes, fn_output_signature=signature)
        return _named_outputs(self._detect(images), sizes_hw)

    def raw(self, image):
        """Predictions without post-processing.

        float32 [B, H, W, 3] RGB in 0..255, at input_hw -> offsets [B, A, 4], logits [B, A, C + 1].
        """
        return self.model(image, training=False)


def export_saved_model(config, network, names, path):
    """Write the SavedModel folder atomically; class names go into assets.extra/labels.txt."""
    path = pathlib.Path(path)
    temporary = path.with_name(path.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    server = Server(config, network)
    tf.saved_model.save(server, str(temporary), signatures=_signatures(server, config))
    extra = temporary / "assets.extra"
    extra.mkdir()
    files.write_text(extra / "labels.txt", "".join(f"{name}\n" for name in names))
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)


def _signatures(server, config):
    images = tf.TensorSpec([None, None, None, 3], tf.uint8, "input_tensor")
    encoded = tf.TensorSpec([None], tf.string, "image_bytes")
    resized = tf.TensorSpec([None, *config.model.input_hw, 3], tf.float32, "image")
    return {
        "serving_default": tf.function(server.serve).get_concrete_function(images),
        "serving_bytes": tf.function(server.serve_bytes).get_concrete_function(encoded),
        "raw": tf.function(server.raw).get_concrete_function(resized),
    }


def _named_outputs(detections, sizes_hw):
    """Detections, image sizes [B, 2] -> outputs of the TF Object Detection API, and pixel boxes."""
    scale = tf.tile(sizes_hw, [1, 2])[:, None]
    return {
        "detection_boxes": detections["boxes"],
        "detection_boxes_pixels": detections["boxes"] * scale,
        "detection_scores": detections["scores"],
        "detection_classes": tf.cast(detections["labels"], tf.float32),
        "num_detections": tf.cast(detections["count"], tf.float32),
    }
